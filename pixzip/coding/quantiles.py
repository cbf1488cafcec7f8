"""(seed, picture, y, x, c) → a uniformly random quantile of a frequency row, for drawing pictures from a model.

The number depends on nothing else, so the order of coding, the batch and the device do not change a sample. It is the
first word of Philox4x32-10 (Salmon et al. 2011) for the counter (y, x, c, picture) under the 64-bit key ``seed``, its
upper 24 bits: a quantile of a row whose frequencies sum to 2^24, as a decoder reads one from its coder state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixzip.coding.frequencies import PRECISION
from pixzip.errors import UsageError

_ROUNDS = 10
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

Words = NDArray[np.uint64]


def philox(counter: tuple[Words, Words, Words, Words], key: int) -> tuple[Words, Words, Words, Words]:
    """Philox4x32-10: four counter words and a 64-bit key → four random words, all below 2^32."""
    a, b, c, d = counter
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(_ROUNDS):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # < 2^64: exact
        a, b, c, d = (
            (second >> _HALF) ^ b ^ np.uint64(keys[0]),
            second & _LOW,
            (first >> _HALF) ^ d ^ np.uint64(keys[1]),
            first & _LOW,
        )
        keys = [(k + step) & 0xFFFFFFFF for k, step in zip(keys, _KEY_STEPS, strict=True)]
    return a, b, c, d


def quantiles(seed: int, picture: ArrayLike, y: ArrayLike, x: ArrayLike, c: ArrayLike) -> NDArray[np.int64]:
    """Uniform numbers 0 .. 2^24 - 1 of sub-pixels; the arguments broadcast, each coordinate 0 .. 2^32 - 1.

    Raises UsageError for a seed beyond 64 bits.
    """
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"seed {seed}: must be from 0 to 2^64 - 1")
    words = np.broadcast_arrays(*(np.asarray(v, dtype=np.uint64) for v in (y, x, c, picture)))
    first = philox((words[0], words[1], words[2], words[3]), seed)[0]
    return (first >> np.uint64(32 - PRECISION)).astype(np.int64)
