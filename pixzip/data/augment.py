"""Crops as other cameras and other software would have left them: grain, and chroma kept at half the resolution.

Training photographs are clean and were made smaller; those that people keep often have film grain or sensor noise, and
many went through JPEG, video or Photo CD, whose chroma has half the luma's resolution in both directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.floating[Any]]

#: RGB → Y, Cb, Cr of JFIF, and back.
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=np.float32)
_TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], dtype=np.float32)


def _blurred(planes: Planes, side: float) -> Planes:
    """Planes (h + 2, w + 2, c) filtered by (side, 1, side) down and across, of unit energy: (h, w, c)."""
    across = side * (planes[:, :-2] + planes[:, 2:]) + planes[:, 1:-1]
    both = side * (across[:-2] + across[2:]) + across[1:-1]
    return both / np.float32(1 + 2 * side * side)


def grain(pixels: Planes, rng: np.random.Generator) -> Planes:
    """(h, w, 3) with noise of a random strength: partly common to the colours, partly correlated with its neighbours.

    The standard deviation lies between 0.7 and 6, the small ones more often.
    """
    h, w, _ = pixels.shape
    sigma = 0.7 * (6 / 0.7) ** rng.random()
    common = rng.random()
    noise = rng.standard_normal((h + 2, w + 2, 4), dtype=np.float32)
    noise = _blurred(noise, 0.6 * max(0.0, rng.random() - 0.3))
    mixed = np.sqrt(common) * noise[:, :, :1] + np.sqrt(1 - common) * noise[:, :, 1:]
    with_noise: Planes = pixels + np.float32(sigma) * mixed
    return with_noise


def half_chroma(pixels: Planes, rng: np.random.Generator) -> Planes:
    """(h, w, 3) with Cb and Cr averaged over 2×2 pixels and brought back, by repetition or linear interpolation.

    The grid begins at a random place, as a crop's does.
    """
    ycc = pixels @ _TO_YCC.T
    h, w, _ = ycc.shape
    dy, dx = int(rng.integers(2)), int(rng.integers(2))
    chroma = np.pad(ycc[:, :, 1:], ((dy, (h + dy) % 2), (dx, (w + dx) % 2), (0, 0)), mode="edge")
    small = chroma.reshape(chroma.shape[0] // 2, 2, chroma.shape[1] // 2, 2, 2).mean((1, 3))
    if rng.random() < 0.25:
        large = small.repeat(2, axis=0).repeat(2, axis=1)
    else:
        large = _doubled(_doubled(small).transpose(1, 0, 2)).transpose(1, 0, 2)
    ycc[:, :, 1:] = large[dy : dy + h, dx : dx + w]
    return (ycc @ _TO_RGB.T).astype(np.float32)


def _doubled(rows: Planes) -> Planes:
    """(h, ...) → (2h, ...): weights 3/4 and 1/4 of the nearest two, as most JPEG decoders have it."""
    above = np.concatenate([rows[:1], rows[:-1]])
    below = np.concatenate([rows[1:], rows[-1:]])
    return np.stack([0.75 * rows + 0.25 * above, 0.75 * rows + 0.25 * below], axis=1).reshape(-1, *rows.shape[1:])


def aged(
    crop: NDArray[np.uint8], rng: np.random.Generator, grain_share: float, chroma_share: float
) -> NDArray[np.uint8]:
    """(h, w, 3) with grain and then halved chroma, each with its probability."""
    with_grain, with_chroma = rng.random() < grain_share, rng.random() < chroma_share
    if not (with_grain or with_chroma):
        return crop
    pixels = crop.astype(np.float32)
    if with_grain:
        pixels = grain(pixels, rng)
    if with_chroma:
        pixels = half_chroma(pixels, rng)
    rounded: NDArray[np.uint8] = np.clip(np.floor(pixels + np.float32(0.5)), 0, 255).astype(np.uint8)
    return rounded
