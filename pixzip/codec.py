"""Pixels ↔ tile payloads with a model, memory to memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.entropy import Lanes, encode_words, lane_lengths, lane_order, lane_payload, read_lanes
from pixzip.coding.schedule import default_lanes, pictures_together, tiles_of
from pixzip.errors import FormatError, UsageError
from pixzip.keywords import DEVICES, ENGINES, check_engine, integer, rate_of
from pixzip.model.file import Model, TrunkNetwork
from pixzip.model.multiscale import MultiScaleNetwork
from pixzip.pxz.container import MAX_LANES, MAX_TILE
from pixzip.reports import Progress, Shares, part_of
from pixzip.runtime.engines import choose_engine
from pixzip.runtime.frozen import decode_block, intervals, products_alone, shares_a_block
from pixzip.threads import side_by_side

_Stream = tuple[NDArray[np.uint32], NDArray[np.uint32]]
_Made = TypeVar("_Made")
DEFAULT_TILE = 1024


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


def _run(
    model: Model, work: Callable[[int, int], _Made], count: int, threads: int | None, at_once: int | None
) -> list[_Made]:
    """Run work(0, n), ..., work(count - 1, n), where n is the number of threads that each may use.

    Many tiles run side by side, which needs no waiting, but no more than at_once; few tiles one after another, each on
    all threads, where the network has a use for them.
    """
    threads = threads or os.cpu_count() or 1
    shared = shares_a_block(model.network) and count < 4 * threads
    tiles = 1 if shared else min(threads, count, at_once or count)
    with products_alone(model.network):
        return side_by_side(lambda i: work(i, threads // tiles), range(count), tiles)


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
    tile = integer("tile", tile, 1, MAX_TILE)
    tiles = tiles_of(n, height, width, tile)
    learning = rate_of(model, learning)
    first = tiles[0]
    if lanes is None:
        lanes = default_lanes((first.last - first.first) * first.h * first.w)
    lanes = integer("lanes", lanes, 1, MAX_LANES)
    engine = engine_for(model, engine)
    cuts = [pixels[t.first : t.last, :, t.y : t.y + t.h, t.x : t.x + t.w] for t in tiles]
    if engine in DEVICES:
        made = _encode_on_device(model, cuts, lanes, learning, engine, at_once, progress)
    else:
        share = Shares([(t.last - t.first) * t.h * t.w for t in tiles], progress)

        def work(index: int, threads: int) -> tuple[bytes, float]:
            return _encode_tile(model, cuts[index], lanes, learning, engine, threads, share.of(index))

        made = _run(model, work, len(tiles), threads, at_once)
    return Encoded(tuple(m[0] for m in made), tile, lanes, learning, sum(m[1] for m in made))


def engine_for(model: Model, wanted: str | None) -> str:
    """The engine that codes with a model. Raises UsageError where it, or this machine, has not the one wanted."""
    check_engine(wanted, (*ENGINES, *DEVICES))
    if wanted not in DEVICES:
        return choose_engine(wanted)
    if not isinstance(model.network, TrunkNetwork):
        raise UsageError(f"engine {wanted}: model {model.name} runs on the CPU only")
    from pixzip.runtime.device.together import check_device

    check_device(wanted)
    return wanted


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
    return block_payload(left, frequency, n, lanes, model), _row_bits(frequency)


def _row_bits(frequency: NDArray[np.uint32]) -> float:
    return 24.0 * frequency.size - float(np.log2(frequency, dtype=np.float64).sum())


def _encode_on_device(
    model: Model,
    cuts: Sequence[NDArray[np.uint8]],
    lanes: int,
    learning: int,
    engine: str,
    at_once: int | None,
    progress: Progress | None,
) -> list[tuple[bytes, float]]:
    """As _encode_tile of each tile or block, which run side by side on a device."""
    from pixzip.runtime.device.together import Call, intervals_together
    from pixzip.runtime.device.wavefront import Block

    assert isinstance(model.network, TrunkNetwork)
    colours = cuts[0].shape[1]
    planes = [np.broadcast_to(cut, (len(cut), model.network.planes, *cut.shape[2:])) for cut in cuts]
    blocks = [Block((len(cut), *cut.shape[2:]), learning) for cut in cuts]
    found = intervals_together(Call(model.network, engine, blocks, colours, at_once, progress), planes)
    return [
        (block_payload(*pair, len(cut), lanes, model), _row_bits(pair[1]))
        for pair, cut in zip(found, cuts, strict=True)
    ]


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
    group = pictures_together(n, width, learning=bool(learning))
    if n <= group:
        return intervals(model.network, engine, planes, colours, progress, threads, learning)
    left = np.empty((height, colours, width, n), dtype=np.uint32)
    frequency = np.empty_like(left)
    for i in range(0, n, group):
        some = planes[i : i + group]
        report = part_of(progress, i / n, (i + len(some)) / n)
        part = intervals(model.network, engine, some, colours, report, threads, learning)
        shape = (height, colours, width, len(some))
        left[..., i : i + group], frequency[..., i : i + group] = part[0].reshape(shape), part[1].reshape(shape)
    return left.reshape(height, colours, -1), frequency.reshape(height, colours, -1)


def block_payload(left: NDArray[np.uint32], frequency: NDArray[np.uint32], n: int, lanes: int, model: Model) -> bytes:
    """Order a block's intervals by lane and code each lane."""
    network = model.network
    if isinstance(network, MultiScaleNetwork):
        streams = _multiscale_streams(left, frequency, n, lanes, network)
    else:
        streams = _streams(left, frequency, n, lanes, network.slope_at(left.shape[2] // n))
    return lane_payload([encode_words(*stream) for stream in streams])


def _streams(left: NDArray[np.uint32], frequency: NDArray[np.uint32], n: int, lanes: int, slope: int) -> list[_Stream]:
    """Each lane's intervals (left, f) in the order of decoding."""
    height, colours, m = left.shape
    stops = np.cumsum(lane_lengths(height, n, m // n, colours, lanes))
    starts = np.concatenate([[0], stops[:-1]]).astype(np.int64)
    ordered = []
    for values in (left, frequency):
        out = np.empty(values.size, dtype=np.uint32)
        lane_order(values, n, slope, lanes, starts, out)
        ordered.append(out)
    return [(ordered[0][a:b], ordered[1][a:b]) for a, b in zip(starts, stops, strict=True)]


def _multiscale_streams(
    left: NDArray[np.uint32], frequency: NDArray[np.uint32], n: int, lanes: int, network: MultiScaleNetwork
) -> list[_Stream]:
    """As _streams: in each lane the small picture's symbols, then those of the whole one that are not in it."""
    height, colours, m = left.shape
    pixels = [values.reshape(height, colours, m // n, n) for values in (left, frequency)]
    factor = network.factor
    of_small = [np.ascontiguousarray(values[::factor, :, ::factor]) for values in pixels]
    small = [values.reshape(*values.shape[:2], -1) for values in of_small]
    unknown = pixels[1].copy()
    unknown[::factor, :, ::factor] = 0  # no symbol has a frequency of 0
    before = _streams(small[0], small[1], n, lanes, network.small.slope_at(of_small[0].shape[2]))
    after = _streams(left, unknown.reshape(frequency.shape), n, lanes, network.large.slope_at(m // n))
    kept = [(a[f > 0], f[f > 0]) for a, f in after]
    return [(np.concatenate([s[0], t[0]]), np.concatenate([s[1], t[1]])) for s, t in zip(before, kept, strict=True)]


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
    faults: dict[int, str] | None = None,
) -> NDArray[np.uint8]:
    """Pixels (n, c, h, w) uint8 of payloads made by encode; shape is theirs, c is 1 or 3; at_once as there.

    Raises FormatError when the payloads are not what an encoder writes; where faults is given, such tiles are left 0
    and the reasons put there instead, under the tiles' numbers (on the CPU only).
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
    if faults is not None and engine in DEVICES:
        raise UsageError(f"engine {engine}: damaged files are decoded on the CPU only")
    engine = engine_for(model, engine)
    sizes = [(t.last - t.first, t.h, t.w) for t in cuts]
    out = np.zeros(shape, dtype=np.uint8)

    def put(index: int, planes: NDArray[np.uint8]) -> None:
        t = cuts[index]
        out[t.first : t.last, :, t.y : t.y + t.h, t.x : t.x + t.w] = planes[:, :channels]

    if engine in DEVICES:
        streams = [read_lanes(payload, lanes) for payload in tiles]
        for index, planes in enumerate(
            _decode_on_device(model, sizes, streams, channels, learning, engine, at_once, progress)
        ):
            put(index, planes)
        return out
    share = Shares([n * h * w for n, h, w in sizes], progress)

    def work(index: int, threads: int) -> None:
        report = share.of(index)
        try:
            streams = read_lanes(tiles[index], lanes)
            put(index, decode_block(model.network, engine, streams, sizes[index], channels, report, threads, learning))
        except FormatError as error:
            if faults is None or error in share.raised:
                raise
            faults[index] = str(error)

    _run(model, work, len(cuts), threads, at_once)
    return out


def _decode_on_device(
    model: Model,
    sizes: Sequence[tuple[int, int, int]],
    streams: Sequence[Lanes],
    colours: int,
    learning: int,
    engine: str,
    at_once: int | None,
    progress: Progress | None,
) -> list[NDArray[np.uint8]]:
    """As frozen.decode_block of each tile or block, which run side by side on a device."""
    from pixzip.runtime.device.together import Call, decode_together
    from pixzip.runtime.device.wavefront import Block

    assert isinstance(model.network, TrunkNetwork)
    call = Call(model.network, engine, [Block(size, learning) for size in sizes], colours, at_once, progress)
    found = decode_together(call, streams)
    for _, ends in found:
        ends.check_finished()
    return [planes for planes, _ in found]
