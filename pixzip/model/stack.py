"""A frozen network of the paper: its products with their taps and colour groups, its arrays, the checks of its file.

docs/model-format.md, sections 7 and 8. Everything else follows from the list of products: the arrays of a file, which
weights a mask hides, the bounds, the edges that decide the order of coding, and what each colour's sub-step computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixzip.errors import ModelError
from pixzip.model.checks import (
    LARGEST,
    LARGEST_HIDDEN,
    Arrays,
    Shapes,
    check_shapes,
    check_shifts,
    check_tables,
    list_of,
    object_with,
    product_arrays,
    shift_of,
    shown,
    table_arrays,
)

ARCHITECTURES = ("pixelcnn", "row_lstm", "diagonal_bilstm")
#: Kind of pictures → planes, which are the colour groups of every map.
PLANES = {"binary": 1, "gray": 1, "rgb": 3}
#: (dy, dx) of the first layer's 7×7 window that precede the pixel; the pixel's own earlier colours follow them.
WINDOW = tuple((dy, dx) for dy in range(-3, 1) for dx in range(-3, 4) if (dy, dx) < (0, 0))
#: Exponents of the inputs: value - 128, coding error, or -64 and 64 of a binary picture, all times 2^-6.
BINARY_INPUT = 64
MAX_LAYERS = 64
MAX_H = 1024
MAX_HEAD = 4096
#: What an output of a product may reach: sums stay in int32 with room for rounding; the two of an LSTM are shifted.
_MOST = 1 << 30
_INT32 = 1 << 31
_KEYS = ("pictures", "frame", "layers", "h", "head", "residual", "skip", "shifts")

#: What an output sees at its own pixel. A: earlier colours; B: its own too; all: every feature; none: nothing.
Mask = Literal["A", "B", "all", "none"]


def colour_starts(features: int, groups: int) -> list[int]:
    """First feature of each colour, and the number of all: feature k of F has colour floor(groups * k / F)."""
    return [-(-colour * features // groups) for colour in range(groups + 1)]


@dataclass(frozen=True)
class Product:
    """One matrix product: taps are earlier pixels, all of whose features are seen; then the own pixel, as mask says.

    outputs are those of one of ``gates`` equal maps, o, f, i, g; inputs those of a tap. largest is the largest
    magnitude of an input. repeated: all taps and the own pixel have the same weights, stored once. conditioning:
    features of a conditioning map at the pixel, all of which every output sees; they stand first in a row of inputs.
    """

    name: str
    inputs: int
    outputs: int
    mask: Mask
    taps: tuple[tuple[int, int], ...] = ()
    largest: int = LARGEST
    gates: int = 1
    repeated: bool = False
    conditioning: int = 0

    @property
    def positions(self) -> int:
        """Pixels whose features stand side by side in a row of inputs."""
        return 1 if self.repeated else len(self.taps) + (self.mask != "none")

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs) of the stored weights."""
        return self.gates * self.outputs, self.conditioning + self.positions * self.inputs

    def hidden_weights(self, groups: int) -> NDArray[np.bool_]:
        """Where the mask lets no weight through: the shape of the weights."""
        hidden = np.zeros(self.shape, dtype=bool)
        if self.mask in ("A", "B"):
            seen = groups * np.arange(self.inputs) // self.inputs
            own = np.tile(groups * np.arange(self.outputs) // self.outputs, self.gates)[:, None]
            hidden[:, -self.inputs :] = seen >= own if self.mask == "A" else seen > own
        return hidden


@dataclass(frozen=True, eq=False)
class StackNetwork:
    """What a decoder executes of a pixelcnn, row_lstm or diagonal_bilstm; checked.

    Right shifts of the residual stream to the input of each layer, of its skip connection, and of the head; all others
    are arrays.
    """

    architecture: str
    pictures: str
    frame: str
    layers: int
    h: int
    head: int
    residual: bool
    skip: bool
    layer_shifts: tuple[int, ...] = ()
    skip_shifts: tuple[int, ...] = ()
    head_shift: int = 0
    arrays: Arrays = field(default_factory=dict)
    #: Features of the conditioning map that biases every layer, 0 for none: the large network of a Multi-Scale one.
    conditioning: int = 0

    @property
    def planes(self) -> int:
        """Planes of a picture as the drivers take it: the colour groups of every map."""
        return PLANES[self.pictures]

    @property
    def symbols(self) -> int:
        """Values of a sub-pixel."""
        return 2 if self.pictures == "binary" else 256

    @property
    def inputs(self) -> int:
        """Input features of a pixel, plane by plane: the value, and the coding error in the residual frame."""
        return self.planes * (2 if self.frame == "residual" else 1)

    @property
    def outputs(self) -> int:
        """Logits of a pixel; binary pictures have that of a 1 only."""
        return 1 if self.pictures == "binary" else 256 * self.planes

    @cached_property
    def products(self) -> dict[str, Product]:
        """All products by name, in the order of the file."""
        return {p.name: p for p in self._products()}

    def _products(self) -> Iterator[Product]:
        wide = 2 * self.h
        yield Product("first", self.inputs, wide, "A", WINDOW, largest=LARGEST_HIDDEN)
        for i in range(self.layers):
            if self.skip:
                yield Product(f"layer.{i}.skip", wide, wide, "B")
            layer = {"pixelcnn": self._pixelcnn, "row_lstm": self._row_lstm, "diagonal_bilstm": self._diagonal}
            yield from layer[self.architecture](f"layer.{i}")
        for name, inputs, outputs in (
            ("one", wide, self.head),
            ("two", self.head, self.head),
            ("last", self.head, self.outputs),
        ):
            yield Product(f"head.{name}", inputs, outputs, "B", largest=LARGEST_HIDDEN)

    def _pixelcnn(self, name: str) -> Iterator[Product]:
        h, above = self.h, ((-1, -1), (-1, 0), (-1, 1), (0, -1))
        yield Product(f"{name}.down", 2 * h, h, "B", largest=LARGEST_HIDDEN)
        yield Product(f"{name}.middle", h, h, "B", above, largest=LARGEST_HIDDEN, conditioning=self.conditioning)
        yield Product(f"{name}.up", h, 2 * h, "B", largest=LARGEST_HIDDEN)

    def _row_lstm(self, name: str) -> Iterator[Product]:
        h = self.h
        yield Product(f"{name}.is", 2 * h, h, "B", ((0, -1),), gates=4, conditioning=self.conditioning)
        yield Product(f"{name}.ss", h, h, "none", ((-1, -1), (-1, 0), (-1, 1)), gates=4)
        yield Product(f"{name}.up", h, 2 * h, "B")

    def _diagonal(self, name: str) -> Iterator[Product]:
        h, conditioning = self.h, self.conditioning
        yield Product(f"{name}.left_to_right.is", 2 * h, h, "B", gates=4, conditioning=conditioning)
        yield Product(f"{name}.left_to_right.ss", h, h, "none", ((-1, 0), (0, -1)), gates=4)
        yield Product(f"{name}.right_to_left.is", 2 * h, h, "all", gates=4, conditioning=conditioning)
        yield Product(f"{name}.right_to_left.ss", h, h, "none", ((-1, 0), (0, 1)), gates=4)
        # the right-to-left states of the row above, and the own left-to-right ones: their sum times one weight
        yield Product(f"{name}.up", h, 2 * h, "B", ((-1, 0),), largest=2 * LARGEST, repeated=True)

    @property
    def recurrences(self) -> list[str]:
        """Names of the LSTMs, whose arrays begin with them."""
        return [name.removesuffix(".ss") for name in self.products if name.endswith(".ss")]

    def edges(self, width: int) -> Iterator[tuple[int, int]]:
        """(dy, dx) of everything that a pixel of a picture of this width reads; dy is -1 at least where dx > 0.

        A right-to-left map is read one row up, where it has seen that whole row.
        """
        for product in self.products.values():
            if ".right_to_left." in product.name:
                yield -1, width - 1
            else:
                yield from product.taps
        if self.frame == "residual":
            yield from ((-1, -1), (-1, 0), (0, -1))

    @property
    def learns(self) -> bool:
        """Whether the network can learn from what it has coded: none of these does."""
        return False

    def slope_at(self, width: int) -> int:
        """Steps per row of the wavefront in pictures of this width, from the edges."""
        from pixzip.coding.schedule import slope_of  # compiled code: reading a model needs none

        return slope_of(self.edges(width))

    def macs_per_pixel(self) -> int:
        """Multiply-accumulates of one pixel; weights that a mask hides do not count."""
        groups = self.planes
        return sum(int((~p.hidden_weights(groups)).sum()) for p in self.products.values())

    def refusal(self, colours: int, depth: int) -> str | None:
        """Why this network codes no pictures of so many colours and bits a sample, 8 at most; None where it does."""
        if self.pictures == "binary":
            return None if (colours, depth) == (1, 1) else "codes pictures of one plane of 1 bit"
        return "codes pictures of one plane" if colours > self.planes else None


def paper_arrays(config: Mapping[str, Any], conditioning: int = 0) -> Shapes:
    """Name → (shape, dtype) of every array of one of the paper's networks; weights are (outputs, inputs)."""
    network = sizes_of(config, conditioning)
    out = table_arrays()
    for product in network.products.values():
        out |= product_arrays(product.name, product.shape, rounded=product.mask != "none")
    for name in network.recurrences:
        for part in ("is", "ss"):
            out[f"{name}.{part}.left"] = ((4 * network.h,), "I8")
        out |= {f"{name}.h0": ((network.h,), "I8"), f"{name}.c0": ((network.h,), "I32")}
    return out


def sizes_of(config: Mapping[str, Any], conditioning: int = 0) -> StackNetwork:
    """A network without its integers, from a configuration. Raises ModelError, naming the field."""
    object_with(config, "config", ("architecture", *_KEYS))
    choices = {"architecture": ARCHITECTURES, "pictures": tuple(PLANES), "frame": ("raw", "residual")}
    for key, allowed in choices.items():
        if config[key] not in allowed:
            raise ModelError(f"{key} is {shown(config[key])}, allowed are {', '.join(allowed)}")
    if config["pictures"] == "binary" and config["frame"] != "raw":
        raise ModelError("frame is 'residual', binary pictures have raw")
    groups = PLANES[config["pictures"]]
    for key, least, most in (("layers", 1, MAX_LAYERS), ("h", groups, MAX_H), ("head", groups, MAX_HEAD)):
        value = config[key]
        if type(value) is not int or not least <= value <= most:
            raise ModelError(f"{key} is {shown(value)}, allowed are {least} to {most}")
    for key in ("residual", "skip"):
        if type(config[key]) is not bool:
            raise ModelError(f"{key} is {shown(config[key])}, must be true or false")
    return StackNetwork(**{key: config[key] for key in ("architecture", *_KEYS[:-1])}, conditioning=conditioning)


def read_paper(config: Mapping[str, Any], arrays: Arrays, conditioning: int = 0) -> StackNetwork:
    """Check sizes, shapes, shifts, masks and bounds, in this order. Raises ModelError.

    conditioning: features of the map that biases the layers, of the large network of a Multi-Scale one.
    """
    network = sizes_of(config, conditioning)
    check_shapes(paper_arrays(config, conditioning), arrays)
    shifts = object_with(config["shifts"], "shifts", ["layers", "skips", "head"])
    skips = network.layers if network.skip else 0
    network = StackNetwork(
        **{key: config[key] for key in ("architecture", *_KEYS[:-1])},
        layer_shifts=tuple(shift_of(n) for n in list_of(shifts["layers"], "layers", network.layers)),
        skip_shifts=tuple(shift_of(n) for n in list_of(shifts["skips"], "skips", skips)),
        head_shift=shift_of(shifts["head"]),
        arrays=arrays,
        conditioning=conditioning,
    )
    check_tables(arrays)
    for name in arrays:
        check_shifts(name, arrays)
    for product in network.products.values():
        _check_weights(product, network)
    for name in network.recurrences:
        _check_recurrence(name, network)
    return network


def reach(product: Product, weight: NDArray[np.int8]) -> NDArray[np.int64]:
    """Of each output the most that its product can be: largest * sum|w|."""
    total: NDArray[np.int64] = product.largest * np.abs(weight.astype(np.int64)).sum(axis=1)
    return total


def _check_weights(product: Product, network: StackNetwork) -> None:
    """|w| <= 127, 0 where the mask hides, and every output within 2^30."""
    name, arrays = product.name, network.arrays
    weight = arrays[f"{name}.weight"]
    if weight.min() == -128:
        raise ModelError(f"{name}.weight holds -128")
    if weight[product.hidden_weights(network.planes)].any():
        raise ModelError(f"{name}.weight: a weight that mask {product.mask} hides is not 0")
    bound = reach(product, weight)
    if product.mask != "none":
        bound = bound + np.abs(arrays[f"{name}.bias"].astype(np.int64))
    if bound.max() >= _MOST:
        worst = int(bound.argmax())
        raise ModelError(f"{name}.weight: output {worst} can reach {int(bound[worst])}, the limit is 2^30")


def _check_recurrence(name: str, network: StackNetwork) -> None:
    """The gates' sums within int32, and the range of the state before the first step."""
    arrays = network.arrays
    total = np.abs(arrays[f"{name}.is.bias"].astype(np.int64)) + (1 << arrays[f"{name}.is.shift"].astype(np.int64))
    for part in ("is", "ss"):
        product = network.products[f"{name}.{part}"]
        total += reach(product, arrays[f"{product.name}.weight"]) << arrays[f"{product.name}.left"].astype(np.int64)
    if total.max() >= _INT32:
        worst = int(total.argmax())
        raise ModelError(f"{name}: gate {worst} can reach {int(total[worst])}, the limit is 2^31")
    if arrays[f"{name}.h0"].min() == -128 or np.abs(arrays[f"{name}.c0"].astype(np.int64)).max() > 65535:
        raise ModelError(f"{name}: the state before the first step is out of range")
