"""Float network → the power-of-two scales of its integer form.

A quantity v with exponent e is held as the integer v * 2^e, rounded by floor(x + 1/2) and saturated. Exponents are
calibrated once, after the float phase, and stay fixed while the network is fine-tuned on its own integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

#: Exponents that the arithmetic fixes (docs/model-format.md, section 3).
INPUT = 5
STATE = 7
GATE_INDEX = 7
GATE = 12
LOGIT = 6


def best_exponent(values: Tensor, lowest: int = -4, highest: int = 12) -> int:
    """The exponent with the least mean squared error of values held in -127..127."""
    flat = values.detach().float().reshape(-1)
    errors = []
    for e in range(lowest, highest + 1):
        held = torch.clamp(torch.floor(flat * 2.0**e + 0.5), -127, 127) * 2.0**-e
        errors.append(float(((held - flat) ** 2).mean()))
    return lowest + errors.index(min(errors))


@dataclass(frozen=True)
class ConvExponents:
    """Of a convolution block: its input a, first weights w1, hidden layer h, second weights w2."""

    a: int
    w1: int
    h: int
    w2: int


@dataclass(frozen=True)
class LstmExponents:
    """Of a Row LSTM layer: its input a, input-to-state, state-to-state and up-projection weights."""

    a: int
    w_is: int
    w_ss: int
    w_up: int

    @property
    def gates(self) -> int:
        """Of the sum of both products: the finer of the two grids."""
        return max(self.a + self.w_is, STATE + self.w_ss)


@dataclass(frozen=True)
class HeadExponents:
    """Of a colour head: first weights w, hidden layer h, last weights v."""

    w: int
    h: int
    v: int


@dataclass(frozen=True)
class Exponents:
    """Of a whole trunk-and-heads model; ``feature`` is the heads' common input."""

    stream: int
    w_in: int
    feature: int
    blocks: tuple[ConvExponents | LstmExponents, ...]
    heads: tuple[HeadExponents, ...]

    def to_json(self) -> dict[str, object]:
        """Plain numbers for a checkpoint."""
        return {
            "stream": self.stream,
            "w_in": self.w_in,
            "feature": self.feature,
            "blocks": [vars(b) for b in self.blocks],
            "heads": [vars(h) for h in self.heads],
        }

    @staticmethod
    def from_json(data: Mapping[str, object]) -> Exponents:
        """Inverse of to_json."""
        blocks = [ConvExponents(**b) if "w1" in b else LstmExponents(**b) for b in data["blocks"]]  # type: ignore[attr-defined]
        heads = [HeadExponents(**h) for h in data["heads"]]  # type: ignore[attr-defined]
        return Exponents(int(data["stream"]), int(data["w_in"]), int(data["feature"]), tuple(blocks), tuple(heads))  # type: ignore[call-overload]


def stream_exponent(largest: float) -> int:
    """Finest exponent, at most 9, at which twice the largest value seen fits 16 bits."""
    e = 9
    while 2 * largest * 2.0**e > 32767:
        e -= 1
    return e


def calibrate(kinds: str, weights: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> Exponents:
    """Choose all exponents from named weights and from samples of named activations.

    seen holds ``stream`` (absolute values), ``block.i.a``, ``block.i.h``, ``feature`` and ``head.c.h``.
    """
    stream = stream_exponent(float(seen["stream"].max()))
    blocks: list[ConvExponents | LstmExponents] = []
    for i, kind in enumerate(kinds):
        a = min(best_exponent(seen[f"block.{i}.a"]), stream)
        if kind == "c":
            h = best_exponent(seen[f"block.{i}.h"])
            w1 = max(best_exponent(weights[f"blocks.{i}.w1"]), h - a)
            blocks.append(ConvExponents(a, w1, h, max(best_exponent(weights[f"blocks.{i}.w2"]), stream - h)))
        else:
            w_is, w_ss = best_exponent(weights[f"blocks.{i}.w_is"]), best_exponent(weights[f"blocks.{i}.w_ss"])
            w_up = max(best_exponent(weights[f"blocks.{i}.w_up"]), stream - STATE)
            blocks.append(LstmExponents(a, w_is, w_ss, w_up))
    feature = min(best_exponent(seen["feature"]), stream)
    heads = []
    for c in range(3):
        h = best_exponent(seen[f"head.{c}.h"])
        w = max(best_exponent(weights[f"heads.{c}.w"]), h - feature)
        heads.append(HeadExponents(w, h, max(best_exponent(weights[f"heads.{c}.v"]), LOGIT - h)))
    w_in = max(best_exponent(weights["w_in"]), stream - INPUT)
    return Exponents(stream, w_in, feature, tuple(blocks), tuple(heads))
