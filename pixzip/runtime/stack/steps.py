"""Lanes of a block → its pixels, step by step, each step in one sub-step a colour: the decoder's traversal.

A sub-step computes its colour's features in every layer, once, decodes that colour of the step's pixels and writes
their values, which the next colour's first layer reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.entropy import Lanes, pop
from pixzip.coding.frequencies import SYMBOLS, cumulate, cumulate_binary
from pixzip.coding.schedule import first_row, last_row, number_of_steps
from pixzip.jit import jit
from pixzip.model.stack import StackNetwork
from pixzip.runtime.maps import RowMaps, StepMaps, View
from pixzip.runtime.stack.inputs import StepPixels
from pixzip.runtime.stack.layers import Layers, logit_row, map_specs, runs_right_to_left
from pixzip.runtime.stack.products import each_colour, whole
from pixzip.shifts import Ints, shifted

Progress = Callable[[float], None]
Values = NDArray[np.int16]
#: Called with (step, first position, colour, accumulators (m, logits)); gives the symbols (m,) of these positions.
Take = Callable[[int, int, int, Ints], NDArray[np.int16]]


@dataclass(frozen=True)
class Small:
    """Pixels (y * factor, x * factor) of pictures, known before the others: planes (n, planes, s, s).

    conditioning (h, w, n, features) is what the network is told of them.
    """

    planes: NDArray[np.uint8]
    factor: int
    conditioning: NDArray[np.int8]

    def put(
        self, colour: int, y: NDArray[np.int64], x: NDArray[np.int64], picture: NDArray[np.int64], values: Values
    ) -> None:
        """Replace the values of one colour that are known, of positions y, x, picture (m,)."""
        known = (y % self.factor == 0) & (x % self.factor == 0)
        places = picture[known], colour, y[known] // self.factor, x[known] // self.factor
        values[known] = self.planes[places]


class _Wavefront:
    """Maps of a network whose edges allow several rows in a step."""

    def __init__(self, network: StackNetwork, n: int, height: int, width: int) -> None:
        self._maps = StepMaps(map_specs(network), n, height, width, network.slope_at(width))

    def begin(self, step: int) -> None:
        """Before a step, also one without pixels."""
        self._maps.begin_step(step)

    def view(self, step: int, lo: int, hi: int) -> View:
        """The step's positions."""
        return self._maps.view(step, lo, hi)

    def end(self, step: int) -> None:
        """After a step that had pixels."""


