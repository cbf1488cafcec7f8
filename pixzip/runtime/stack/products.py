"""int8 rows × one product's weights → int32 accumulators, whole or of one colour's outputs only.

The features of a map stand by colour. So what a colour's outputs see is a prefix of a row of inputs, all features of
earlier pixels and then the own pixel's up to that colour, and the outputs are a slice::

    row of inputs    | pixel above | pixel before | own: R  G  B |
    outputs of R     |xxxxxxxxxxxxx xxxxxxxxxxxxxx  xx           |
    outputs of G     |xxxxxxxxxxxxx xxxxxxxxxxxxxx  xxxxx        |      mask B; of mask A one colour less
    outputs of B     |xxxxxxxxxxxxx xxxxxxxxxxxxxx  xxxxxxxx     |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip import shifts
from pixzip.model.stack import Product, StackNetwork, colour_starts
from pixzip.runtime.engines import multiply, padded_rows
from pixzip.runtime.multiply import SLACK, pack, padded
from pixzip.shifts import Ints

#: float32 is exact for integers below this.
_EXACT = 1 << 24

Map = NDArray[np.int8]
#: Colours first .. last - 1 that one pass computes: all for a whole row of known pixels, one in a decoder's sub-step.
Part = tuple[int, int]


def whole(network: StackNetwork) -> Part:
    """The part of all colours."""
    return 0, network.planes


def each_colour(network: StackNetwork) -> list[Part]:
    """The parts of one colour each."""
    return [(colour, colour + 1) for colour in range(network.planes)]


def features_of(part: Part, features: int, groups: int) -> slice:
    """The features of a map that belong to a part."""
    starts = colour_starts(features, groups)
    return slice(starts[part[0]], starts[part[1]])


def own_inputs(product: Product, part: Part, groups: int) -> int:
    """How many features of the own pixel a part sees: those up to its last colour, of mask A up to the one before."""
    if product.mask == "none":
        return 0
    if product.mask == "all":
        return product.inputs
    return colour_starts(product.inputs, groups)[part[1] - (product.mask == "A")]


def matrix(product: Product, weight: NDArray[np.int8], part: Part, groups: int) -> NDArray[np.int8]:
    """(outputs, inputs) of a part, cut from the stored weights."""
    if product.repeated:
        weight = np.hstack([weight] * (len(product.taps) + 1))
    inputs = product.conditioning + len(product.taps) * product.inputs + own_inputs(product, part, groups)
    return np.ascontiguousarray(weight[output_rows(product, part, groups), :inputs])


def output_rows(product: Product, part: Part, groups: int) -> NDArray[np.int64]:
    """Which outputs of the stored arrays belong to a part: its features of every gate."""
    one = np.arange(product.outputs)[features_of(part, product.outputs, groups)]
    return np.concatenate([one + gate * product.outputs for gate in range(product.gates)])


def exact_pieces(weight: NDArray[np.int8], largest: int) -> list[slice]:
    """Ranges of inputs, in each of which largest * sum|w| < 2^24 for every output: exact in float32."""
    magnitude = largest * np.abs(weight.astype(np.int64))
    if magnitude.sum(axis=1).max() < _EXACT:
        return [slice(0, weight.shape[1])]
    pieces, start, total = [], 0, np.zeros(len(weight), dtype=np.int64)
    for k in range(weight.shape[1]):
        if (total + magnitude[:, k]).max() >= _EXACT:
            pieces.append(slice(start, k))
            start, total = k, np.zeros_like(total)
        total += magnitude[:, k]
    return [*pieces, slice(start, weight.shape[1])]


class Buffers:
    """Memory that the products of a network share: each call views the beginning of a buffer as its own shape.

    A product's inputs and result hold until the next call of its role. Products ask for their sizes when they are made;
    no view is taken before all are.
    """

    def __init__(self) -> None:
        self._flat: dict[str, NDArray[Any]] = {}

    def reserve(self, role: str, dtype: type, rows: int, columns: int) -> None:
        """Make the buffer of a role at least so large."""
        if role not in self._flat or self._flat[role].size < rows * columns:
            self._flat[role] = np.zeros(rows * columns, dtype=dtype)

    def view(self, role: str, rows: int, columns: int) -> NDArray[Any]:
        """The first rows * columns entries as a contiguous matrix."""
        return self._flat[role][: rows * columns].reshape(rows, columns)


class PartProduct:
    """One part of one product on an engine: gather inputs, multiply, read int32 accumulators (rows, outputs).

    ``addend``, ``shift`` and ``left`` are those of the part's outputs, as the kernels take them; ``own`` says how many
    features of the own pixel it sees.
    """

    def __init__(
        self, network: StackNetwork, product: Product, part: Part, engine: str, rows: int, buffers: Buffers
    ) -> None:
        arrays, groups = network.arrays, network.planes
        self.product = product
        self.own = own_inputs(product, part, groups)
        chosen = output_rows(product, part, groups)
        weight = matrix(product, arrays[f"{product.name}.weight"], part, groups)
        self.outputs, self.inputs = weight.shape
        none = np.zeros(self.outputs, dtype=np.int32)
        self.addend, self.shift, self.left = none, none, none
        if product.mask != "none":
            self.shift = arrays[f"{product.name}.shift"][chosen].astype(np.int32)
            self.addend = shifts.addend(arrays[f"{product.name}.bias"][chosen], self.shift)
        if (left := arrays.get(f"{product.name}.left")) is not None:
            self.left = left[chosen].astype(np.int32)
        # the results of an input-to-state and a state-to-state product are needed at the same time
        last = product.name.rpartition(".")[2]
        role = last if last in ("is", "ss") else "result"
        make = _Int8 if engine == "int8" else _Float32
        self._multiply = make(weight, product.largest, padded_rows(rows), role, buffers)

    def source(self, m: int) -> Map:
        """Where a gathering kernel writes m rows of inputs; columns from ``inputs`` on are for padding."""
        return self._multiply.source(m)

    def __call__(self, taps: Sequence[Map] = (), own: Map | None = None, conditioning: Map | None = None) -> Ints:
        """Neighbours' features at the product's taps and the own pixel's, each (m, features) → (m, outputs).

        conditioning (m, features): where the product has such inputs.
        """
        parts = list(taps) if own is None else [*taps, own[:, : self.own]]
        if self.product.conditioning and conditioning is not None:
            parts = [conditioning, *parts]
        m, at = len(parts[0]), 0
        source = self.source(m)
        for values in parts:
            source[:, at : at + values.shape[1]] = values
            at += values.shape[1]
        if at != self.inputs:
            raise AssertionError(f"{self.product.name}: {at} inputs, {self.inputs} wanted")
        return self.multiplied(m)

    def multiplied(self, m: int) -> Ints:
        """The product of the first m rows of source: (m, outputs), valid until the next product of its role."""
        return self._multiply(m)


class _Float32:
    """numpy's float32 product, in pieces that are exact and are added as int32."""

    def __init__(self, weight: NDArray[np.int8], largest: int, rows: int, role: str, buffers: Buffers) -> None:
        self._outputs, self._inputs = weight.shape
        self._role, self._buffers = role, buffers
        pieces = exact_pieces(weight, largest)
        self._pieces = [(p, np.ascontiguousarray(weight[:, p].T, dtype=np.float32)) for p in pieces]
        buffers.reserve("source", np.int8, rows, self._inputs)
        buffers.reserve("real", np.float32, rows, max(p.stop - p.start for p in pieces))
        buffers.reserve("product", np.float32, rows, self._outputs)
        buffers.reserve(role, np.int32, rows, self._outputs)

    def source(self, m: int) -> Map:
        return self._buffers.view("source", m, self._inputs)

    def __call__(self, m: int) -> Ints:
        size, view = padded_rows(m), self._buffers.view
        out: Ints = view(self._role, m, self._outputs)
        product, source = view("product", size, self._outputs), self.source(m)
        for number, (piece, weight) in enumerate(self._pieces):
            real = view("real", size, piece.stop - piece.start)
            real[:m] = source[:, piece]
            np.matmul(real, weight, out=product)
            if number == 0:
                out[:] = product[:m]
            else:
                out += product[:m].astype(np.int32)
        return out


class _Int8:
    """The product on integer instructions; inputs are filled up to a multiple of 4 with weights of 0."""

    def __init__(self, weight: NDArray[np.int8], largest: int, rows: int, role: str, buffers: Buffers) -> None:
        self._outputs, inputs = weight.shape
        self._role, self._buffers = role, buffers
        self._inputs, self._width = -(-inputs // 4) * 4, padded(self._outputs)
        filled = np.zeros((self._outputs, self._inputs), dtype=np.int8)
        filled[:, :inputs] = weight
        self._weight = pack(filled, "int8")
        buffers.reserve("source", np.int8, rows + SLACK, self._inputs)
        buffers.reserve("wide", np.int32, rows + SLACK, self._inputs)
        buffers.reserve("product", np.int32, rows + SLACK, self._width)
        buffers.reserve(role, np.int32, rows, self._outputs)

    def source(self, m: int) -> Map:
        return self._buffers.view("source", m, self._inputs)

    def __call__(self, m: int) -> Ints:
        view = self._buffers.view
        acc, out = view("product", m, self._width), view(self._role, m, self._outputs)
        multiply(self.source(m), self._weight, m, view("wide", m + SLACK, self._inputs).reshape(-1), acc)
        out[:] = acc[:, : self._outputs]
        return out
