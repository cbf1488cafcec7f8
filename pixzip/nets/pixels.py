"""Crops → what a network reads and the symbols it predicts; feature maps → logits → nats (paper, sections 2.2 and 5.2).

kind      planes  groups  outputs per pixel                     distribution
binary    1       1       1                                     sigmoid
gray      1       1       256                                   256-way softmax
rgb       3       3       768: R's 256, then G's, then B's      256-way softmax of each sub-pixel

Two frames. ``raw``, the paper's: the symbol is the value. ``residual``: the symbol is (value - prediction) mod 256,
with the predictor of pixzip.coding.frame, and the network reads the coding errors beside the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pixzip.coding.frame import MIDDLE, picture_errors
from pixzip.errors import TrainingDataError
from pixzip.model.stack import PLANES
from pixzip.nets.fused import is_fused, softmax_nats
from pixzip.nets.masked_conv import pixel_order
from pixzip.nets.masks import colours

FRAMES = ("raw", "residual")
#: Inputs are (value - 128) / 64 and coding error / 32: centred, scaled by powers of two. A binary value is -1 or 1.
VALUE_SCALE = 1 / 64
ERROR_SCALE = 1 / 32


@dataclass(frozen=True)
class PixelBatch:
    """n crops in the frame of a network, numpy only.

    inputs (n, h, w, i) float32, plane by plane: a plane's value, then its coding error in the residual frame.
    symbols (n, h, w, planes) uint8 and predictions (n, h, w, planes) uint8, 0 in the raw frame: the value is their sum
    mod 256.
    """

    inputs: NDArray[np.float32]
    symbols: NDArray[np.uint8]
    predictions: NDArray[np.uint8]


def coding_errors(crops: NDArray[np.uint8]) -> NDArray[np.int16]:
    """(n, h, w, planes) pixels → value - prediction of every sub-pixel, same shape."""
    planes = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    errors = np.empty(planes.shape, dtype=np.int16)
    for picture, of_picture in zip(planes, errors, strict=True):
        picture_errors(picture, of_picture)
    return np.ascontiguousarray(errors.transpose(0, 2, 3, 1))


def prepare(crops: NDArray[np.uint8], kind: str, frame: str) -> PixelBatch:
    """(n, h, w, planes) uint8 → a batch; a binary picture holds 0 and 1.

    Raises TrainingDataError for crops of another kind.
    """
    if crops.ndim != 4 or crops.shape[3] != PLANES[kind] or crops.dtype != np.uint8 or crops.size == 0:
        raise TrainingDataError(
            f"crops {crops.shape} {crops.dtype}: {kind} pictures are (n, h, w, {PLANES[kind]}) uint8, no side 0"
        )
    if kind == "binary" and crops.max() > 1:
        raise TrainingDataError(f"value {crops.max()} in a binary picture: allowed are 0 and 1")
    centre, scale = (0.5, 2.0) if kind == "binary" else (float(MIDDLE), VALUE_SCALE)
    values = (crops.astype(np.float32) - np.float32(centre)) * np.float32(scale)
    if frame == "raw":
        return PixelBatch(values, crops, np.zeros_like(crops))
    errors = coding_errors(crops)
    scaled = errors.clip(-127, 127).astype(np.float32) * np.float32(ERROR_SCALE)
    inputs = np.stack([values, scaled], axis=4).reshape(*crops.shape[:3], -1)
    return PixelBatch(inputs, (errors & 255).astype(np.uint8), (crops - errors).astype(np.uint8))


def input_colours(kind: str, frame: str) -> tuple[int, ...]:
    """Colour of each input feature."""
    planes = PLANES[kind]
    return colours(planes if frame == "raw" else 2 * planes, planes)


def output_colours(kind: str) -> tuple[int, ...]:
    """Colour of each output feature: exactly by colour."""
    planes = PLANES[kind]
    return colours(1 if kind == "binary" else 256 * planes, planes)


def as_logits(outputs: Tensor, kind: str) -> Tensor:
    """(n, outputs, h, w) → (n, planes, h, w, 256); of binary pictures (n, 1, h, w), the logit of a 1."""
    if kind == "binary":
        return outputs
    return outputs.unflatten(1, (PLANES[kind], 256)).permute(0, 1, 3, 4, 2)


def nats_of(outputs: Tensor, symbols: Tensor, kind: str) -> Tensor:
    """-log p of each symbol: outputs (n, outputs, h, w), symbols (n, h, w, planes); result (n, h, w, planes).

    Float32, or float64 where the outputs are.
    """
    wide = outputs if outputs.dtype == torch.float64 else outputs.float()
    if kind == "binary":
        by_pixel = wide.permute(0, 2, 3, 1)  # (n, h, w, 1)
        return binary_cross_entropy_with_logits(by_pixel, symbols.to(wide.dtype), reduction="none")
    rows, true, order = _rows(wide, symbols)
    nats = cross_entropy(rows, true.flatten(), reduction="none").view(true.shape)
    return nats.permute([order.index(axis) for axis in (0, 2, 3, 1)])


def sum_of_nats(outputs: Tensor, symbols: Tensor, kind: str) -> Tensor:
    """The sum of nats_of, a float64 scalar; where the compiled passes are for them, in one that overwrites them."""
    if kind == "binary" or not is_fused(outputs):
        return nats_of(outputs, symbols, kind).sum(dtype=torch.float64)
    rows, true, _ = _rows(outputs, symbols)
    total: Tensor = _SoftmaxNats.apply(rows, true.flatten())
    return total


def _rows(outputs: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor, tuple[int, int, int, int]]:
    """(sub-pixels, 256) logits as they lie in memory, symbols as int64 in the same order, and that order's axes."""
    order = pixel_order(outputs)
    return outputs.permute(order).reshape(-1, 256), symbols.permute(0, 3, 1, 2).permute(order).long(), order


class _SoftmaxNats(torch.autograd.Function):
    """Sum of −log softmax of logits (m, 256) at symbols (m,); the gradient takes the place of the logits."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, symbols: Tensor) -> Tensor:
        no_bias = torch.zeros(256)
        total, ctx.gradient = softmax_nats(rows.detach(), no_bias, symbols, torch.zeros(256))
        return torch.tensor(total, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient.mul_(float(grad)), None
