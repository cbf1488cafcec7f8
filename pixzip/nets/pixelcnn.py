"""PixelCNN: a stack of masked convolutions with a bounded receptive field (paper, section 3.5, figure 5 left)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixzip.nets.masked_conv import MaskedConv
from pixzip.nets.masks import colours
from pixzip.nets.stack import Stack, StackConfig


@dataclass(frozen=True)
class PixelCnnConfig(StackConfig):
    """Section 4: fifteen layers, h = 128 for CIFAR-10."""

    layers: int = 15


class ResidualBlock(nn.Module):
    """ReLU, 1×1 2h → h; ReLU, 3×3 h → h; ReLU, 1×1 h → 2h; all mask B (figure 5 left).

    Where conditioned, an unmasked 1×1 convolution of the conditioning map is the bias of the 3×3 convolution.
    """

    def __init__(self, config: StackConfig, conditioning: int, g: torch.Generator) -> None:
        super().__init__()
        wide, narrow = colours(2 * config.h, config.groups), colours(config.h, config.groups)
        relu_gain = math.sqrt(2)
        self.down = MaskedConv("B", wide, narrow, g, gain=relu_gain)
        self.middle = MaskedConv("B", narrow, narrow, g, kernel=(3, 3), gain=relu_gain)
        self.up = MaskedConv("B", narrow, wide, g, gain=relu_gain / math.sqrt(config.layers))
        self.condition = MaskedConv("all", (0,) * conditioning, narrow, g) if conditioning else None

    def forward(self, x: Tensor, conditioning: Tensor | None = None) -> Tensor:
        """(n, 2h, h, w) → (n, 2h, h, w), without the residual sum."""
        y = self.middle(torch.relu(self.down(torch.relu(x))))  # (n, h, h, w)
        if self.condition is not None:
            y = y + self.condition(conditioning)
        return self.up(torch.relu(y))


class PixelCnn(Stack):
    """The trainable network; conditioning is the width of the conditioning map, 0 for none."""

    recurrent = False

    def __init__(self, config: PixelCnnConfig, seed: int = 0, conditioning: int = 0) -> None:
        super().__init__(config, lambda g: ResidualBlock(config, conditioning, g), seed)
