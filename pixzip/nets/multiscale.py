"""Multi-Scale PixelRNN: a small picture first, then the whole one conditioned on it (paper, section 3.6, figure 2).

The small picture holds every factor-th pixel of every factor-th row, and one network predicts it. A deconvolutional
network makes a conditioning map of the large size from it, which biases every layer of a second network. That one
predicts the pixels that are not yet known, in raster order; it reads all pixels before them::

    factor 2:    k u k u        k  known from the small picture: costs nothing here
                 u u u u        u  unknown: predicted from everything before it and from all k
                 k u k u
"""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixzip.errors import TrainingError
from pixzip.model.multiscale import FACTORS, MAX_FEATURES
from pixzip.nets.diagonal_bilstm import DiagonalBiLstm, DiagonalBiLstmConfig
from pixzip.nets.masked_conv import Upsampling
from pixzip.nets.pixelcnn import PixelCnn, PixelCnnConfig
from pixzip.nets.pixels import PixelBatch, as_logits
from pixzip.nets.row_lstm import RowLstm, RowLstmConfig
from pixzip.nets.stack import Stack, StackConfig, check_choice, check_count


@dataclass(frozen=True)
class MultiScaleConfig:
    """Configurations of the small and of the large picture's network, each of one of the paper's other three.

    factor is n / s, features the width c of the conditioning map.
    """

    small: StackConfig
    large: StackConfig
    factor: int = 2
    features: int = 32

    def __post_init__(self) -> None:
        """Refuse what no model file can hold: TrainingError names the field and what is allowed."""
        for name in ("small", "large"):
            value = getattr(self, name)
            if not isinstance(value, PixelCnnConfig | RowLstmConfig | DiagonalBiLstmConfig):
                found = type(value).__name__ if is_dataclass(value) else repr(value)
                raise TrainingError(f"{name} {found}: must be a pixelcnn, row_lstm or diagonal_bilstm")
        check_choice("small.pictures", self.small.pictures, (self.large.pictures,))
        if self.factor not in FACTORS or type(self.factor) is not int:
            raise TrainingError(f"factor {self.factor!r}: must be one of {', '.join(map(str, FACTORS))}")
        check_count("features", self.features, 1, MAX_FEATURES)


@dataclass(frozen=True)
class MultiScaleBatch:
    """The small pictures and the whole ones, each in the frame of its network; unknown (h, w) of the whole ones."""

    small: PixelBatch
    large: PixelBatch
    unknown: NDArray[np.bool_]


def picked(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """(n, h, w, planes) → (n, ceil(h / factor), ceil(w / factor), planes): the pixels (y * factor, x * factor)."""
    return np.ascontiguousarray(pixels[:, ::factor, ::factor])


def unknown_pixels(height: int, width: int, factor: int) -> NDArray[np.bool_]:
    """(height, width): True where a pixel is not in the small picture."""
    y, x = np.ogrid[:height, :width]
    return (y % factor != 0) | (x % factor != 0)


def _network(config: StackConfig, seed: int, conditioning: int) -> Stack:
    if isinstance(config, PixelCnnConfig):
        return PixelCnn(config, seed, conditioning)
    if isinstance(config, RowLstmConfig):
        return RowLstm(config, seed, conditioning)
    assert isinstance(config, DiagonalBiLstmConfig)
    return DiagonalBiLstm(config, seed, conditioning)


class Upsampler(nn.Module):
    """Inputs of the small picture (n, i, s, s) → conditioning map (n, c, n, n): deconvolutions, ReLU between them."""

    def __init__(self, inputs: int, features: int, factor: int, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        doublings = factor.bit_length() - 1
        widths = [inputs] + [features] * doublings
        self.layers = nn.ModuleList([Upsampling(widths[i], widths[i + 1], g) for i in range(doublings)])

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of x."""
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 else torch.relu(x))
        return x


class MultiScale(nn.Module):
    """The trainable pair of networks and the upsampling network between them."""

    def __init__(self, config: MultiScaleConfig, seed: int = 0) -> None:
        super().__init__()
        self.config: Any = config
        self.small = _network(config.small, seed, 0)
        inputs = self.small.first.mask.shape[1]
        self.upsampler = Upsampler(inputs, config.features, config.factor, seed + 1)
        self.large = _network(config.large, seed + 2, config.features)

    @property
    def recompute(self) -> bool:
        """As Stack.recompute, of both networks."""
        return self.large.recompute

    @recompute.setter
    def recompute(self, on: bool) -> None:
        self.small.recompute = self.large.recompute = on

    def prepare(self, crops: NDArray[np.uint8]) -> MultiScaleBatch:
        """(n, h, w, planes) pixels → small and whole pictures. Raises TrainingDataError for crops of another kind."""
        factor = self.config.factor
        large = self.large.prepare(crops)
        small = self.small.prepare(picked(crops, factor))
        return MultiScaleBatch(small, large, unknown_pixels(crops.shape[1], crops.shape[2], factor))

    def hidden_matrices(self) -> dict[str, int]:
        """Of both networks, as Stack.hidden_matrices."""
        nets = {"small": self.small, "large": self.large}
        return {f"{k}.{name}": count for k, net in nets.items() for name, count in net.hidden_matrices().items()}

    def conditioning(self, batch: MultiScaleBatch, dtype: torch.dtype) -> Tensor:
        """(n, c, h, w) of the whole pictures; what the upsampling makes beyond their edges is cut off."""
        inputs = torch.from_numpy(batch.small.inputs).to(self.small.first.bias.device, dtype)
        height, width = batch.unknown.shape
        return self.upsampler(inputs.permute(0, 3, 1, 2))[:, :, :height, :width]

    def nats(self, batch: MultiScaleBatch, dtype: torch.dtype) -> Tensor:
        """Scalar float64: nats of the small pictures and of the unknown sub-pixels of the whole ones."""
        conditioning = self.conditioning(batch, dtype)
        large = self.large.sub_pixel_nats(batch.large, dtype, conditioning)  # (n, h, w, planes)
        unknown = torch.from_numpy(batch.unknown)[..., None].to(large)
        return self.small.nats(batch.small, dtype) + (large * unknown).sum(dtype=torch.float64)

    def logits(self, pixels: NDArray[np.uint8], dtype: torch.dtype = torch.float32) -> Tensor:
        """Of the whole pictures, as Stack.logits; those of known pixels mean nothing. small.logits has the others."""
        batch = self.prepare(pixels)
        outputs = self.large.outputs(batch.large, dtype, self.conditioning(batch, dtype))
        return as_logits(outputs, self.config.large.pictures)
