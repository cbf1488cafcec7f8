"""Pictures → random crops, the same for the same (seed, step, place in a batch), and crops to validate on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pixzip.data.augment import aged
from pixzip.data.cache import Pictures
from pixzip.data.settings import DataSettings
from pixzip.errors import TrainingDataError

Pixels = NDArray[np.uint8]
_T = TypeVar("_T")


def luma(crop: Pixels) -> Pixels:
    """(h, w, 3) → (h, w): ITU-R 601-2 luma, as Pillow computes it."""
    weighted = crop.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
    return ((weighted + 32768) >> 16).astype(np.uint8)


def as_planes(crop: Pixels, planes: int) -> Pixels:
    """(h, w, 1 or 3) → (h, w, planes): luma of colours, or gray three times."""
    if crop.shape[2] == planes:
        return crop
    return luma(crop)[:, :, None] if planes == 1 else np.repeat(crop, 3, axis=2)


def reduced(crop: Pixels, scale: int) -> Pixels:
    """(h * scale, w * scale, planes) → (h, w, planes): means of squares, rounded half up."""
    if scale == 1:
        return crop
    h, w, planes = crop.shape[0] // scale, crop.shape[1] // scale, crop.shape[2]
    sums: NDArray[np.uint32] = crop.reshape(h, scale, w, scale, planes).sum(axis=(1, 3), dtype=np.uint32)
    return ((sums + scale * scale // 2) // (scale * scale)).astype(np.uint8)


def centre_crops(pictures: Pictures, settings: DataSettings) -> Pixels:
    """(n, size, size, planes): the middle of every picture that is large enough, or of the first few by content hash.

    Raises TrainingDataError where none is.
    """
    size = settings.validation_crop
    large = np.flatnonzero(np.minimum(pictures.heights, pictures.widths) >= size)
    if not len(large):
        raise TrainingDataError(_too_small("validation", size, pictures))
    order = large[np.argsort(pictures.hashes[large], kind="stable")]
    crops = []
    for i in order[: settings.validation_pictures or None]:
        picture = pictures[int(i)]
        y, x = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
        crops.append(as_planes(picture[y : y + size, x : x + size], settings.planes))
    return np.stack(crops)


def _too_small(part: str, size: int, pictures: Pictures) -> str:
    largest = int(np.minimum(pictures.heights, pictures.widths).max())
    return (
        f"no {part} picture of at least {size} x {size} pixels among {len(pictures)}; "
        f"the largest shorter side is {largest}"
    )


class RandomCrops:
    """Random crops; a picture is chosen in proportion to its number of crop positions."""

    def __init__(self, pictures: Pictures, settings: DataSettings, seed: int) -> None:
        size = settings.crop
        positions = np.maximum(pictures.heights - size + 1, 0) * np.maximum(pictures.widths - size + 1, 0)
        if not positions.any():
            raise TrainingDataError(_too_small("training", size, pictures))
        self._cumulative = np.cumsum(positions, dtype=np.int64)
        self._pictures, self._settings, self._seed = pictures, settings, seed

    def reseeded(self, by: int) -> RandomCrops:
        """Crops of the same pictures that have nothing to do with these."""
        return RandomCrops(self._pictures, self._settings, self._seed + by)

    def crop(self, attempt: int, step: int, place: int) -> Pixels:
        """(size, size, planes): crop number ``place`` of a step; attempt counts the training's setbacks."""
        rng = np.random.default_rng([self._seed, attempt, step, place])
        at = int(rng.integers(self._cumulative[-1]))
        picture = self._pictures[int(np.searchsorted(self._cumulative, at, side="right"))]
        s = self._settings
        fitting = [scale for scale in s.scales if scale * s.crop <= min(picture.shape[:2])] or [1]
        side = s.crop * (scale := fitting[int(rng.integers(len(fitting)))])
        y, x = int(rng.integers(picture.shape[0] - side + 1)), int(rng.integers(picture.shape[1] - side + 1))
        crop = reduced(picture[y : y + side, x : x + side], scale)
        crop = self._turned(as_planes(crop, s.planes), rng)
        if crop.shape[2] == 3 and (s.grain_share or s.chroma_share):
            crop = aged(crop, rng, s.grain_share, s.chroma_share)
        return self._coloured(crop, rng)

    def _turned(self, crop: Pixels, rng: np.random.Generator) -> Pixels:
        transpose, up_down, mirror = (bool(bit) for bit in rng.integers(2, size=3))
        kind = self._settings.orientations
        if kind == "all" and transpose:
            crop = crop.transpose(1, 0, 2)
        if kind == "all" and up_down:
            crop = crop[::-1]
        return crop[:, ::-1] if kind != "none" and mirror else crop

    def _coloured(self, crop: Pixels, rng: np.random.Generator) -> Pixels:
        """Gray crops are three equal planes: that is how gray pictures are coded."""
        gray, permute = rng.random(2)
        if crop.shape[2] == 3 and permute < self._settings.permute_share:
            crop = crop[:, :, rng.permutation(3)]
        if crop.shape[2] == 3 and gray < self._settings.gray_share:
            crop = np.repeat(luma(crop)[:, :, None], 3, axis=2)
        return crop

    def batch(self, attempt: int, step: int, places: range) -> Pixels:
        """(n, size, size, planes): some of the crops of one step."""
        return np.stack([self.crop(attempt, step, place) for place in places])


def ahead(make: Callable[[int], _T], step: int) -> Generator[_T, None, None]:
    """make(step), make(step + 1), ..., each made in a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming: Future[_T] = pool.submit(make, step)
        while True:
            ready = coming.result()
            step += 1
            coming = pool.submit(make, step)
            yield ready
