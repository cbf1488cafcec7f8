"""A frozen Multi-Scale network's small pictures → the conditioning map, and both traversals with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.entropy import Lanes
from pixzip.model.multiscale import BESIDE, MultiScaleNetwork, Upsampling
from pixzip.model.stack import StackNetwork
from pixzip.runtime.kernels import HIDDEN_OFFSET
from pixzip.runtime.stack import rows, steps
from pixzip.runtime.stack.inputs import picture_inputs
from pixzip.shifts import Ints

Progress = Callable[[float], None]
#: Called with (network, y, columns x * n + picture, colour, accumulators, symbols) of positions of the whole picture.
Visit = Callable[[StackNetwork, int, NDArray[np.int64], int, Ints, NDArray[np.int16]], None]


def _rounded(acc: NDArray[np.int64], shift: NDArray[np.int8]) -> NDArray[np.int64]:
    """rs of docs/model-format.md."""
    s = shift.astype(np.int64)
    result: NDArray[np.int64] = (acc + ((1 << s) >> 1)) >> s
    return result


def upsampled(products: Upsampling, i: int, maps: NDArray[np.int8]) -> NDArray[np.int8]:
    """One doubling: (n, h, w, inputs) → (n, 2h, 2w, features). Outside is 0, held as -128 after the first."""
    n, height, width, inputs = maps.shape
    around = np.full((n, height + 2, width + 2, inputs), -HIDDEN_OFFSET if i else 0, dtype=np.float64)
    around[:, 1:-1, 1:-1] = maps
    out = np.empty((n, 2 * height, 2 * width, products.features), dtype=np.int8)
    arrays, name, last = products.arrays, f"upsample.{i}", i == products.doublings - 1
    for phase, (py, px) in enumerate(np.ndindex(2, 2)):
        own = slice(phase * products.features, (phase + 1) * products.features)
        seen = [
            around[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
            for dy in (0, BESIDE[py])
            for dx in (0, BESIDE[px])
        ]
        weight = arrays[f"{name}.weight"][own].astype(np.float64)
        acc = np.concatenate(seen, axis=3) @ weight.T  # whole numbers below 2^30: exact
        values = _rounded(acc.astype(np.int64) + arrays[f"{name}.bias"][own], arrays[f"{name}.shift"][own])
        held = values.clip(-127, 127) if last else values.clip(0, 255) - HIDDEN_OFFSET
        out[:, py::2, px::2] = held
    return out


def conditioning_map(
    network: StackNetwork, products: Upsampling, small: NDArray[np.uint8], height: int, width: int
) -> NDArray[np.int8]:
    """Small pictures (n, planes, s, s) → (h, w, n, features) of the whole ones; what lies beyond these is cut off.

    network: the small pictures', whose inputs are upsampled.
    """
    maps = np.ascontiguousarray(picture_inputs(network, small)[0].transpose(0, 2, 3, 1))
    for i in range(products.doublings):
        maps = upsampled(products, i, maps)
    return np.ascontiguousarray(maps[:, :height, :width].transpose(1, 2, 0, 3))


def picked(network: MultiScaleNetwork, planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The small pictures of whole ones (n, planes, h, w)."""
    return np.ascontiguousarray(planes[:, :, :: network.factor, :: network.factor])


def traverse(
    network: MultiScaleNetwork,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    visit: Visit,
    progress: Progress | None,
) -> None:
    """Both networks over a block, row by row: every sub-pixel is visited once, by the network that codes it."""
    n, _, height, width = planes.shape
    factor, small = network.factor, picked(network, planes)
    columns = np.arange(width * n)
    known = (columns // n) % factor == 0

    def of_small(y: int, colour: int, acc: Ints, symbols: NDArray[np.int16]) -> None:
        visit(network.small, y * factor, columns[known], colour, acc, symbols)

    def of_large(y: int, colour: int, acc: Ints, symbols: NDArray[np.int16]) -> None:
        here = ~known if y % factor == 0 else np.ones_like(known)
        if here.any():
            visit(network.large, y, columns[here], colour, np.ascontiguousarray(acc[here]), symbols[here])

    rows.traverse(network.small, engine, small, colours, of_small)
    conditioning = conditioning_map(network.small, network.upsampling, small, height, width)
    rows.traverse(network.large, engine, planes, colours, of_large, progress, conditioning)


def decode_block(
    network: MultiScaleNetwork,
    engine: str,
    lanes: Lanes,
    shape: tuple[int, int, int],
    colours: int,
    progress: Progress | None = None,
) -> NDArray[np.uint8]:
    """Pixels (n, planes, h, w) of a block of shape (n, h, w): the small pictures first, from the same lanes."""
    n, height, width = shape
    of_small = n, -(-height // network.factor), -(-width // network.factor)
    planes = steps.decode_block(network.small, engine, lanes, of_small, colours)
    conditioning = conditioning_map(network.small, network.upsampling, planes, height, width)
    known = steps.Small(planes, network.factor, conditioning)
    return steps.decode_block(network.large, engine, lanes, shape, colours, progress, known)
