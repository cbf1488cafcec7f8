"""Pixels of a block → accumulators of all its symbols, row by row through all layers: the plain traversal.

All pixels are known, so row y of a layer needs only row y of the layer below and row y - 1 of its own map. Memory is
two rows a layer. Position x * n + picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.frame import block_row_inputs, picture_errors
from pixzip.model.file import TrunkNetwork
from pixzip.runtime.maps import RowMaps
from pixzip.runtime.trunk.layers import Layers, map_specs
from pixzip.shifts import Acc

Progress = Callable[[float], None]
#: Called with (y, colour, accumulators (m, 256), errors (m,)) for every row and colour, in this order.
Visit = Callable[[int, int, Acc, NDArray[np.int16]], None]


def traverse(
    network: TrunkNetwork,
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


def features(network: TrunkNetwork, engine: str, planes: NDArray[np.uint8], out: NDArray[np.int8]) -> None:
    """Write the heads' common input at every pixel to out (h, w * n, t)."""
    for y, layers, errors in _rows(network, engine, planes):
        out[y] = layers.head_input(errors.shape[1])


def _rows(
    network: TrunkNetwork, engine: str, planes: NDArray[np.uint8]
) -> Iterator[tuple[int, Layers, NDArray[np.int16]]]:
    """(y, layers after the trunk has run on row y, errors (3, m) of the row), from the top."""
    n, _, height, width = planes.shape
    m = width * n
    layers, maps = Layers(network, engine, m), RowMaps(map_specs(network), n, width)
    errors = np.zeros(planes.shape, dtype=np.int16)
    for i in range(n):
        picture_errors(planes[i], errors[i])
    for y in range(height):
        block_row_inputs(planes, errors, y, layers.inputs)
        layers.trunk(maps.row())
        yield y, layers, np.ascontiguousarray(errors[:, :, y, :].transpose(1, 2, 0)).reshape(3, m)
        maps.next_row()
