"""Pictures and a model → model bits, row bits, bytes of every part of their file, and seconds; verified."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip import api, codec, evaluate
from pixzip.benchmark.anatomy import anatomy
from pixzip.errors import PixelChecksumError
from pixzip.model.file import Model, find_model

#: (h, w) or (h, w, 3) of uint8, or (h, w) of bool.
Pixels = NDArray[Any]
#: What a file may have beyond the model's bits, and a picture's share of it.
BOUND_BYTES, BOUND_SHARE = 200, 0.001


@dataclass(frozen=True)
class Coded:
    """One file of one or several pictures, coded with a model, decoded and compared.

    model_bits, row_bits: as in docs/results.md, None where the model cannot code such pictures. parts: bytes of the
    file (anatomy.PARTS). Seconds: medians of so many runs of pixzip.compress and decompress in memory.
    """

    pictures: int
    sub_pixels: int
    model_bits: float | None
    row_bits: float | None
    parts: dict[str, int]
    encode_s: float
    decode_s: float
    runs: int

    @property
    def file_bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def file_bits(self) -> int:
        return 8 * self.file_bytes

    @property
    def payload_bytes(self) -> int:
        """Of all tiles, or of the stored picture."""
        return self.parts["words"] + self.parts["lane_table"] + self.parts["stored"]

    @property
    def is_stored(self) -> bool:
        """Whether a classical codec's file was shorter."""
        return self.parts["stored"] > 0

    @property
    def overheads(self) -> dict[str, float]:
        """Bytes that lead from the model's bits to the file's: their sum is the difference."""
        if self.model_bits is None or self.row_bits is None:
            return {}
        p = self.parts
        if self.is_stored:
            coding = {"rows": 0.0, "coder": p["stored"] - self.model_bits / 8}
        else:
            coding = {"rows": (self.row_bits - self.model_bits) / 8, "coder": p["words"] - self.row_bits / 8}
        inside = p["palette"] + p["metadata"] + p["alpha"] + p["model_file"] + p["other"]
        framing = {"lane_table": p["lane_table"], "header": p["magic"] + p["header"], "frames": p["frames"]}
        return coding | {name: float(size) for name, size in framing.items()} | {"inside": float(inside)}

    @property
    def overhead_bytes(self) -> float | None:
        """File less model."""
        return None if self.model_bits is None else self.file_bytes - self.model_bits / 8

    @property
    def bound_bytes(self) -> float | None:
        """What the overhead must not exceed."""
        return None if self.model_bits is None else self.model_bits / 8 * BOUND_SHARE + BOUND_BYTES


def planes_of(pictures: Sequence[Pixels]) -> NDArray[np.uint8]:
    """Pictures of one shape as a model takes them: (n, c, h, w) uint8."""
    stack = np.stack([np.asarray(p, dtype=np.uint8) for p in pictures])
    return np.ascontiguousarray(stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2))


def depth_of(picture: Pixels) -> int:
    """Bits a sample: 1 or 8."""
    return 1 if picture.dtype == np.bool_ else 8


def bits_of(model: Model, pictures: Sequence[Pixels], learning: int | None, threads: int) -> NDArray[np.float64] | None:
    """Model bits of every sub-pixel (n, c, h, w); None where the model does not code such pictures."""
    planes = planes_of(pictures)
    if model.network.refusal(planes.shape[1], depth_of(pictures[0])) is not None:
        return None
    return evaluate.plane_bits(model, planes, learning=learning, threads=threads)


def measure(pictures: Sequence[Pixels], name: str, learning: int | None, threads: int, runs: int = 1) -> Coded:
    """Code pictures of one shape as one file with the model of this name; times are medians of ``runs``.

    Raises PixelChecksumError where other pixels come back, and what pixzip.compress raises.
    """
    model, planes, depth = find_model(name), planes_of(pictures), depth_of(pictures[0])
    bits, row_bits = bits_of(model, pictures, learning, threads), None
    if bits is not None:
        _warm(model, planes, depth, learning, threads)
        row_bits = codec.encode(model, planes, depth=depth, learning=learning, threads=threads).row_bits
    layout: dict[str, Any] = {"model": name, "threads": threads}
    file, first_s = _timed(lambda: api.compress_batch(pictures, learning=learning, **layout))
    decoded, back_s = _timed(lambda: api.decompress_batch(file, **layout))
    for wanted, found in zip(pictures, decoded, strict=True):
        if not np.array_equal(planes_of([wanted])[0], found.planes):
            raise PixelChecksumError("other pixels came back than were coded")
    encode_s, decode_s = [first_s], [back_s]
    for _ in range(runs - 1):
        encode_s.append(_timed(lambda: api.compress_batch(pictures, learning=learning, **layout))[1])
        decode_s.append(_timed(lambda: api.decompress_batch(file, **layout))[1])
    return Coded(
        pictures=len(pictures),
        sub_pixels=planes.size,
        model_bits=None if bits is None else float(bits.sum()),
        row_bits=row_bits,
        parts=anatomy(file),
        encode_s=statistics.median(encode_s),
        decode_s=statistics.median(decode_s),
        runs=runs,
    )


def _warm(model: Model, planes: NDArray[np.uint8], depth: int, learning: int | None, threads: int) -> None:
    """Code a corner both ways, so that nothing compiles in the time that counts."""
    corner = np.ascontiguousarray(planes[:1, :, :8, :8])
    made = codec.encode(model, corner, depth=depth, learning=learning, threads=threads)
    (n, c, h, w), layout = corner.shape, dict[str, Any](made.layout)
    codec.decode(model, made.tiles, (n, c, h, w), depth=depth, threads=threads, **layout)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start
