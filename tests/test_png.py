"""pixzip.formats.png: files ↔ samples, against an encoder from the specification, and Pillow; planted faults."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pixzip.errors import ImageError, LimitError
from pixzip.formats import png as module
from pixzip.formats.png import COLOURS, SIGNATURE, Header, Png, read_header, read_png, write_png

#: Colour type → channels, written down once more: the oracle must not lean on the module.
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)]
KINDS += [(4, 8), (4, 16), (6, 8), (6, 16)]
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
PALETTE = bytes(range(30))


# An encoder by the letter of the specification: bits as strings, filters byte by byte.


def chunk(kind: bytes, payload: bytes, crc: int | None = None) -> bytes:
    """A chunk; its CRC is right unless one is given."""
    crc = zlib.crc32(kind + payload) if crc is None else crc
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", crc)


def ihdr(w: int, h: int, depth: int, colour: int, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlace))


def idat(raw: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(raw))


IEND = chunk(b"IEND", b"")


def guess(kind: int, a: int, b: int, c: int) -> int:
    if kind < 4:
        return (0, a, b, (a + b) // 2)[kind]
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    if pa <= pb and pa <= pc:
        return a
    return b if pb <= pc else c


def scanlines(samples: NDArray[Any], depth: int, filters: list[int]) -> bytes:
    """(h, w, c) samples, each row with the next of the filters."""
    pixel_bytes = max(1, samples.shape[2] * depth // 8)
    out, above = b"", b""
    for y, row in enumerate(samples):
        bits = "".join(f"{sample:0{depth}b}" for sample in row.ravel().tolist())
        line = bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))
        above = above or bytes(len(line))
        kind = filters[y % len(filters)]
        out += bytes([kind])
        for i, byte in enumerate(line):
            a, c = (line[i - pixel_bytes], above[i - pixel_bytes]) if i >= pixel_bytes else (0, 0)
            out += bytes([(byte - guess(kind, a, above[i], c)) % 256])
        above = line
    return out


def reference_png(samples: NDArray[Any], colour: int, depth: int, filters: list[int], interlaced: bool) -> bytes:
    """A PNG of (c, h, w) samples."""
    pixels = samples.transpose(1, 2, 0)
    passes = [pixels[y0::dy, x0::dx] for y0, x0, dy, dx in ADAM7] if interlaced else [pixels]
    raw = b"".join(scanlines(part, depth, filters) for part in passes if part.size)
    palette = chunk(b"PLTE", PALETTE) if colour == 3 else b""
    header = ihdr(pixels.shape[1], pixels.shape[0], depth, colour, int(interlaced))
    return SIGNATURE + header + palette + idat(raw) + IEND


def random_samples(seed: int, colour: int, depth: int, h: int, w: int) -> NDArray[Any]:
    """Noise, or smooth enough for every filter to be chosen sometimes."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 2**depth, (CHANNELS[colour], h, w))
    slope = np.add.outer(np.arange(h) * rng.integers(5), np.arange(w) * rng.integers(5)) + noise % 3
    values = noise if seed % 2 else slope % 2**depth + 0 * noise
    return values.astype(np.uint16 if depth == 16 else np.uint8)


sides = st.one_of(st.just(1), st.integers(1, 21))
pictures = st.builds(
    lambda kind, h, w, seed: (kind[0], kind[1], random_samples(seed, kind[0], kind[1], h, w)),
    st.sampled_from(KINDS),
    sides,
    sides,
    st.integers(0, 1000),
)


# The law, and independent readers and writers.


@settings(max_examples=150, deadline=None)
@given(pictures, st.binary(max_size=20))
def test_reading_what_was_written_gives_the_same_picture(picture: Any, text: bytes) -> None:
    colour, depth, samples = picture
    palette = PALETTE if colour == 3 else b""
    transparency = {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: b"\7\0"}.get(colour, b"")
    chunks = (("gAMA", b"\0\0\xb1\x8f"), ("bKGD", text), ("tEXt", b"Title\0" + text), ("vpAg", text))
    written = write_png(Png(samples, colour, depth, palette, transparency, chunks, trailer=text))
    back = read_png(written)
    assert (back.colour, back.depth, back.samples.dtype) == (colour, depth, samples.dtype)
    assert np.array_equal(back.samples, samples)
    assert (back.palette, back.transparency, back.chunks, back.trailer) == (palette, transparency, chunks, text)
    assert written == write_png(Png(samples, colour, depth, palette, transparency, chunks, trailer=text))


