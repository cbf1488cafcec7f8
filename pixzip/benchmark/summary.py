"""A section's measurements → means, savings with bootstrap intervals, the pictures at either end, the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.benchmark.measure import Coded
from pixzip.benchmark.peers import PeerFile
from pixzip.benchmark.results import TITLES, Section
from pixzip.evaluate import bootstrap

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Codec:
    """One codec on all complete pictures of a section. Arrays are (pictures,)."""

    name: str
    title: str
    is_model: bool
    file_bits: NDArray[np.float64]
    encode_s: NDArray[np.float64]
    decode_s: NDArray[np.float64]


@dataclass(frozen=True)
class Saving:
    """Mean of 1 - file / other file over pictures, with a 95 % bootstrap interval over pictures."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Complete:
    """The pictures that every codec has coded."""

    names: list[str]
    index: list[int]  # in the section
    sub_pixels: NDArray[np.float64]
    pixels: NDArray[np.float64]
    codecs: list[Codec]

    def bits_per_dim(self, codec: Codec) -> NDArray[np.float64]:
        """Of every picture."""
        return codec.file_bits / self.sub_pixels

    @property
    def best_peer(self) -> Codec | None:
        """The codec that is no model of ours with the smallest mean."""
        peers = [codec for codec in self.codecs if not codec.is_model]
        return min(peers, key=lambda codec: float(self.bits_per_dim(codec).mean()), default=None)

    def seconds_per_megapixel(self, seconds: NDArray[np.float64]) -> float:
        """Of all pictures together."""
        return float(seconds.sum() / self.pixels.sum() * 1e6)


def complete(section: Section) -> Complete:
    """The pictures of a section that all its codecs have, and the codecs on them; models first."""
    kinds: list[tuple[str, bool, Sequence[Any]]] = [(name, True, files) for name, files in section.coded.items()]
    kinds += [(name, False, files) for name, files in section.peers.items()]
    index = [i for i in range(len(section.pictures)) if all(files[i] is not None for _, _, files in kinds)]
    shots = [section.pictures[i] for i in index]
    return Complete(
        names=[shot.name for shot in shots],
        index=index,
        sub_pixels=np.array([shot.sub_pixels for shot in shots], dtype=np.float64),
        pixels=np.array([shot.height * shot.width for shot in shots], dtype=np.float64),
        codecs=[_codec(name, is_model, [files[i] for i in index]) for name, is_model, files in kinds],
    )


def _codec(name: str, is_model: bool, files: Sequence[Coded | PeerFile]) -> Codec:
    bits = [each.file_bits if isinstance(each, Coded) else 8 * each.bytes for each in files]
    return Codec(
        name=name,
        title=f"pixzip {name}" if is_model else TITLES[name],
        is_model=is_model,
        file_bits=np.array(bits, dtype=np.float64),
        encode_s=np.array([each.encode_s for each in files], dtype=np.float64),
        decode_s=np.array([each.decode_s for each in files], dtype=np.float64),
    )


def saving(ours: Codec, other: Codec) -> Saving:
    """What a codec's files save over another's, paired by picture."""
    each = 1 - ours.file_bits / other.file_bits
    return Saving(float(each.mean()), *bootstrap(each, resamples=_RESAMPLES))


def extremes(found: Complete, ours: Codec, other: Codec, count: int) -> tuple[list[int], list[int]]:
    """Places in the complete pictures where we save most, and least, over another codec; at most ``count`` each."""
    order = np.argsort(ours.file_bits / other.file_bits, kind="stable").tolist()
    count = min(count, len(order) // 2)
    return order[:count], order[len(order) - count :]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other beats in one coordinate without losing in the other, by the first."""
    out: list[int] = []
    least = float("inf")
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if points[i][1] < least:
            least = points[i][1]
            out.append(i)
    return out
