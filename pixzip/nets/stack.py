"""What the paper's networks share (table 1): first layer, layers with residual and skip connections, head.

inputs → 7×7 mask A → 2h → layer → 2h → ... → layer → 2h → head → logits
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixzip.errors import TrainingError
from pixzip.model.stack import MAX_H, MAX_HEAD, MAX_LAYERS, PLANES
from pixzip.nets.fused import is_fused
from pixzip.nets.masked_conv import MaskedConv, MaskedConvByPixel, batch_last
from pixzip.nets.masks import colours
from pixzip.nets.pixels import (
    FRAMES,
    PixelBatch,
    as_logits,
    input_colours,
    nats_of,
    output_colours,
    prepare,
    sum_of_nats,
)
from pixzip.nets.trunk import prior_bias


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise TrainingError unless value is one of choices."""
    if value not in choices:
        raise TrainingError(f"{name} {value!r}: must be one of {', '.join(choices)}")


def check_count(name: str, value: object, least: int, most: int) -> None:
    """Raise TrainingError unless value is a whole number from least to most."""
    if type(value) is not int or not least <= value <= most:
        raise TrainingError(f"{name} {value!r}: must be a whole number from {least} to {most}")


@dataclass(frozen=True)
class StackConfig:
    """Sizes and choices of one of the paper's networks.

    h is the paper's: a layer has h features inside and 2h on its connections. head is the width of both 1×1 layers
    before the logits (1024; 32 for MNIST). residual and skip are the rows and columns of table 2.
    """

    pictures: str = "rgb"
    frame: str = "raw"
    layers: int = 12
    h: int = 128
    head: int = 1024
    residual: bool = True
    skip: bool = False

    def __post_init__(self) -> None:
        """Refuse what no model file can hold: TrainingError names the field and what is allowed."""
        check_choice("pictures", self.pictures, tuple(PLANES))
        check_choice("frame", self.frame, FRAMES if self.pictures != "binary" else FRAMES[:1])
        groups = PLANES[self.pictures]  # every colour needs a feature
        check_count("layers", self.layers, 1, MAX_LAYERS)
        check_count("h", self.h, groups, MAX_H)
        check_count("head", self.head, groups, MAX_HEAD)
        for name in ("residual", "skip"):
            if type(getattr(self, name)) is not bool:
                raise TrainingError(f"{name} {getattr(self, name)!r}: must be true or false")

    @property
    def groups(self) -> int:
        """Colour groups of every feature map."""
        return PLANES[self.pictures]


class Head(nn.Module):
    """Two 1×1 layers and the logits, all mask B: ReLU, 2h → head; ReLU, head → head; ReLU, head → logits."""

    def __init__(self, config: StackConfig, g: torch.Generator) -> None:
        super().__init__()
        wide, narrow = colours(2 * config.h, config.groups), colours(config.head, config.groups)
        outputs = output_colours(config.pictures)
        self.one = MaskedConv("B", wide, narrow, g, gain=math.sqrt(2))
        self.two = MaskedConv("B", narrow, narrow, g, gain=math.sqrt(2))
        self.last = MaskedConvByPixel("B", narrow, outputs, g, gain=0.3)
        if config.frame == "residual":
            with torch.no_grad():
                self.last.bias.copy_(prior_bias().repeat(config.groups))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 2h, h, w) → (n, outputs, h, w), in memory pixel by pixel."""
        for layer in (self.one, self.two, self.last):
            x = layer(torch.relu(x))
        return x


class Stack(nn.Module):
    """A network of table 1: the base of PixelCnn, RowLstm and DiagonalBiLstm, which differ in their layers.

    make_layer(g) gives a module from (map (n, 2h, h, w), conditioning map or None) to (n, 2h, h, w), before the
    residual sum.
    """

    #: Whether the layers are LSTMs.
    recurrent = True
    #: Whether layers keep only their inputs for the backward pass, which computes the rest again.
    recompute = False

    def __init__(self, config: StackConfig, make_layer: Callable[[torch.Generator], nn.Module], seed: int) -> None:
        super().__init__()
        self.config: Any = config
        g = torch.Generator().manual_seed(seed)
        wide = colours(2 * config.h, config.groups)
        self.first = MaskedConv("A", input_colours(config.pictures, config.frame), wide, g, kernel=(7, 7))
        self.layers = nn.ModuleList([make_layer(g) for _ in range(config.layers)])
        skips = config.layers if config.skip else 0
        self.skips = nn.ModuleList([MaskedConv("B", wide, wide, g, gain=1 / math.sqrt(skips)) for _ in range(skips)])
        self.head = Head(config, g)

    def hidden_matrices(self) -> dict[str, int]:
        """Parameters between the first layer and the logits, by name; how many matrices stand side by side in each."""
        ends = {id(self.first.weight), id(self.head.last.weight)}
        inner = [name for name, p in self.named_parameters() if p.ndim > 1 and id(p) not in ends]
        gates = ("input_to_state.weight", "state_to_state", "condition.weight")
        four = [name for name in inner if self.recurrent and name.endswith(gates)]
        return dict.fromkeys(inner, 1) | dict.fromkeys(four, 4)

    def features(self, inputs: Tensor, conditioning: Tensor | None = None) -> Tensor:
        """Input of the head: (n, i, h, w) → (n, 2h, h, w). A skip connection carries what each layer reads."""
        x = self.first(inputs)
        if self.recurrent and is_fused(x):
            x = batch_last(x)
            conditioning = None if conditioning is None else batch_last(conditioning)
        skipped: Tensor | None = None
        for index, layer in enumerate(self.layers):
            if self.config.skip:
                skip = self.skips[index](x)
                skipped = skip if skipped is None else skipped + skip
            if self.recompute and torch.is_grad_enabled():
                y = checkpoint(layer, x, conditioning, use_reentrant=False)
            else:
                y = layer(x, conditioning)
            x = x + y if self.config.residual else y
        return x if skipped is None else x + skipped

    def outputs(self, batch: PixelBatch, dtype: torch.dtype, conditioning: Tensor | None = None) -> Tensor:
        """(n, outputs, h, w), products in dtype."""
        inputs = torch.from_numpy(batch.inputs).to(self.first.bias.device, dtype).permute(0, 3, 1, 2)
        return self.head(self.features(inputs, conditioning))

    def sub_pixel_nats(self, batch: PixelBatch, dtype: torch.dtype, conditioning: Tensor | None = None) -> Tensor:
        """-log p of every sub-pixel: (n, h, w, planes)."""
        outputs = self.outputs(batch, dtype, conditioning)
        return nats_of(outputs, torch.from_numpy(batch.symbols).to(outputs.device), self.config.pictures)

    def prepare(self, crops: NDArray[np.uint8]) -> PixelBatch:
        """(n, h, w, planes) pixels → inputs and symbols. Raises TrainingDataError for crops of another kind."""
        return prepare(crops, self.config.pictures, self.config.frame)

    def nats(self, batch: PixelBatch, dtype: torch.dtype) -> Tensor:
        """Scalar float64: the sum of -log p over all sub-pixels."""
        outputs = self.outputs(batch, dtype)
        return sum_of_nats(outputs, torch.from_numpy(batch.symbols).to(outputs.device), self.config.pictures)

    def logits(self, pixels: NDArray[np.uint8], dtype: torch.dtype = torch.float32) -> Tensor:
        """(n, h, w, planes) pixels → (n, planes, h, w, 256) in the network's frame; binary (n, 1, h, w)."""
        return as_logits(self.outputs(self.prepare(pixels), dtype), self.config.pictures)
