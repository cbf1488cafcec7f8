"""A trunk's weights → those of a larger trunk that computes the same function.

New channels of the residual stream begin empty: nothing writes into them. New units, of a convolution's hidden layer,
an LSTM or a head, begin unheard: nothing that was there reads them. New blocks stand after those that were there and
begin by adding nothing. Every other new weight is random as in a new network, so that gradients reach all of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from pixzip.errors import TrainingError
from pixzip.nets.trunk import TrunkConfig, TrunkModel


@dataclass(frozen=True)
class _Side:
    """The rows or the columns of a parameter: ``parts`` times as many as the field ``size`` of TrunkConfig says.

    Without ``size`` they are as many in every trunk.
    """

    size: str = ""
    parts: int = 1

    def kept(self, count: int, old: TrunkConfig, new: TrunkConfig) -> Tensor:
        """(count,) bool: which of the larger parameter's rows, or columns, the smaller one has."""
        if not self.size:
            return torch.ones(count, dtype=torch.bool)
        return (torch.arange(getattr(new, self.size)) < getattr(old, self.size)).repeat(self.parts)


_FIXED, _CHANNELS, _HIDDEN, _LSTM, _HEAD = _Side(), _Side("channels"), _Side("hidden"), _Side("lstm"), _Side("head")
_GATES = _Side("lstm", 4)
#: Rows and columns of every parameter, a vector being one row; taps and gates stand one after another.
_SIDES = {
    "w_in": (_FIXED, _CHANNELS),
    "b_in": (_FIXED, _CHANNELS),
    "blocks.w1": (_Side("channels", 5), _HIDDEN),
    "blocks.b1": (_FIXED, _HIDDEN),
    "blocks.w2": (_HIDDEN, _CHANNELS),
    "blocks.b2": (_FIXED, _CHANNELS),
    "blocks.w_is": (_Side("channels", 2), _GATES),
    "blocks.w_ss": (_Side("lstm", 3), _GATES),
    "blocks.b": (_FIXED, _GATES),
    "blocks.w_up": (_LSTM, _CHANNELS),
    "blocks.b_up": (_FIXED, _CHANNELS),
    "heads.w": (_CHANNELS, _HEAD),
    "heads.b": (_FIXED, _HEAD),
    "heads.p": (_FIXED, _HEAD),
    "heads.v": (_HEAD, _FIXED),
    "heads.c": (_FIXED, _FIXED),
}


def grown(model: TrunkModel, config: TrunkConfig, seed: int = 0) -> TrunkModel:
    """A trunk of a configuration at least as large, whose logits are the model's; new weights are drawn from seed.

    Raises TrainingError, naming the field, for a configuration that is smaller somewhere or whose blocks do not begin
    with the model's.
    """
    _check_larger(model.config, config)
    larger = TrunkModel(config, seed)
    old = dict(model.named_parameters())
    with torch.no_grad():
        for name, p in larger.named_parameters():
            if name in old:
                _widen(p, old[name], _SIDES[_kind(name)], (model.config, config))
            elif _kind(name) in ("blocks.w2", "blocks.w_up"):
                p.zero_()  # with its bias of 0 the block adds nothing
    return larger


def _check_larger(old: TrunkConfig, new: TrunkConfig) -> None:
    for field in dataclasses.fields(TrunkConfig):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if field.name == "blocks" and not now.startswith(was):
            raise TrainingError(f"blocks {now!r}: must begin with {was!r}, the blocks that the weights are of")
        if field.name != "blocks" and now < was:
            raise TrainingError(f"{field.name} {now}: must be at least {was}, which the weights are of")


def _kind(name: str) -> str:
    """A parameter's name without the number of its block or head."""
    parts = name.split(".")
    return ".".join(part for part in parts if not part.isdigit())


def _widen(p: Tensor, old: Tensor, sides: tuple[_Side, _Side], configs: tuple[TrunkConfig, TrunkConfig]) -> None:
    """Put the weights of a smaller trunk into a new, larger one's, in place; what would change the function is 0."""
    matrix, small = (t if t.dim() == 2 else t[None] for t in (p, old))
    rows, columns = (side.kept(count, *configs) for side, count in zip(sides, matrix.shape, strict=True))
    matrix[rows[:, None] & columns] = small.reshape(-1)
    if sides[0].size != "channels":  # new rows are new units; new channels are 0 and may be read
        matrix[~rows[:, None] & columns] = 0
    if sides[1].size == "channels":
        matrix[:, ~columns] = 0
