"""Lanes of a block ↔ its pixels, step by step along the wavefront: the traversal of the decoder, and of the encoder too
where the network learns from what it has coded.

A neighbour (y + dy, x + dx) was computed dx + slope * dy steps ago, one picture row up for each dy. Maps are rings: a
place for each row that can be active, four times over for the last four steps. A row's places are zeros when it begins,
which are the edge values left of the picture; when it has ended, zeros are written as the column right of it; one more
place, always zeros, stands for the row above the picture.

Threads share a step: each has lanes of its own, so whole rows, and waits for the others between steps, and where the
network learns, before it measures the step's gradients and before it follows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.entropy import Lanes, quantile_of, take
from pixzip.coding.frame import pixel_inputs, predict
from pixzip.coding.frequencies import bits_of, find_weight, sum_before, weigh, weight_interval
from pixzip.coding.schedule import first_row, last_row, number_of_steps
from pixzip.jit import entry, inner
from pixzip.model.file import TrunkNetwork
from pixzip.runtime.multiply import SLACK
from pixzip.runtime.trunk import fused, learning
from pixzip.runtime.trunk.fused import CHUNK, Maps, Plan, Scratch, Where, lap
from pixzip.runtime.trunk.learning import Lessons, coarse
from pixzip.runtime.trunk.progress import Counters, advance, counters, given_up, run_together, wait_for
from pixzip.shifts import Acc, Ints

Progress = Callable[[float], None]
_DEPTH = 4  # taps reach back 1 + 2 steps: t, t - 1, t - 2, t - 3
#: Steps that run between two looks at the outside world.
_AT_ONCE = 32


class Block(NamedTuple):
    """What all threads share: the pixels decoded so far and the lanes' state; or all pixels, and their intervals."""

    planes: NDArray[np.uint8]  # (n, 3, h, w)
    errors: NDArray[np.int8]  # (n, 3, h, w), coding errors cut at -127 and 127
    state: NDArray[np.uint64]  # of the lanes, as in entropy.Lanes, and one more (_columns)
    words: NDArray[np.uint32]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    intervals: NDArray[np.uint32]  # (2, h, colours, w * n): left and f, which the encoder writes; the decoder has none
    bits: NDArray[np.float64]  # (h, colours, w * n): model bits of every symbol, where they are asked for


class Own(NamedTuple):
    """One thread's positions of a step."""

    at: NDArray[np.int64]  # (m, 4): row, picture, place in a ring's slot, place of the position above
    features: NDArray[np.int8]  # (m, t)
    errors: NDArray[np.int16]  # (3, m)


_Y, _PICTURE, _PLACE, _ABOVE = range(4)


