"""Masked convolution: a feature map → a feature map, each output from pixels before it and colours it may know."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad, unfold

from pixzip.nets.masks import Mask, weight_mask


def batch_last(x: Tensor) -> Tensor:
    """The same (n, c, h, w), in memory (c, h, w, n): a 1×1 convolution is one product then, LSTM steps need no skew."""
    return x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


def is_batch_last(x: Tensor) -> bool:
    """Whether (n, c, h, w) lies in memory as (c, h, w, n), and in no other order too."""
    return x.permute(1, 2, 3, 0).is_contiguous() and not x.is_contiguous()


def batch_last_product(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """1×1 convolution of a batch_last map: weight (outputs, inputs), x (n, inputs, h, w) → (n, outputs, h, w)."""
    n, inputs, height, width = x.shape
    flat = x.permute(1, 2, 3, 0).reshape(inputs, -1)
    out = torch.addmm(bias.to(x.dtype)[:, None], weight.to(x.dtype), flat)
    return out.view(-1, height, width, n).permute(3, 0, 1, 2)


def pixel_order(x: Tensor) -> tuple[int, int, int, int]:
    """The order of (n, c, h, w) that has features last, and pixels as they follow each other in memory."""
    return (2, 3, 0, 1) if x.stride(0) < x.stride(3) else (0, 2, 3, 1)


class MaskedConv(nn.Module):
    """Convolution whose weights are multiplied by a mask in every forward pass (paper, section 3.4).

    seen and own are the colours of the input and output features. The kernel is centred and odd; only taps up to its
    centre are stored, so a 3×3 mask B is a 2×3 kernel and the 3×1 mask B along a row is the taps x-1 and x.
    """

    def __init__(
        self,
        mask: Mask,
        seen: tuple[int, ...],
        own: tuple[int, ...],
        g: torch.Generator,
        kernel: tuple[int, int] = (1, 1),
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        keep = weight_mask(mask, seen, own, kernel)
        self.mask: Tensor
        self.register_buffer("mask", keep, persistent=False)
        inputs_seen = keep.sum((1, 2, 3), keepdim=True).clamp(min=1)
        self.weight = nn.Parameter(torch.randn(keep.shape, generator=g) * gain / inputs_seen.sqrt())
        self.bias = nn.Parameter(torch.zeros(len(own)))
        above, beside = kernel[0] // 2, kernel[1] // 2
        #: Zeros left, right, above and below the map.
        self.padding = (beside, 0 if above == 0 else beside, above, 0)

    def masked_weight(self) -> Tensor:
        """(outputs, inputs, rows, columns): the weights that count."""
        return self.weight * self.mask

    @property
    def taps(self) -> int:
        """Places of the kernel up to its centre, in raster order; at those after it every weight is masked."""
        return self.padding[2] * self.weight.shape[3] + self.padding[0] + 1

    def by_tap(self, weight: Tensor) -> Tensor:
        """Weights, or the mask, as a matrix (taps * inputs, outputs), tap by tap."""
        return weight.permute(2, 3, 1, 0).flatten(0, 1)[: self.taps].flatten(0, 1)

    def windows(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (taps * inputs, n * h * w): what each pixel's outputs are made of, as by_tap has it."""
        columns = unfold(pad(x, self.padding), self.weight.shape[2:])  # (n, inputs * rows * columns, h * w)
        by_tap = columns.unflatten(1, (x.shape[1], -1))[:, :, : self.taps].permute(2, 1, 0, 3)
        return by_tap.flatten(2).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, h, w), in the dtype of x; the order of x in memory stays."""
        if self.weight.shape[2:] == (1, 1) and is_batch_last(x):
            return batch_last_product(self.masked_weight()[:, :, 0, 0], self.bias, x)
        if any(self.padding):
            x = pad(x, self.padding)
        return conv2d(x, self.masked_weight().to(x.dtype), self.bias.to(x.dtype))


class MaskedConvByPixel(MaskedConv):
    """A 1×1 convolution whose result lies in memory pixel by pixel, its outputs side by side as a softmax reads them.

    This spares a transposed copy of all logits.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, h, w), in the dtype of x."""
        order = pixel_order(x)
        seen = x.permute(order)
        weight, bias = self.masked_weight()[:, :, 0, 0].to(x.dtype), self.bias.to(x.dtype)
        out = linear(seen.reshape(-1, seen.shape[3]), weight, bias).view(*seen.shape[:3], -1)
        return out.permute([order.index(axis) for axis in range(4)])


class Upsampling(nn.Module):
    """Deconvolution by 2 in both directions (paper, section 3.6): (n, inputs, h, w) → (n, outputs, 2h, 2w)."""

    def __init__(self, inputs: int, outputs: int, g: torch.Generator) -> None:
        super().__init__()
        # 4 × 4 taps at stride 2: each output pixel sees 2 × 2 inputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs, 4, 4, generator=g) * math.sqrt(2 / (4 * inputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of x."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return nn.functional.conv_transpose2d(x, weight, bias, stride=2, padding=1)
