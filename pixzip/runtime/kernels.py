"""Integer accumulators → activations: the elementwise arithmetic of a frozen network (docs/model-format.md, section 5).

Every kernel works on the first rows of preallocated arrays. ``acc`` is an engine's output, int32 or float32 holding
integers below 2^24. Rounding is floor(x / 2^s + 1/2), as (x + half) >> s with half = 2^(s-1), or 0 where s = 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixzip.jit import jit

HALF = 1024
GATE = 12
CELL_LIMIT = (16 << GATE) - 1
INDEX_SHIFT = 5  # cell grid 2^-12 -> table index grid 2^-7
STATE_SHIFT = 17  # product of two gate values, grid 2^-24 -> state grid 2^-7

Acc = NDArray[np.int32] | NDArray[np.float32]


@jit
def half(shift: int) -> int:
    """The addend that makes a right shift round to nearest, halves up."""
    return np.int32((1 << shift) >> 1)


@jit
def start_stream(acc: Acc, bias: NDArray[np.int32], shift: int, x: NDArray[np.int16]) -> None:
    """x = sat16((acc + bias) >> shift). acc, x (m, t)."""
    h = half(shift)
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            v = (np.int32(acc[r, j]) + bias[j] + h) >> shift
            x[r, j] = min(max(v, -32767), 32767)


@jit
def add_stream(acc: Acc, bias: NDArray[np.int32], shift: int, x: NDArray[np.int16]) -> None:
    """x = sat16(x + ((acc + bias) >> shift)). acc, x (m, t)."""
    h = half(shift)
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            v = np.int32(x[r, j]) + ((np.int32(acc[r, j]) + bias[j] + h) >> shift)
            x[r, j] = min(max(v, -32767), 32767)


@jit
def activate(x: NDArray[np.int16], shift: int, out: NDArray[np.int8]) -> None:
    """out = sat8(x >> shift). x, out (m, t)."""
    h = half(shift)
    for r in range(out.shape[0]):
        for j in range(out.shape[1]):
            v = (np.int32(x[r, j]) + h) >> shift
            out[r, j] = min(max(v, -127), 127)


@jit
def rectify(acc: Acc, bias: NDArray[np.int32], shift: int, out: NDArray[np.int8]) -> None:
    """out = clip((acc + bias) >> shift, 0, 127). acc, out (m, k)."""
    h = half(shift)
    for r in range(out.shape[0]):
        for j in range(out.shape[1]):
            v = (np.int32(acc[r, j]) + bias[j] + h) >> shift
            out[r, j] = min(max(v, 0), 127)


@jit
def rectify_known(
    acc: Acc,
    bias: NDArray[np.int32],
    known: NDArray[np.int32],
    errors: NDArray[np.int16],
    shift: int,
    out: NDArray[np.int8],
) -> None:
    """As rectify, with one row of each known table added.

    known is (colours, 256, k), errors (3, m) the signed coding errors of this pixel's colours so far.
    """
    h = half(shift)
    colours = known.shape[0]
    for r in range(out.shape[0]):
        first = known[0, min(max(np.int64(errors[0, r]), -128), 127) + 128]
        second = known[colours - 1, min(max(np.int64(errors[colours - 1, r]), -128), 127) + 128]
        for j in range(out.shape[1]):
            v = np.int32(acc[r, j]) + bias[j] + first[j]
            if colours == 2:
                v += second[j]
            v = (v + h) >> shift
            out[r, j] = min(max(v, 0), 127)


@jit
def _index(v: int, shift: int) -> int:
    return min(max((v + half(shift)) >> shift, -HALF), HALF - 1) + HALF


@jit
def _gate_index(
    acc_is: Acc, acc_ss: Acc, bias: NDArray[np.int32], is_left: int, ss_left: int, shift: int, n: int
) -> int:
    """Table index of gate n: both products on the finer grid, and the bias."""
    return _index((np.int32(acc_is[n]) << is_left) + (np.int32(acc_ss[n]) << ss_left) + bias[n], shift)


@jit
def lstm_cell(
    acc_is: Acc,
    acc_ss: Acc,
    bias: NDArray[np.int32],
    is_left: int,
    ss_left: int,
    shift: int,
    sigmoid: NDArray[np.int16],
    tanh: NDArray[np.int16],
    cell_above: NDArray[np.int32],
    cell: NDArray[np.int32],
    state: NDArray[np.int8],
) -> None:
    """Equation 3 of the paper on tables; gates in the order o, f, i, g. acc (m, 4k); cells and state (m, k)."""
    k = state.shape[1]
    for r in range(state.shape[0]):
        for j in range(k):
            o = np.int32(sigmoid[_gate_index(acc_is[r], acc_ss[r], bias, is_left, ss_left, shift, j)])
            f = np.int32(sigmoid[_gate_index(acc_is[r], acc_ss[r], bias, is_left, ss_left, shift, j + k)])
            i = np.int32(sigmoid[_gate_index(acc_is[r], acc_ss[r], bias, is_left, ss_left, shift, j + 2 * k)])
            g = np.int32(tanh[_gate_index(acc_is[r], acc_ss[r], bias, is_left, ss_left, shift, j + 3 * k)])
            c = (f * cell_above[r, j] + i * g + half(GATE)) >> GATE
            c = min(max(c, -CELL_LIMIT), CELL_LIMIT)
            cell[r, j] = c
            s = (o * np.int32(tanh[_index(c, INDEX_SHIFT)]) + half(STATE_SHIFT)) >> STATE_SHIFT
            state[r, j] = min(max(s, -127), 127)
