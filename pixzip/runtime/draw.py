"""Quantiles, one a sub-pixel → the pixels that a frozen network draws with them: decoding without a stream.

The decoder's order, sub-steps and rows; only the place in 2^24 that a decoder reads from a lane's state is given. Rows
of pixels that are known already pass through the same steps, with their symbols taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.frame import block_step_inputs, picture_errors
from pixzip.coding.frequencies import SYMBOLS, cumulate, cumulate_binary, find_symbol, tempered
from pixzip.coding.schedule import first_row, last_row, number_of_steps
from pixzip.jit import jit
from pixzip.model.file import Frozen, TrunkNetwork
from pixzip.model.multiscale import MultiScaleNetwork
from pixzip.model.stack import StackNetwork
from pixzip.runtime.maps import StepMaps
from pixzip.runtime.stack import layers as stack_layers
from pixzip.runtime.stack import steps as stack_steps
from pixzip.runtime.stack.inputs import picture_inputs, step_predictions, write_step
from pixzip.runtime.stack.multiscale import conditioning_map
from pixzip.runtime.stack.steps import Small
from pixzip.runtime.trunk import layers as trunk_layers
from pixzip.shifts import Acc, Ints, shifted

Progress = Callable[[float], None]
#: Networks that run over a picture once; a Multi-Scale one is made of two.
OneNetwork = TrunkNetwork | StackNetwork
#: Called with (step, first position, colour, accumulators (m, logits)); gives the symbols (m,) of these positions.
Take = Callable[[int, int, int, Any], NDArray[np.int16]]


class _TrunkPixels:
    """Pixels of a block as the trunk's decoder comes to know them: planes and coding errors (n, 3, h, w)."""

    def __init__(self, network: TrunkNetwork, n: int, height: int, width: int) -> None:
        self._slope = network.slope
        self.planes = np.zeros((n, 3, height, width), dtype=np.uint8)
        self.errors = np.zeros(self.planes.shape, dtype=np.int8)  # cut at -127 and 127

    def inputs(self, step: int, first: int, out: NDArray[np.int8]) -> None:
        """The trunk's inputs at a step's positions: out (m, 88)."""
        block_step_inputs(self.planes, self.errors, step, self._slope, first, out)

    def write(self, colour: int, step: int, first: int, symbols: NDArray[np.int16]) -> NDArray[np.int16]:
        """Take in the symbols (m,) of one colour; their coding errors (m,)."""
        predictions = np.empty(len(symbols), dtype=np.int16)
        step_predictions(self.planes, colour, step, self._slope, first, predictions)
        values = (predictions + symbols) & np.int16(255)
        errors = values - predictions
        kept = errors[:, None].clip(-127, 127)
        write_step(kept, colour, step, self._slope, first, values, self.planes, self.errors)
        return errors


