"""Pixels of a block → accumulators of all its symbols, row by row through all layers: the plain traversal.

All pixels are known, so row y of a layer needs only row y of the layer below and row y - 1 of its own map. Memory is
two rows a layer. Position x * n + picture; maps have n zero positions at either end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.frame import block_row_inputs, picture_errors
from pixzip.model_file import Network
from pixzip.runtime.kernels import Acc
from pixzip.runtime.network import Layers

Progress = Callable[[float], None]


class _Maps:
    """This row's and the last row's activations, states and cells of every block."""

    def __init__(self, network: Network, n: int, m: int) -> None:
        def pair(width: int, dtype: type = np.int8) -> list[NDArray[Any]]:
            return [np.zeros((m + 2 * n, width), dtype=dtype) for _ in range(2)]

        self.n, self.m = n, m
        self.activations = [pair(network.channels) for _ in network.blocks]
        self.states = [pair(network.lstm) for _ in network.blocks]
        self.cells = [pair(network.lstm, np.int32) for _ in network.blocks]

    def at(self, pair: list[NDArray[Any]], dy: int, dx: int) -> NDArray[Any]:
        """The neighbours (dy, dx) of all m positions."""
        start = (dx + 1) * self.n
        return pair[-dy][start : start + self.m]

    def next_row(self) -> None:
        """This row becomes the last row."""
        for group in (self.activations, self.states, self.cells):
            for pair in group:
                pair.reverse()


def trunk_row(layers: Layers, maps: _Maps) -> None:
    """Run the trunk on one row whose inputs stand in layers.inputs."""
    layers.start(maps.m)
    for block, kind in enumerate(layers.network.blocks):
        a, h, c = maps.activations[block], maps.states[block], maps.cells[block]
        layers.activation(block, maps.at(a, 0, 0))
        if kind == "c":
            layers.conv(block, [maps.at(a, dy, dx) for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))])
        else:
            is_taps = [maps.at(a, 0, -1), maps.at(a, 0, 0)]
            ss_taps = [maps.at(h, -1, dx) for dx in (-1, 0, 1)]
            layers.lstm(block, is_taps, ss_taps, maps.at(c, -1, 0), maps.at(c, 0, 0), maps.at(h, 0, 0))


#: Called with (y, colour, accumulators (m, 256), errors (m,)) for every row and colour, in this order.
Visit = Callable[[int, int, Acc, NDArray[np.int16]], None]


def traverse(
    network: Network,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    visit: Visit,
    progress: Progress | None = None,
) -> None:
    """Run the network over a block, row by row; planes is (n, 3, h, w) uint8.

    colours is 3, or 1 where three equal planes stand for a gray picture. Accumulators are valid during the visit only.
    """
    for y, layers, errors in _rows(network, engine, planes):
        for colour in range(colours):
            visit(y, colour, layers.logits(colour, errors), errors[colour])
        if progress is not None:
            progress((y + 1) / planes.shape[2])


def features(network: Network, engine: str, planes: NDArray[np.uint8], out: NDArray[np.int8]) -> None:
    """Write the heads' common input at every pixel to out (h, w * n, t)."""
    for y, layers, errors in _rows(network, engine, planes):
        out[y] = layers.head_input(errors.shape[1])


def _rows(network: Network, engine: str, planes: NDArray[np.uint8]) -> Iterator[tuple[int, Layers, NDArray[np.int16]]]:
    """(y, layers after the trunk has run on row y, errors (3, m) of the row), from the top."""
    n, _, height, width = planes.shape
    m = width * n
    layers, maps = Layers(network, engine, m), _Maps(network, n, m)
    errors = np.zeros(planes.shape, dtype=np.int16)
    for i in range(n):
        picture_errors(planes[i], errors[i])
    for y in range(height):
        block_row_inputs(planes, errors, y, layers.inputs)
        trunk_row(layers, maps)
        layers.features(m)
        yield y, layers, np.ascontiguousarray(errors[:, :, y, :].transpose(1, 2, 0)).reshape(3, m)
        maps.next_row()