@settings(max_examples=150, deadline=None)
@given(pictures, st.lists(st.integers(0, 4), min_size=1, max_size=6), st.booleans())
def test_every_filter_depth_and_interlace_reads_as_the_specification_writes_it(
    picture: Any, filters: list[int], interlaced: bool
) -> None:
    colour, depth, samples = picture
    back = read_png(reference_png(samples, colour, depth, filters, interlaced))
    assert np.array_equal(back.samples, samples)
    assert (back.colour, back.depth, back.interlaced) == (colour, depth, interlaced)


@pytest.mark.parametrize(("colour", "depth"), [(0, 1), (0, 8), (0, 16), (2, 8), (3, 1), (3, 4), (3, 8), (4, 8), (6, 8)])
def test_pillow_reads_the_same_from_what_is_written(colour: int, depth: int) -> None:
    for h, w in ((1, 1), (1, 40), (40, 1), (23, 37)):
        samples = random_samples(h, colour, depth, h, w)
        data = write_png(Png(samples, colour, depth, PALETTE if colour == 3 else b""))
        pixels = np.asarray(Image.open(io.BytesIO(data))).reshape(h, w, -1)
        assert np.array_equal(pixels.transpose(2, 0, 1), samples)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16"])
def test_what_pillow_writes_reads_the_same(mode: str) -> None:
    channels, high = len(mode) if mode in ("LA", "RGB", "RGBA") else 1, 65536 if mode == "I;16" else 256
    pixels = np.random.default_rng(5).integers(0, high, (19, 45, channels)).cumsum(axis=1) % high
    pixels = pixels.astype({"1": bool, "I;16": np.uint16}.get(mode, np.uint8))
    out = io.BytesIO()
    Image.fromarray(pixels if channels > 1 else pixels[:, :, 0]).save(out, "PNG")
    assert np.array_equal(read_png(out.getvalue()).samples, pixels.transpose(2, 0, 1))


def test_sixteen_bit_colour_keeps_its_low_bytes() -> None:
    row = bytes.fromhex("00 0001 8002 ff03 1234 5678 9abc")
    back = read_png(SIGNATURE + ihdr(2, 1, 16, 2) + idat(row) + IEND)
    assert back.samples[:, 0].T.tolist() == [[0x0001, 0x8002, 0xFF03], [0x1234, 0x5678, 0x9ABC]]
    pillow = np.asarray(Image.open(io.BytesIO(write_png(back)))).transpose(2, 0, 1)
    assert np.array_equal(pillow, back.samples >> 8)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.sampled_from([1, 2, 3, 4, 6, 8]), st.integers(0, 1000))
def test_unfiltering_by_diagonals_equals_byte_by_byte(h: int, w: int, pixel_bytes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (h, w, pixel_bytes), dtype=np.uint8)
    filters = rng.integers(0, 5, h, dtype=np.uint8)
    slow = module._unfilter_bytes(filters, rows)
    assert np.array_equal(module._unfilter_diagonals(filters, rows), slow)


