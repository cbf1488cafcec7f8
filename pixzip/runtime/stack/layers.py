"""A frozen network's layers on m positions and some colours at a time; which of both is the drivers' matter.

Every function computes the features of one *part*: of all colours, or of one. A part reads features of earlier colours
at its own pixel from where their own pass wrote them, so each feature is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.model.stack import StackNetwork
from pixzip.runtime import kernels
from pixzip.runtime.maps import MapSpec, RowMaps, Specs, View
from pixzip.runtime.stack.products import Buffers, Map, Part, PartProduct, features_of, whole
from pixzip.shifts import Ints, addend

#: A hidden layer's 0, held less 128.
NOTHING = -kernels.HIDDEN_OFFSET
_LEFT_TO_RIGHT, _RIGHT_TO_LEFT = "left_to_right", "right_to_left"


def runs_right_to_left(product: str) -> bool:
    """Whether a product belongs to the half of a Diagonal BiLSTM that needs whole rows."""
    return f".{_RIGHT_TO_LEFT}." in product


def map_specs(network: StackNetwork) -> Specs:
    """The maps that neighbours are read from, by name."""
    specs: Specs = {}
    h, arrays, products = network.h, network.arrays, network.products
    own = ((0, 0),)
    for i in range(network.layers):
        name = f"layer.{i}"
        if network.architecture == "pixelcnn":
            specs[f"{name}.down"] = MapSpec(h, np.int8, NOTHING, NOTHING, products[f"{name}.middle"].taps)
        elif network.architecture == "row_lstm":
            # the row above the first is the learned state, beyond its ends the state is 0
            specs[f"{name}.input"] = MapSpec(2 * h, np.int8, 0, 0, products[f"{name}.is"].taps)
            specs[f"{name}.state"] = MapSpec(h, np.int8, arrays[f"{name}.h0"], 0, products[f"{name}.ss"].taps)
            specs[f"{name}.cell"] = MapSpec(h, np.int32, arrays[f"{name}.c0"], 0, ((-1, 0),))
        else:
            specs[f"{name}.input"] = MapSpec(2 * h, np.int8, 0, 0, own)
            for direction, beside in ((f"{name}.{_LEFT_TO_RIGHT}", -1), (f"{name}.{_RIGHT_TO_LEFT}", 1)):
                h0, c0 = arrays[f"{direction}.h0"], arrays[f"{direction}.c0"]
                specs[f"{direction}.state"] = MapSpec(h, np.int8, h0, h0, products[f"{direction}.ss"].taps)
                specs[f"{direction}.cell"] = MapSpec(h, np.int32, c0, c0, ((0, beside),))
            # right-to-left states once their row is done; nothing above the first row
            specs[f"{name}.whole_row"] = MapSpec(h, np.int8, 0, 0, products[f"{name}.up"].taps)
    return specs


class Layers:
    """The layer functions of one network, with buffers for ``rows`` positions; one object a thread.

    It can compute the parts that are given of the products that are ``named``. Between the passes of two parts over the
    same positions nothing else may be computed.
    """

    def __init__(
        self,
        network: StackNetwork,
        engine: str,
        rows: int,
        parts: Sequence[Part],
        named: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self.network = network
        self._buffers = Buffers()
        self._products = {
            (name, part): PartProduct(network, product, part, engine, rows, self._buffers)
            for name, product in network.products.items()
            for part in parts
            if named(name)
        }
        self._rows = rows
        self._tables = network.arrays["table.sigmoid"], network.arrays["table.tanh"]
        self._streams = {part: np.zeros((rows, self._width(part, 2 * network.h)), np.int16) for part in parts}
        self._skipped = {part: np.zeros_like(stream) for part, stream in self._streams.items()}
        self._own: dict[str, Map] = {}
        #: (m, features) of the conditioning map at the positions to be computed; None where there is none.
        self.conditioning: Map | None = None

    def _width(self, part: Part, features: int) -> int:
        return len(range(features)[self._slice(part, features)])

    def _slice(self, part: Part, features: int) -> slice:
        return features_of(part, features, self.network.planes)

    def product(self, name: str, part: Part) -> PartProduct:
        """A part of a product."""
        return self._products[name, part]

    def _at_own_pixel(self, name: str, m: int, features: int) -> Map:
        """Features (m, features) that only their own pixel needs, kept over the passes of its colours."""
        if name not in self._own:
            self._own[name] = np.zeros((self._rows, features), dtype=np.int8)
        return self._own[name][:m]

    # Elementwise pieces: kernels work on contiguous arrays, which are then put in their place.

    def _rectified(self, acc: Ints | NDArray[np.int16], addend: Ints, shift: Ints) -> Map:
        out = np.empty(acc.shape, dtype=np.int8)
        kernels.rectify(acc, addend, shift, out)  # type: ignore[arg-type]
        return out

    def _rectified_stream(self, stream: NDArray[np.int16], shift: int) -> Map:
        """relu8 of a stream."""
        shifts = np.full(stream.shape[1], shift, dtype=np.int32)
        return self._rectified(stream, addend(np.zeros_like(shifts), shifts), shifts)

    def _activated(self, stream: NDArray[np.int16], shift: int) -> Map:
        """sat8 of a stream."""
        out = np.empty(stream.shape, dtype=np.int8)
        kernels.activate(stream, shift, out)
        return out

    # The network.

    def features(self, part: Part, view: View) -> NDArray[np.int16]:
        """From the inputs in the first product's source to the head's input: (m, features of the part)."""
        network, m = self.network, view.m
        stream, skipped = self._streams[part][:m], self._skipped[part][:m]
        first = self.product("first", part)
        kernels.start_stream(first.multiplied(m), first.addend, first.shift, stream)
        for i in range(network.layers):
            if network.skip:
                acc, product = self._skip(i, part, stream)
                add = kernels.add_stream if i else kernels.start_stream
                add(acc, product.addend, product.shift, skipped)
            acc, product = self._layer(i, part, view, stream)
            add = kernels.add_stream if network.residual else kernels.start_stream
            add(acc, product.addend, product.shift, stream)
        if network.skip:
            stream = np.clip(stream.astype(np.int32) + skipped, -32767, 32767).astype(np.int16)
        return stream

    def _skip(self, i: int, part: Part, stream: NDArray[np.int16]) -> tuple[Ints, PartProduct]:
        name, wide = f"layer.{i}.skip", 2 * self.network.h
        own = self._at_own_pixel(name, len(stream), wide)
        own[:, self._slice(part, wide)] = self._activated(stream, self.network.skip_shifts[i])
        product = self.product(name, part)
        return product(own=own), product

    def _layer(self, i: int, part: Part, view: View, stream: NDArray[np.int16]) -> tuple[Ints, PartProduct]:
        """The last product of layer i, to be added to the stream or to take its place."""
        layer = {"pixelcnn": self._pixelcnn, "row_lstm": self._row_lstm, "diagonal_bilstm": self._diagonal}
        return layer[self.network.architecture](i, part, view, stream)

    def _pixelcnn(self, i: int, part: Part, view: View, stream: NDArray[np.int16]) -> tuple[Ints, PartProduct]:
        """Figure 5, left."""
        name, h = f"layer.{i}", self.network.h
        narrow = self._slice(part, h)
        down, middle, up = (self.product(f"{name}.{which}", part) for which in ("down", "middle", "up"))
        own = self._at_own_pixel(f"{name}.input", view.m, 2 * h)
        own[:, self._slice(part, 2 * h)] = self._rectified_stream(stream, self.network.layer_shifts[i])
        at_pixel = view.at(f"{name}.down", 0, 0)
        at_pixel[:, narrow] = self._rectified(down(own=own), down.addend, down.shift)
        taps = [view.at(f"{name}.down", dy, dx) for dy, dx in middle.product.taps]
        own = self._at_own_pixel(f"{name}.middle", view.m, h)
        own[:, narrow] = self._rectified(middle(taps, at_pixel, self.conditioning), middle.addend, middle.shift)
        return up(own=own), up

    def _cells(
        self, acc_is: Ints, acc_ss: Ints, products: tuple[PartProduct, PartProduct], before: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], Map]:
        """Equation 3: cell states before → cell and hidden states, (m, features of the part)."""
        cell, state = np.empty(before.shape, dtype=np.int32), np.empty(before.shape, dtype=np.int8)
        input_to_state, state_to_state = products
        kernels.lstm_cell(
            acc_is,
            acc_ss,
            input_to_state.addend,
            input_to_state.left,
            state_to_state.left,
            input_to_state.shift,
            *self._tables,
            np.ascontiguousarray(before),
            cell,
            state,
        )
        return cell, state

    def _row_lstm(self, i: int, part: Part, view: View, stream: NDArray[np.int16]) -> tuple[Ints, PartProduct]:
        """Figure 5, right, with the Row LSTM."""
        name, h = f"layer.{i}", self.network.h
        narrow = self._slice(part, h)
        products = self.product(f"{name}.is", part), self.product(f"{name}.ss", part)
        at_pixel = view.at(f"{name}.input", 0, 0)
        at_pixel[:, self._slice(part, 2 * h)] = self._activated(stream, self.network.layer_shifts[i])
        acc_is = products[0]([view.at(f"{name}.input", 0, -1)], at_pixel, self.conditioning)
        acc_ss = products[1]([view.at(f"{name}.state", dy, dx) for dy, dx in products[1].product.taps])
        before = view.at(f"{name}.cell", -1, 0)[:, narrow]
        cell, state = self._cells(acc_is, acc_ss, products, before)
        view.at(f"{name}.cell", 0, 0)[:, narrow] = cell
        states = view.at(f"{name}.state", 0, 0)
        states[:, narrow] = state
        up = self.product(f"{name}.up", part)
        return up(own=states), up

    def _diagonal(self, i: int, part: Part, view: View, stream: NDArray[np.int16]) -> tuple[Ints, PartProduct]:
        """Figure 5, right, with the Diagonal BiLSTM: its left-to-right half, and the sum of both."""
        name, h = f"layer.{i}", self.network.h
        at_pixel = view.at(f"{name}.input", 0, 0)
        at_pixel[:, self._slice(part, 2 * h)] = self._activated(stream, self.network.layer_shifts[i])
        direction = f"{name}.{_LEFT_TO_RIGHT}"
        acc_is = self.product(f"{direction}.is", part)(own=at_pixel, conditioning=self.conditioning)
        for positions, column in view.columns():
            self._diagonal_column(direction, part, column, acc_is[positions], -1)
        up = self.product(f"{name}.up", part)
        return up([view.at(f"{name}.whole_row", -1, 0)], view.at(f"{direction}.state", 0, 0)), up

    def _diagonal_column(self, direction: str, part: Part, column: View, acc_is: Ints, beside: int) -> None:
        """One cell of a direction for each picture: from the cell above and the one ``beside`` it, in its own row."""
        narrow = self._slice(part, self.network.h)
        products = self.product(f"{direction}.is", part), self.product(f"{direction}.ss", part)
        acc_ss = products[1]([column.at(f"{direction}.state", dy, dx) for dy, dx in products[1].product.taps])
        before = column.at(f"{direction}.cell", 0, beside)[:, narrow]
        cell, state = self._cells(acc_is, acc_ss, products, before)
        column.at(f"{direction}.cell", 0, 0)[:, narrow] = cell
        column.at(f"{direction}.state", 0, 0)[:, narrow] = state

    def end_row(self, maps: RowMaps) -> None:
        """The right-to-left half of every layer on a row whose pixels are all known: what the row below reads of it."""
        part, row = whole(self.network), maps.row()
        for i in range(self.network.layers):
            name = f"layer.{i}"
            direction = f"{name}.{_RIGHT_TO_LEFT}"
            inputs = row.at(f"{name}.input", 0, 0)
            acc_is = self.product(f"{direction}.is", part)(own=inputs, conditioning=self.conditioning)
            for positions, column in reversed(list(row.columns())):
                self._diagonal_column(direction, part, column, acc_is[positions], 1)
            row.at(f"{name}.whole_row", 0, 0)[:] = row.at(f"{direction}.state", 0, 0)

    def logits(self, part: Part, features: NDArray[np.int16]) -> Ints:
        """The head's last product, before bias and shift: (m, logits of the part)."""
        network, m = self.network, len(features)
        own = self._at_own_pixel("head", m, 2 * network.h)
        own[:, self._slice(part, 2 * network.h)] = self._rectified_stream(features, network.head_shift)
        for name in ("head.one", "head.two"):
            product = self.product(name, part)
            hidden = self._rectified(product(own=own), product.addend, product.shift)
            own = self._at_own_pixel(name, m, network.head)
            own[:, self._slice(part, network.head)] = hidden
        return self.product("head.last", part)(own=own)


def logit_row(network: StackNetwork, colour: int) -> tuple[Ints, Ints, NDArray[np.int32]]:
    """What turns a colour's accumulators into a row: addend and shift (256,) or (1,), exp table."""
    arrays: Any = network.arrays
    own = features_of((colour, colour + 1), network.outputs, network.planes)
    shift = arrays["head.last.shift"][own].astype(np.int32)
    return addend(arrays["head.last.bias"][own], shift), shift, arrays["table.exp"]
