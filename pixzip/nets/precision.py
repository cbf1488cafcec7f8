"""A device → the type that its products are fastest in."""

from __future__ import annotations

import torch


def fastest_products(device: str = "cpu") -> torch.dtype:
    """bfloat16 where the device has instructions for it, float32 elsewhere: there torch multiplies number by number."""
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.bfloat16 if fast else torch.float32


def products(precision: str, device: str = "cpu") -> torch.dtype:
    """The type of ``training.precision``: bfloat16, float32, or auto for the fastest."""
    return fastest_products(device) if precision == "auto" else getattr(torch, precision)
