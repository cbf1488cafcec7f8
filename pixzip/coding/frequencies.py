"""Integer logits → integer frequency rows out of 2^24 (docs/model-format.md, section 6).

A row of a binary picture has two symbols in the place of 256; the logit of the first is 0.
With w_i = exp_table[max - logit_i] (0 beyond the table), C_i = w_0 + ... + w_(i-1), S = C_256 and M = 2^24 - 256,
symbol i owns [left_i, left_i + f_i) with left_i = floor(C_i * M / S) + i: every f_i is at least 1 and they sum to 2^24.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pixzip.jit import inner, jit
from pixzip.shifts import Acc, Ints, shifted

PRECISION = 24
SYMBOLS = 256
MASS = (1 << PRECISION) - SYMBOLS
LOGITS_PER_NAT = 64
_GROUP = 16


@jit
def cumulate(acc: Acc, addend: Ints, shift: Ints, exp: NDArray[np.int32], out: NDArray[np.int64]) -> None:
    """out (257,): the cumulative weights C_0 .. C_256 of one pixel's accumulators (256,)."""
    logits = np.empty(SYMBOLS, dtype=np.int32)
    largest = shifted(acc[0], addend[0], shift[0])
    for i in range(SYMBOLS):
        logits[i] = shifted(acc[i], addend[i], shift[i])
        largest = max(largest, logits[i])
    entries = exp.shape[0]
    total = np.int64(0)
    out[0] = 0
    for i in range(SYMBOLS):
        d = largest - logits[i]
        if d < entries:
            total += np.int64(exp[d])
        out[i + 1] = total


@jit
def cumulate_binary(logit: int, exp: NDArray[np.int32], out: NDArray[np.int64]) -> None:
    """out (3,): the cumulative weights of two symbols whose logits are 0 and ``logit``."""
    entries = exp.shape[0]
    largest = max(logit, 0)
    out[0] = 0
    out[1] = np.int64(exp[largest]) if largest < entries else np.int64(0)
    d = largest - logit
    out[2] = out[1] + (np.int64(exp[d]) if d < entries else np.int64(0))


@jit
def interval(cumulative: NDArray[np.int64], symbol: int) -> tuple[int, int]:
    """(left, f) of a symbol; cumulative (n + 1,) of n symbols."""
    symbols = cumulative.shape[0] - 1
    total, mass = cumulative[symbols], (1 << PRECISION) - symbols
    left = cumulative[symbol] * mass // total + symbol
    return left, cumulative[symbol + 1] * mass // total + symbol + 1 - left


@jit
def find_symbol(cumulative: NDArray[np.int64], quantile: int) -> int:
    """The symbol i with left_i <= quantile < left_(i+1); cumulative (n + 1,) of n symbols."""
    symbols = cumulative.shape[0] - 1
    total, mass = cumulative[symbols], (1 << PRECISION) - symbols
    low, high = 0, symbols  # left[low] <= quantile < left[high]
    while high - low > 1:
        middle = (low + high) >> 1
        # floor(C * M / S) + i <= q  <=>  C * M < (q - i + 1) * S
        if cumulative[middle] * mass < (quantile - middle + 1) * total:
            low = middle
        else:
            high = middle
    return low


