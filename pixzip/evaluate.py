"""Pictures and a frozen model → the bits that the model says they take, for comparison with the bits of files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixzip.codec import DEFAULT_TILE
from pixzip.model_file import Model
from pixzip.runtime import rows
from pixzip.schedule import tiles_of


def model_bits(
    model: Model, pixels: NDArray[np.uint8], *, tile: int = DEFAULT_TILE, engine: str = "float32"
) -> NDArray[np.float64]:
    """Model bits of every coded sub-pixel: pixels (n, c, h, w) uint8, c 1 or 3; result of the same shape.

    The sum is what a perfect coder without headers would write (design of the residual frame: docs/model-format.md).
    """
    n, colours, height, width = pixels.shape
    out = np.empty(pixels.shape, dtype=np.float64)
    for t in tiles_of(n, height, width, tile):
        for i in range(t.first, t.last):
            cut = pixels[i : i + 1, :, t.y : t.y + t.h, t.x : t.x + t.w]
            planes = np.ascontiguousarray(np.broadcast_to(cut, (1, 3, t.h, t.w)))
            bits = rows.model_bits(model.network, engine, planes, colours)  # (h, c, w)
            out[i, :, t.y : t.y + t.h, t.x : t.x + t.w] = bits.transpose(1, 0, 2)
    return out


def bootstrap(values: NDArray[np.float64], *, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean: percentiles of the means of resamples with replacement."""
    rng = np.random.default_rng(seed)
    means = [float(values[rng.integers(len(values), size=len(values))].mean()) for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
