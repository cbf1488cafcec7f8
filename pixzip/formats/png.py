"""PNG bytes ↔ samples and chunks: every colour type, depth, filter and interlace of the specification (third edition).

Pillow cuts 16-bit colour to 8 bits and hides 2- and 4-bit gray; here nothing is rounded, and what cannot be read whole
is refused. The picture is inflated only after its header has passed, and to no more bytes than its header calls for.
Section numbers are those of https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.errors import ImageError, LimitError
from pixzip.limits import MAX_PIXELS

SIGNATURE = b"\x89PNG\r\n\x1a\n"

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
#: Colour type → (channels, depths), table 7.
COLOURS: dict[int, tuple[int, tuple[int, ...]]] = {
    GRAY: (1, (1, 2, 4, 8, 16)),
    RGB: (3, (8, 16)),
    PALETTE: (1, (1, 2, 4, 8)),
    GRAY_ALPHA: (2, (8, 16)),
    RGB_ALPHA: (4, (8, 16)),
}
NONE, SUB, UP, AVERAGE, PAETH = 0, 1, 2, 3, 4

#: Adam7 passes as (y0, x0, dy, dx), section 8.1.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
#: Ancillary chunks that must stand before PLTE, and those that must stand after it, section 5.6.
_BEFORE_PALETTE = frozenset({"cHRM", "gAMA", "iCCP", "sBIT", "sRGB", "cICP", "mDCV", "cLLI"})
_AFTER_PALETTE = frozenset({"bKGD", "hIST"})
_ANIMATION = frozenset({"acTL", "fcTL", "fdAT"})
#: Apple's byte offsets into one particular IDAT: wrong, and harmful, beside any other.
_ABOUT_THE_STREAM = frozenset({"iDOT"})

#: Longest IDAT written; the format's limit is 2**31 - 1.
_IDAT_BYTES = 1 << 30
#: Bytes of scanlines filtered at once.
_BLOCK_BYTES = 1 << 20
#: Up to so many bytes, and for palettes and depths under 8 always, several ways to deflate are tried.
_TRY_BYTES = 1 << 22
#: Diagonals shorter than this many bytes are slower in numpy than one byte after another in Python.
_NARROW_BYTES = 64


@dataclass(frozen=True)
class Header:
    """IHDR: sides in pixels, bits a sample, colour type, Adam7 or not."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def channels(self) -> int:
        return COLOURS[self.colour][0]

    @property
    def pixel_bytes(self) -> int:
        """Distance of a byte to the one that filters call "left"."""
        return max(1, self.channels * self.depth // 8)

    def row_bytes(self, width: int) -> int:
        return (width * self.channels * self.depth + 7) // 8


@dataclass(frozen=True, eq=False)
class Png:
    """What a PNG holds.

    samples is (c, h, w), uint8 for depths up to 8, else uint16, values 0 .. 2**depth - 1. palette is PLTE of colour
    type 3 and transparency tRNS, both raw. chunks are the ancillary chunks (type, raw data) in file order, and with
    them the suggested PLTE of colour types 2 and 6. trailer are bytes after IEND: not in the format, but in many files.
    """

    samples: NDArray[Any]
    colour: int
    depth: int
    palette: bytes = b""
    transparency: bytes = b""
    chunks: tuple[tuple[str, bytes], ...] = ()
    interlaced: bool = False
    trailer: bytes = b""


# ------------------------------------------------------------------------ bytes ↔ chunks


def _split(data: bytes) -> tuple[list[tuple[str, memoryview]], bytes]:
    """All chunks up to IEND, their lengths, types and CRCs checked, and the bytes that follow."""
    if not data.startswith(SIGNATURE):
        raise ImageError(f"not a PNG: begins with {data[:8].hex()}")
    chunks: list[tuple[str, memoryview]] = []
    at = len(SIGNATURE)
    while not chunks or chunks[-1][0] != "IEND":
        if len(data) - at < 12:
            raise ImageError(f"PNG is truncated: {len(data) - at} bytes where a chunk should begin")
        length, kind = struct.unpack_from(">I4s", data, at)
        if not (kind.isalpha() and kind[2:3].isupper()):
            raise ImageError(f"PNG is damaged: {kind!r} at byte {at + 4} is no chunk type")
        end = at + 12 + length
        if end > len(data):
            raise ImageError(f"PNG is truncated: chunk {kind.decode()} ends at byte {end} of {len(data)}")
        stored, computed = int.from_bytes(data[end - 4 : end], "big"), zlib.crc32(memoryview(data)[at + 4 : end - 4])
        if stored != computed:
            raise ImageError(f"PNG is damaged: chunk {kind.decode()} has CRC {stored:08x}, computed {computed:08x}")
        chunks.append((kind.decode(), memoryview(data)[at + 8 : end - 4]))
        at = end
    return chunks, data[at:]


def _parse_header(chunk: tuple[str, memoryview]) -> Header:
    kind, payload = chunk
    if kind != "IHDR" or len(payload) != 13:
        raise ImageError(f"PNG is damaged: begins with chunk {kind} of {len(payload)} bytes, not IHDR of 13")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", payload)
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise ImageError(f"PNG of {width} x {height} pixels")
    if colour not in COLOURS or depth not in COLOURS[colour][1]:
        raise ImageError(f"PNG has colour type {colour} with bit depth {depth}")
    if compression or filtering or interlace > 1:
        raise ImageError(f"PNG has compression {compression}, filter method {filtering}, interlace method {interlace}")
    return Header(width, height, depth, colour, interlace == 1)


def read_header(data: bytes) -> Header:
    """IHDR alone; raises ImageError when it is not there, damaged or not valid."""
    end = len(SIGNATURE) + 25
    if not data.startswith(SIGNATURE) or len(data) < end:
        raise ImageError(f"not a PNG: begins with {data[:8].hex()}, {len(data)} bytes long")
    length, kind = struct.unpack_from(">I4s", data, len(SIGNATURE))
    if length != 13 or kind != b"IHDR" or int.from_bytes(data[end - 4 : end], "big") != zlib.crc32(data[12 : end - 4]):
        raise ImageError("PNG is damaged: its IHDR is not whole")
    return _parse_header(("IHDR", memoryview(data)[16 : end - 4]))


def _check_order(header: Header, kinds: list[str]) -> None:
    """Critical chunks and tRNS: known ones only, where and as often as table 5.3 says."""
    for kind in kinds:
        if kind in _ANIMATION:
            raise ImageError(f"animated PNG (chunk {kind}): only single pictures are kept")
        if kind[0].isupper() and kind not in ("IHDR", "PLTE", "IDAT", "IEND"):
            raise ImageError(f"PNG has the unknown critical chunk {kind}")
    for kind in ("IHDR", "PLTE", "tRNS"):
        if kinds.count(kind) > 1:
            raise ImageError(f"PNG is damaged: {kinds.count(kind)} chunks {kind}")
    if "IDAT" not in kinds:
        raise ImageError("PNG has no pixels: no chunk IDAT")
    first = kinds.index("IDAT")
    if kinds[first : first + kinds.count("IDAT")] != ["IDAT"] * kinds.count("IDAT"):
        raise ImageError("PNG is damaged: other chunks between its IDAT")
    if "PLTE" in kinds[first:] or "tRNS" in kinds[first:]:
        raise ImageError("PNG is damaged: PLTE or tRNS after IDAT")
    if header.colour == PALETTE and "PLTE" not in kinds:
        raise ImageError("PNG is damaged: palette picture without PLTE")
    if "PLTE" in kinds and ("tRNS" in kinds[: kinds.index("PLTE")] or header.colour in (GRAY, GRAY_ALPHA)):
        raise ImageError("PNG is damaged: PLTE after tRNS or in a gray picture")


def _check_palette(header: Header, palette: bytes, transparency: bytes) -> None:
    if palette and (len(palette) % 3 or len(palette) > 768):
        raise ImageError(f"PNG is damaged: PLTE of {len(palette)} bytes")
    if header.colour == PALETTE and not palette:
        raise ImageError("PNG is damaged: PLTE of 0 bytes")
    most = {GRAY: 2, RGB: 6, PALETTE: len(palette) // 3}.get(header.colour, 0)
    if len(transparency) > most or (header.colour != PALETTE and len(transparency) not in (0, most)):
        raise ImageError(f"PNG is damaged: tRNS of {len(transparency)} bytes with colour type {header.colour}")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises ImageError for a picture without pixels, LimitError beyond max_pixels."""
    if width <= 0 or height <= 0:
        raise ImageError(f"picture of {width} x {height} pixels")
    if width * height > max_pixels:
        size = f"{width} x {height} = {width * height} pixels"
        raise LimitError(f"{size}, over the limit of {max_pixels} (max_pixels)")


def read_png(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Png:
    """The one picture in a PNG, whole.

    Raises ImageError for what is damaged, animated or no PNG; LimitError beyond max_pixels, before it inflates.
    """
    chunks, trailer = _split(data)
    header = _parse_header(chunks[0])
    check_size(header.width, header.height, max_pixels)
    _check_order(header, [kind for kind, _ in chunks])
    found = {kind: bytes(payload) for kind, payload in chunks if kind in ("PLTE", "tRNS")}
    palette, transparency = found.get("PLTE", b""), found.get("tRNS", b"")
    _check_palette(header, palette, transparency)
    stream = b"".join(payload for kind, payload in chunks if kind == "IDAT")
    passed_over = {"IHDR", "IDAT", "IEND", "tRNS", *_ABOUT_THE_STREAM, *({"PLTE"} if header.colour == PALETTE else ())}
    return Png(
        samples=_deinterlace(header, _inflate(header, stream)),
        colour=header.colour,
        depth=header.depth,
        palette=palette if header.colour == PALETTE else b"",
        transparency=transparency,
        chunks=tuple((kind, bytes(payload)) for kind, payload in chunks if kind not in passed_over),
        interlaced=header.interlaced,
        trailer=trailer,
    )


def chunk_bytes(kind: str, payload: bytes) -> bytes:
    """A chunk with its length and CRC."""
    body = kind.encode("ascii") + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))


def _place_palette(png: Png) -> list[tuple[str, bytes]]:
    """Ancillary chunks with PLTE where section 5.6 allows it, their own order kept unless it was wrong."""
    own = [("PLTE", png.palette)] if png.palette else [c for c in png.chunks if c[0] == "PLTE"]
    rest = [c for c in png.chunks if c[0] != "PLTE"]
    at = 1 + max((i for i, (kind, _) in enumerate(rest) if kind in _BEFORE_PALETTE), default=-1)
    if not png.palette and own:
        at = max(at, png.chunks.index(own[0]))
    late = [c for c in rest[:at] if c[0] in _AFTER_PALETTE]
    return [c for c in rest[:at] if c[0] not in _AFTER_PALETTE] + own + late + rest[at:]


def write_png(png: Png) -> bytes:
    """A PNG of the picture, not interlaced, scanlines filtered or not, whichever deflates better.

    The same picture gives the same bytes as long as zlib stays the same.
    """
    channels, h, w = png.samples.shape
    header = Header(w, h, png.depth, png.colour, False)
    assert channels == header.channels and png.depth in COLOURS[png.colour][1]
    transparency = [("tRNS", png.transparency)] if png.transparency else []
    stream = _deflate(header, pack_rows(png.samples, png.depth))
    data = [("IDAT", stream[i : i + _IDAT_BYTES]) for i in range(0, len(stream), _IDAT_BYTES)]
    ihdr = struct.pack(">IIBBBBB", w, h, png.depth, png.colour, 0, 0, 0)
    chunks = [("IHDR", ihdr), *_place_palette(png), *transparency, *data, ("IEND", b"")]
    return SIGNATURE + b"".join(chunk_bytes(kind, payload) for kind, payload in chunks) + png.trailer


# ------------------------------------------------------------------------ samples ↔ scanline bytes


def _unpack(rows: NDArray[np.uint8], header: Header, width: int) -> NDArray[Any]:
    """(h, row_bytes) scanline bytes → (c, h, width) samples."""
    h, depth = rows.shape[0], header.depth
    if depth == 16:
        samples: NDArray[Any] = rows.view(">u2").astype(np.uint16)
    elif depth == 8:
        samples = rows
    else:
        shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)
        samples = ((rows[:, :, None] >> shifts) & np.uint8(2**depth - 1)).reshape(h, -1)[:, :width]
    return samples.reshape(h, width, header.channels).transpose(2, 0, 1)


def pack_rows(samples: NDArray[Any], depth: int) -> NDArray[np.uint8]:
    """(c, h, w) samples → (h, row_bytes) scanline bytes; spare bits of the last byte are 0."""
    c, h, w = samples.shape
    rows = np.ascontiguousarray(samples.transpose(1, 2, 0)).reshape(h, w * c)
    if depth == 16:
        return rows.astype(">u2").view(np.uint8)
    if depth == 8:
        return rows
    per_byte = 8 // depth
    padded = np.zeros((h, -(-w // per_byte), per_byte), dtype=np.uint8)
    padded.reshape(h, -1)[:, :w] = rows
    shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(padded << shifts, axis=2)
    return packed


def passes(header: Header) -> Iterator[tuple[int, int, int, int]]:
    """(y0, x0, dy, dx) of each pass that has pixels."""
    for y0, x0, dy, dx in _ADAM7 if header.interlaced else ((0, 0, 1, 1),):
        if y0 < header.height and x0 < header.width:
            yield y0, x0, dy, dx


def _deinterlace(header: Header, scanlines: NDArray[np.uint8]) -> NDArray[Any]:
    """All filtered scanlines of all passes → (c, h, w) samples, contiguous."""
    dtype = np.uint16 if header.depth == 16 else np.uint8
    planes = np.empty((header.channels, header.height, header.width), dtype=dtype)
    at = 0
    for y0, x0, dy, dx in passes(header):
        h, w = -(-(header.height - y0) // dy), -(-(header.width - x0) // dx)
        row_bytes = header.row_bytes(w)
        block = scanlines[at : at + h * (1 + row_bytes)].reshape(h, 1 + row_bytes)
        rows = _unfilter(block[:, 0], block[:, 1:].reshape(h, -1, header.pixel_bytes))
        planes[:, y0::dy, x0::dx] = _unpack(rows.reshape(h, row_bytes), header, w)
        at += h * (1 + row_bytes)
    return planes


# ------------------------------------------------------------------------ deflate streams


def _inflate(header: Header, stream: bytes) -> NDArray[np.uint8]:
    """The zlib stream, which must hold exactly the bytes that the header calls for; no more are ever inflated."""
    expected = 0
    for y0, x0, dy, dx in passes(header):
        expected += -(-(header.height - y0) // dy) * (1 + header.row_bytes(-(-(header.width - x0) // dx)))
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(stream, expected + 1)
    except zlib.error as error:
        raise ImageError(f"PNG is damaged: {error}") from None
    if len(raw) > expected or inflater.unused_data:
        raise ImageError(f"PNG is damaged: IDAT holds more than the {expected} bytes of its pixels")
    if len(raw) < expected or not inflater.eof:
        raise ImageError(f"PNG is truncated: IDAT holds {len(raw)} of {expected} bytes, stream ended: {inflater.eof}")
    return np.frombuffer(raw, dtype=np.uint8)


def _deflate(header: Header, rows: NDArray[np.uint8]) -> bytes:
    """(h, row_bytes) scanline bytes → zlib stream."""
    filtered = _filter(rows, header.pixel_bytes)
    plain = np.zeros_like(filtered)
    plain[:, 1:] = rows
    candidates = [(filtered, zlib.Z_FILTERED)]
    if rows.size <= _TRY_BYTES or header.depth < 8 or header.colour == PALETTE:
        candidates += [(filtered, zlib.Z_DEFAULT_STRATEGY), (plain, zlib.Z_DEFAULT_STRATEGY)]
    streams = []
    for scanlines, strategy in candidates:
        deflater = zlib.compressobj(9, zlib.DEFLATED, 15, 9, strategy)
        streams.append(deflater.compress(scanlines.data) + deflater.flush())
    return min(streams, key=len)


# ------------------------------------------------------------------------ filters, section 9


def _paeth(a: NDArray[np.int16], b: NDArray[np.int16], c: NDArray[np.int16]) -> NDArray[np.int16]:
    """Of a (left), b (above), c (above left) in 0..255 the one nearest to a + b - c; ties in this order (9.4)."""
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))


def _filter(rows: NDArray[np.uint8], pixel_bytes: int) -> NDArray[np.uint8]:
    """(h, n) scanline bytes → (h, 1 + n): each row by the filter with the least sum of absolute differences (12.7)."""
    h, n = rows.shape
    out = np.empty((h, 1 + n), dtype=np.uint8)
    step = max(1, _BLOCK_BYTES // n)
    padded = np.zeros((step + 1, pixel_bytes + n), dtype=np.uint8)
    for y in range(0, h, step):
        block = rows[y : y + step]
        count = block.shape[0]
        padded[0, pixel_bytes:] = rows[y - 1] if y else 0
        padded[1 : count + 1, pixel_bytes:] = block
        a = padded[1 : count + 1, :n].astype(np.int16)
        b = padded[:count, pixel_bytes:].astype(np.int16)
        c = padded[:count, :n].astype(np.int16)
        guesses = np.stack([np.zeros_like(a), a, b, (a + b) >> 1, _paeth(a, b, c)])
        differences = block - guesses.astype(np.uint8)  # (5, count, n), mod 256
        cost = np.abs(differences.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
        choice = cost.argmin(axis=0)
        out[y : y + count, 0] = choice
        out[y : y + count, 1:] = differences[choice, np.arange(count)]
    return out


def _unfilter(filters: NDArray[np.uint8], rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h,) filter types and (h, w, pixel_bytes) filtered bytes → bytes of the same shape."""
    if filters.max() > PAETH:
        raise ImageError(f"PNG is damaged: filter type {filters.max()}")
    if not filters.any():
        return rows
    if min(rows.shape[:2]) * rows.shape[2] < _NARROW_BYTES:
        return _unfilter_bytes(filters, rows)
    return _unfilter_diagonals(filters, rows)


def _unfilter_bytes(filters: NDArray[np.uint8], rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The recurrence as section 9.2 writes it, one byte after another."""
    h, w, pixel_bytes = rows.shape
    out, above = bytearray(), bytes(w * pixel_bytes)
    for kind, filtered in zip(filters.tolist(), rows.reshape(h, -1), strict=True):
        row = bytearray(filtered.tobytes())
        for i in range(len(row)):
            a, c = (row[i - pixel_bytes], above[i - pixel_bytes]) if i >= pixel_bytes else (0, 0)
            row[i] = (row[i] + guess(kind, a, above[i], c)) & 255
        out += row
        above = bytes(row)
    return np.frombuffer(bytes(out), dtype=np.uint8).reshape(rows.shape)


def guess(kind: int, a: int, b: int, c: int) -> int:
    """What filter ``kind`` subtracts from a byte; a left of it, b above it, c above a."""
    if kind == PAETH:
        to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
        return a if to_a <= to_b and to_a <= to_c else b if to_b <= to_c else c
    return (0, a, b, (a + b) >> 1)[kind]


def _unfilter_diagonals(filters: NDArray[np.uint8], rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same, all pixels with equal y + x at once: each needs only left, above and above left.

    None, Sub and Up are Paeth with some neighbours taken as 0, so a diagonal needs no branch by row.
    """
    h, w, pixel_bytes = rows.shape
    padded = np.zeros((h + 1, w + 1, pixel_bytes), dtype=np.uint8)
    padded[1:, 1:] = rows
    flat = padded.reshape(-1, pixel_bytes)  # one pixel down and one left is w further
    kinds = filters[:, None]
    use_a, use_b, use_c = (-np.isin(kinds, which).astype(np.int16) for which in ((SUB, PAETH), (UP, PAETH), (PAETH,)))
    average = kinds == AVERAGE
    any_average = bool(average.any())
    for t in range(h + w - 1):
        y0, y1 = max(0, t - w + 1), min(h, t + 1)
        start = (y0 + 1) * (w + 1) + t - y0 + 1
        stop = start + (y1 - y0 - 1) * w + 1
        a = flat[start - 1 : stop - 1 : w].astype(np.int16)
        b = flat[start - w - 1 : stop - w - 1 : w].astype(np.int16)
        c = flat[start - w - 2 : stop - w - 2 : w].astype(np.int16)
        guess = _paeth(a & use_a[y0:y1], b & use_b[y0:y1], c & use_c[y0:y1])
        if any_average:
            guess = np.where(average[y0:y1], (a + b) >> 1, guess)
        flat[start:stop:w] += guess.astype(np.uint8)
    return padded[1:, 1:]
