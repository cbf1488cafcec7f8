"""Heads that learn from the pixels coded so far, in compiled code (docs/model-format.md, section 9).

After a step both layers of each colour's head move along the gradient of the step's log-likelihood: the errors of the
logits go back through the last product to the hidden units; the gradient of a layer, the outer product of the errors of
its outputs with its inputs, is a sum of integers, the same in whatever order threads and pictures add to it. The plain
functions of plain.py compute the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixzip.jit import inlined, inner
from pixzip.model.file import TrunkNetwork
from pixzip.runtime.kernels import HIDDEN_OFFSET
from pixzip.runtime.multiply import outer, store_row, whole_blocks
from pixzip.runtime.trunk import fused
from pixzip.runtime.trunk.fused import CHUNK, Plan, Scratch, lap
from pixzip.shifts import Acc, Ints

#: Weights of a row, up to 2^22, are rounded to 8 bits.
COARSE = 14
#: Errors of hidden units are in units of 2^-3, those of logits in units of 2^-12 of a probability.
FINE, ODDS = 3, 12
#: A running mean forgets 2^-4 of itself a step.
FORGET = 4
PRECISION = 26  # of the quotient rate / mean
#: Positions whose gradients fit 32 bits: 2^12 * 255 each.
_SUMMED = 2048 // CHUNK * CHUNK


class Kind(NamedTuple):
    """How a layer learns: its kept weights have so many bits below a unit of the weight that multiplies; a step along a
    gradient of mean size is rate * 2^-unit of that; least is added to the mean, so that few small ones move little."""

    fraction: int
    unit: int
    least: int


HIDDEN = Kind(8, 6, 256)
LOGIT = Kind(16, 16, 64)


class Layer(NamedTuple):
    """What a block has learned of a layer: rows of the three heads one after another."""

    kept: NDArray[np.int32]  # (3 * outputs, inputs), weights with fraction more bits
    sums: NDArray[np.int32]  # (threads, 3 * outputs, inputs in whole tiles), gradients of at most _SUMMED positions
    carried: NDArray[np.int64]  # the same, of a step's positions before those; (threads, 0, 0) where none has so many
    sizes: NDArray[np.int64]  # (threads, 8), of each colour: the sum of |gradient| over a thread's rows
    means: NDArray[
        np.int64
    ]  # (threads, 8), of each colour: running sums of gradients' sizes, of their weight; as others'


class Lessons(NamedTuple):
    """What a block has learned."""

    hidden: Layer
    logit: Layer
    filled: NDArray[np.int64]  # (threads, 8), of each colour: whether sums, whether carried are of this step


def make_lessons(network: TrunkNetwork, threads: int, positions: int) -> Lessons:
    """Nothing learned yet; a step has at most so many positions."""

    def layer(name: str, kind: Kind) -> Layer:
        weights = [network.arrays[f"head.{c}.{name}.weight"] for c in range(3)]
        kept = np.concatenate(weights).astype(np.int32) << kind.fraction
        outputs, inputs = kept.shape
        sums = np.zeros((threads, outputs, whole_blocks(inputs)), np.int32)
        carried = np.zeros(sums.shape if positions > _SUMMED else (threads, 0, 0), np.int64)
        return Layer(kept, sums, carried, np.zeros((threads, 8), np.int64), np.zeros((threads, 8), np.int64))

    return Lessons(layer("hidden", HIDDEN), layer("logit", LOGIT), np.zeros((threads, 8), np.int64))


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
    lessons: Lessons,
    thread: int,
    before: int,
    scratch: Scratch,
) -> None:
    """Add the gradients of m positions to the sums of a thread, which has gathered ``before`` others in this step.

    The coarse weights stand in spread(), their totals (m,) and the hidden layer in scratch as fused.logits left it.
    features (m, t), errors (m,): coding errors, whose low 8 bits are the symbols.
    """
    m, t = features.shape
    if before > 0 and before % _SUMMED == 0:
        _carry(lessons, colour, thread)
    acc = fused.multiply(plan, fused.back(plan, colour), scratch.operands[0], m, scratch, 0)
    odds = spread(plan, colour, m, scratch)
    hidden = fused.operand(plan, fused.logit(plan, colour), m, scratch.operands[1])
    h, depth = hidden.shape[1], (m + 1) // 2
    expected, toward = fused.backward(plan, colour)
    row, one, other = scratch.words[0], scratch.pairs[0], scratch.pairs[1]
    for r in range(m):
        _hidden_errors(acc, expected, toward, int(errors[r]) & 255, totals[r], hidden, r, row)
        _put(row, h, one[r // 2 * h : (r // 2 + 1) * h], r)
    for r in range(m):
        for k in range(t):
            row[k] = features[r, k]
        _put(row, t, other[r // 2 * t : (r // 2 + 1) * t], r)
    _add_outer(one, other, t, depth, colour, lessons, lessons.hidden.sums[thread], thread, scratch)
    for r in range(m):
        _logit_errors(odds, r, int(errors[r]) & 255, totals[r], row)
        _put(row, 256, one[r // 2 * 256 : (r // 2 + 1) * 256], r)
    for r in range(m):
        for k in range(h):
            row[k] = hidden[r, k] + np.int32(HIDDEN_OFFSET)
        _put(row, h, other[r // 2 * h : (r // 2 + 1) * h], r)
    _add_outer(one, other, h, depth, colour, lessons, lessons.logit.sums[thread], thread, scratch)
    lessons.filled[thread, colour] = 1
    lap(scratch.spent, fused.LEARNING)


@inner
def _put(row: Ints, size: int, pairs: Ints, r: int) -> None:
    """row[:size], numbers of 16 bits, into the low halves of pairs, or, of an odd position r, into the high halves."""
    if r & 1 == 0:
        for k in range(size):
            pairs[k] = row[k] & np.int32(0xFFFF)
    else:
        for k in range(size):
            pairs[k] |= row[k] << np.int32(16)


@inner
def _add_outer(
    one: Ints,
    other: Ints,
    inputs: int,
    depth: int,
    colour: int,
    lessons: Lessons,
    sums: NDArray[np.int32],
    thread: int,
    scratch: Scratch,
) -> None:
    """Add the outer products of depth pairs of positions to a colour's rows of sums (3 * outputs, inputs and more)."""
    outputs, across = sums.shape[0] // 3, sums.shape[1]
    own = sums[colour * outputs : (colour + 1) * outputs]
    first = lessons.filled[thread, colour] == 0
    made = own if first else scratch.lesson[: outputs * across].reshape(outputs, across)
    outer(one, outputs, other, inputs, depth, made)
    if first:
        return
    for j in range(outputs):
        for k in range(across):
            own[j, k] += made[j, k]