def test_written_pixels_take_no_more_bytes_than_pillows_optimised_ones() -> None:
    y, x = np.mgrid[0:64, 0:64]
    gradient = np.stack([x * 3, y * 3, x + y]).astype(np.uint8)
    sprite = (((x // 8 + y // 8) % 5)[None]).astype(np.uint8)
    for colour, depth, samples in ((2, 8, gradient), (0, 8, gradient[:1]), (3, 8, sprite), (3, 4, sprite)):
        out = io.BytesIO()
        palette = bytes(range(3 * min(2**depth, 20))) if colour == 3 else b""  # 16 entries: Pillow would pack to 4 bits
        ours = write_png(Png(samples, colour, depth, palette))
        Image.open(io.BytesIO(ours)).save(out, "PNG", optimize=True)
        assert len(ours) <= len(out.getvalue()) * 1.01


# Chunks.


def test_chunks_stand_where_the_specification_wants_them() -> None:
    chunks = (("tEXt", b"a\0b"), ("hIST", b"\0\1"), ("gAMA", b"\0\0\0\1"), ("tIME", bytes(7)))
    data = write_png(Png(np.zeros((1, 1, 1), np.uint8), 3, 8, PALETTE, b"\1", chunks))
    kinds = [data[at - 4 : at].decode() for at in chunk_payloads(data)]
    assert kinds == ["IHDR", "tEXt", "gAMA", "PLTE", "hIST", "tIME", "tRNS", "IDAT", "IEND"]


def chunk_payloads(data: bytes) -> list[int]:
    """Offset of each chunk's payload."""
    at, found = 8, []
    while at < len(data):
        found.append(at + 8)
        at += 12 + int(struct.unpack_from(">I", data, at)[0])
    return found


def test_suggested_palette_of_a_colour_picture_is_kept() -> None:
    samples = np.zeros((3, 1, 1), np.uint8)
    chunks = (("gAMA", bytes(4)), ("PLTE", PALETTE), ("bKGD", bytes(6)))
    assert read_png(write_png(Png(samples, 2, 8, chunks=chunks))).chunks == chunks


def test_offsets_into_the_old_stream_are_left_out() -> None:
    data = SIGNATURE + ihdr(1, 1, 8, 0) + chunk(b"iDOT", bytes(28)) + idat(b"\0\7") + IEND
    assert read_png(data).chunks == ()


def test_bytes_after_the_end_are_kept_apart() -> None:
    data = SIGNATURE + ihdr(1, 1, 8, 0) + idat(b"\0\7") + IEND
    assert read_png(data + IEND).trailer == IEND
    assert write_png(read_png(data + b"xyz")).endswith(IEND + b"xyz")


def test_header_alone_is_read_without_the_rest() -> None:
    assert read_header(SIGNATURE + ihdr(5, 7, 16, 6, 1)) == Header(5, 7, 16, 6, True)
    for bad in (b"", SIGNATURE, SIGNATURE + ihdr(5, 7, 16, 6)[:-1], SIGNATURE + ihdr(0, 7, 16, 6)):
        with pytest.raises(ImageError):
            read_header(bad)


# Planted faults: one crafted file for each refusal.

HEAD = SIGNATURE + ihdr(1, 1, 8, 0)
GOOD = idat(b"\0\7")
FAULTS = {
    "not a PNG": b"GIF89a" + bytes(20),
    "truncated": HEAD + GOOD,
    "ends at byte": HEAD + struct.pack(">I", 100) + b"IDAT" + bytes(20),
    "no chunk type": HEAD + GOOD + chunk(b"I AT", b"") + IEND,
    "is no chunk type": HEAD + chunk(b"gama", bytes(4)) + GOOD + IEND,
    "CRC 00000000, computed": HEAD + chunk(b"IDAT", b"abc", 0) + IEND,
    "has CRC": HEAD + chunk(b"tEXt", b"a\0b", 1) + GOOD + IEND,
    "not IHDR": SIGNATURE + GOOD + IEND,
    "0 x 1 pixels": SIGNATURE + ihdr(0, 1, 8, 0) + GOOD + IEND,
    "1 x 0 pixels": SIGNATURE + ihdr(1, 0, 8, 0) + GOOD + IEND,
    "colour type 1": SIGNATURE + ihdr(1, 1, 8, 1) + GOOD + IEND,
    "bit depth 3": SIGNATURE + ihdr(1, 1, 3, 0) + GOOD + IEND,
    "colour type 3 with bit depth 16": SIGNATURE + ihdr(1, 1, 16, 3) + GOOD + IEND,
    "interlace method 2": SIGNATURE + ihdr(1, 1, 8, 0, 2) + GOOD + IEND,
    "animated": HEAD + chunk(b"acTL", bytes(8)) + GOOD + IEND,
    "unknown critical chunk CgBI": HEAD + chunk(b"CgBI", bytes(4)) + GOOD + IEND,
    "2 chunks IHDR": HEAD + ihdr(1, 1, 8, 0) + GOOD + IEND,
    "no chunk IDAT": HEAD + IEND,
    "between its IDAT": HEAD + GOOD + chunk(b"tEXt", b"a\0b") + GOOD + IEND,
    "after IDAT": HEAD + GOOD + chunk(b"tRNS", b"\0\1") + IEND,
    "without PLTE": SIGNATURE + ihdr(1, 1, 8, 3) + GOOD + IEND,
    "PLTE of 4 bytes": SIGNATURE + ihdr(1, 1, 8, 3) + chunk(b"PLTE", bytes(4)) + GOOD + IEND,
    "PLTE of 0 bytes": SIGNATURE + ihdr(1, 1, 8, 3) + chunk(b"PLTE", b"") + GOOD + IEND,
    "PLTE of 771 bytes": SIGNATURE + ihdr(1, 1, 8, 3) + chunk(b"PLTE", bytes(771)) + GOOD + IEND,
    "gray picture": HEAD + chunk(b"PLTE", PALETTE) + GOOD + IEND,
    "2 chunks PLTE": SIGNATURE + ihdr(1, 1, 8, 3) + 2 * chunk(b"PLTE", PALETTE) + GOOD + IEND,
    "tRNS of 3 bytes": HEAD + chunk(b"tRNS", bytes(3)) + GOOD + IEND,
    "tRNS of 11 bytes": SIGNATURE
    + ihdr(1, 1, 8, 3)
    + chunk(b"PLTE", PALETTE)
    + chunk(b"tRNS", bytes(11))
    + GOOD
    + IEND,
    "filter type 5": HEAD + idat(b"\5\7") + IEND,
    "more than the 2 bytes": HEAD + idat(b"\0\7\7") + IEND,
    "holds 1 of 2 bytes": HEAD + idat(b"\0") + IEND,
    "stream ended: False": HEAD + chunk(b"IDAT", zlib.compress(b"\0\7")[:-2]) + IEND,
    "more than": HEAD + chunk(b"IDAT", zlib.compress(b"\0\7") + b"x") + IEND,
    "incorrect header check": HEAD + chunk(b"IDAT", b"no zlib stream") + IEND,
    "incorrect data check": HEAD + chunk(b"IDAT", zlib.compress(b"\0\7")[:-1] + b"x") + IEND,
}


@pytest.mark.parametrize("reason", FAULTS)
def test_refuses_with_the_reason(reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_png(FAULTS[reason])
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_is_noticed() -> None:
    data = bytearray(write_png(Png(random_samples(0, 2, 8, 4, 5), 2, 8, chunks=(("tEXt", b"a\0b"),))))
    for i in range(len(data)):
        for bit in (1, 32, 128):
            data[i] ^= bit
            with pytest.raises((ImageError, LimitError)):
                read_png(bytes(data))
            data[i] ^= bit


def test_every_truncation_is_noticed() -> None:
    data = write_png(Png(random_samples(0, 3, 4, 4, 5) % 10, 3, 4, PALETTE))
    for length in range(len(data)):
        with pytest.raises(ImageError):
            read_png(data[:length])


def test_limit_is_checked_before_anything_is_inflated() -> None:
    data = SIGNATURE + ihdr(9000, 8000, 8, 2) + chunk(b"IDAT", b"never looked at") + IEND
    with pytest.raises(LimitError, match="9000 x 8000 = 72000000 pixels, over the limit of 64000000"):
        read_png(data)
    with pytest.raises(LimitError, match="2147483647 x 2147483647"):
        read_png(SIGNATURE + ihdr(2**31 - 1, 2**31 - 1, 16, 6) + GOOD + IEND)


@pytest.mark.parametrize("sides", [(1, 1), (7000, 8000)])
def test_decompression_bomb_takes_no_memory(sides: tuple[int, int]) -> None:
    """A stream far longer than the header calls for is cut off; a header without the stream allocates nothing."""
    raw = bytes(50_000_000) if sides == (1, 1) else b"\0\7"
    data = SIGNATURE + ihdr(*sides, 16, 6) + idat(raw) + IEND
    del raw
    tracemalloc.start()
    with pytest.raises(ImageError):
        read_png(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_table_of_colour_types_is_that_of_the_specification() -> None:
    assert sorted((colour, depth) for colour, (_, depths) in COLOURS.items() for depth in depths) == sorted(KINDS)
    assert {colour: channels for colour, (channels, _) in COLOURS.items()} == CHANNELS
