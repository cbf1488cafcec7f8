"""Pixels of a block → accumulators of all its symbols, row by row through all layers: the encoder's traversal.

All pixels are known, so all colours of a whole row pass a layer together, and memory is two rows a map.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pixzip.model.stack import StackNetwork
from pixzip.runtime.maps import RowMaps
from pixzip.runtime.stack.inputs import picture_inputs, row_windows
from pixzip.runtime.stack.layers import Layers, map_specs
from pixzip.runtime.stack.products import features_of, whole
from pixzip.shifts import Ints

Progress = Callable[[float], None]
#: Called with (y, colour, accumulators (m, logits), symbols (m,)) for every row and colour, in this order.
Visit = Callable[[int, int, Ints, NDArray[np.int16]], None]


def traverse(
    network: StackNetwork,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    visit: Visit,
    progress: Progress | None = None,
    conditioning: NDArray[np.int8] | None = None,
) -> None:
    """Run the network over a block, row by row; planes is (n, planes of the network, h, w) uint8.

    conditioning: (h, w, n, features) where the network has such a map.
    colours: those visited, the first ones of the network's. Accumulators are valid during the visit only.
    """
    n, _, height, width = planes.shape
    part = whole(network)
    layers, maps = Layers(network, engine, n * width, [part]), RowMaps(map_specs(network), n, width)
    inputs, symbols = picture_inputs(network, planes)
    first = layers.product("first", part)
    for y in range(height):
        if conditioning is not None:
            layers.conditioning = conditioning[y].reshape(n * width, -1)
        row_windows(inputs, y, first.own, first.source(n * width))
        acc = layers.logits(part, layers.features(part, maps.row()))
        for colour in range(colours):
            own = features_of((colour, colour + 1), network.outputs, network.planes)
            of_row = np.ascontiguousarray(symbols[:, colour, y].T).reshape(-1)
            visit(y, colour, np.ascontiguousarray(acc[:, own]), of_row)
        if network.architecture == "diagonal_bilstm" and y + 1 < height:
            layers.end_row(maps)
        maps.next_row()
        if progress is not None:
            progress((y + 1) / height)
