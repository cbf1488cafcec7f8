"""Heads that learn from the pixels coded so far, in compiled code (docs/model-format.md, section 9).

After a step each colour's first layer moves along the gradient of the step's log-likelihood: the errors of the logits
go back through the last product to the hidden units, and their outer product with the features is a sum of integers,
the same in whatever order threads and pictures add to it. The plain functions of plain.py compute the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixzip.jit import inlined, inner
from pixzip.model_file import Network
from pixzip.runtime import fused
from pixzip.runtime.fused import Plan, Scratch, lap
from pixzip.runtime.kernels import HIDDEN_OFFSET, Acc, Ints
from pixzip.runtime.multiply import outer, store_row

#: Bits of a kept weight below a unit of the weight that multiplies.
FRACTION = 8
LIMIT = 127 << FRACTION
#: Weights of a row, up to 2^22, are rounded to 8 bits.
COARSE = 14
#: Errors of hidden units are in units of 2^-3.
FINE = 3
#: A running mean forgets 2^-4 of itself a step.
FORGET = 4
#: What is added to the mean gradient, so that few small ones move little.
LEAST = 256
#: rate / 64 of a weight's unit is a step along a gradient of mean size.
RATE_UNIT = 6
_PRECISION = 26  # of the quotient rate / mean


class Lessons(NamedTuple):
    """What a block has learned: rows of the three heads one after another."""

    kept: NDArray[np.int32]  # (3 * h, t), weights with FRACTION more bits
    sums: NDArray[np.int64]  # (threads, 3 * h, t), gradients of this step
    means: NDArray[np.int64]  # (threads, 3, 2), running sums of gradients' sizes and of their weight; the same in each


def make_lessons(network: Network, threads: int) -> Lessons:
    """Nothing learned yet."""
    weights = [network.arrays[f"head.{c}.hidden.weight"] for c in range(3)]
    kept = np.concatenate(weights).astype(np.int32) << FRACTION
    return Lessons(kept, np.zeros((threads, *kept.shape), np.int64), np.zeros((threads, 3, 2), np.int64))


@inner
def coarse(weights: NDArray[np.int32], out: NDArray[np.int8], r: int) -> int:
    """out[r] (256,): a row's weights in 8 bits, less 128; their sum, at least 1."""
    total = np.int32(0)
    for i in range(out.shape[1]):
        e = min((weights[i] + np.int32(1 << (COARSE - 1))) >> np.int32(COARSE), np.int32(255))
        out[r, i] = e - np.int32(HIDDEN_OFFSET)
        total += e
    return int(max(total, np.int32(1)))


@inlined
def spread(plan: Plan, colour: int, rows: int, scratch: Scratch) -> NDArray[np.int8]:
    """Where the coarse weights of rows stand: (rows, 256)."""
    return fused.operand(plan, fused.back(plan, colour), rows, scratch.operands[0])


