"""The paper's layers as loops over pixels, features and taps, in float64, written from its equations and figures.

Nothing here comes from pixzip.nets: masks are decided tap by tap, cells are looked up by picture coordinates (no skew),
and every feature's colour is found by counting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def colour_of(feature: int, features: int, groups: int) -> int:
    """The group whose share [g F / 3, (g + 1) F / 3) of the features holds this one."""
    return next(g for g in range(groups) if g * features <= groups * feature < (g + 1) * features)


def keeps(mask: str, dy: int, dx: int, seen: int, own: int) -> bool:
    """Whether a weight at tap (dy, dx) between these colours is kept."""
    if (dy, dx) < (0, 0):
        return True
    if (dy, dx) > (0, 0):
        return False
    return {"A": seen < own, "B": seen <= own, "all": True}[mask]


def taps_of(kernel: tuple[int, int]) -> list[tuple[int, int]]:
    """All taps of a centred kernel, those after the centre too."""
    above, beside = kernel[0] // 2, kernel[1] // 2
    return [(dy, dx) for dy in range(-above, above + 1) for dx in range(-beside, beside + 1)]


def conv(
    x: Array, weight: Array, bias: Array, mask: str, kernel: tuple[int, int], groups: int, gates: int = 1
) -> Array:
    """Masked convolution of x (h, w, i); weight (o, i, rows, columns) as stored, its last row that of the centre.

    gates: the outputs are so many maps, each with its own colour groups.
    """
    height, width, inputs = x.shape
    outputs = weight.shape[0]
    above, beside = kernel[0] // 2, kernel[1] // 2
    out = np.tile(bias, (height, width, 1))
    for dy, dx in taps_of(kernel):
        kept = np.zeros((outputs, inputs))
        for o in range(outputs):
            for i in range(inputs):
                own = colour_of(o % (outputs // gates), outputs // gates, groups)
                if keeps(mask, dy, dx, colour_of(i, inputs, groups), own):
                    kept[o, i] = weight[o, i, dy + above, dx + beside]
        for y in range(height):
            for at in range(width):
                if 0 <= y + dy < height and 0 <= at + dx < width:
                    out[y, at] += kept @ x[y + dy, at + dx]
    return out


def sigmoid(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


def cell(pre: Array, c_before: Array) -> tuple[Array, Array]:
    """Equation 3: (c, h) from the summed input-to-state and state-to-state, gates in the order o, f, i, g."""
    o, f, i, g = np.split(pre, 4)
    c = sigmoid(f) * c_before + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def row_states(gates: Array, ss: Array, h0: Array, c0: Array) -> Array:
    """Hidden states of a Row LSTM: gates (h, w, 4k) is part; ss (3k, 4k)."""
    height, width, _ = gates.shape
    h: dict[tuple[int, int], Array] = {(-1, x): h0 for x in range(width)}
    c: dict[tuple[int, int], Array] = {(-1, x): c0 for x in range(width)}
    nothing = np.zeros_like(h0)
    for y in range(height):
        for x in range(width):
            above = np.concatenate([h.get((y - 1, x + d), nothing) for d in (-1, 0, 1)])
            c[y, x], h[y, x] = cell(gates[y, x] + above @ ss, c[y - 1, x])
    return np.array([[h[y, x] for x in range(width)] for y in range(height)])


def diagonal_states(gates: Array, ss: Array, h0: Array, c0: Array, backwards: bool) -> Array:
    """Hidden states of one direction of a Diagonal BiLSTM: ss (2k, 4k) for the upper neighbour, then the one beside."""
    height, width, _ = gates.shape
    h: dict[tuple[int, int], Array] = {}
    c: dict[tuple[int, int], Array] = {}
    step = 1 if backwards else -1
    for y in range(height):
        for x in reversed(range(width)) if backwards else range(width):
            before = np.concatenate([h.get((y - 1, x), h0), h.get((y, x + step), h0)])
            c[y, x], h[y, x] = cell(gates[y, x] + before @ ss, c.get((y, x + step), c0))
    return np.array([[h[y, x] for x in range(width)] for y in range(height)])


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


class Naive:
    """The layers of a network of pixzip.nets, by its parameters (name → float64 array) and its configuration."""

    def __init__(self, parameters: dict[str, Any], architecture: str, config: Any) -> None:
        self.p, self.architecture, self.config = parameters, architecture, config
        self.groups = 3 if config.pictures == "rgb" else 1

    def conv(self, name: str, x: Array, mask: str, kernel: tuple[int, int] = (1, 1), gates: int = 1) -> Array:
        return conv(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"], mask, kernel, self.groups, gates)

    def condition(self, name: str, conditioning: Array | None) -> Array | float:
        """The bias of a conditioned layer: an unmasked product at each pixel."""
        if conditioning is None:
            return 0.0
        return conditioning @ self.p[f"{name}.weight"][:, :, 0, 0].T + self.p[f"{name}.bias"]

    def states(self, name: str, gates: Array) -> tuple[Array, Array, Array, Array]:
        return gates, self.p[f"{name}.state_to_state"], self.p[f"{name}.h0"], self.p[f"{name}.c0"]

    def pixelcnn(self, name: str, x: Array, conditioning: Array | None) -> Array:
        down = self.conv(f"{name}.down", relu(x), "B")
        middle = self.conv(f"{name}.middle", relu(down), "B", (3, 3))
        middle = middle + self.condition(f"{name}.condition", conditioning)
        return self.conv(f"{name}.up", relu(middle), "B")

    def row_lstm(self, name: str, x: Array, conditioning: Array | None) -> Array:
        gates = self.conv(f"{name}.input_to_state", x, "B", (1, 3), gates=4)
        gates = gates + self.condition(f"{name}.condition", conditioning)
        return self.conv(f"{name}.up", row_states(*self.states(name, gates)), "B")

    def diagonal_bilstm(self, name: str, x: Array, conditioning: Array | None) -> Array:
        maps = []
        for side, mask in (("left_to_right", "B"), ("right_to_left", "all")):
            gates = self.conv(f"{name}.{side}.input_to_state", x, mask, gates=4)
            gates = gates + self.condition(f"{name}.{side}.condition", conditioning)
            maps.append(diagonal_states(*self.states(f"{name}.{side}", gates), side == "right_to_left"))
        total = maps[0]
        total[1:] += maps[1][:-1]  # the right-to-left map one row down, zeros on top
        return self.conv(f"{name}.up", total, "B")

    def layer(self, index: int, x: Array, conditioning: Array | None = None) -> Array:
        """Layer index without the residual sum: x (h, w, 2h)."""
        kinds = {"pixelcnn": self.pixelcnn, "row_lstm": self.row_lstm, "diagonal_bilstm": self.diagonal_bilstm}
        return kinds[self.architecture](f"layers.{index}", x, conditioning)

    def outputs(self, inputs: Array, conditioning: Array | None = None) -> Array:
        """The whole network: inputs (h, w, i) → (h, w, outputs)."""
        x = self.conv("first", inputs, "A", (7, 7))
        skipped = 0
        for index in range(self.config.layers):
            if self.config.skip:
                skipped = skipped + self.conv(f"skips.{index}", x, "B")
            y = self.layer(index, x, conditioning)
            x = x + y if self.config.residual else y
        x = x + skipped
        for name in ("head.one", "head.two", "head.last"):
            x = self.conv(name, relu(x), "B")
        return x


def deconvolve(x: Array, weight: Array, bias: Array) -> Array:
    """Deconvolution by 2: x (h, w, i), weight (i, o, 4, 4): input (y, x) reaches outputs 2y - 1 .. 2y + 2."""
    height, width, _ = x.shape
    out = np.tile(bias, (2 * height, 2 * width, 1))
    for y in range(height):
        for at in range(width):
            for a in range(4):
                for b in range(4):
                    if 0 <= 2 * y + a - 1 < 2 * height and 0 <= 2 * at + b - 1 < 2 * width:
                        out[2 * y + a - 1, 2 * at + b - 1] += x[y, at] @ weight[:, :, a, b]
    return out
