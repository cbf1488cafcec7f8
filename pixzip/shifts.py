"""Integers → their multiples of a power of two, rounded: the one rounding of exact arithmetic (docs/model-format.md).

It is floor(x / 2^s + 1/2), as (x + half) >> s with half = 2^(s-1), or 0 where s = 0. ``addend`` is a product's bias and
half together, below 2^25.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixzip.jit import inner

Acc = NDArray[np.int32] | NDArray[np.float32]
Ints = NDArray[np.int32]


def addend(bias: Ints, shift: Ints) -> Ints:
    """What is added to an accumulator before its right shift: bias + half of 2^shift."""
    return bias + ((np.int32(1) << shift) >> 1)


@inner
def half(shift: int) -> int:
    """The addend that makes a right shift round to nearest, halves up."""
    return np.int32((1 << shift) >> 1)


@inner
def shifted(acc: int, addend: int, shift: int) -> int:
    """(acc + addend) >> shift, kept in 32 bits (|acc + addend| < 2^31, shift <= 24) so that loops run 32 bits wide."""
    return np.int32(np.int32(np.int32(acc) + addend) >> (shift & 31))
