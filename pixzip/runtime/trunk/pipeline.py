"""Pixels of a block → intervals of all its symbols, rows in a pipeline of threads: the encoder's traversal.

All pixels are known, so row y of a layer needs only row y of the layer below and row y - 1 of its own map: two rows a
map. Threads take rows in turn, and each follows the one before it layer by layer::

    thread 0    row 0: errors, block 0, block 1, ..., heads    row 2: errors, block 0, ...
    thread 1            row 1: errors, block 0, block 1, ..., heads    row 3: ...

Position x * n + picture; map rows have n zero positions at either end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.frame import pixel_inputs, predict
from pixzip.coding.frequencies import sum_before, weigh, weight_interval
from pixzip.jit import entry, inner
from pixzip.model.file import TrunkNetwork
from pixzip.runtime.multiply import SLACK
from pixzip.runtime.trunk import fused
from pixzip.runtime.trunk.fused import CHUNK, Maps, Plan, Scratch, Where, lap
from pixzip.runtime.trunk.progress import Counters, advance, counters, given_up, run_together, wait_for
from pixzip.shifts import Acc, Ints

Progress = Callable[[float], None]


class Picture(NamedTuple):
    """What all threads share: the pixels, and what is written of them."""

    planes: NDArray[np.uint8]  # (n, 3, h, w)
    errors: NDArray[np.int16]  # (n, 3, h, w), coding errors
    left: NDArray[np.uint32]  # (h, colours, w * n)
    frequency: NDArray[np.uint32]  # (h, colours, w * n)


class Row(NamedTuple):
    """One thread's row."""

    stream: NDArray[np.int16]  # (w * n, t)
    features: NDArray[np.int8]  # (w * n, t)
    errors: NDArray[np.int16]  # (3, w * n)
    positions: NDArray[np.int64]  # (w * n,): 0, 1, 2, ...


@inner
def _predict_row(picture: Picture, y: int, row: Row) -> None:
    """Coding errors of a row's sub-pixels."""
    n, _, _, width = picture.planes.shape
    for i in range(n):
        for c in range(3):
            for x in range(width):
                error = np.int64(picture.planes[i, c, y, x]) - predict(picture.planes[i], c, y, x)
                picture.errors[i, c, y, x] = error
                row.errors[c, x * n + i] = error


@inner
def _write_intervals(
    acc: Acc,
    addend: Ints,
    shift: Ints,
    exp: Ints,
    errors: NDArray[np.int16],
    weights: Ints,
    left: NDArray[np.uint32],
    frequency: NDArray[np.uint32],
) -> None:
    """Intervals of the true symbols (errors mod 256) of m pixels: acc (m, 256); errors, left, frequency (m,)."""
    for r in range(errors.shape[0]):
        symbol = np.int64(errors[r]) & 255
        total = weigh(acc, r, addend, shift, exp, weights)
        left[r], frequency[r] = weight_interval(weights, total, symbol, sum_before(weights, symbol))


@entry
def encode_row(
    plan: Plan,
    picture: Picture,
    maps: Maps,
    row: Row,
    done: Counters,
    taps: NDArray[np.int64],
    y: int,
    scratch: Scratch,
) -> None:
    """Intervals of row y; taps (5, 2) are the (dy, dx) that fused.TAPS lists.

    done holds the number of rows finished: first their errors, then each block.
    """
    n, _, _, width = picture.planes.shape
    m, blocks = n * width, plan.blocks.shape[0]
    lap(scratch.spent, fused.REST)
    wait_for(done, 0, y)
    lap(scratch.spent, fused.WAITING)
    _predict_row(picture, y, row)
    advance(done, 0, y + 1)
    lap(scratch.spent, fused.INPUTS)
    for a in range(0, m, CHUNK):
        b = min(a + CHUNK, m)
        inputs = fused.operand(plan, 0, b - a, scratch.operands[0])
        for r in range(a, b):
            pixel_inputs(picture.planes[r % n], picture.errors[r % n], y, r // n, inputs[r - a])
        lap(scratch.spent, fused.INPUTS)
        fused.start(plan, scratch, row.stream[a:b])
    bases = scratch.bases
    for j in range(len(taps)):
        bases[j] = (y + taps[j, 0] & 1) * (m + 2 * n) + (taps[j, 1] + 1) * n
    for k in range(blocks):
        wait_for(done, k + 1, y)
        lap(scratch.spent, fused.WAITING)
        for a in range(0, m, CHUNK):
            b = min(a + CHUNK, m)
            where = Where(bases, row.positions[a:b], row.positions[a:b])
            fused.block(plan, k, row.stream[a:b], where, maps, scratch)
        advance(done, k + 1, y + 1)
    fused.features(plan, row.stream, row.features[:m])
    lap(scratch.spent, fused.ACTIVATIONS)
    weights = fused.row_space(scratch)
    for colour in range(picture.left.shape[1]):
        addend, shift, exp = fused.logit_rounding(plan, colour)
        left, frequency = picture.left[y, colour], picture.frequency[y, colour]
        for a in range(0, m, CHUNK):
            b = min(a + CHUNK, m)
            acc = fused.logits(plan, colour, row.features[a:b], row.errors[:, a:b], scratch)
            _write_intervals(acc, addend, shift, exp, row.errors[colour, a:b], weights, left[a:b], frequency[a:b])
            lap(scratch.spent, fused.FREQUENCIES)


def _make_row(plan: Plan, m: int) -> Row:
    """Space for a thread's row of m positions."""
    t = fused.channels(plan)
    features = np.zeros((m + SLACK, t), dtype=np.int8)
    return Row(np.zeros((m, t), dtype=np.int16), features, np.zeros((3, m), dtype=np.int16), np.arange(m))


def intervals(
    network: TrunkNetwork,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    progress: Progress | None = None,
    threads: int = 1,
    spent: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """(left, f) of every symbol of a block: two arrays (h, colours, w * n), position x * n + picture.

    planes is (n, 3, h, w) uint8; colours is 3, or 1 where three equal planes stand for a gray picture. spent
    (threads, len(fused.PARTS) + 1) gathers the threads' cycles.
    """
    n, _, height, width = planes.shape
    m, threads = width * n, min(threads, height)
    plan = fused.make_plan(network, engine)
    left = np.empty((height, colours, m), dtype=np.uint32)
    picture = Picture(planes, np.zeros(planes.shape, dtype=np.int16), left, np.empty_like(left))
    maps, done = fused.make_maps(network, 2 * (m + 2 * n)), counters(1 + len(network.blocks))
    taps = np.array(fused.TAPS, dtype=np.int64)

    def work(thread: int) -> None:
        row, scratch = _make_row(plan, m), fused.make_scratch(plan)
        for y in range(thread, height, threads):
            encode_row(plan, picture, maps, row, done, taps, y, scratch)
            if given_up(done):
                return
            if progress is not None and thread == 0:
                progress((y + 1) / height)
        if spent is not None:
            spent[thread] = scratch.spent

    run_together(work, threads, done)
    return picture.left, picture.frequency