def rows_in_ring(height: int, width: int, slope: int) -> int:
    """Rows that have a place in the rings: a row that begins takes that of one which nobody reads any more."""
    return min(height, width // slope + 2)


def owners_of(lanes: int, threads: int) -> NDArray[np.int64]:
    """The thread of each lane: as many lanes to each, neighbours together, since neighbouring rows read each other."""
    return np.arange(lanes, dtype=np.int64) * threads // lanes


@inner
def _place(y: int, picture: int, n: int, period: int) -> int:
    """Place of row y of a picture in each slot of a ring; that of the row above the first is always zeros."""
    return n * period if y < 0 else y % period * n + picture


@inner
def _clear(maps: Maps, place: int) -> None:
    """Write zeros where later positions read activations and states."""
    for b in range(maps.activations.shape[0]):
        maps.activations[b, place] = 0
    for layer in range(maps.states.shape[0]):
        maps.states[layer, place] = 0


@inner
def edges(
    maps: Maps, owners: NDArray[np.int64], n: int, height: int, thread: int, step: int, slope: int, ended: int
) -> None:
    """Write the edge values of this thread's row that begins now, and of its row that ended one step ago.

    A row ends ``ended`` steps after it begins: the width of the picture.
    """
    places = maps.activations.shape[1] // _DEPTH
    period, lanes = (places - 1) // n, owners.shape[0]
    for picture in range(n):
        for start in (step, step - ended):
            y = start // slope
            if start % slope == 0 and 0 <= y < height and owners[(y * n + picture) % lanes] == thread:
                for slot in range(_DEPTH):
                    if start == step or slot == step % _DEPTH:
                        _clear(maps, slot * places + _place(y, picture, n, period))


@inner
def _find_own(
    owners: NDArray[np.int64], thread: int, first: int, last: int, n: int, period: int, at: NDArray[np.int64]
) -> int:
    """Write this thread's positions of rows first .. last into at (Own.at); their number."""
    lanes, m = owners.shape[0], 0
    for y in range(first, last + 1):
        for picture in range(n):
            if owners[(y * n + picture) % lanes] == thread:
                at[m, _Y], at[m, _PICTURE] = y, picture
                at[m, _PLACE], at[m, _ABOVE] = _place(y, picture, n, period), _place(y - 1, picture, n, period)
                m += 1
    return m


@inner
def _inputs(block: Block, at: NDArray[np.int64], step: int, slope: int, out: NDArray[np.int8]) -> None:
    """The trunk's inputs of positions: at (m, 4), out (m, INPUTS)."""
    for r in range(at.shape[0]):
        y, i = at[r, _Y], at[r, _PICTURE]
        pixel_inputs(block.planes[i], block.errors[i], y, step - slope * y, out[r])


@inner
def _trunk(plan: Plan, maps: Maps, at: NDArray[np.int64], bases: NDArray[np.int64], scratch: Scratch) -> None:
    """Run the trunk on positions at (m, 4), m <= CHUNK, whose inputs stand in scratch; the stream is left there."""
    where, x = Where(bases, at[:, _ABOVE], at[:, _PLACE]), scratch.stream[: at.shape[0]]
    fused.start(plan, scratch, x)
    for k in range(plan.blocks.shape[0]):
        fused.block(plan, k, x, where, maps, scratch)


@inner
def _code(
    block: Block,
    at: NDArray[np.int64],
    colour: int,
    step: int,
    slope: int,
    acc: Acc,
    addend: Ints,
    shift: Ints,
    exp: Ints,
    weights: Ints,
    errors: NDArray[np.int16],
    learns: bool,
    spread: NDArray[np.int8],
    totals: Ints,
) -> None:
    """Code one colour of positions at (m, 4) from acc (m, 256); errors (3, m) gets their coding errors.

    The decoder finds the symbol and writes the pixel, the encoder finds the interval. Where the network learns, spread
    (m, 256) and totals (m,) get the coarse weights.
    """
    n, lanes = block.planes.shape[0], block.state.shape[0] - 1
    encodes = block.intervals.shape[0] > 0
    for r in range(at.shape[0]):
        y, i = at[r, _Y], at[r, _PICTURE]
        lane, x = (y * n + i) % lanes, step - slope * y
        total = weigh(acc, r, addend, shift, exp, weights)
        prediction = predict(block.planes[i], colour, y, x)
        if encodes:
            value = np.int64(block.planes[i, colour, y, x])
            symbol = (value - prediction) & 255
            left, frequency = weight_interval(weights, total, symbol, sum_before(weights, symbol))
            block.intervals[0, y, colour, x * n + i] = left
            block.intervals[1, y, colour, x * n + i] = frequency
            if block.bits.shape[0] > 0:
                block.bits[y, colour, x * n + i] = bits_of(acc, r, addend, shift, symbol)
        else:
            symbol, before = find_weight(weights, total, quantile_of(block.state, lane))
            left, frequency = weight_interval(weights, total, symbol, before)
            take(left, frequency, lane, block.state, block.words, block.start, block.stop)
            value = (prediction + symbol) & 255
            block.planes[i, colour, y, x] = value
        errors[colour, r] = value - prediction
        block.errors[i, colour, y, x] = min(max(value - prediction, -127), 127)
        if learns:
            totals[r] = coarse(weights, spread, r)


@inner
def _repeat_gray(planes: NDArray[np.uint8], at: NDArray[np.int64], step: int, slope: int) -> None:
    """Copy plane 0 of pixels to planes 1 and 2."""
    for r in range(at.shape[0]):
        y, i = at[r, _Y], at[r, _PICTURE]
        for colour in range(1, 3):
            planes[i, colour, y, step - slope * y] = planes[i, 0, y, step - slope * y]


@inner
def _meet(done: Counters, thread: int, value: int, scratch: Scratch) -> None:
    """Raise this thread's counter to value and wait for the others'."""
    advance(done, thread, value)
    for other in range(done.shape[0]):
        wait_for(done, other, value)
    lap(scratch.spent, fused.WAITING)


@entry
def code_steps(
    plan: Plan,
    block: Block,
    maps: Maps,
    own: Own,
    lessons: Lessons,
    owners: NDArray[np.int64],
    done: Counters,
    taps: NDArray[np.int64],
    thread: int,
    first: int,
    last: int,
    slope: int,
    ended: int,
    colours: int,
    rate: int,
    scratch: Scratch,
) -> None:
    """One thread's share of steps first .. last - 1; taps (5, 2) are the (dy, dx) that fused.TAPS lists.

    done holds three times the number of steps finished, and one or two more while a network learns.
    """
    n, _, height, width = block.planes.shape
    bases, places = scratch.bases, maps.activations.shape[1] // _DEPTH
    weights, totals = scratch.words[0], scratch.words[1]
    lap(scratch.spent, fused.REST)
    for step in range(first, last):
        for other in range(done.shape[0]):
            wait_for(done, other, 3 * step)
        lap(scratch.spent, fused.WAITING)
        if rate > 0:
            learning.forget(lessons, thread)
        edges(maps, owners, n, height, thread, step, slope, ended)
        top, bottom = first_row(step, width, slope), last_row(step, height, slope)
        m = _find_own(owners, thread, top, bottom, n, (places - 1) // n, own.at)
        for j in range(len(taps)):
            bases[j] = (step + taps[j, 1] + slope * taps[j, 0]) % _DEPTH * places
        lap(scratch.spent, fused.REST)
        for a in range(0, m, CHUNK):
            at = own.at[a : min(a + CHUNK, m)]
            _inputs(block, at, step, slope, fused.operand(plan, 0, len(at), scratch.operands[0]))
            lap(scratch.spent, fused.INPUTS)
            _trunk(plan, maps, at, bases, scratch)
            fused.features(plan, scratch.stream[: len(at)], own.features[a : a + len(at)])
            lap(scratch.spent, fused.ACTIVATIONS)
        for colour in range(colours):
            addend, shift, exp = fused.logit_rounding(plan, colour)
            for a in range(0, m, CHUNK):
                at = own.at[a : min(a + CHUNK, m)]
                errors = own.errors[:, a : a + len(at)]
                features = own.features[a : a + len(at)]
                acc = fused.logits(plan, colour, features, errors, scratch)
                spread = learning.spread(plan, colour, len(at), scratch)
                rounding = (addend, shift, exp)
                _code(block, at, colour, step, slope, acc, *rounding, weights, errors, rate > 0, spread, totals)
                lap(scratch.spent, fused.FREQUENCIES)
                if rate > 0:
                    learning.gather(plan, colour, features, errors[colour], totals, lessons, thread, a, scratch)
        if colours == 1:
            _repeat_gray(block.planes, own.at[:m], step, slope)
        if rate > 0:
            _meet(done, thread, 3 * step + 1, scratch)
            learning.measure(lessons, thread, colours, scratch)
            _meet(done, thread, 3 * step + 2, scratch)
            learning.learn(plan, lessons, thread, rate, colours, scratch)
        advance(done, thread, 3 * step + 3)


def _make_own(plan: Plan, positions: int) -> Own:
    """Space for a thread's positions of a step."""
    features = np.zeros((positions + SLACK, fused.channels(plan)), dtype=np.int8)
    return Own(np.zeros((positions, 4), dtype=np.int64), features, np.zeros((3, positions), dtype=np.int16))


def _columns(lanes: int) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """State, start and stop of lanes.

    A lane's numbers have a cache line of their own: threads that write to one line wait for each other. One more lane
    than there are: a column of one number would be contiguous, and of another type to the compiler.
    """
    table = np.zeros((lanes + 1, 8), dtype=np.int64)
    return table.view(np.uint64)[:, 0], table[:, 1], table[:, 2]


def decode_block(
    network: TrunkNetwork,
    engine: str,
    lanes: Lanes,
    shape: tuple[int, int, int],
    colours: int,
    progress: Progress | None = None,
    threads: int = 1,
    spent: NDArray[np.int64] | None = None,
    rate: int = 0,
) -> NDArray[np.uint8]:
    """Pixels (n, 3, h, w) of a block of shape (n, h, w). Raises FormatError where a lane does not end as it must.

    At most as many threads run as there are lanes. spent (threads, len(fused.PARTS) + 1) gathers their cycles. rate: of
    learning, as the encoder had it.
    """
    n, height, width = shape
    planes = np.zeros((n, 3, height, width), dtype=np.uint8)
    count = len(lanes.state)
    state, start, stop = _columns(count)
    state[:count], start[:count], stop[:count] = lanes.state, lanes.start, lanes.stop
    intervals = np.zeros((0, 0, 0, 0), dtype=np.uint32)
    errors = np.zeros(planes.shape, dtype=np.int8)
    block = Block(planes, errors, state, lanes.words, start, stop, intervals, np.zeros((0, 0, 0)))
    _traverse(network, engine, block, colours, rate, min(threads, count), progress, spent)
    Lanes(state[:count], lanes.words, start[:count], stop[:count]).check_finished()
    return planes


def intervals(
    network: TrunkNetwork,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    progress: Progress | None = None,
    threads: int = 1,
    spent: NDArray[np.int64] | None = None,
    rate: int = 0,
    bits: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """(left, f) of every symbol of a block (n, 3, h, w): two arrays (h, colours, w * n), position x * n + picture.

    bits, of that shape too, gets their model bits (frequencies.bits_of).
    """
    n, _, height, width = planes.shape
    threads = min(threads, height * n)
    found = np.zeros((2, height, colours, width * n), dtype=np.uint32)
    errors = np.zeros(planes.shape, dtype=np.int8)
    words = np.zeros(0, dtype=np.uint32)
    pixels = np.array(planes)  # of the type that the decoder has: one that can be written
    state, start, stop = _columns(threads)  # as many lanes as threads, so that these share the rows
    wanted = np.zeros((0, 0, 0)) if bits is None else bits
    block = Block(pixels, errors, state, words, start, stop, found, wanted)
    _traverse(network, engine, block, colours, rate, threads, progress, spent)
    return found[0], found[1]


def _traverse(
    network: TrunkNetwork,
    engine: str,
    block: Block,
    colours: int,
    rate: int,
    threads: int,
    progress: Progress | None,
    spent: NDArray[np.int64] | None,
) -> None:
    """Run all steps of a block."""
    n, _, height, width = block.planes.shape
    slope, lanes = network.slope, len(block.state) - 1
    positions = n * min(height, -(-width // slope))
    plan, lessons = fused.make_plan(network, engine), learning.make_lessons(network, threads, positions)
    places = n * rows_in_ring(height, width, slope) + 1
    maps, done = fused.make_maps(network, _DEPTH * places), counters(threads)
    owners = owners_of(lanes, threads)
    steps, ended = number_of_steps(height, width, slope), width
    taps = np.array(fused.TAPS, dtype=np.int64)

    def work(thread: int) -> None:
        own, scratch = _make_own(plan, positions), fused.make_scratch(plan)
        for first in range(0, steps, _AT_ONCE):
            last = min(first + _AT_ONCE, steps)
            shared = (plan, block, maps, own, lessons, owners, done, taps)
            code_steps(*shared, thread, first, last, slope, ended, colours, rate, scratch)
            if given_up(done):
                return
            if progress is not None and thread == 0:
                progress(last / steps)
        if spent is not None:
            spent[thread] = scratch.spent

    run_together(work, threads, done)
