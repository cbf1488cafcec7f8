"""Samples of 16 bits ↔ bytes: low bytes, where a model codes the high ones, or all bits (docs/format.md, section 12).

deep_kernels has the arithmetic; here are the values that a plane lists, the bytes around a stream, tiles and bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.deep_kernels import INVERSE_SCALES, LOGISTIC, VALUES, Stream, code_ranks, code_values, new_memory
from pixzip.coding.entropy import read_lane, words_of
from pixzip.coding.halves import joined
from pixzip.coding.numbers import number_bytes, read_number
from pixzip.coding.schedule import tiles_of
from pixzip.errors import FormatError
from pixzip.pxz.container import BAND_PIXELS
from pixzip.threads import side_by_side

#: Symbols that a list of values takes at most: those of its length, and of each value.
_COUNT_SYMBOLS, _VALUE_SYMBOLS = 16, 34
#: A list is not tried where it has more values than this.
_LONGEST_TRIED = VALUES // 8 * 7
_HIGH_BYTES = 256 * np.arange(257)
_NOT_KNOWN = np.empty((0, 0, 0, 0), dtype=np.uint8)

_Piece = TypeVar("_Piece")
_Made = TypeVar("_Made")


def encode_block(planes: NDArray[np.uint16], *, split: bool) -> bytes:
    """Code pictures (n, c, h, w) as one stream; split: their high bytes are known to the decoder.

    c at most MOST_PLANES; raises UsageError for more.
    """
    found = [np.unique(planes[:, c]).astype(np.int64) for c in range(planes.shape[1])]
    tried = [encode_with(planes, split, [None] * len(found))]
    if any(len(values) <= _LONGEST_TRIED for values in found):
        tried.append(encode_with(planes, split, [v if len(v) <= _LONGEST_TRIED else None for v in found]))
    return min(tried, key=len)


def encode_with(planes: NDArray[np.uint16], split: bool, lists: Sequence[NDArray[np.int64] | None]) -> bytes:
    """One stream; lists: of each plane its values in order, None: all of 16 bits."""
    room = planes.size + sum(_COUNT_SYMBOLS + _VALUE_SYMBOLS * len(v) for v in lists if v is not None)
    s = _stream(False, np.empty(room, dtype=np.uint32), np.empty(room, dtype=np.uint32))
    ranks = np.empty(planes.shape, dtype=np.uint16)
    starts = np.empty((len(lists), 257), dtype=np.int64)
    for c, values in enumerate(lists):
        if values is None:
            ranks[:, c], starts[c] = planes[:, c], _HIGH_BYTES
            continue
        code_values(s, np.concatenate([values, np.full(VALUES - len(values), -1)]))
        ranks[:, c] = np.searchsorted(values, planes[:, c])
        starts[c] = np.searchsorted(values, _HIGH_BYTES)
    high = (planes >> 8).astype(np.uint8) if split else _NOT_KNOWN
    code_ranks(s, new_memory(len(lists), planes.shape[3]), ranks, high, starts, LOGISTIC, INVERSE_SCALES)
    count = int(s.at[0])
    flags = sum(1 << c for c, values in enumerate(lists) if values is not None)
    return bytes([flags]) + words_of(s.left[:count], s.frequency[:count]).astype("<u4").tobytes()


def decode_block(
    data: bytes, shape: tuple[int, int, int, int], high: NDArray[np.uint8] | None = None
) -> NDArray[np.uint16]:
    """Pictures of this shape (n, c, h, w) that encode_block was given, high: their high bytes, where it was split.

    Raises FormatError when the stream is not what an encoder writes.
    """
    planes, width = shape[1], shape[3]
    if not data or data[0] >> planes:
        raise FormatError(f"low bytes: flags {data[:1].hex()}, must have one bit for each of {planes} planes")
    lane = read_lane(data[1:])
    nothing = np.empty(0, dtype=np.uint32)
    s = _stream(True, nothing, nothing)._replace(state=lane.state, words=lane.words, start=lane.start, stop=lane.stop)
    lists = [_read_values(s) if data[0] >> c & 1 else None for c in range(planes)]
    starts = np.stack([_HIGH_BYTES if v is None else np.searchsorted(v, _HIGH_BYTES) for v in lists]).astype(np.int64)
    ranks = np.empty(shape, dtype=np.uint16)
    known = _NOT_KNOWN if high is None else np.ascontiguousarray(high)
    if not code_ranks(s, new_memory(planes, width), ranks, known, starts, LOGISTIC, INVERSE_SCALES):
        raise FormatError("low bytes: no listed value has the high byte of a sample")
    lane.check_finished()
    for c, values in enumerate(lists):
        if values is not None:
            ranks[:, c] = values.astype(np.uint16)[ranks[:, c]]
    return ranks


def _read_values(s: Stream) -> NDArray[np.int64]:
    values = np.empty(VALUES, dtype=np.int64)
    count = code_values(s, values)
    if count < 0:
        raise FormatError(f"low bytes: a listed value is over {VALUES - 1}")
    return values[:count]


def _stream(decoding: bool, left: NDArray[np.uint32], frequency: NDArray[np.uint32]) -> Stream:
    nothing, at = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
    return Stream(decoding, nothing.astype(np.uint64), nothing.astype(np.uint32), nothing, nothing, left, frequency, at)


# Beside a model: the low bytes of a tile or block stand in its TILE chunk, after the payload of the high bytes.


def add_low_bytes(tiles: Sequence[bytes], planes: NDArray[np.uint16], tile: int, threads: int = 1) -> tuple[bytes, ...]:
    """Payloads of the TILE chunks of planes (n, c, h, w), from those of their high bytes."""
    cuts = [
        planes[t.first : t.last, :, t.y : t.y + t.h, t.x : t.x + t.w]
        for t in tiles_of(len(planes), planes.shape[2], planes.shape[3], tile)
    ]
    low = side_by_side(lambda cut: encode_block(cut, split=True), cuts, threads)
    return tuple(joined(high, rest) for high, rest in zip(tiles, low, strict=True))


def decode_low_bytes(
    low: Sequence[bytes], high: NDArray[np.uint8], tile: int, threads: int = 1, faults: dict[int, str] | None = None
) -> NDArray[np.uint16]:
    """Samples (n, c, h, w) from their high bytes and the streams of all tiles.

    Raises FormatError; where faults is given, such tiles have low bytes of 0 and the reasons are put there instead,
    under the tiles' numbers; those that stand there already are passed over.
    """
    out = np.left_shift(high, 8, dtype=np.uint16)

    def work(index: int) -> None:
        t = cuts[index]
        place = np.s_[t.first : t.last, :, t.y : t.y + t.h, t.x : t.x + t.w]
        try:
            out[place] = decode_block(low[index], out[place].shape, high[place])
        except FormatError as error:
            if faults is None:
                raise
            faults[index] = str(error)

    cuts = tiles_of(len(high), high.shape[2], high.shape[3], tile)
    side_by_side(work, [i for i in range(len(cuts)) if i not in (faults or {})], threads)
    return out


# Without one: planes are cut into bands of rows.


def encode_planes(planes: NDArray[np.uint16], threads: int = 1) -> bytes:
    """Planes (c, h, w) as bands: of each the length, and its stream."""
    bands = _bands(planes.shape)
    coded = side_by_side(lambda rows: encode_block(planes[None, :, rows], split=False), bands, threads)
    return b"".join(number_bytes(len(band)) + band for band in coded)


def decode_planes(data: bytes, shape: tuple[int, int, int], threads: int = 1) -> NDArray[np.uint16]:
    """The planes (c, h, w) that encode_planes was given. Raises FormatError."""
    bands, pieces, at = _bands(shape), [], 0
    for i, rows in enumerate(bands):
        length, at = read_number(data, at, f"length of band {i}")
        if length > len(data) - at:
            raise FormatError(f"band {i} has {length} bytes, the data {len(data) - at} more")
        pieces.append((rows, data[at : at + length]))
        at += length
    if at < len(data):
        raise FormatError(f"{len(data) - at} bytes after the last band")
    out = np.empty(shape, dtype=np.uint16)

    def work(piece: tuple[slice, bytes]) -> None:
        rows, coded = piece
        out[:, rows] = decode_block(coded, (1, shape[0], rows.stop - rows.start, shape[2]))[0]

    side_by_side(work, pieces, threads)
    return out


def _bands(shape: Sequence[int]) -> list[slice]:
    _, height, width = shape
    rows = max(1, BAND_PIXELS // width)
    return [slice(y, min(y + rows, height)) for y in range(0, height, rows)]
