"""Pixels ↔ tile payloads with a model, memory to memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixzip.entropy import encode_words, lane_lengths, lane_order, lane_payload, read_lanes
from pixzip.errors import FormatError, UsageError
from pixzip.model_file import Model
from pixzip.runtime.engines import choose_engine
from pixzip.runtime.frozen import decode_block, intervals, products_alone, shares_a_block
from pixzip.schedule import MAX_LANES, MAX_TILE, Tile, default_lanes, tiles_of

Progress = Callable[[float], None]
DEFAULT_TILE = 1024
#: Rate at which the heads learn, in 1/64 of a weight's unit a step (docs/model-format.md, section 9).
DEFAULT_LEARNING = 8
MAX_LEARNING = 255
#: Positions that the encoder runs side by side when pictures are small.
_ENCODE_ROWS = 4096


@dataclass(frozen=True)
class Encoded:
    """Payloads of all tiles in order, and what a header must say of them; row_bits = -sum log2(f / 2^24)."""

    tiles: tuple[bytes, ...]
    tile: int
    lanes: int
    learning: int
    row_bits: float

    @property
    def layout(self) -> dict[str, int]:
        """What decode must be told beside the shape."""
        return {"tile": self.tile, "lanes": self.lanes, "learning": self.learning}


class _Share:
    """Sums the progress of concurrent tiles and reports the whole."""

    def __init__(self, tiles: Sequence[Tile], report: Progress | None) -> None:
        pixels = [(t.last - t.first) * t.h * t.w for t in tiles]
        self._weights = [p / sum(pixels) for p in pixels]
        self._done = [0.0] * len(tiles)
        self._report, self._lock = report, threading.Lock()

    def of(self, index: int) -> Progress | None:
        """What tile ``index`` calls with its own fraction."""
        report = self._report
        if report is None:
            return None

        def update(fraction: float) -> None:
            with self._lock:
                self._done[index] = fraction * self._weights[index]
                report(sum(self._done))

        return update


def _run(
    model: Model, work: Callable[[int, int], object], count: int, threads: int | None, at_once: int | None
) -> list[object]:
    """Run work(0, n), ..., work(count - 1, n), where n is the number of threads that each may use.

    Many tiles run side by side, which needs no waiting, but no more than at_once; few tiles one after another, each on
    all threads, where the network has a use for them.
    """
    threads = threads or os.cpu_count() or 1
    shared = shares_a_block(model.network) and count < 4 * threads
    side_by_side = 1 if shared else min(threads, count, at_once or count)
    with products_alone(model.network):
        if side_by_side == 1:
            return [work(i, threads) for i in range(count)]
        with ThreadPoolExecutor(side_by_side) as pool:
            return list(pool.map(lambda i: work(i, threads // side_by_side), range(count)))


def encode(
    model: Model,
    pixels: NDArray[np.uint8],
    *,
    depth: int = 8,
    tile: int = DEFAULT_TILE,
    lanes: int | None = None,
    learning: int | None = None,
    threads: int | None = None,
    at_once: int | None = None,
    engine: str | None = None,
    progress: Progress | None = None,
) -> Encoded:
    """Code pixels (n, 3, h, w), or (n, 1, h, w) for gray, uint8; of depth 1, two values, where depth is 1.

    learning is the rate at which the heads learn as they code, 0 for not at all, None for the default of networks that
    can. The payloads depend on the model, the pixels, tile, lanes and learning only. at_once: most tiles in work at a
    time. Raises UsageError for impossible arguments and for pictures of a kind that the model does not code.
    """
    n, channels, height, width = pixels.shape
    if channels not in (1, 3) or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise UsageError(f"pixels of shape {pixels.shape} and type {pixels.dtype}; (n, 1 or 3, h, w) uint8 are coded")
    if (reason := model.network.refusal(channels, depth)) is not None:
        raise UsageError(f"pictures of {channels} planes of {depth} bits: model {model.name} {reason}")
    if pixels.max() >= 1 << depth:
        raise UsageError(f"sample {pixels.max()} in a picture of depth {depth}")
    if not 1 <= tile <= MAX_TILE or not (lanes is None or 1 <= lanes <= MAX_LANES):
        raise UsageError(f"tile {tile}, lanes {lanes}; allowed are 1 to {MAX_TILE} and 1 to {MAX_LANES}")
    tiles = tiles_of(n, height, width, tile)
    learning = rate_of(model, learning)
    first = tiles[0]
    lanes = lanes or default_lanes((first.last - first.first) * first.h * first.w)
    engine = choose_engine(engine)
    share = _Share(tiles, progress)

    def work(index: int, threads: int) -> tuple[bytes, float]:
        t = tiles[index]
        cut = pixels[t.first : t.last, :, t.y : t.y + t.h, t.x : t.x + t.w]
        return _encode_tile(model, cut, lanes, learning, engine, threads, share.of(index))

    made = [m for m in _run(model, work, len(tiles), threads, at_once) if isinstance(m, tuple)]
    return Encoded(tuple(m[0] for m in made), tile, lanes, learning, sum(m[1] for m in made))


def rate_of(model: Model, learning: int | None) -> int:
    """The rate of learning that is meant. Raises UsageError for one that the network cannot have."""
    learns = model.network.learns
    if learning is None:
        return DEFAULT_LEARNING if learns else 0
    if not 0 <= learning <= MAX_LEARNING:
        raise UsageError(f"learning {learning}: must be 0 to {MAX_LEARNING}")
    if learning and not learns:
        raise UsageError(f"learning {learning}: model {model.name} cannot learn from what it codes, only 0 is allowed")
    return learning


def _encode_tile(
    model: Model,
    cut: NDArray[np.uint8],
    lanes: int,
    learning: int,
    engine: str,
    threads: int,
    progress: Progress | None,
) -> tuple[bytes, float]:
    """Payload and row bits of one tile or block."""
    n, colours, height, width = cut.shape
    planes = np.ascontiguousarray(np.broadcast_to(cut, (n, model.network.planes, height, width)))
    left, frequency = _intervals(model, planes, colours, learning, engine, threads, progress)
    row_bits = 24.0 * frequency.size - float(np.log2(frequency, dtype=np.float64).sum())
    return _lanes(left, frequency, n, lanes, model), row_bits


def _intervals(
    model: Model,
    planes: NDArray[np.uint8],
    colours: int,
    learning: int,
    engine: str,
    threads: int,
    progress: Progress | None,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """runtime's intervals of a block, of many small pictures some at a time: two arrays (h, colours, w * n)."""
    n, _, height, width = planes.shape
    group = n if learning else max(1, _ENCODE_ROWS // width)  # a block learns as one
    if n <= group:
        return intervals(model.network, engine, planes, colours, progress, threads, learning)
    left = np.empty((height, colours, width, n), dtype=np.uint32)
    frequency = np.empty_like(left)
    for i in range(0, n, group):
        some = planes[i : i + group]
        part = intervals(model.network, engine, some, colours, None, threads, learning)
        shape = (height, colours, width, len(some))
        left[..., i : i + group], frequency[..., i : i + group] = part[0].reshape(shape), part[1].reshape(shape)
    return left.reshape(height, colours, -1), frequency.reshape(height, colours, -1)


def _lanes(left: NDArray[np.uint32], frequency: NDArray[np.uint32], n: int, lanes: int, model: Model) -> bytes:
    """Order a block's intervals by lane and code each lane."""
    height, colours, m = left.shape
    stops = np.cumsum(lane_lengths(height, n, m // n, colours, lanes))
    starts = np.concatenate([[0], stops[:-1]]).astype(np.int64)
    ordered = []
    for values in (left, frequency):
        out = np.empty(values.size, dtype=np.uint32)
        lane_order(values, n, model.network.slope_at(m // n), lanes, starts, out)
        ordered.append(out)
    return lane_payload([encode_words(ordered[0][a:b], ordered[1][a:b]) for a, b in zip(starts, stops, strict=True)])


def decode(
    model: Model,
    tiles: Sequence[bytes],
    shape: tuple[int, int, int, int],
    *,
    depth: int = 8,
    tile: int,
    lanes: int,
    learning: int,
    threads: int | None = None,
    at_once: int | None = None,
    engine: str | None = None,
    progress: Progress | None = None,
) -> NDArray[np.uint8]:
    """Pixels (n, c, h, w) uint8 of payloads made by encode; shape is theirs, c is 1 or 3; at_once as there.

    Raises FormatError when the payloads are not what an encoder writes.
    """
    n, channels, height, width = shape
    if (reason := model.network.refusal(channels, depth)) is not None:
        raise FormatError(f"pictures of {channels} planes of {depth} bits: model {model.name} {reason}")
    try:
        rate_of(model, learning)
    except UsageError as error:
        raise FormatError(str(error)) from None
    cuts = tiles_of(n, height, width, tile)
    if len(cuts) != len(tiles):
        raise FormatError(f"{len(tiles)} tiles, a picture of this size has {len(cuts)}")
    engine = choose_engine(engine)
    out = np.empty(shape, dtype=np.uint8)
    share = _Share(cuts, progress)

    def work(index: int, threads: int) -> None:
        t = cuts[index]
        size, streams = (t.last - t.first, t.h, t.w), read_lanes(tiles[index], lanes)
        planes = decode_block(model.network, engine, streams, size, channels, share.of(index), threads, learning)
        out[t.first : t.last, :, t.y : t.y + t.h, t.x : t.x + t.w] = planes[:, :channels]

    _run(model, work, len(cuts), threads, at_once)
    return out