@inner
def _carry(lessons: Lessons, colour: int, thread: int) -> None:
    """Make room in a thread's sums."""
    again = lessons.filled[thread, 3 + colour] == 1
    for layer in (lessons.hidden, lessons.logit):
        outputs = layer.sums.shape[1] // 3
        for j in range(colour * outputs, (colour + 1) * outputs):
            for k in range(layer.sums.shape[2]):
                before = layer.carried[thread, j, k] if again else np.int64(0)
                layer.carried[thread, j, k] = before + np.int64(layer.sums[thread, j, k])
    lessons.filled[thread, colour], lessons.filled[thread, 3 + colour] = 0, 1


@inner
def _logit_errors(odds: NDArray[np.int8], r: int, symbol: int, total: int, out: Ints) -> None:
    """out (256,): how the logarithm of what the symbol was given changes with the logits of position r."""
    inverse = np.int32((1 << 30) // total)
    for i in range(256):
        share = (np.int32(odds[r, i]) + np.int32(HIDDEN_OFFSET)) * inverse + np.int32(1 << (29 - ODDS))
        out[i] = -(share >> np.int32(30 - ODDS))
    out[symbol] += np.int32(1 << ODDS)


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
def forget(lessons: Lessons, thread: int) -> None:
    """A new step begins: no gradients yet."""
    for k in range(lessons.filled.shape[1]):
        lessons.filled[thread, k] = 0


@inner
def _gradient(layer: Layer, filled: NDArray[np.int64], colour: int, row: int, out: NDArray[np.int64]) -> None:
    """A row of a layer, of this colour: all threads' gradients together, out (inputs,)."""
    inputs, begun = layer.kept.shape[1], False
    for i in range(filled.shape[0]):
        if filled[i, colour] == 1:
            if begun:
                for k in range(inputs):
                    out[k] += np.int64(layer.sums[i, row, k])
            else:
                for k in range(inputs):
                    out[k] = np.int64(layer.sums[i, row, k])
            begun = True
        if filled[i, 3 + colour] == 1:
            for k in range(inputs):
                out[k] += layer.carried[i, row, k]
    if not begun:  # a picture of one column has steps without a pixel
        for k in range(inputs):
            out[k] = 0


@inner
def _rows(layer: Layer, thread: int) -> tuple[int, int]:
    """A thread's share of the rows of each colour: first, last + 1."""
    threads, h = layer.sums.shape[0], layer.kept.shape[0] // 3
    return thread * h // threads, (thread + 1) * h // threads


@inner
def measure(lessons: Lessons, thread: int, colours: int, scratch: Scratch) -> None:
    """Sum up the size of this thread's share of the gradients; all threads must have gathered."""
    gradient = scratch.gradient
    for layer in (lessons.hidden, lessons.logit):
        first, last = _rows(layer, thread)
        h = layer.kept.shape[0] // 3
        for colour in range(colours):
            total = np.int64(0)
            for row in range(colour * h + first, colour * h + last):
                _gradient(layer, lessons.filled, colour, row, gradient)
                for k in range(layer.kept.shape[1]):
                    total += abs(gradient[k])
            layer.sizes[thread, colour] = total
    lap(scratch.spent, fused.LEARNING)


@inner
def _mean_size(layer: Layer, colour: int, thread: int) -> int:
    """Running mean over steps of the mean |gradient| of a colour, this step included."""
    means, total = layer.means[thread], np.int64(0)
    for i in range(layer.sizes.shape[0]):
        total += layer.sizes[i, colour]
    means[colour] += (total << FORGET) // (layer.kept.size // 3) - (means[colour] >> FORGET)
    means[3 + colour] += (np.int64(1) << 16) - (means[3 + colour] >> FORGET)
    return int((means[colour] << (16 - FORGET)) // means[3 + colour])


@inner
def _learn_layer(
    plan: Plan,
    layer: Layer,
    filled: NDArray[np.int64],
    last: int,
    thread: int,
    rate: int,
    colour: int,
    scratch: Scratch,
) -> None:
    """Move this thread's share of a colour's layer; last: whether it is the last one."""
    h, t = layer.kept.shape[0] // 3, layer.kept.shape[1]
    weights, gradient = scratch.words[0], scratch.gradient
    shift, unit, least = LOGIT if last == 1 else HIDDEN
    limit = np.int64(127) << shift
    by = (np.int64(rate) << (PRECISION + shift - unit)) // (_mean_size(layer, colour, thread) + least)
    p = fused.logit(plan, colour) - 1 + last
    first, end = _rows(layer, thread)
    kept = layer.kept
    for j in range(first, end):
        row = colour * h + j
        _gradient(layer, filled, colour, row, gradient)
        before, after, moved = np.int32(0), np.int32(0), np.int32(0)
        for k in range(t):
            v = np.int64(kept[row, k]) + ((gradient[k] * by + (1 << (PRECISION - 1))) >> PRECISION)
            gradient[k] = min(max(v, -limit), limit)
        for k in range(t):
            old, new = _rounded(kept[row, k], shift), _rounded(gradient[k], shift)
            before += old
            after += new
            moved |= old ^ new
            weights[k] = new
        for k in range(t):
            kept[row, k] = np.int32(gradient[k])
        if moved == 0:
            continue
        store_row(fused.packed(plan, p), j, t, weights)
        if last == 1:  # it reads units less 128
            fused.numbers(plan, p, fused.ADDEND)[j] += np.int32(HIDDEN_OFFSET) * (after - before)


@inner
def _rounded(kept: int, shift: int) -> int:
    """The weight that a kept one makes."""
    return np.int32((np.int32(kept) + np.int32(1 << (shift - 1))) >> np.int32(shift))


@inner
def learn(plan: Plan, lessons: Lessons, thread: int, rate: int, colours: int, scratch: Scratch) -> None:
    """Move this thread's share of the weights; all threads must have measured, and wait for each other afterwards."""
    for colour in range(colours):
        for last in range(2):
            layer = lessons.logit if last == 1 else lessons.hidden
            _learn_layer(plan, layer, lessons.filled, last, thread, rate, colour, scratch)
    lap(scratch.spent, fused.LEARNING)
