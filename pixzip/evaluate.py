"""Pictures and a frozen model → the bits that the model says they take, for comparison with the bits of files."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from pixzip.codec import DEFAULT_TILE
from pixzip.coding.schedule import pictures_together, tiles_of
from pixzip.errors import UsageError
from pixzip.keywords import rate_of
from pixzip.model.file import Model
from pixzip.runtime import frozen
from pixzip.runtime.engines import choose_engine


def plane_bits(
    model: Model,
    pixels: NDArray[np.uint8],
    *,
    tile: int = DEFAULT_TILE,
    learning: int | None = None,
    threads: int | None = None,
    engine: str | None = None,
) -> NDArray[np.float64]:
    """Model bits of every coded sub-pixel: pixels (n, c, h, w) uint8, c 1 or 3; result of the same shape.

    learning, threads, engine: as codec.encode takes them; only learning changes the result. The sum is what a perfect
    coder without headers would write (docs/model-format.md, section 6, before the rows are rounded to integers).
    pixzip.model_bits is for an image of any kind.
    """
    n, colours, height, width = pixels.shape
    if (reason := model.network.refusal(colours, 1 if pixels.max() <= 1 else 8)) is not None:
        raise UsageError(f"pictures of {colours} planes: model {model.name} {reason}")
    rate, engine, threads = rate_of(model, learning), choose_engine(engine), threads or os.cpu_count() or 1
    out = np.empty(pixels.shape, dtype=np.float64)
    for t in tiles_of(n, height, width, tile):
        group = pictures_together(t.last - t.first, t.w, learning=bool(rate))
        for i in range(t.first, t.last, group):
            last = min(i + group, t.last)
            cut = pixels[i:last, :, t.y : t.y + t.h, t.x : t.x + t.w]
            planes = np.ascontiguousarray(np.broadcast_to(cut, (last - i, model.network.planes, t.h, t.w)))
            with frozen.products_alone(model.network):
                bits = frozen.model_bits(model.network, engine, planes, colours, threads, rate)  # (h, c, w * n)
            by_picture = bits.reshape(t.h, colours, t.w, last - i).transpose(3, 1, 0, 2)
            out[i:last, :, t.y : t.y + t.h, t.x : t.x + t.w] = by_picture
    return out


def bootstrap(values: NDArray[np.float64], *, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean: percentiles of the means of resamples with replacement."""
    rng = np.random.default_rng(seed)
    means = [float(values[rng.integers(len(values), size=len(values))].mean()) for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