@inner
def gather(
    plan: Plan,
    colour: int,
    features: NDArray[np.int8],
    errors: NDArray[np.int16],
    totals: NDArray[np.int32],
    sums: NDArray[np.int64],
    scratch: Scratch,
) -> None:
    """Add the gradients of m positions to sums (3 * h, t).

    The coarse weights stand in spread(), their totals (m,) and the hidden layer in scratch as fused.logits left it.
    features (m, t), errors (m,): coding errors, whose low 8 bits are the symbols.
    """
    m, t = features.shape
    p = fused.back(plan, colour)
    acc = fused.multiply(plan, p, scratch.operands[0], m, scratch, 0)
    hidden = fused.operand(plan, fused.logit(plan, colour), m, scratch.operands[1])
    h = hidden.shape[1]
    expected, toward = fused.backward(plan, colour)
    row = scratch.words[0]
    for r in range(0, m, 2):
        _hidden_errors(acc, expected, toward, int(errors[r]) & 255, totals[r], hidden, r, row)
        pair = scratch.moved[r // 2]
        for j in range(h):
            pair[j] = row[j] & np.int32(0xFFFF)
        if r + 1 < m:
            _hidden_errors(acc, expected, toward, int(errors[r + 1]) & 255, totals[r + 1], hidden, r + 1, row)
            for j in range(h):
                pair[j] |= row[j] << np.int32(16)
    _pair_features(features, scratch.pairs)
    outer(scratch.moved, scratch.pairs, (m + 1) // 2, scratch.lesson)
    first = colour * h
    for j in range(h):
        for k in range(t):
            sums[first + j, k] += np.int64(scratch.lesson[j, k])
    lap(scratch.spent, fused.LEARNING)


@inner
def _hidden_errors(
    acc: Acc,
    expected: Ints,
    toward: Ints,
    symbol: int,
    total: int,
    hidden: NDArray[np.int8],
    r: int,
    out: Ints,
) -> None:
    """out (h,): how the logarithm of what the symbol was given changes with the hidden units of position r."""
    whole, inverse = np.int64(total), (np.int64(1) << 32) // np.int64(total)
    for j in range(hidden.shape[1]):
        e = np.int64(np.int32(np.int32(acc[r, j]) + expected[j]))
        v = ((np.int64(toward[symbol, j]) * whole - e) * inverse + (1 << (31 - FINE))) >> (32 - FINE)
        out[j] = np.int32(v) if hidden[r, j] != -HIDDEN_OFFSET else np.int32(0)


@inner
def _pair_features(features: NDArray[np.int8], out: NDArray[np.int32]) -> None:
    """Features (m, t) of positions 2i and 2i + 1 as the low and high half of out[i]."""
    m, t = features.shape
    for r in range(0, m, 2):
        for k in range(t):
            out[r // 2, k] = np.int32(features[r, k]) & np.int32(0xFFFF)
        if r + 1 < m:
            for k in range(t):
                out[r // 2, k] |= np.int32(features[r + 1, k]) << np.int32(16)


@inner
def forget(sums: NDArray[np.int64]) -> None:
    """A new step begins: no gradients yet."""
    for j in range(sums.shape[0]):
        for k in range(sums.shape[1]):
            sums[j, k] = 0


@inner
def _gradient(sums: NDArray[np.int64], j: int, out: NDArray[np.int64]) -> None:
    """Row j of all threads' gradients together: out (t,)."""
    for k in range(sums.shape[2]):
        out[k] = sums[0, j, k]
    for i in range(1, sums.shape[0]):
        for k in range(sums.shape[2]):
            out[k] += sums[i, j, k]


@inner
def _mean_size(lessons: Lessons, colour: int, thread: int, row: NDArray[np.int64]) -> int:
    """Running mean over steps of the mean |gradient| of a colour, this step included, and LEAST."""
    sums, means = lessons.sums, lessons.means[thread, colour]
    h, t = sums.shape[1] // 3, sums.shape[2]
    total = np.int64(0)
    for j in range(colour * h, (colour + 1) * h):
        _gradient(sums, j, row)
        for k in range(t):
            total += abs(row[k])
    means[0] += (total << FORGET) // (h * t) - (means[0] >> FORGET)
    means[1] += (np.int64(1) << 16) - (means[1] >> FORGET)
    return int((means[0] << (16 - FORGET)) // means[1] + LEAST)


@inner
def learn(plan: Plan, lessons: Lessons, thread: int, rate: int, colours: int, scratch: Scratch) -> None:
    """Move this thread's share of the weights; all threads must have gathered, and wait for each other afterwards."""
    kept, sums = lessons.kept, lessons.sums
    threads, h, t = sums.shape[0], kept.shape[0] // 3, kept.shape[1]
    weights, gradient = scratch.words[0], scratch.gradient
    for colour in range(colours):
        by = (np.int64(rate) << (_PRECISION + FRACTION - RATE_UNIT)) // _mean_size(lessons, colour, thread, gradient)
        p = fused.logit(plan, colour) - 1
        for j in range(thread * h // threads, (thread + 1) * h // threads):
            at = colour * h + j
            _gradient(sums, at, gradient)
            row = kept[at]
            for k in range(t):
                v = np.int64(row[k]) + ((gradient[k] * by + (1 << (_PRECISION - 1))) >> _PRECISION)
                row[k] = min(max(v, np.int64(-LIMIT)), np.int64(LIMIT))
            for k in range(t):
                weights[k] = (row[k] + np.int32(1 << (FRACTION - 1))) >> np.int32(FRACTION)
            store_row(fused.packed(plan, p), j, t, weights)
    lap(scratch.spent, fused.LEARNING)