def tempered(exp: NDArray[np.int32], temperature: Fraction) -> NDArray[np.int32]:
    """The exp table of rows at a temperature T: entry d is exp[floor(d / T + 1/2)], as long as exp has such an entry.

    So logits keep their distances d from the largest, divided by T > 0. T = 1 gives exp itself.
    """
    p, q = temperature.as_integer_ratio()
    entries = -(-(2 * len(exp) - 1) * p // (2 * q))  # 2dq + p < 2p * len(exp)
    return exp[[(2 * d * q + p) // (2 * p) for d in range(entries)]]


@inner
def weigh(acc: Acc, r: int, addend: Ints, shift: Ints, exp: NDArray[np.int32], weights: NDArray[np.int32]) -> int:
    """weights (256,): w_0 .. w_255 of row r of accumulators (m, 256); their sum S.

    exp has one entry more than the table, 0, for all differences beyond it.
    """
    largest = np.int32(-(1 << 31))
    for i in range(SYMBOLS):
        weights[i] = shifted(acc[r, i], addend[i], shift[i])
        largest = max(largest, weights[i])
    beyond = np.int32(exp.shape[0] - 1)
    for i in range(SYMBOLS):  # differences of two 25-bit numbers
        weights[i] = min(np.int32(largest - weights[i]), beyond)
    for i in range(SYMBOLS):
        weights[i] = exp[np.uint32(weights[i])]
    total = np.int64(0)
    for i in range(SYMBOLS):
        total += np.int64(weights[i])
    return total


@inner
def sum_before(weights: NDArray[np.int32], symbol: int) -> int:
    """C_symbol."""
    before = np.int64(0)
    for i in range(symbol):
        before += np.int64(weights[i])
    return before


@inner
def find_weight(weights: NDArray[np.int32], total: int, quantile: int) -> tuple[int, int]:
    """(i, C_i) of the symbol i with left_i <= quantile < left_(i+1): first its group of 16, then itself.

    left_i <= quantile, without a division: floor(C * M / S) + i <= q  <=>  C * M < (q - i + 1) * S. It holds for all i
    up to the one wanted, so that counting does instead of branches that nobody can predict.
    """
    below, bound, groups, before = np.int64(0), (quantile + 1) * total, 0, np.int64(0)
    for group in range(SYMBOLS // _GROUP):
        before = below if below * MASS < bound else before
        groups += below * MASS < bound
        size = np.int32(0)  # at most 2^28
        for i in range(_GROUP):
            size += weights[group * _GROUP + i]
        below += np.int64(size)
        bound -= _GROUP * total
    first = (groups - 1) * _GROUP
    below, bound, count, start = before, (quantile - first + 1) * total, 0, before
    for i in range(first, first + _GROUP):
        start = below if below * MASS < bound else start
        count += below * MASS < bound
        below += np.int64(weights[i])
        bound -= total
    return first + count - 1, start


@inner
def weight_interval(weights: NDArray[np.int32], total: int, symbol: int, before: int) -> tuple[int, int]:
    """(left, f) of a symbol with C_symbol = before."""
    left = before * MASS // total + symbol
    return left, (before + np.int64(weights[symbol])) * MASS // total + symbol + 1 - left


@jit
def row_intervals(
    acc: Acc,
    addend: Ints,
    shift: Ints,
    exp: NDArray[np.int32],
    errors: NDArray[np.int16],
    left: NDArray[np.uint32],
    frequency: NDArray[np.uint32],
) -> None:
    """Intervals of the true symbols (errors mod 256) of m pixels. acc (m, 256); errors, left, frequency (m,)."""
    cumulative = np.empty(SYMBOLS + 1, dtype=np.int64)
    for r in range(errors.shape[0]):
        cumulate(acc[r], addend, shift, exp, cumulative)
        a, f = interval(cumulative, np.int64(errors[r]) & 255)
        left[r] = a
        frequency[r] = f


@jit
def binary_intervals(
    acc: Acc,
    addend: Ints,
    shift: Ints,
    exp: NDArray[np.int32],
    symbols: NDArray[np.int16],
    left: NDArray[np.uint32],
    frequency: NDArray[np.uint32],
) -> None:
    """As row_intervals, of symbols 0 and 1: acc (m, 1), the logit of a 1."""
    cumulative = np.empty(3, dtype=np.int64)
    for r in range(symbols.shape[0]):
        cumulate_binary(shifted(acc[r, 0], addend[0], shift[0]), exp, cumulative)
        a, f = interval(cumulative, np.int64(symbols[r]))
        left[r] = a
        frequency[r] = f


@jit
def binary_bits(acc: Acc, addend: Ints, shift: Ints, symbols: NDArray[np.int16], each: NDArray[np.float64]) -> None:
    """As symbol_bits, of symbols 0 and 1: acc (m, 1), the logit of a 1."""
    for r in range(symbols.shape[0]):
        logit = shifted(acc[r, 0], addend[0], shift[0]) / LOGITS_PER_NAT
        against = -logit if symbols[r] else logit  # of the other symbol, less the true one's
        each[r] = (max(against, 0.0) + math.log1p(math.exp(-abs(against)))) / math.log(2.0)


@jit
def bits_of(acc: Acc, r: int, addend: Ints, shift: Ints, symbol: int) -> float:
    """-log2 softmax(logits / 64) of a symbol in row r of accumulators (m, 256), in float64: the model bits of docs."""
    true = shifted(acc[r, symbol], addend[symbol], shift[symbol])
    largest = true
    for i in range(SYMBOLS):
        largest = max(largest, shifted(acc[r, i], addend[i], shift[i]))
    total = 0.0
    for i in range(SYMBOLS):
        total += math.exp((shifted(acc[r, i], addend[i], shift[i]) - largest) / LOGITS_PER_NAT)
    return ((largest - true) / LOGITS_PER_NAT + math.log(total)) / math.log(2.0)


@jit
def symbol_bits(acc: Acc, addend: Ints, shift: Ints, errors: NDArray[np.int16], each: NDArray[np.float64]) -> None:
    """each (m,): the bits of the true symbols (errors mod 256) of m pixels. acc (m, 256); errors (m,)."""
    for r in range(errors.shape[0]):
        each[r] = bits_of(acc, r, addend, shift, np.int64(errors[r]) & 255)