class _Raster:
    """Maps of a Diagonal BiLSTM: one pixel of each picture in a step, and its right-to-left half after each row."""

    def __init__(
        self,
        network: StackNetwork,
        engine: str,
        shape: tuple[int, int, int],
        conditioning: NDArray[np.int8] | None,
    ) -> None:
        n, height, width = shape
        self._conditioning = conditioning
        self._n, self._width, self._slope = n, width, network.slope_at(width)
        self._last = self._slope * (height - 1) + width - 1
        self._maps = RowMaps(map_specs(network), n, width)
        self._layers = Layers(network, engine, n * width, [whole(network)], runs_right_to_left)

    def begin(self, step: int) -> None:
        """Before a step, also one without pixels."""

    def view(self, step: int, lo: int, hi: int) -> View:
        """The step's positions."""
        x = step % self._slope
        return self._maps.column_range(x, x + 1)

    def end(self, step: int) -> None:
        """After a step that had pixels."""
        if step % self._slope == self._width - 1 and step < self._last:
            if self._conditioning is not None:
                self._layers.conditioning = self._conditioning[step // self._slope].reshape(self._n * self._width, -1)
            self._layers.end_row(self._maps)
            self._maps.next_row()


def traverse(
    network: StackNetwork,
    engine: str,
    shape: tuple[int, int, int],
    colours: int,
    take: Take,
    progress: Progress | None = None,
    small: Small | None = None,
) -> NDArray[np.uint8]:
    """Run the network over a block of shape (n, h, w) whose symbols ``take`` gives: pixels (n, planes, h, w).

    colours: those taken; planes after them are equal to the first, as where a network for RGB codes a gray picture.
    small: the picture that is known before, whose pixels stand in the place of what ``take`` gives for them.
    """
    n, height, width = shape
    slope = network.slope_at(width)
    pixels = StepPixels(network, n, height, width)
    parts = each_colour(network)
    rows = n * min(height, -(-width // slope))
    layers = Layers(network, engine, rows, parts, lambda name: not runs_right_to_left(name))
    raster = network.architecture == "diagonal_bilstm"
    conditioning = None if small is None else small.conditioning
    maps = _Raster(network, engine, shape, conditioning) if raster else _Wavefront(network, *shape)
    steps = number_of_steps(height, width, slope)
    for step in range(steps):
        maps.begin(step)
        lo, hi = first_row(step, width, slope) * n, (last_row(step, height, slope) + 1) * n
        if hi <= lo:
            continue
        view = maps.view(step, lo, hi)
        values = np.zeros(hi - lo, dtype=np.int16)
        y, picture = np.divmod(np.arange(lo, hi), n)
        x = step - slope * y
        if conditioning is not None:
            layers.conditioning = conditioning[y, x, picture]
        for colour, part in enumerate(parts):
            first = layers.product("first", part)
            pixels.windows(step, lo, first.own, first.source(hi - lo))
            features = layers.features(part, view)
            if colour < colours:
                symbols = take(step, lo, colour, layers.logits(part, features))
                values = (pixels.predictions(colour, step, lo, hi - lo) + symbols) & np.int16(255)
            if small is not None:
                small.put(colour, y, x, picture, values)
            pixels.write(colour, step, lo, values)
        maps.end(step)
        if progress is not None and step % 16 == 0:
            progress((step + 1) / steps)
    return pixels.planes


@jit
def pop_symbols(
    acc: Ints,
    addend: Ints,
    shift: Ints,
    exp: NDArray[np.int32],
    state: NDArray[np.uint64],
    words: NDArray[np.uint32],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    first: int,
    known: NDArray[np.bool_],
    out: NDArray[np.int16],
) -> None:
    """Decode the symbols of positions first, first + 1, ...: acc (m, 256), or (m, 1) of binary pictures; out (m,).

    The lanes have none of positions that are known (m,): their symbol is given as 0.
    """
    lanes = state.shape[0]
    binary = acc.shape[1] == 1
    cumulative = np.empty(3 if binary else SYMBOLS + 1, dtype=np.int64)
    for j in range(out.shape[0]):
        if known[j]:
            out[j] = 0
            continue
        if binary:
            cumulate_binary(shifted(acc[j, 0], addend[0], shift[0]), exp, cumulative)
        else:
            cumulate(acc[j], addend, shift, exp, cumulative)
        out[j] = pop(cumulative, (first + j) % lanes, state, words, start, stop)


def decode_block(
    network: StackNetwork,
    engine: str,
    lanes: Lanes,
    shape: tuple[int, int, int],
    colours: int,
    progress: Progress | None = None,
    small: Small | None = None,
) -> NDArray[np.uint8]:
    """Pixels (n, planes, h, w) of a block of shape (n, h, w); what follows in the lanes is left there.

    colours: those that the lanes hold; small: as in traverse, the lanes have nothing of its pixels.
    """
    heads = [logit_row(network, colour) for colour in range(colours)]
    n, slope = shape[0], network.slope_at(shape[2])

    def take(step: int, first: int, colour: int, acc: Ints) -> Values:
        symbols, known = np.empty(len(acc), dtype=np.int16), np.zeros(len(acc), dtype=np.bool_)
        if small is not None:
            y = np.arange(first, first + len(acc)) // n
            known = (y % small.factor == 0) & ((step - slope * y) % small.factor == 0)
        row = heads[colour]
        pop_symbols(acc, *row, lanes.state, lanes.words, lanes.start, lanes.stop, first, known, symbols)
        return symbols

    return traverse(network, engine, shape, colours, take, progress, small)
