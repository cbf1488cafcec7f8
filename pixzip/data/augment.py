"""Crops as other cameras and other software would have left them: grain, and chroma kept at half the resolution.

Training photographs are clean and were made smaller; those that people keep often have film grain or sensor noise, and
many went through JPEG, video or Photo CD, whose chroma has half the luma's resolution in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Coding:
    """An 8-bit code of luma and two colour differences: how many levels of RGB one step of each is worth."""

    red: float
    blue: float
    luma_step: float
    blue_step: float
    red_step: float

    def of_rgb(self, pixels: Planes) -> Planes:
        """(h, w, 3) RGB → luma, B - luma, R - luma, in levels of RGB."""
        luma = self.red * pixels[..., 0] + (1 - self.red - self.blue) * pixels[..., 1] + self.blue * pixels[..., 2]
        ycc: Planes = np.stack([luma, pixels[..., 2] - luma, pixels[..., 0] - luma], axis=-1)
        return ycc

    def to_rgb(self, ycc: Planes) -> Planes:
        """The inverse of of_rgb."""
        luma, blue, red = ycc[..., 0], ycc[..., 1], ycc[..., 2]
        green = luma - (self.red * red + self.blue * blue) / (1 - self.red - self.blue)
        rgb: Planes = np.stack([luma + red, green, luma + blue], axis=-1)
        return rgb

    def steps(self) -> Planes:
        """(3,): of luma, B - luma, R - luma."""
        return np.array([self.luma_step, self.blue_step, self.red_step], dtype=np.float32)


_VIDEO = 255 / 219, 255 / 224
#: JFIF 1.02; ITU-R BT.601 and BT.709 with 8-bit levels of video; PhotoYCC (Photo CD, Kodak PCD 042).
CODINGS = (
    Coding(0.299, 0.114, 1.0, 1.772, 1.402),
    Coding(0.299, 0.114, _VIDEO[0], 1.772 * _VIDEO[1], 1.402 * _VIDEO[1]),
    Coding(0.2126, 0.0722, _VIDEO[0], 1.8556 * _VIDEO[1], 1.5748 * _VIDEO[1]),
    Coding(0.299, 0.114, 1.3584, 2.2179, 1.8215),
)


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
    """(h, w, 3) as it comes out of an 8-bit code of luma and chroma, chroma averaged over 2×2 pixels and brought back.

    One of CODINGS, its levels kept or not; some have chroma halved across only. It comes back by repetition or linear
    interpolation. The grid begins at a random place, as a crop's does.
    """
    coding = CODINGS[rng.integers(len(CODINGS))]
    levels, down = rng.random() < 0.75, 2 if rng.random() < 0.85 else 1
    ycc = coding.of_rgb(pixels)
    h, w, _ = ycc.shape
    dy, dx = int(rng.integers(down)), int(rng.integers(2))
    chroma = np.pad(ycc[:, :, 1:], ((dy, (h + dy) % down), (dx, (w + dx) % 2), (0, 0)), mode="edge")
    small = chroma.reshape(chroma.shape[0] // down, down, chroma.shape[1] // 2, 2, 2).mean((1, 3))
    if levels:
        small = _at_levels(small, coding.steps()[1:])
    if rng.random() < 0.25:
        large = small.repeat(down, axis=0).repeat(2, axis=1)
    else:
        large = _doubled(small.transpose(1, 0, 2)).transpose(1, 0, 2)
        large = _doubled(large) if down == 2 else large
    ycc[:, :, 1:] = large[dy : dy + h, dx : dx + w]
    return coding.to_rgb(_at_levels(ycc, coding.steps()) if levels else ycc).astype(np.float32)


def _at_levels(planes: Planes, steps: Planes) -> Planes:
    """(h, w, c) at the nearest multiples of steps (c,)."""
    whole: Planes = np.floor(planes / steps + np.float32(0.5)) * steps
    return whole


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
