"""Integer accumulators → activations: the elementwise arithmetic of a frozen network (docs/model-format.md, section 5).

Every kernel works on the first rows of preallocated arrays. ``acc`` is an engine's output, int32 or float32 holding
integers below 2^24. Each output j of a product has its own shift, which rounds (pixzip.shifts).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixzip.jit import inner, jit
from pixzip.shifts import Acc, Ints, half, shifted

HALF = 1024
GATE = 12
CELL_LIMIT = (16 << GATE) - 1
INDEX_SHIFT = 5  # cell grid 2^-12 -> table index grid 2^-7
STATE_SHIFT = 17  # product of two gate values, grid 2^-24 -> state grid 2^-7
#: Hidden layers hold 0 .. 255 less this, so that they fit int8.
HIDDEN_OFFSET = 128


@jit
def start_stream(acc: Acc, addend: Ints, shift: Ints, x: NDArray[np.int16]) -> None:
    """x = sat16((acc + addend) >> shift). acc, x (m, t)."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            v = shifted(acc[r, j], addend[j], shift[j])
            x[r, j] = min(max(v, np.int32(-32767)), np.int32(32767))


@jit
def add_stream(acc: Acc, addend: Ints, shift: Ints, x: NDArray[np.int16]) -> None:
    """x = sat16(x + ((acc + addend) >> shift)). acc, x (m, t)."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            v = np.int32(np.int32(x[r, j]) + shifted(acc[r, j], addend[j], shift[j]))
            x[r, j] = min(max(v, np.int32(-32767)), np.int32(32767))


@inner
def activate_row(x: NDArray[np.int16], r: int, shift: int, out: NDArray[np.int8], to: int) -> None:
    """out[to] = sat8(x[r] >> shift). Rows are given by number: numba's slices keep loops from running in vectors."""
    h = half(shift)
    for j in range(out.shape[1]):
        v = shifted(x[r, j], h, np.int32(shift))
        out[to, j] = min(max(v, np.int32(-127)), np.int32(127))


@jit
def activate(x: NDArray[np.int16], shift: int, out: NDArray[np.int8]) -> None:
    """out = sat8(x >> shift). x, out (m, t)."""
    for r in range(out.shape[0]):
        activate_row(x, r, shift, out, r)


@inner
def _hidden(v: int) -> int:
    """The int8 that holds max(v, 0), cut at 255."""
    return min(max(v, np.int32(0)), np.int32(255)) - np.int32(HIDDEN_OFFSET)


@jit
def rectify(acc: Acc, addend: Ints, shift: Ints, out: NDArray[np.int8]) -> None:
    """out = clip((acc + addend) >> shift, 0, 255) - 128. acc, out (m, k)."""
    for r in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[r, j] = _hidden(shifted(acc[r, j], addend[j], shift[j]))


@jit
def rectify_known(
    acc: Acc,
    addend: Ints,
    known: NDArray[np.int32],
    errors: NDArray[np.int16],
    shift: Ints,
    out: NDArray[np.int8],
) -> None:
    """As rectify, with one row of each known table added.

    known is (colours, 256, k), errors (3, m) the signed coding errors of this pixel's colours so far.
    """
    colours = known.shape[0]
    for r in range(out.shape[0]):
        first = known[0, min(max(np.int64(errors[0, r]), -128), 127) + 128]
        second = known[colours - 1, min(max(np.int64(errors[colours - 1, r]), -128), 127) + 128]
        for j in range(out.shape[1]):
            v = np.int32(np.int32(acc[r, j]) + first[j])
            if colours == 2:
                v = np.int32(v + second[j])
            out[r, j] = _hidden(shifted(v, addend[j], shift[j]))


@inner
def _index(v: int, addend: int, shift: int) -> int:
    """Table index of the argument (v + addend) >> shift."""
    return min(max(shifted(v, addend, shift), np.int32(-HALF)), np.int32(HALF - 1)) + np.int32(HALF)


@inner
def lstm_row(
    acc_is: Acc,
    acc_ss: Acc,
    r: int,
    addend: Ints,
    is_left: Ints,
    ss_left: Ints,
    shift: Ints,
    sigmoid: NDArray[np.int16],
    tanh: NDArray[np.int16],
    cell_above: NDArray[np.int32],
    above: int,
    cell: NDArray[np.int32],
    to: int,
    state: NDArray[np.int8],
    gates: Ints,
    arguments: Ints,
) -> None:
    """lstm_cell for row r of acc and state, row ``above`` of cell_above and row ``to`` of cell.

    Arithmetic and table look-ups take turns, each in a loop of its own: only so the arithmetic is done in vectors.
    gates (at least 4k) and arguments (at least k) are space: two, since loops that read and write one array are not.
    """
    k = state.shape[1]
    for n in range(4 * k):
        v = (np.int32(acc_is[r, n]) << (is_left[n] & 31)) + (np.int32(acc_ss[r, n]) << (ss_left[n] & 31))
        gates[n] = _index(np.int32(v), addend[n], shift[n])
    for n in range(3 * k):
        gates[n] = sigmoid[np.uint32(gates[n])]
    for n in range(3 * k, 4 * k):
        gates[n] = tanh[np.uint32(gates[n])]
    for j in range(k):
        c = np.int32(gates[k + j] * cell_above[above, j]) + np.int32(gates[2 * k + j] * gates[3 * k + j])
        c = np.int32(np.int32(c + half(GATE)) >> GATE)
        c = min(max(c, np.int32(-CELL_LIMIT)), np.int32(CELL_LIMIT))
        cell[to, j] = c
        arguments[j] = _index(c, half(INDEX_SHIFT), np.int32(INDEX_SHIFT))
    for j in range(k):
        arguments[j] = tanh[np.uint32(arguments[j])]
    for j in range(k):
        s = np.int32(np.int32(np.int32(gates[j] * arguments[j]) + half(STATE_SHIFT)) >> STATE_SHIFT)
        state[r, j] = min(max(s, np.int32(-127)), np.int32(127))


@jit
def lstm_cell(
    acc_is: Acc,
    acc_ss: Acc,
    addend: Ints,
    is_left: Ints,
    ss_left: Ints,
    shift: Ints,
    sigmoid: NDArray[np.int16],
    tanh: NDArray[np.int16],
    cell_above: NDArray[np.int32],
    cell: NDArray[np.int32],
    state: NDArray[np.int8],
) -> None:
    """Equation 3 of the paper on tables; gates in the order o, f, i, g. acc (m, 4k); cells and state (m, k).

    Both products are brought to the finer of their grids, so that their sum is exact: each is below 2^24 and shifted by
    at most 5.
    """
    gates, arguments = np.empty(4 * state.shape[1], dtype=np.int32), np.empty(state.shape[1], dtype=np.int32)
    for r in range(state.shape[0]):
        args = (r, addend, is_left, ss_left, shift, sigmoid, tanh)
        lstm_row(acc_is, acc_ss, *args, cell_above, r, cell, r, state, gates, arguments)
