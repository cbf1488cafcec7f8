"""Folders of photographs → batches of network inputs and coding errors, the same for the same (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pixzip.errors import TrainingDataError
from pixzip.frame import INPUTS, picture_errors, row_inputs


@dataclass(frozen=True)
class Batch:
    """inputs (n, h, w, INPUTS) int8 and errors (n, h, w, 3) int16 of n crops."""

    inputs: NDArray[np.int8]
    errors: NDArray[np.int16]


def load_pictures(folder: Path) -> list[NDArray[np.uint8]]:
    """All readable pictures of a folder as (h, w, 3) uint8, in order of name.

    Raises TrainingDataError when there is none; files that Pillow cannot read are passed over.
    """
    pictures = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            with Image.open(path) as image:
                pictures.append(np.asarray(image.convert("RGB")))
        except (UnidentifiedImageError, OSError):
            continue
    if not pictures:
        raise TrainingDataError(f"no readable picture in {folder}")
    return pictures


def centre_crops(pictures: list[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    """(n, size, size, 3): the middle of every picture that is large enough.

    Raises TrainingDataError where none is.
    """
    crops = []
    for picture in pictures:
        y, x = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
        if y >= 0 and x >= 0:
            crops.append(picture[y : y + size, x : x + size])
    if not crops:
        raise TrainingDataError(f"no picture of at least {size} x {size} pixels among {len(pictures)}")
    return np.stack(crops)


def prepare(crops: NDArray[np.uint8]) -> Batch:
    """(n, h, w, 3) pixels → network inputs and coding errors, each crop as a picture of its own."""
    n, h, w, _ = crops.shape
    inputs = np.empty((n, h, w, INPUTS), dtype=np.int8)
    errors = np.empty((n, 3, h, w), dtype=np.int16)
    for i in range(n):
        planes = np.ascontiguousarray(crops[i].transpose(2, 0, 1))
        picture_errors(planes, errors[i])
        for y in range(h):
            row_inputs(planes, errors[i], y, inputs[i, y])
    return Batch(inputs, np.ascontiguousarray(errors.transpose(0, 2, 3, 1)))


def _luma(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 3) → (h, w): ITU-R 601-2 luma, as Pillow computes it."""
    weighted = crop.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
    return ((weighted + 32768) >> 16).astype(np.uint8)


class RandomCrops:
    """Random crops in all eight orientations; picture chosen in proportion to its number of crop positions.

    gray_share of the crops is turned into gray, three equal planes: that is how gray pictures are coded.
    """

    def __init__(
        self, pictures: list[NDArray[np.uint8]], size: int, count: int, seed: int, gray_share: float = 0.0
    ) -> None:
        self.pictures = [p for p in pictures if min(p.shape[:2]) >= size]
        if not self.pictures:
            raise TrainingDataError(f"no picture of at least {size} x {size} pixels among {len(pictures)}")
        areas = np.array([(p.shape[0] - size + 1) * (p.shape[1] - size + 1) for p in self.pictures], dtype=np.float64)
        self._weights = areas / areas.sum()
        self._size, self._count, self._seed, self._gray_share = size, count, seed, gray_share
        self.pixels = count * size * size

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        rng = np.random.default_rng([self._seed, step])
        crops = np.empty((self._count, self._size, self._size, 3), dtype=np.uint8)
        for i, which in enumerate(rng.choice(len(self.pictures), self._count, p=self._weights)):
            picture = self.pictures[which]
            y = int(rng.integers(picture.shape[0] - self._size + 1))
            x = int(rng.integers(picture.shape[1] - self._size + 1))
            crop = picture[y : y + self._size, x : x + self._size]
            turned = crop.transpose(1, 0, 2) if rng.integers(2) else crop
            crops[i] = turned[:: 1 - 2 * int(rng.integers(2)), :: 1 - 2 * int(rng.integers(2))]
            if rng.random() < self._gray_share:
                crops[i] = _luma(crops[i])[:, :, None]
        return prepare(crops)

    def from_step(self, step: int) -> Iterator[Batch]:
        """Batches of step, step + 1, ..., each prepared while the one before is in use."""
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[Batch] = pool.submit(self.batch, step)
            while True:
                ready = ahead.result()
                step += 1
                ahead = pool.submit(self.batch, step)
                yield ready
