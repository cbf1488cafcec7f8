"""Float network → the power-of-two scales of its integer form.

A quantity v with exponent e is held as the integer v * 2^e, rounded by floor(x + 1/2) and saturated.

Exponents of activations are calibrated once, after the float phase, and stay fixed while the network is fine-tuned on
its own integers. Exponents of weights, one for each output of a product, are a function of the weights: training takes
them anew from the current weights in every step, freezing from the last ones. So no weight ever saturates, however it
grows, no bit is kept free for growth, and no output can pass the bound of 2^24; when an output's largest weight passes
a power of two its grid changes by a factor of two, which moves its weights by less than the rounding that they have
anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pixzip.model.file import ARITHMETIC

#: Exponents that the arithmetic fixes (docs/model-format.md, section 3).
INPUT = 5
STATE = 7
GATE_INDEX = 7
GATE = 12
LOGIT = 6
#: Largest integers of activations: signed ones, and hidden layers after ReLU.
SIGNED = 127
HIDDEN = 255
#: Limits of the model file: right shifts, left shifts of a Row LSTM layer's products, and the bound of an output less
#: what rounding up to 5 * 1024 weights and a few biases can add to it.
MOST_SHIFT = 24
MOST_LEFT = 5
SINGLE_PRODUCT = float(2**24 - 2**19)


def best_exponent(values: Tensor, largest: int = SIGNED, lowest: int = -4, highest: int = 12) -> int:
    """The exponent with the least mean squared error of values held in -127 .. largest."""
    flat = values.detach().float().reshape(-1)
    errors = []
    for e in range(lowest, highest + 1):
        held = torch.clamp(torch.floor(flat * 2.0**e + 0.5), -SIGNED, largest) * 2.0**-e
        errors.append(float(((held - flat) ** 2).mean()))
    return lowest + errors.index(min(errors))


def _finest(limit: float, values: Tensor) -> Tensor:
    """The largest integers e (int32) with values * 2^e < limit; values at least 0, float64."""
    mantissa, exponent = torch.frexp(limit / values.clamp_min(2.0**-40))  # mantissa in 1/2 .. 1
    return exponent - 1 - (mantissa == 0.5).int()


def weight_exponents(
    w: Tensor, beside: Tensor | None, x: int, largest: int, out: int, most: float = SINGLE_PRODUCT
) -> Tensor:
    """Exponents (outputs,) of w (inputs, outputs): the finest at which no weight is cut and no output reaches ``most``.

    x is the exponent of the inputs, SIGNED or HIDDEN their largest integer, out the exponent of the result, beside
    (outputs,) the largest magnitude of what is added to the product (bias, tables). The right shift x + e - out to the
    result's grid stays within 0 .. 24: where that asks for a finer grid than the weights fit, they are cut.
    """
    magnitude = w.detach().double().abs()
    # A hidden layer is held less 128, which its bias gives back: 128 * sum|w| twice.
    reach = magnitude.sum(0) * (largest + 1) * 2.0**-x
    if beside is not None:
        reach += beside.detach().double().abs()
    e = torch.minimum(_finest(SIGNED + 0.5, magnitude.amax(0)), _finest(most, reach * 2.0**x))
    return e.clamp_(out - x, MOST_SHIFT + out - x)


def gate_exponents(
    w_is: Tensor, w_ss: Tensor, bias: Tensor, a: int, most: float = SINGLE_PRODUCT
) -> tuple[Tensor, Tensor]:
    """Exponents (outputs,) of a Row LSTM layer's input-to-state and state-to-state weights.

    The sum of both products is on the finer of their grids; the coarser product is shifted left by at most 5.
    """
    e_is = weight_exponents(w_is, bias, a, SIGNED, GATE_INDEX, most)
    e_ss = weight_exponents(w_ss, bias, STATE, SIGNED, GATE_INDEX, most)
    ahead = a + e_is - STATE - e_ss
    return e_is - (ahead - MOST_LEFT).clamp_min(0), e_ss - (-ahead - MOST_LEFT).clamp_min(0)


@dataclass(frozen=True)
class ConvExponents:
    """Of a convolution block: its input a, its hidden layer h."""

    a: int
    h: int


@dataclass(frozen=True)
class LstmExponents:
    """Of a Row LSTM layer: its input a."""

    a: int


@dataclass(frozen=True)
class HeadExponents:
    """Of a colour head: its hidden layer h."""

    h: int


#: Where an exponent stands: ``feature``, or block or head, its number, and ``a`` or ``h``.
Path = tuple[str, int, str]


@dataclass(frozen=True)
class Exponents:
    """Of the activations of a whole trunk-and-heads model; ``feature`` is the heads' common input."""

    stream: int
    feature: int
    blocks: tuple[ConvExponents | LstmExponents, ...]
    heads: tuple[HeadExponents, ...]

    def to_json(self) -> dict[str, object]:
        """Plain numbers for a checkpoint."""
        return {
            "arithmetic": ARITHMETIC,
            "stream": self.stream,
            "feature": self.feature,
            "blocks": [vars(b) for b in self.blocks],
            "heads": [vars(h) for h in self.heads],
        }

    def paths(self) -> list[Path]:
        """All exponents but the stream's, in the order of execution."""
        blocks = [("blocks", i, key) for i, b in enumerate(self.blocks) for key in vars(b)]
        return [*blocks, ("feature", 0, ""), *(("heads", c, "h") for c in range(len(self.heads)))]

    def changed(self, path: Path, by: int) -> Exponents | None:
        """With one exponent changed; None where an activation would be finer than the stream it is taken from."""
        group, i, key = path
        if group == "feature":
            new = replace(self, feature=self.feature + by)
        else:
            parts: list[Any] = list(getattr(self, group))
            parts[i] = replace(parts[i], **{key: getattr(parts[i], key) + by})
            new = replace(self, blocks=tuple(parts)) if group == "blocks" else replace(self, heads=tuple(parts))
        finest = max(new.feature, *(b.a for b in new.blocks))
        return new if finest <= self.stream else None

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Exponents | None:
        """Inverse of to_json; None for exponents of another arithmetic version, which are to be calibrated anew."""
        if data.get("arithmetic") != ARITHMETIC:
            return None
        blocks = [ConvExponents(b["a"], b["h"]) if "h" in b else LstmExponents(b["a"]) for b in data["blocks"]]
        heads = [HeadExponents(h["h"]) for h in data["heads"]]
        return Exponents(int(data["stream"]), int(data["feature"]), tuple(blocks), tuple(heads))


def stream_exponent(largest: float) -> int:
    """Finest exponent, at most 9, at which twice the largest value seen fits 16 bits."""
    e = 9
    while 2 * largest * 2.0**e > 32767:
        e -= 1
    return e


def calibrate(kinds: str, seen: Mapping[str, Tensor]) -> Exponents:
    """Choose the exponents from samples of named activations.

    seen holds ``stream`` (absolute values), ``block.i.a``, ``block.i.h``, ``feature`` and ``head.c.h``.
    """
    stream = stream_exponent(float(seen["stream"].max()))
    blocks: list[ConvExponents | LstmExponents] = []
    for i, kind in enumerate(kinds):
        a = min(best_exponent(seen[f"block.{i}.a"]), stream)
        if kind == "c":
            blocks.append(ConvExponents(a, best_exponent(seen[f"block.{i}.h"], HIDDEN)))
        else:
            blocks.append(LstmExponents(a))
    feature = min(best_exponent(seen["feature"]), stream)
    heads = tuple(HeadExponents(best_exponent(seen[f"head.{c}.h"], HIDDEN)) for c in range(3))
    return Exponents(stream, feature, tuple(blocks), heads)
