"""Row LSTM: each row is computed at once from the row above it, a triangular context (paper, section 3.1, table 1).

::

    is   . x-1 x      the layer's input in this row, mask B
    ss   x-1 x x+1    hidden states of the row above
    c        x        cell state of the row above
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixzip.nets.fused import is_fused
from pixzip.nets.fused_recurrence import FusedRecurrence, Places
from pixzip.nets.masked_conv import MaskedConv, batch_last
from pixzip.nets.masks import colours, gate_colours
from pixzip.nets.recurrence import Recurrence, Steps
from pixzip.nets.stack import Stack, StackConfig


def row_steps(height: int, width: int) -> Steps:
    """A step is a row: it reads the row above at x-1, x and x+1, and h = 0 beyond the first and last column."""
    return Steps(taps=(-1, 0, 1), inside=((0, width),) * height, learned_outside=False)


@dataclass(frozen=True)
class RowLstmConfig(StackConfig):
    """Section 4: twelve layers, h = 128 for CIFAR-10."""


class RowLstmLayer(nn.Module):
    """is 3×1 mask B 2h → 4h over the whole map; rows by equation 3; 1×1 mask B h → 2h (figure 5 right).

    Where conditioned, an unmasked 1×1 convolution of the conditioning map to 4h is added to the is map (section 3.6).
    """

    def __init__(self, config: StackConfig, conditioning: int, g: torch.Generator) -> None:
        super().__init__()
        h, groups = config.h, config.groups
        wide, gates = colours(2 * h, groups), gate_colours(h, groups)
        self.input_to_state = MaskedConv("B", wide, gates, g, kernel=(1, 3))
        with torch.no_grad():
            self.input_to_state.bias[h : 2 * h] = 1.0  # a forget gate that starts open
        #: Rows: hidden features of x-1, of x, of x+1; columns: gates o, f, i, g.
        self.state_to_state = nn.Parameter(torch.randn(3 * h, 4 * h, generator=g) / math.sqrt(3 * h))
        #: State at y = -1, in every column.
        self.h0, self.c0 = nn.Parameter(torch.zeros(h)), nn.Parameter(torch.zeros(h))
        self.up = MaskedConv("B", colours(h, groups), wide, g)
        self.condition = MaskedConv("all", (0,) * conditioning, gates, g) if conditioning else None

    def forward(self, x: Tensor, conditioning: Tensor | None = None) -> Tensor:
        """(n, 2h, h, w) → (n, 2h, h, w), without the residual sum."""
        gates = self.input_to_state(x)  # (n, 4h, h, w)
        if self.condition is not None:
            gates = gates + self.condition(conditioning)
        n, _, height, width = x.shape
        steps = row_steps(height, width)
        if is_fused(x):
            maps = batch_last(gates).permute(1, 2, 3, 0).flatten(1, 2)  # (4h, h * w, n)
            own, places = (self.state_to_state, self.h0, self.c0), Places(0, width, 1, width)
            hidden = FusedRecurrence.apply(maps, *own, steps, places).view(-1, height, width, n)
            return self.up(hidden.permute(3, 0, 1, 2))
        rows = gates.permute(2, 0, 3, 1).unsqueeze(1)  # (h, 1, n, w, 4h)
        start = self.h0.unsqueeze(0), self.c0.unsqueeze(0)
        states = Recurrence.apply(rows, self.state_to_state.unsqueeze(0), *start, steps)
        return self.up(states.squeeze(1).permute(1, 3, 0, 2))


class RowLstm(Stack):
    """The trainable network; conditioning is the width of the conditioning map, 0 for none."""

    def __init__(self, config: RowLstmConfig, seed: int = 0, conditioning: int = 0) -> None:
        super().__init__(config, lambda g: RowLstmLayer(config, conditioning, g), seed)
