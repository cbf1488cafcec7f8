"""A device → the type that its matrix products are fastest in."""

from __future__ import annotations

from functools import cache

import llvmlite.binding
import torch


def product_type(precision: str, device: str = "cpu") -> torch.dtype:
    """The type of ``training.precision``: bfloat16, float32, or auto for the fastest."""
    dtype: torch.dtype = fastest_type(device) if precision == "auto" else getattr(torch, precision)
    return dtype


@cache
def fastest_type(device: str = "cpu") -> torch.dtype:
    """bfloat16 where the device has instructions for it, float32 elsewhere.

    Of processors those with AVX512-BF16, where torch has oneDNN: others convert every number, or multiply one by one.
    """
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        own = torch.backends.mkldnn.is_available() and llvmlite.binding.get_host_cpu_features().get("avx512bf16", False)
        fast = device != "cpu" or own
    return torch.bfloat16 if fast else torch.float32