def _trunk(
    network: TrunkNetwork, engine: str, shape: tuple[int, int, int], colours: int, take: Take, progress: Progress | None
) -> NDArray[np.uint8]:
    """As traverse, in plain layer functions on the maps of a wavefront."""
    n, height, width = shape
    slope, pixels = network.slope, _TrunkPixels(network, *shape)
    layers = trunk_layers.Layers(network, engine, n * min(height, -(-width // slope)))
    maps = StepMaps(trunk_layers.map_specs(network), *shape, slope)
    steps = number_of_steps(height, width, slope)
    for step in range(steps):
        maps.begin_step(step)
        lo, hi = first_row(step, width, slope) * n, (last_row(step, height, slope) + 1) * n
        if hi <= lo:
            continue
        pixels.inputs(step, lo, layers.inputs[: hi - lo])
        layers.trunk(maps.view(step, lo, hi))
        errors = np.zeros((3, hi - lo), dtype=np.int16)
        for colour in range(3):  # of a gray picture the last two have coding errors of 0
            symbols = errors[colour]
            if colour < colours:
                symbols = take(step, lo, colour, layers.logits(colour, errors))
            errors[colour] = pixels.write(colour, step, lo, symbols)
        if progress is not None and step % 16 == 0:
            progress((step + 1) / steps)
    return pixels.planes


def traverse(
    network: OneNetwork,
    engine: str,
    shape: tuple[int, int, int],
    colours: int,
    take: Take,
    progress: Progress | None = None,
    small: Small | None = None,
) -> NDArray[np.uint8]:
    """Run a network over a block of shape (n, h, w) whose symbols ``take`` gives: pixels (n, planes, h, w).

    colours: those taken; planes after them are equal to the first, as where a network for RGB codes a gray picture.
    small: of the large network of a Multi-Scale one, the pixels that it is given.
    """
    if isinstance(network, StackNetwork):
        return stack_steps.traverse(network, engine, shape, colours, take, progress, small)
    return _trunk(network, engine, shape, colours, take, progress)


def picture_symbols(network: OneNetwork, planes: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Symbols of a known picture, or of its first rows: planes of the network and result (planes, h, w)."""
    if isinstance(network, StackNetwork):
        return picture_inputs(network, planes[None])[1][0]
    errors = np.empty(planes.shape, dtype=np.int16)
    picture_errors(planes, errors)
    return errors & np.int16(255)


@jit
def find_symbols(
    acc: Acc,
    addend: Ints,
    shift: Ints,
    exp: NDArray[np.int32],
    quantiles: NDArray[np.int32],
    known: NDArray[np.int16],
    colour: int,
    step: int,
    slope: int,
    first: int,
    out: NDArray[np.int16],
) -> None:
    """Symbols of positions first, first + 1, ...: acc (m, 256), or (m, 1) of binary pictures; out (m,).

    Known ones (colours, rows, w) stand as they are; of the rest quantiles (n, colours, h, w) say which.
    """
    n, binary = quantiles.shape[0], acc.shape[1] == 1
    cumulative = np.empty(3 if binary else SYMBOLS + 1, dtype=np.int64)
    for j in range(out.shape[0]):
        y = (first + j) // n
        x = step - slope * y
        if y < known.shape[1]:
            out[j] = known[colour, y, x]
            continue
        if binary:
            cumulate_binary(shifted(acc[j, 0], addend[0], shift[0]), exp, cumulative)
        else:
            cumulate(acc[j], addend, shift, exp, cumulative)
        out[j] = find_symbol(cumulative, np.int64(quantiles[(first + j) % n, colour, y, x]))


def draw_block(
    network: Frozen,
    engine: str,
    quantiles: NDArray[np.int32],
    above: NDArray[np.uint8],
    temperature: Fraction = Fraction(1),
    progress: Progress | None = None,
) -> NDArray[np.uint8]:
    """Pixels (n, planes of the network, h, w) that quantiles (n, colours, h, w), each 0 .. 2^24 - 1, draw.

    above (planes of the network, rows, w): the first rows, of all pictures. temperature: see frequencies.tempered.
    """
    if not isinstance(network, MultiScaleNetwork):
        return _draw_one(network, engine, quantiles, above, temperature, progress)
    height, width = quantiles.shape[2:]
    every = (..., slice(None, None, network.factor), slice(None, None, network.factor))
    first = [np.ascontiguousarray(array[every]) for array in (quantiles, above)]
    planes = _draw_one(network.small, engine, first[0], first[1], temperature, None)
    conditioning = conditioning_map(network.small, network.upsampling, planes, height, width)
    small = Small(planes, network.factor, conditioning)
    return _draw_one(network.large, engine, quantiles, above, temperature, progress, small)


def _draw_one(
    network: OneNetwork,
    engine: str,
    quantiles: NDArray[np.int32],
    above: NDArray[np.uint8],
    temperature: Fraction,
    progress: Progress | None,
    small: Small | None = None,
) -> NDArray[np.uint8]:
    """As draw_block, of a network that runs once over the picture."""
    n, colours, height, width = quantiles.shape
    known = picture_symbols(network, above)[:colours]
    slope = network.slope_at(width)
    row: Any = stack_layers.logit_row if isinstance(network, StackNetwork) else trunk_layers.logit_row
    heads = [row(network, colour) for colour in range(colours)]
    exp = tempered(heads[0][2], temperature)

    def take(step: int, first: int, colour: int, acc: Acc) -> NDArray[np.int16]:
        symbols = np.empty(len(acc), dtype=np.int16)
        addend, shift, _ = heads[colour]
        find_symbols(acc, addend, shift, exp, quantiles, known, colour, step, slope, first, symbols)
        return symbols

    return traverse(network, engine, (n, height, width), colours, take, progress, small)
