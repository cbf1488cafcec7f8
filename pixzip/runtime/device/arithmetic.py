"""Integers in torch: the elementwise arithmetic of docs/model-format.md, section 5, on whole tensors of any device.

Products are float32 matrix products of integers whose sums stay below 2^24, so that every order of adding gives the
same: IEEE float32, no TF32 (``exact_products``). What may grow beyond goes through float64, below 2^53.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.errors import UsageError
from pixzip.runtime import kernels


def rounded(sums: Tensor, addend: Tensor, shift: Tensor) -> Tensor:
    """(sums + addend) >> shift in int32, for each output (last dimension) its own; sums hold integers of any type."""
    return (sums.to(torch.int32) + addend) >> shift


def saturated(values: Tensor, limit: int) -> Tensor:
    """Values kept within -limit .. limit."""
    return values.clamp(-limit, limit)


def hidden_units(values: Tensor) -> Tensor:
    """What a hidden layer holds: 0 .. 255, less 128 (kernels.HIDDEN_OFFSET)."""
    return values.clamp(0, 255) - kernels.HIDDEN_OFFSET


def half_of(shift: int) -> int:
    """What makes a right shift round to nearest, halves up."""
    return (1 << shift) >> 1


def indices(values: Tensor) -> Tensor:
    """Places of arguments in the tables of sigmoid and tanh."""
    return values.clamp(-kernels.HALF, kernels.HALF - 1) + kernels.HALF


def on(device: torch.device, array: NDArray[np.generic], dtype: torch.dtype) -> Tensor:
    """A copy of an array on a device."""
    return torch.from_numpy(np.array(array)).to(device=device, dtype=dtype)


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Within the block float32 products are IEEE's, without gradients. Raises UsageError where they are not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            _try_extremes(device)
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _try_extremes(device: torch.device) -> None:
    """Raise UsageError unless products are exact up to 2^24: a TF32 or bfloat16 product is off by hundreds here."""
    one = torch.full((64, 1024), 127.0, device=device)
    other = torch.full((1024, 64), 127.0, device=device)
    one[:, -1] = 64.0
    other[-1] = 63.0
    wanted = 1023 * 127 * 127 + 64 * 63  # 16,503,999 < 2^24, odd
    if not bool((one @ other == wanted).all()):
        raise UsageError(f"device {device} does not multiply exactly in float32")
