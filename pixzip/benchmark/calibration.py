"""Pictures and a model → how often that happens to which the model gives a probability p, by p.

Every sub-pixel gives 256 events, "it is the symbol i": each has a probability, and one of them happens. Events are
sorted into bins by their probability; in each, a calibrated model's mean probability is the frequency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixzip.benchmark.measure import Pixels, planes_of
from pixzip.keywords import rate_of
from pixzip.model.file import Model
from pixzip.runtime.engines import choose_engine
from pixzip.runtime.frozen import probabilities

#: Bins are half an octave wide, from 2^-_OCTAVES to 1; what is less likely is in the first.
_OCTAVES = 16
BINS = 2 * _OCTAVES
#: Side of what is looked at in the middle of a picture.
CROP = 128


@dataclass(frozen=True)
class Calibration:
    """Of each bin: events, how many happened, and the sum of their probabilities."""

    events: list[int]
    happened: list[int]
    expected: list[float]

    def points(self, least: int = 20) -> list[tuple[float, float, int]]:
        """(mean probability, frequency, happened) of the bins where at least so many were expected or happened."""
        rows = zip(self.events, self.happened, self.expected, strict=True)
        return [(e / n, h / n, h) for n, h, e in rows if n and max(h, e) >= least]


def bin_of(p: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of probabilities, of any shape."""
    with np.errstate(divide="ignore"):
        place = np.floor(2 * np.log2(p)) + BINS
    out: NDArray[np.int64] = np.clip(place, 0, BINS - 1).astype(np.int64)
    return out


def calibration(model: Model, pictures: Sequence[Pixels], learning: int | None) -> Calibration:
    """Of the middles of pictures (CROP × CROP at most), each learned from its own pixels where the model learns."""
    events, happened = np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64)
    expected = np.zeros(BINS)

    def visit(p: NDArray[np.float64], symbols: NDArray[np.int64]) -> None:
        place = bin_of(p)  # (m, symbols)
        events[:] += np.bincount(place.reshape(-1), minlength=BINS)
        expected[:] += np.bincount(place.reshape(-1), p.reshape(-1), minlength=BINS)
        happened[:] += np.bincount(place[np.arange(len(symbols)), symbols], minlength=BINS)

    for picture in pictures:
        planes = planes_of([_middle(picture)])
        wide = np.ascontiguousarray(np.broadcast_to(planes, (1, model.network.planes, *planes.shape[2:])))
        rate = rate_of(model, learning)
        probabilities(model.network, choose_engine(None), wide, planes.shape[1], rate, visit)
    return Calibration(events.tolist(), happened.tolist(), expected.tolist())


def _middle(picture: Pixels) -> Pixels:
    h, w = picture.shape[:2]
    y, x = max(0, h - CROP) // 2, max(0, w - CROP) // 2
    return picture[y : y + CROP, x : x + CROP]
