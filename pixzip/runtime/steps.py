"""Lanes of a block → its pixels, step by step along the wavefront: the decoder's traversal.

A neighbour (y + dy, x + dx) was computed dx + slope * dy steps ago, one picture row up for each dy: a slice of a ring
of recent steps. Rings start as zeros, which are the edge values left of and above the picture; the column right of it
is written as zeros when a row has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.entropy import Lanes, pop
from pixzip.frame import block_step_inputs, predict
from pixzip.frequencies import SYMBOLS, cumulate
from pixzip.jit import jit
from pixzip.model_file import Network
from pixzip.runtime.kernels import Acc, Ints
from pixzip.runtime.network import Layers, logit_row
from pixzip.schedule import first_row, last_row, number_of_steps

Progress = Callable[[float], None]
_DEPTH = 4  # taps reach back 1 + 2 steps: slots t, t - 1, t - 2, t - 3


class _Ring:
    """The last steps of one map: (depth, n + h * n, width), n zero positions above the first row."""

    def __init__(self, n: int, height: int, width: int, slope: int, dtype: type = np.int8) -> None:
        self._n, self._slope = n, slope
        self._slots: NDArray[Any] = np.zeros((_DEPTH, n + height * n, width), dtype=dtype)

    def at(self, step: int, dy: int, dx: int, lo: int, hi: int) -> NDArray[Any]:
        """The neighbours (dy, dx) of positions lo .. hi - 1 as they stood when computed."""
        start = self._n * (1 + dy)
        return self._slots[(step + dx + self._slope * dy) % _DEPTH, start + lo : start + hi]


class _Rings:
    """Activation, state and cell rings of every block."""

    def __init__(self, network: Network, n: int, height: int) -> None:
        s = network.slope
        self.activations = [_Ring(n, height, network.channels, s) for _ in network.blocks]
        self.states = [_Ring(n, height, network.lstm, s) for _ in network.blocks]
        self.cells = [_Ring(n, height, network.lstm, s, np.int32) for _ in network.blocks]

    def end_row(self, step: int, lo: int, hi: int) -> None:
        """Write the column right of the picture for rows that ended one step ago."""
        for ring in (*self.activations, *self.states):
            ring.at(step, 0, 0, lo, hi)[:] = 0


def trunk_step(layers: Layers, rings: _Rings, step: int, lo: int, hi: int) -> None:
    """Run the trunk on positions lo .. hi - 1 of a step; their inputs stand in layers.inputs."""
    layers.start(hi - lo)
    for block, kind in enumerate(layers.network.blocks):
        a, h, c = rings.activations[block], rings.states[block], rings.cells[block]
        layers.activation(block, a.at(step, 0, 0, lo, hi))
        if kind == "c":
            taps = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))
            layers.conv(block, [a.at(step, dy, dx, lo, hi) for dy, dx in taps])
        else:
            is_taps = [a.at(step, 0, -1, lo, hi), a.at(step, 0, 0, lo, hi)]
            ss_taps = [h.at(step, -1, dx, lo, hi) for dx in (-1, 0, 1)]
            cells = c.at(step, -1, 0, lo, hi), c.at(step, 0, 0, lo, hi)
            layers.lstm(block, is_taps, ss_taps, *cells, h.at(step, 0, 0, lo, hi))


@jit
def decode_pixels(
    acc: Acc,
    addend: Ints,
    shift: Ints,
    exp: NDArray[np.int32],
    state: NDArray[np.uint64],
    words: NDArray[np.uint32],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    step: int,
    slope: int,
    colour: int,
    first: int,
    planes: NDArray[np.uint8],
    errors: NDArray[np.int16],
    step_errors: NDArray[np.int16],
) -> None:
    """Decode one colour of the step's positions first, first + 1, ...: acc (m, 256); step_errors (3, m)."""
    n, lanes = planes.shape[0], state.shape[0]
    cumulative = np.empty(SYMBOLS + 1, dtype=np.int64)
    for j in range(acc.shape[0]):
        p = first + j
        y, i = p // n, p % n
        x = step - slope * y
        cumulate(acc[j], addend, shift, exp, cumulative)
        symbol = pop(cumulative, p % lanes, state, words, start, stop)
        prediction = predict(planes[i], colour, y, x)
        value = (prediction + symbol) & 255
        planes[i, colour, y, x] = value
        errors[i, colour, y, x] = value - prediction
        step_errors[colour, j] = value - prediction


@jit
def repeat_gray(planes: NDArray[np.uint8], step: int, slope: int, lo: int, hi: int) -> None:
    """Copy plane 0 of a step's pixels to planes 1 and 2."""
    n = planes.shape[0]
    for p in range(lo, hi):
        y, i = p // n, p % n
        x = step - slope * y
        planes[i, 1, y, x] = planes[i, 0, y, x]
        planes[i, 2, y, x] = planes[i, 0, y, x]


def decode_block(
    network: Network,
    engine: str,
    lanes: Lanes,
    shape: tuple[int, int, int],
    colours: int,
    progress: Progress | None = None,
) -> NDArray[np.uint8]:
    """Pixels (n, 3, h, w) of a block of shape (n, h, w). Raises FormatError where a lane does not end as it must."""
    n, height, width = shape
    slope = network.slope
    layers = Layers(network, engine, n * min(height, -(-width // slope)))
    rings = _Rings(network, n, height)
    planes = np.zeros((n, 3, height, width), dtype=np.uint8)
    errors = np.zeros(planes.shape, dtype=np.int16)
    heads = [logit_row(network, colour) for colour in range(colours)]
    steps = number_of_steps(height, width, slope)
    for step in range(steps):
        lo, hi = first_row(step, width, slope) * n, (last_row(step, height, slope) + 1) * n
        if step >= width and (step - width) % slope == 0:
            ended = (step - width) // slope
            rings.end_row(step, ended * n, min(ended + 1, height) * n)
        m = hi - lo
        if m <= 0:
            continue
        block_step_inputs(planes, errors, step, slope, lo, layers.inputs[:m])
        trunk_step(layers, rings, step, lo, hi)
        layers.features(m)
        step_errors = np.zeros((3, m), dtype=np.int16)
        for colour in range(colours):
            acc = layers.logits(colour, step_errors)
            decode_pixels(
                acc,
                *heads[colour],
                lanes.state,
                lanes.words,
                lanes.start,
                lanes.stop,
                step,
                slope,
                colour,
                lo,
                planes,
                errors,
                step_errors,
            )
        if colours == 1:
            repeat_gray(planes, step, slope, lo, hi)
        if progress is not None and step % 16 == 0:
            progress((step + 1) / steps)
    lanes.check_finished()
    return planes
