"""A frozen network's layers, executed on m positions at a time; which positions is the drivers' matter.

A driver hands each layer the neighbouring activations as slices of its own maps. Rows of all slices correspond: row r
of every tap belongs to the same position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixzip import shifts
from pixzip.model.checks import Arrays
from pixzip.model.file import TrunkNetwork
from pixzip.runtime import kernels
from pixzip.runtime.engines import make_product
from pixzip.runtime.maps import MapSpec, Specs, View
from pixzip.shifts import Acc, Ints

Map = NDArray[np.int8]
#: (dy, dx) taps of a masked convolution on features (mask B, cut to slope 2): own position last.
CONV_TAPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))
#: Taps of the Row LSTM's input-to-state convolution (3×1, mask B) and of its state-to-state convolution (3×1).
IS_TAPS = ((0, -1), (0, 0))
SS_TAPS = ((-1, -1), (-1, 0), (-1, 1))


def rounding(arrays: Arrays, product: str) -> tuple[Ints, Ints]:
    """(addend, shift) of a product's outputs, as the kernels take them."""
    shift = arrays[f"{product}.shift"].astype(np.int32)
    return shifts.addend(arrays[f"{product}.bias"], shift), shift


def logit_row(network: TrunkNetwork, colour: int) -> tuple[Ints, Ints, NDArray[np.int32]]:
    """What turns a head's last product into a row: addend and shift (256,), exp table."""
    return *rounding(network.arrays, f"head.{colour}.logit"), network.arrays["table.exp"]


def map_specs(network: TrunkNetwork) -> Specs:
    """The maps that neighbours are read from, by name; outside the picture all are 0."""
    specs: Specs = {}
    for block, kind in enumerate(network.blocks):
        name = f"block.{block}"
        specs[f"{name}.activation"] = MapSpec(network.channels, np.int8, 0, 0, CONV_TAPS if kind == "c" else IS_TAPS)
        if kind == "l":
            specs[f"{name}.state"] = MapSpec(network.lstm, np.int8, 0, 0, SS_TAPS)
            specs[f"{name}.cell"] = MapSpec(network.lstm, np.int32, 0, 0, ((-1, 0),))
    return specs


class Layers:
    """The layer functions of one network with buffers for ``rows`` positions; one object a thread."""

    def __init__(self, network: TrunkNetwork, engine: str, rows: int) -> None:
        self.network = network
        self.arrays = network.arrays
        weights = [name for name in self.arrays if name.endswith(".weight")]
        self._products = {n.removesuffix(".weight"): make_product(engine, self.arrays[n], rows) for n in weights}
        rounded = [name.removesuffix(".shift") for name in self.arrays if name.endswith(".shift")]
        self._rounding = {name: rounding(self.arrays, name) for name in rounded}
        self._left = {n: a.astype(np.int32) for n, a in self.arrays.items() if n.endswith(".left")}
        self.stream = np.zeros((rows, network.channels), dtype=np.int16)
        self.inputs = self._products["input"].source
        heads = [self._products[f"head.{c}.hidden"] for c in range(3)]
        for head in heads[1:]:
            if head.source.shape != heads[0].source.shape:
                raise AssertionError("heads share their input")

    def trunk(self, view: View) -> None:
        """All blocks on positions whose inputs stand in self.inputs; their features are left for ``logits``."""
        self.start(view.m)
        for block, kind in enumerate(self.network.blocks):
            name = f"block.{block}"
            self.activation(block, view.at(f"{name}.activation", 0, 0))
            if kind == "c":
                self.conv(block, [view.at(f"{name}.activation", dy, dx) for dy, dx in CONV_TAPS])
            else:
                is_taps = [view.at(f"{name}.activation", dy, dx) for dy, dx in IS_TAPS]
                ss_taps = [view.at(f"{name}.state", dy, dx) for dy, dx in SS_TAPS]
                cells = view.at(f"{name}.cell", -1, 0), view.at(f"{name}.cell", 0, 0)
                self.lstm(block, is_taps, ss_taps, *cells, view.at(f"{name}.state", 0, 0))
        self.features(view.m)

    def start(self, m: int) -> None:
        """Input layer: self.inputs[:m] → the residual stream."""
        acc = self._products["input"](m)
        kernels.start_stream(acc, *self._rounding["input"], self.stream[:m])

    def activation(self, block: int, out: Map) -> None:
        """The stream as block's int8 input; out (m, channels)."""
        kernels.activate(self.stream[: out.shape[0]], self.network.activation_shifts[block], out)

    def conv(self, block: int, taps: Sequence[Map]) -> None:
        """Masked-convolution block on taps (-1,-1), (-1,0), (-1,1), (0,-1), (0,0), each (m, channels)."""
        name, m = f"block.{block}", taps[0].shape[0]
        first, second = self._products[f"{name}.first"], self._products[f"{name}.second"]
        _gather(taps, first.source)
        kernels.rectify(first(m), *self._rounding[f"{name}.first"], second.source[:m])
        kernels.add_stream(second(m), *self._rounding[f"{name}.second"], self.stream[:m])

    def lstm(
        self,
        block: int,
        is_taps: Sequence[Map],
        ss_taps: Sequence[Map],
        cell_above: NDArray[np.int32],
        cell: NDArray[np.int32],
        state: Map,
    ) -> None:
        """Row LSTM layer: activations at (0,-1), (0,0), states at (-1,-1), (-1,0), (-1,1) → cell and state (m, k)."""
        name, m = f"block.{block}", state.shape[0]
        addend, shift = self._rounding[f"{name}.is"]
        is_product, ss_product = self._products[f"{name}.is"], self._products[f"{name}.ss"]
        up = self._products[f"{name}.up"]
        _gather(is_taps, is_product.source)
        _gather(ss_taps, ss_product.source)
        kernels.lstm_cell(
            is_product(m),
            ss_product(m),
            addend,
            self._left[f"{name}.is.left"],
            self._left[f"{name}.ss.left"],
            shift,
            self.arrays["table.sigmoid"],
            self.arrays["table.tanh"],
            cell_above,
            cell,
            state,
        )
        up.source[:m] = state
        kernels.add_stream(up(m), *self._rounding[f"{name}.up"], self.stream[:m])

    def features(self, m: int) -> None:
        """The stream as the heads' common int8 input."""
        first = self._products["head.0.hidden"].source[:m]
        kernels.activate(self.stream[:m], self.network.feature_shift, first)
        for colour in (1, 2):
            self._products[f"head.{colour}.hidden"].source[:m] = first

    def head_input(self, m: int) -> Map:
        """The features of m positions, after features(m): (m, channels)."""
        return self._products["head.0.hidden"].source[:m]

    def logits(self, colour: int, errors: NDArray[np.int16]) -> Acc:
        """Last product of a colour head before bias and shift (logit_row): (m, 256).

        errors (3, m): this pixel's coding errors; those of the colours before this one are read.
        """
        name, m = f"head.{colour}", errors.shape[1]
        hidden, last = self._products[f"{name}.hidden"], self._products[f"{name}.logit"]
        addend, shift = self._rounding[f"{name}.hidden"]
        acc = hidden(m)
        if colour == 0:
            kernels.rectify(acc, addend, shift, last.source[:m])
        else:
            kernels.rectify_known(acc, addend, self.arrays[f"{name}.known"], errors, shift, last.source[:m])
        return last(m)


def _gather(taps: Sequence[Map], into: Map) -> None:
    """Put taps side by side: into[:m, j * width : (j + 1) * width] = taps[j]."""
    m, width = taps[0].shape
    for j, tap in enumerate(taps):
        into[:m, j * width : (j + 1) * width] = tap
