"""Diagonal BiLSTM: two LSTMs along the diagonals see everything above and left (paper, section 3.2, figure 3).

Row y of the map is shifted y columns to the right, so that a column holds a diagonal of the picture and its cells need
only the column before::

    a b c        a b c . .        step s, row y is pixel (y, s - y)
    d e f   →    . d e f .        left neighbour: step s - 1, row y
    g h i        . . g h i        upper neighbour: step s - 1, row y - 1
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pixzip.nets.fused import is_fused
from pixzip.nets.fused_recurrence import FusedRecurrence, Places
from pixzip.nets.masked_conv import MaskedConv
from pixzip.nets.masks import colours, gate_colours
from pixzip.nets.recurrence import Recurrence, Steps
from pixzip.nets.stack import Stack, StackConfig


@dataclass(frozen=True)
class DiagonalBiLstmConfig(StackConfig):
    """Section 4: twelve layers, h = 128 for CIFAR-10."""


def skew(x: Tensor) -> Tensor:
    """(n, h, w, c) → (n, h, w + h - 1, c): row y stands y columns further right, between zeros."""
    n, h, w, c = x.shape
    rows = pad(x, (0, 0, 0, h)).reshape(n, h * (w + h), c)
    return rows[:, : h * (w + h - 1)].reshape(n, h, w + h - 1, c)


def unskew(x: Tensor) -> Tensor:
    """Inverse of skew."""
    n, h, steps, c = x.shape
    rows = pad(x.reshape(n, h * steps, c), (0, 0, 0, h))
    return rows.reshape(n, h, steps + 1, c)[:, :, : steps - h + 1]


def diagonal_steps(height: int, width: int) -> Steps:
    """A step is a column of the skewed map: row y reads rows y-1 and y of the column before.

    Row y of step s is a pixel where 0 <= s - y < width; every other cell is (h0, c0).
    """
    inside = tuple((max(0, s - width + 1), min(height, s + 1)) for s in range(width + height - 1))
    return Steps(taps=(-1, 0), inside=inside, learned_outside=True)


def shift_down(x: Tensor) -> Tensor:
    """(n, c, h, w): every row one further down, zeros on top."""
    return pad(x, (0, 0, 1, -1))


class Direction(nn.Module):
    """Parameters of one of the two LSTMs and its is part, 1×1 2h → 4h; ss is 2×1 over the column before."""

    def __init__(self, config: StackConfig, masked: bool, conditioning: int, g: torch.Generator) -> None:
        super().__init__()
        h, groups = config.h, config.groups
        gates = gate_colours(h, groups)
        self.input_to_state = MaskedConv("B" if masked else "all", colours(2 * h, groups), gates, g)
        with torch.no_grad():
            self.input_to_state.bias[h : 2 * h] = 1.0  # a forget gate that starts open
        #: Rows: hidden features of the upper, of the left neighbour; columns: gates o, f, i, g.
        self.state_to_state = nn.Parameter(torch.randn(2 * h, 4 * h, generator=g) / math.sqrt(2 * h))
        self.h0, self.c0 = nn.Parameter(torch.zeros(h)), nn.Parameter(torch.zeros(h))
        self.condition = MaskedConv("all", (0,) * conditioning, gates, g) if conditioning else None

    def forward(self, x: Tensor, conditioning: Tensor | None = None) -> Tensor:
        """(n, 2h, h, w) → is map (n, 4h, h, w)."""
        gates = self.input_to_state(x)
        return gates if self.condition is None else gates + self.condition(conditioning)

    def fused(self, gates: Tensor, mirrored: bool) -> Tensor:
        """is map → hidden states (n, h, h, w), from right to left if mirrored; both batch_last."""
        n, _, height, width = gates.shape
        places = Places(width - 1, -1, width + 1, height) if mirrored else Places(0, 1, width - 1, height)
        maps = gates.permute(1, 2, 3, 0).flatten(1, 2)  # (4h, h * w, n)
        own = self.state_to_state, self.h0, self.c0
        states = FusedRecurrence.apply(maps, *own, diagonal_steps(height, width), places)
        return states.view(-1, height, width, n).permute(3, 0, 1, 2)


def hidden_states(is_maps: tuple[Tensor, Tensor], directions: tuple[Direction, Direction]) -> tuple[Tensor, Tensor]:
    """Both directions from left to right, together: is maps (n, 4h, h, w) → hidden states (n, h, h, w).

    Cells outside the picture are (h0, c0) and never evolve.
    """
    n, _, height, width = is_maps[0].shape
    skewed = skew(torch.cat(is_maps).permute(0, 2, 3, 1)).unflatten(0, (2, n))  # (2, n, h, w + h - 1, 4h)
    w_ss = torch.stack([d.state_to_state for d in directions])
    h0, c0 = torch.stack([d.h0 for d in directions]), torch.stack([d.c0 for d in directions])
    states = Recurrence.apply(skewed.permute(3, 0, 1, 2, 4), w_ss, h0, c0, diagonal_steps(height, width))
    both = unskew(states.permute(1, 2, 3, 0, 4).flatten(0, 1)).permute(0, 3, 1, 2)  # (2n, h, h, w)
    return both[:n], both[n:]


class DiagonalBiLstmLayer(nn.Module):
    """Both directions; the right-to-left map one row down, so that it knows nothing right of a pixel in its own row.

    The right-to-left direction works on mirrored maps, from left to right. The left-to-right is is mask B; the
    right-to-left one is unmasked, as its whole row is known one row further down. Then 1×1 mask B h → 2h (figure 5
    right).
    """

    def __init__(self, config: StackConfig, conditioning: int, g: torch.Generator) -> None:
        super().__init__()
        self.left_to_right = Direction(config, True, conditioning, g)
        self.right_to_left = Direction(config, False, conditioning, g)
        self.up = MaskedConv("B", colours(config.h, config.groups), colours(2 * config.h, config.groups), g)

    def forward(self, x: Tensor, conditioning: Tensor | None = None) -> Tensor:
        """(n, 2h, h, w) → (n, 2h, h, w), without the residual sum."""
        if is_fused(x):
            is_maps = self.left_to_right(x, conditioning), self.right_to_left(x, conditioning)
            backwards = self.right_to_left.fused(is_maps[1], True)
            return self.up(self.left_to_right.fused(is_maps[0], False) + shift_down(backwards))
        mirrored = None if conditioning is None else conditioning.flip(3)
        is_maps = self.left_to_right(x, conditioning), self.right_to_left(x.flip(3), mirrored)
        forwards, backwards = hidden_states(is_maps, (self.left_to_right, self.right_to_left))
        return self.up(forwards + shift_down(backwards.flip(3)))


class DiagonalBiLstm(Stack):
    """The trainable network; conditioning is the width of the conditioning map, 0 for none."""

    def __init__(self, config: DiagonalBiLstmConfig, seed: int = 0, conditioning: int = 0) -> None:
        super().__init__(config, lambda g: DiagonalBiLstmLayer(config, conditioning, g), seed)
