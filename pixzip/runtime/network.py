"""A frozen network's layers, executed on m positions at a time; which positions is the drivers' matter.

A driver hands each layer the neighbouring activations as slices of its own maps. Rows of all slices correspond: row r
of every tap belongs to the same position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixzip.model_file import ConvShifts, LstmShifts, Network
from pixzip.runtime import kernels
from pixzip.runtime.engines import make_product
from pixzip.runtime.kernels import Acc

Map = NDArray[np.int8]


class Layers:
    """The layer functions of one network with buffers for ``rows`` positions; one object a thread."""

    def __init__(self, network: Network, engine: str, rows: int) -> None:
        self.network = network
        self.arrays = network.arrays
        weights = [name for name in self.arrays if name.endswith(".weight")]
        self._products = {n.removesuffix(".weight"): make_product(engine, self.arrays[n], rows) for n in weights}
        self.stream = np.zeros((rows, network.channels), dtype=np.int16)
        self.inputs = self._products["input"].source
        heads = [self._products[f"head.{c}.hidden"] for c in range(3)]
        for head in heads[1:]:
            if head.source.shape != heads[0].source.shape:
                raise AssertionError("heads share their input")

    def start(self, m: int) -> None:
        """Input layer: self.inputs[:m] → the residual stream."""
        acc = self._products["input"](m)
        kernels.start_stream(acc, self.arrays["input.bias"], self.network.input_shift, self.stream[:m])

    def activation(self, block: int, out: Map) -> None:
        """The stream as block's int8 input; out (m, channels)."""
        kernels.activate(self.stream[: out.shape[0]], self.network.block_shifts[block].a, out)

    def conv(self, block: int, taps: Sequence[Map]) -> None:
        """Masked-convolution block on taps (-1,-1), (-1,0), (-1,1), (0,-1), (0,0), each (m, channels)."""
        shifts, name, m = self.network.block_shifts[block], f"block.{block}", taps[0].shape[0]
        assert isinstance(shifts, ConvShifts)
        first, second = self._products[f"{name}.first"], self._products[f"{name}.second"]
        _gather(taps, first.source)
        kernels.rectify(first(m), self.arrays[f"{name}.first.bias"], shifts.hidden, second.source[:m])
        kernels.add_stream(second(m), self.arrays[f"{name}.second.bias"], shifts.out, self.stream[:m])

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
        shifts, name, m = self.network.block_shifts[block], f"block.{block}", state.shape[0]
        assert isinstance(shifts, LstmShifts)
        is_product, ss_product = self._products[f"{name}.is"], self._products[f"{name}.ss"]
        up = self._products[f"{name}.up"]
        _gather(is_taps, is_product.source)
        _gather(ss_taps, ss_product.source)
        kernels.lstm_cell(
            is_product(m),
            ss_product(m),
            self.arrays[f"{name}.is.bias"],
            shifts.is_left,
            shifts.ss_left,
            shifts.index,
            self.arrays["table.sigmoid"],
            self.arrays["table.tanh"],
            cell_above,
            cell,
            state,
        )
        up.source[:m] = state
        kernels.add_stream(up(m), self.arrays[f"{name}.up.bias"], shifts.out, self.stream[:m])

    def features(self, m: int) -> None:
        """The stream as the heads' common int8 input."""
        first = self._products["head.0.hidden"].source[:m]
        kernels.activate(self.stream[:m], self.network.feature_shift, first)
        for colour in (1, 2):
            self._products[f"head.{colour}.hidden"].source[:m] = first

    def logits(self, colour: int, errors: NDArray[np.int16]) -> Acc:
        """Last product of a colour head before bias and shift: (m, 256).

        errors (3, m): this pixel's coding errors; those of the colours before this one are read.
        """
        name, m = f"head.{colour}", errors.shape[1]
        hidden, last = self._products[f"{name}.hidden"], self._products[f"{name}.logit"]
        shift, bias = self.network.head_shifts[colour].hidden, self.arrays[f"{name}.hidden.bias"]
        acc = hidden(m)
        if colour == 0:
            kernels.rectify(acc, bias, shift, last.source[:m])
        else:
            kernels.rectify_known(acc, bias, self.arrays[f"{name}.known"], errors, shift, last.source[:m])
        return last(m)


def _gather(taps: Sequence[Map], into: Map) -> None:
    """Put taps side by side: into[:m, j * width : (j + 1) * width] = taps[j]."""
    m, width = taps[0].shape
    for j, tap in enumerate(taps):
        into[:m, j * width : (j + 1) * width] = tap
