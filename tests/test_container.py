"""pixzip.pxz.container: files ↔ containers, one crafted bad file per reason for refusal, and the bytes of version 2."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixzip.errors import FormatError, LimitError, PixelChecksumError, UsageError
from pixzip.pxz.container import (
    BLOCK_PICTURES,
    CONSTANT,
    HEADER_BYTES,
    PNG,
    WEBP,
    Coding,
    Container,
    Header,
    checksum,
    read_container,
    read_header,
    tile_count,
    tile_grid,
    write_container,
)

FORMAT_MD = Path(__file__).parents[1] / "docs" / "format.md"
DEPTHS = {"L": (1, 2, 4, 8, 16), "LA": (8, 16), "RGB": (8, 16), "RGBA": (8, 16), "P": (1, 2, 4, 8)}
MODE_IDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "P": 5}
MODEL_FILE = b"not really a model"
DIGEST = hashlib.sha256(MODEL_FILE).digest()[:8]

#: The file of docs/format.md, section 11, written by hand: these bytes are version 2 and never change.
GOLDEN = bytes.fromhex(
    "8950585a0d0a1a0a 02"
    "48454144 2b000000 02000000 01000000 01000000 01 08 01 01 0004 08 0123456789abcdef"
    "8ae195b10e3369335505911583f8d94a 72228310"
    "6d657461 08000000 04 74657874 612062 d95c97ce"
    "54494c45 05000000 01 78563412 be281290"
)


# Files by hand: nothing here uses the module under test.


def frame(type_: bytes, payload: bytes, crc: int | None = None) -> bytes:
    """A chunk; its CRC is right unless one is given."""
    crc = zlib.crc32(type_ + payload) if crc is None else crc
    return type_ + struct.pack("<I", len(payload)) + payload + struct.pack("<I", crc)


def head_payload(**changes: int | bytes) -> bytes:
    fields: dict[str, int | bytes] = {
        "width": 2, "height": 1, "pictures": 1, "mode": 1, "depth": 8, "coding": 1, "lanes": 1, "tile": 1024,
        "learning": 0,
        "digest": DIGEST, "checksum": bytes(range(16)),
    }  # fmt: skip
    fields.update(changes)
    return struct.pack("<IIIBBBBHB8s16s", *fields.values())


def file(*chunks: bytes, **header: int | bytes) -> bytes:
    """Magic, version 2, a header chunk with these fields, and the chunks."""
    return b"\x89PXZ\r\n\x1a\n\x02" + frame(b"HEAD", head_payload(**header)) + b"".join(chunks)


def stored(*chunks: bytes, **header: int | bytes) -> bytes:
    return file(*chunks, coding=2, digest=bytes(8), **header)


TILE = frame(b"TILE", b"\0")
STOR = frame(b"STOR", b"\1data")
ALPH = frame(b"ALPH", b"\0\xff")
PALT = frame(b"PALT", b"rgb")
META = frame(b"meta", b"\3keyvalue")


# Random containers.


@st.composite
def headers(draw: st.DrawFn) -> Header:
    coding = draw(st.sampled_from(Coding))
    mode = draw(st.sampled_from(sorted(DEPTHS)))
    depth = draw(st.sampled_from([d for d in DEPTHS[mode] if d <= 8 or coding == Coding.STORED]))
    tile = draw(st.integers(1, 20) | st.just(65535))
    pictures = draw(st.just(1) | st.integers(2, 3000))
    most = 40 if pictures == 1 else min(tile, 40)
    return Header(
        width=draw(st.integers(1, most)),
        height=draw(st.integers(1, most)),
        pictures=pictures,
        mode=mode,
        depth=depth,
        coding=coding,
        model_digest=DIGEST if coding == Coding.MODEL else bytes(8),
        tile=tile,
        lanes=draw(st.integers(1, 64)),
        learning=draw(st.integers(0, 255)) if coding == Coding.MODEL else 0,
        pixels_checksum=draw(st.binary(min_size=16, max_size=16)),
    )


@st.composite
def containers(draw: st.DrawFn) -> Container:
    header = draw(headers())
    is_model = header.coding == Coding.MODEL
    some = st.binary(min_size=1, max_size=20)
    alphas = st.tuples(st.sampled_from((PNG, WEBP)), some)
    sample = header.depth // 8
    alphas |= st.tuples(st.just(CONSTANT), st.binary(min_size=sample, max_size=sample))
    has_alpha = "A" in header.mode and (is_model or draw(st.booleans()))
    transparency = {"L": (0, 2), "RGB": (0, 6), "P": (0, 1, 256)}.get(header.mode, (0,))
    key = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64)
    payloads = draw(st.lists(some, min_size=1, max_size=4))
    return Container(
        header=header,
        palette=bytes(3 * draw(st.integers(1, 256))) if header.mode == "P" else b"",
        transparency=bytes(draw(st.sampled_from(transparency))),
        metadata=tuple(draw(st.lists(st.tuples(key, st.binary(max_size=20)), max_size=4))),
        alpha=draw(alphas) if has_alpha else None,
        stored=None if is_model else draw(st.tuples(st.sampled_from((PNG, WEBP)), some)),
        tiles=tuple(payloads[i % len(payloads)] for i in range(tile_count(header))),
        model=MODEL_FILE if is_model and draw(st.booleans()) else None,
    )


@settings(deadline=None, max_examples=150)
@given(containers())
def test_reading_inverts_writing(container: Container) -> None:
    data = write_container(container)
    assert read_container(data) == container
    assert read_header(data[:HEADER_BYTES]) == container.header
    assert write_container(read_container(data)) == data


# The bytes of version 2.


def test_golden_file_of_version_2() -> None:
    container = read_container(GOLDEN)
    assert container == Container(
        Header(2, 1, 1, "L", 8, 1, bytes.fromhex("0123456789abcdef"), 1024, 1, 8, GOLDEN[44:60]),
        b"", b"", (("text", b"a b"),), None, None, (b"\x01\x78\x56\x34\x12",),
    )  # fmt: skip
    assert write_container(container) == GOLDEN
    planes = np.array([[[10, 200]]], dtype=np.uint8)
    assert container.header.pixels_checksum == checksum(planes, "L", 8, b"", b"")


def test_example_of_the_document_is_the_golden_file() -> None:
    section = FORMAT_MD.read_text("utf-8").split("## 11.")[1]
    block = section.split("```")[1]
    columns = [line[:46] for line in block.splitlines()]
    assert bytes.fromhex("".join(columns)) == GOLDEN


def test_overhead_is_what_the_document_says() -> None:
    stated = re.search(r"overhead of a single picture is exactly (\d+) bytes", FORMAT_MD.read_text("utf-8"))
    assert stated is not None
    payload = b"some payload"
    header = Header(9, 9, 1, "RGB", 8, Coding.MODEL, DIGEST, 1024, 1, 0, bytes(16))
    data = write_container(Container(header, b"", b"", (), None, None, (payload,)))
    assert len(data) - len(payload) == int(stated[1]) <= 80


# Damage.

RICH = file(
    frame(b"MODL", MODEL_FILE), PALT, frame(b"TRNS", b"\7"), META, frame(b"noIs", b"?"), TILE, TILE,
    mode=5, depth=4, tile=1,
)  # fmt: skip
ALPHA = file(ALPH, TILE, mode=2)
STORED = stored(META, ALPH, STOR, mode=4)


@pytest.mark.parametrize("data", [GOLDEN, RICH, ALPHA, STORED], ids=["golden", "rich", "alpha", "stored"])
def test_reader_refuses_every_flipped_bit(data: bytes) -> None:
    read_container(data)
    for bit in range(8 * len(data)):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            read_container(bytes(bad))


@pytest.mark.parametrize("data", [GOLDEN, RICH, ALPHA, STORED], ids=["golden", "rich", "alpha", "stored"])
def test_reader_refuses_every_truncation(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(FormatError, match=r"^truncated: .*\d"):
            read_container(data[:length])
        if length < HEADER_BYTES:
            with pytest.raises(FormatError, match=r"^truncated: .*\d"):
                read_header(data[:length])


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([GOLDEN, RICH, ALPHA, STORED]), st.data())
def test_reader_answers_damage_behind_right_checksums_with_a_format_error(data: bytes, draw: st.DataObject) -> None:
    """Whole chunks are dropped, doubled, swapped, or get other payloads: FormatError, or a container that writes."""
    chunks = list(split(data))
    for _ in range(draw.draw(st.integers(1, 3))):
        i, j = (draw.draw(st.integers(0, len(chunks) - 1)) for _ in range(2))
        type_, payload = chunks[i]
        change = draw.draw(st.sampled_from(("drop", "double", "swap", "payload")))
        if change == "drop" and len(chunks) > 1:
            del chunks[i]
        elif change == "double":
            chunks.insert(j, chunks[i])
        elif change == "swap":
            chunks[i], chunks[j] = chunks[j], chunks[i]
        elif payload:
            at = draw.draw(st.integers(0, len(payload) - 1))
            byte = bytes([draw.draw(st.integers(0, 255))])
            chunks[i] = (type_, payload[:at] + byte + payload[at + 1 :])
    try:
        container = read_container(data[:9] + b"".join(frame(*chunk) for chunk in chunks))
    except (FormatError, LimitError):
        return
    assert read_container(write_container(container)) == container


def split(data: bytes) -> list[tuple[bytes, bytes]]:
    """(type, payload) of all chunks of a good file."""
    chunks, start = [], 9
    while start < len(data):
        (length,) = struct.unpack_from("<I", data, start + 4)
        chunks.append((data[start : start + 4], data[start + 8 : start + 8 + length]))
        start += 12 + length
    return chunks


# One bad file per reason (docs/format.md, section 10).

VERSION_BYTE = 8
DEEP_ALPH, DEEP_STOR = frame(b"ALPH", b"\3\0"), frame(b"STOR", b"\3\0")
HEAD_CRC = zlib.crc32(b"HEAD" + head_payload())


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "truncated: the file ends at byte 0, within magic and version"),
    ("png", b"\x89PNG\r\n\x1a\n" + bytes(99),
        "not a .pxz file: starts with 89504e470d0a1a0a, must be 8950585a0d0a1a0a"),
    ("text mode", GOLDEN.replace(b"\r\n", b"\n"), "not a .pxz file: starts with 8950585a0a1a0a02, must be"),
    ("short", b"GI", "not a .pxz file: starts with 4749, must be"),
    ("no version", GOLDEN[:8], "truncated: the file ends at byte 8, within magic and version"),
    ("newer", patched(GOLDEN, VERSION_BYTE, b"\4"), "version 4 is newer than this pixzip reads (3)"),
    ("version 0", patched(GOLDEN, VERSION_BYTE, b"\0"), "version 0 was never released"),
    ("version 1", patched(GOLDEN, VERSION_BYTE, b"\1"), "version 1 was never released"),
    ("no chunks", GOLDEN[:9], "truncated: the file ends at byte 9, HEAD is missing"),
    ("part of a frame", file(TILE[:11]),
        "truncated: the file ends at byte 75, within the frame of the chunk at byte 64"),
    ("part of a payload", file(frame(b"TILE", bytes(9))[:-1]),
        "truncated: chunk TILE at byte 64 has 9 bytes, the file 8 more"),
    ("length of 4 GiB", file(b"TILE\xff\xff\xff\xff" + bytes(9)),
        "truncated: chunk TILE at byte 64 has 4294967295 bytes, the file 5 more"),
    ("header CRC", patched(file(TILE), 60, b"\1\2\3\4"), f"header CRC 04030201, computed {HEAD_CRC:08x}"),
    ("chunk CRC", file(frame(b"TILE", b"\0", crc=0x0C)),
        f"chunk TILE at byte 64: CRC 0000000c, computed {zlib.crc32(b'TILE' + bytes(1)):08x}"),
    ("first chunk", GOLDEN[:9] + TILE, "first chunk is TILE, must be HEAD"),
    ("length of header", GOLDEN[:9] + frame(b"HEAD", bytes(42)), "header length 42, must be 43"),
    ("no width", file(TILE, width=0), "header: width 0: must be 1 to 2147483647"),
    ("no height", file(TILE, height=0), "header: height 0: must be 1 to 2147483647"),
    ("no pictures", file(TILE, pictures=0), "header: pictures 0: must be 1 to 2147483647"),
    ("wide", file(TILE, width=2**31), "header: width 2147483648: must be 1 to 2147483647"),
    ("high", file(TILE, height=2**32 - 1), "header: height 4294967295: must be 1 to 2147483647"),
    ("many", file(TILE, pictures=2**31), "header: pictures 2147483648: must be 1 to 2147483647"),
    ("mode 0", file(TILE, mode=0), "header: mode id 0: must be 1 to 5"),
    ("mode 6", file(TILE, mode=6), "header: mode id 6: must be 1 to 5"),
    ("depth 3", file(TILE, depth=3), "header: depth 3: mode L has one of 1, 2, 4, 8, 16"),
    ("depth of RGB", file(TILE, mode=3, depth=4), "header: depth 4: mode RGB has one of 8, 16"),
    ("depth of P", file(TILE, mode=5, depth=16), "header: depth 16: mode P has one of 1, 2, 4, 8"),
    ("coding", file(TILE, coding=3), "header: coding 3: must be 1 (MODEL) or 2 (STORED)"),
    ("no lanes", file(TILE, lanes=0), "header: lanes 0: must be 1 to 64"),
    ("lanes", file(TILE, lanes=65), "header: lanes 65: must be 1 to 64"),
    ("no tile", file(TILE, tile=0), "header: tile 0: must be 1 to 65535"),
    ("16 bits by model", file(TILE, depth=16), "header: depth 16: coding MODEL has at most 8 in version 2"),
    ("digest of stored", file(STOR, coding=2), f"header: model digest {DIGEST.hex()}: must be 0 with coding STORED"),
    ("pictures larger than a tile", file(TILE, pictures=2, width=9, tile=8),
        "header: 2 pictures of 9 x 1 pixels: each must fit in one tile of 8 x 8"),
    ("not letters", file(frame(b"TI\0E", b""), TILE), "chunk type 54490045 at byte 64 is not four letters"),
    ("unknown critical", file(frame(b"Xtra", b""), TILE), "unknown critical chunk Xtra at byte 64"),
    ("unknown critical of four capitals", file(frame(b"ZYXW", b""), TILE), "unknown critical chunk ZYXW at byte 64"),
    ("patch", file(frame(b"PTCH", b"?"), TILE), "chunk PTCH at byte 64: files with a model patch need a newer pixzip"),
    ("second header", file(frame(b"HEAD", head_payload()), TILE), "chunk HEAD at byte 64 is a duplicate"),
    ("late header", file(META, frame(b"HEAD", head_payload()), TILE),
        "chunk HEAD at byte 85 is out of order: after meta"),
    ("second palette", file(PALT, PALT, TILE, mode=5), "chunk PALT at byte 79 is a duplicate"),
    ("second palette, apart", file(PALT, frame(b"noIs", b""), PALT, TILE, mode=5),
        "chunk PALT at byte 91 is a duplicate"),
    ("second alpha", file(ALPH, ALPH, TILE, mode=2), "chunk ALPH at byte 78 is a duplicate"),
    ("out of order", file(META, PALT, TILE, mode=5), "chunk PALT at byte 85 is out of order: after meta"),
    ("metadata among tiles", file(TILE, META, TILE, tile=1), "chunk meta at byte 77 is out of order: after TILE"),
    ("ancillary among tiles", file(TILE, frame(b"noIs", b""), TILE, tile=1),
        "chunk noIs at byte 77 is out of order: after TILE"),
    ("ancillary CRC", file(frame(b"noIs", b"?", crc=1), TILE), "chunk noIs at byte 64: CRC 00000001, computed"),
    ("stored, learning", stored(STOR, learning=1), "header: learning 1: must be 0 with coding STORED"),
    ("stored with model", file(STOR), "chunk STOR at byte 64: not in a file of coding MODEL"),
    ("tile with stored", stored(TILE), "chunk TILE at byte 64: not in a file of coding STORED"),
    ("empty tile", file(frame(b"TILE", b"")), "chunk TILE at byte 64: 0 bytes, must have at least 1"),
    ("empty palette", file(frame(b"PALT", b""), TILE), "chunk PALT at byte 64: 0 bytes, must have at least 3"),
    ("empty transparency", file(frame(b"TRNS", b""), TILE), "chunk TRNS at byte 64: 0 bytes, must have at least 1"),
    ("empty model", file(frame(b"MODL", b""), TILE), "chunk MODL at byte 64: 0 bytes, must have at least 1"),
    ("empty metadata", file(frame(b"meta", b"\0"), TILE), "chunk meta at byte 64: 1 bytes, must have at least 2"),
    ("alpha without data", file(frame(b"ALPH", b"\1"), TILE, mode=2),
        "chunk ALPH at byte 64: 1 bytes, must have at least 2"),
    ("stored without data", stored(frame(b"STOR", b"\1")), "chunk STOR at byte 64: 1 bytes, must have at least 2"),
    ("tile missing", file(TILE, tile=1), "truncated: the file ends at byte 77, chunk TILE 2 of 2 is missing"),
    ("stored missing", stored(), "truncated: the file ends at byte 64, chunk STOR 1 of 1 is missing"),
    ("block missing", file(TILE, pictures=1025), "truncated: the file ends at byte 77, chunk TILE 2 of 2 is missing"),
    ("trailing byte", file(TILE) + b"\0", "trailing bytes: 1 after the last chunk, which ends at byte 77"),
    ("trailing chunk", stored(STOR, META), "trailing bytes: 21 after the last chunk, which ends at byte 81"),
    ("model of stored", stored(frame(b"MODL", b"?"), STOR), "embedded model: not with coding STORED"),
    ("another model", file(frame(b"MODL", b"?"), TILE),
        f"embedded model has digest {hashlib.sha256(b'?').hexdigest()[:16]}, the header names {DIGEST.hex()}"),
    ("palette missing", file(TILE, mode=5), "palette of 0 bytes: mode P has 3 to 768, three an entry"),
    ("palette of L", file(PALT, TILE), "palette of 3 bytes: mode L has none"),
    ("palette of 257", file(frame(b"PALT", bytes(771)), TILE, mode=5), "palette of 771 bytes: mode P has 3 to 768"),
    ("part of an entry", file(frame(b"PALT", bytes(4)), TILE, mode=5), "palette of 4 bytes: mode P has 3 to 768"),
    ("transparency of LA", file(frame(b"TRNS", bytes(2)), ALPH, TILE, mode=2),
        "transparency of 2 bytes: not one of mode LA"),
    ("transparency of L", file(frame(b"TRNS", bytes(6)), TILE), "transparency of 6 bytes: not one of mode L"),
    ("transparency of RGB", file(frame(b"TRNS", bytes(2)), TILE, mode=3),
        "transparency of 2 bytes: not one of mode RGB"),
    ("transparency of P", file(PALT, frame(b"TRNS", bytes(257)), TILE, mode=5),
        "transparency of 257 bytes: not one of mode P"),
    ("no key", file(frame(b"meta", b"\0value"), TILE), "metadata key of 0 bytes: must have 1 to 64"),
    ("long key", file(frame(b"meta", b"\x41" + b"k" * 65), TILE), "metadata key of 65 bytes: must have 1 to 64"),
    ("key beyond payload", file(frame(b"meta", b"\4key"), TILE),
        "chunk meta at byte 64: a key of 4 bytes in a payload of 4"),
    ("key with space", file(frame(b"meta", b"\3a b"), TILE), "metadata key 'a b': must be printable ASCII, no space"),
    ("key beyond ASCII", file(frame(b"meta", b"\1\xe9"), TILE),
        r"metadata key '\xe9': must be printable ASCII, no space"),
    ("alpha of RGB", file(ALPH, TILE, mode=3), "alpha: mode RGB has none"),
    ("alpha missing", file(TILE, mode=4), "alpha missing: mode RGBA has it"),
    ("kind of alpha", file(frame(b"ALPH", b"\4\0"), TILE, mode=4), "alpha of kind 4: must be 0, 1, 2 or 3"),
    ("deep alpha of 8 bits", file(DEEP_ALPH, TILE, mode=4), "alpha of kind 3: depth 8, must be 16"),
    ("deep alpha, old version", stored(DEEP_ALPH, STOR, mode=2, depth=16),
        "version 2: what the file holds is of version 3"),
    ("deep, old version", stored(DEEP_STOR, depth=16), "version 2: what the file holds is of version 3"),
    ("new version in vain", patched(GOLDEN, VERSION_BYTE, b"\3"), "version 3: what the file holds is of version 2"),
    ("deep of 8 bits", stored(DEEP_STOR), "stored picture of kind 3: depth 8, must be 16"),
    ("deep with alpha within", stored(DEEP_STOR, mode=2, depth=16), "stored picture of kind 3: mode LA needs alpha"),
    ("long constant", file(frame(b"ALPH", b"\0\1\2"), TILE, mode=4), "constant alpha of 2 bytes: depth 8 has 1"),
    ("short constant", stored(ALPH, STOR, mode=2, depth=16), "constant alpha of 1 bytes: depth 16 has 2"),
    ("kind of stored", stored(frame(b"STOR", b"\0data")), "stored picture of kind 0: must be 1, 2 or 3"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), [pytest.param(d, r, id=name) for name, d, r in BAD_FILES])
def test_reader_refuses_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_container(data)
    message = str(caught.value)
    assert message.startswith(reason)
    assert "\n" not in message
    assert not isinstance(caught.value, PixelChecksumError)


def test_every_crafted_file_is_bad_for_its_own_reason() -> None:
    """The same helpers make good files too: what is refused above is refused for what was changed."""
    for good in (file(TILE), file(TILE, TILE, tile=1), file(PALT, TILE, mode=5), file(META, TILE), stored(STOR)):
        read_container(good)
    read_container(file(ALPH, TILE, mode=4))
    read_container(file(frame(b"MODL", MODEL_FILE), TILE))
    read_container(file(TILE, TILE, pictures=1025))
    for newer in (file(TILE, depth=16), stored(DEEP_STOR, depth=16), stored(DEEP_ALPH, STOR, mode=2, depth=16)):
        read_container(patched(newer, VERSION_BYTE, b"\3"))


def test_the_lowest_version_that_can_say_it_is_written() -> None:
    newer = [file(TILE, depth=16), stored(DEEP_STOR, depth=16), stored(DEEP_ALPH, DEEP_STOR, mode=4, depth=16)]
    for data in (*newer, file(TILE), stored(STOR, depth=16), file(ALPH, TILE, mode=4)):
        right, wrong = (b"\3", b"\2") if data in newer else (b"\2", b"\3")
        good = patched(data, VERSION_BYTE, right)
        assert write_container(read_container(good)) == good
        with pytest.raises(FormatError):
            read_container(patched(data, VERSION_BYTE, wrong))


def test_unknown_ancillary_chunks_are_passed_over() -> None:
    unknown = frame(b"noIs", b"anything")
    plain = read_container(file(PALT, META, TILE, mode=5))
    assert read_container(file(unknown, PALT, unknown, META, unknown, TILE, mode=5)) == plain


def test_header_alone_is_read_without_the_rest() -> None:
    assert read_header(GOLDEN[:HEADER_BYTES]) == read_container(GOLDEN).header
    assert read_header(file(b"rubbish")).width == 2


# Limits.


@pytest.mark.parametrize("size", [(1001, 1000, 1), (1, 1000001, 1), (2, 1, 500001), (2**31 - 1, 2**31 - 1, 2**31 - 1)])
def test_reader_names_the_pixel_limit_and_how_to_raise_it(size: tuple[int, int, int]) -> None:
    width, height, pictures = size
    data = stored(width=width, height=height, pictures=pictures)
    pixels = width * height * pictures
    counted = ", which count as 32000064" if pictures == 500001 else ""  # 64 each
    reason = f"{width} x {height} x {pictures} = {pixels} pixels{counted}, over the limit of 1000000 (max_pixels)"
    with pytest.raises(LimitError, match=re.escape(reason)):
        read_container(data, max_pixels=1_000_000)


def test_reader_takes_what_equals_the_limit() -> None:
    data = file(TILE, width=1000, height=1000)
    assert read_container(data, max_pixels=1_000_000).header.width == 1000
    assert read_container(file(TILE, width=8000, height=8000, tile=8000)).header.height == 8000
    with pytest.raises(LimitError, match="over the limit of 64000000"):
        read_container(file(TILE, width=8000, height=8001, tile=8001))


def test_millions_of_promised_tiles_cost_nothing() -> None:
    with pytest.raises(FormatError, match="chunk TILE 2 of 64000000 is missing"):
        read_container(file(TILE, width=8000, height=8000, tile=1))


# Callers' mistakes.

GOOD = read_container(file(TILE))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": "CMYK"}, "mode 'CMYK': must be one of L, LA, RGB, RGBA, P"),
        ({"model_digest": b"abc"}, "model digest 616263: must have 8 bytes"),
        ({"pixels_checksum": b""}, "pixels checksum : must have 16 bytes"),
        ({"lanes": 65}, "lanes 65: must be 1 to 64"),
        ({"tile": 65536}, "tile 65536: must be 1 to 65535"),
        ({"learning": 256}, "learning 256: must be 0 to 255"),
        ({"learning": -1}, "learning -1: must be 0 to 255"),
    ],
)
def test_header_refuses_what_no_file_can_hold(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        dataclasses.replace(GOOD.header, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patch": b"?"}, "model patch: no version has any"),
        ({"tiles": ()}, "0 tile payloads, the header implies 1"),
        ({"tiles": (b"a", b"b")}, "2 tile payloads, the header implies 1"),
        ({"tiles": (b"",)}, "a tile payload is empty"),
        ({"stored": (PNG, b"data")}, "stored picture: not with coding MODEL"),
        ({"metadata": (("é", b""),)}, "metadata key '\\xe9': must be printable ASCII"),
        ({"model": b"another"}, "embedded model has digest"),
    ],
)
def test_container_refuses_what_no_file_can_hold(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]


def test_stored_container_refuses_missing_or_empty_pictures() -> None:
    good = read_container(stored(STOR, mode=4))
    with pytest.raises(UsageError, match="stored picture missing: coding STORED has one"):
        dataclasses.replace(good, stored=None)
    with pytest.raises(UsageError, match="stored picture: no data"):
        dataclasses.replace(good, stored=(PNG, b""))
    with pytest.raises(UsageError, match="alpha: no data"):
        dataclasses.replace(good, alpha=(PNG, b""))


# Tiles.


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50))
def test_tiles_cover_each_pixel_once_in_raster_order(width: int, height: int, tile: int) -> None:
    grid = tile_grid(width, height, tile)
    covered = np.zeros((height, width), dtype=np.int64)
    for y, x, h, w in grid:
        assert 1 <= h <= tile and 1 <= w <= tile
        covered[y : y + h, x : x + w] += 1
    assert (covered == 1).all()
    assert covered.shape == (height, width)
    assert grid == sorted(grid)
    header = dataclasses.replace(GOOD.header, width=width, height=height, tile=tile)
    assert tile_count(header) == len(grid)


@pytest.mark.parametrize(("pictures", "blocks"), [(1, 1), (2, 1), (1024, 1), (1025, 2), (10_000, 10)])
def test_pictures_come_in_blocks_of_1024(pictures: int, blocks: int) -> None:
    assert BLOCK_PICTURES == 1024
    assert tile_count(dataclasses.replace(GOOD.header, pictures=pictures)) == blocks


# The pixels checksum.


def naive_checksum(planes: np.ndarray, mode: str, depth: int, palette: bytes, transparency: bytes) -> bytes:
    """docs/format.md, section 7, byte by byte."""
    n, c, h, w = planes.shape
    text = bytes([MODE_IDS[mode], depth, c])
    for number in (n, w, h):
        text += number.to_bytes(4, "little")
    for sample in planes.ravel().tolist():
        text += sample.to_bytes(2 if depth == 16 else 1, "little")
    for part in (palette, transparency):
        text += len(part).to_bytes(4, "little") + part
    return hashlib.blake2b(text, digest_size=16).digest()


@settings(deadline=None)
@given(st.data())
def test_checksum_is_the_documents(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(sorted(DEPTHS)))
    depth = data.draw(st.sampled_from(DEPTHS[mode]))
    c = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "P": 1}[mode]
    n, h, w = (data.draw(st.integers(1, 4)) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    planes = rng.integers(0, 2**depth, (n, c, h, w)).astype(np.uint16 if depth == 16 else np.uint8)
    palette, transparency = data.draw(st.binary(max_size=9)), data.draw(st.binary(max_size=9))
    expected = naive_checksum(planes, mode, depth, palette, transparency)
    assert checksum(planes, mode, depth, palette, transparency) == expected
    columns_first = np.ascontiguousarray(planes.swapaxes(2, 3)).swapaxes(2, 3)
    assert checksum(columns_first, mode, depth, palette, transparency) == expected
    channels_last = np.ascontiguousarray(planes.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert checksum(channels_last, mode, depth, palette, transparency) == expected
    big_endian = planes.astype(planes.dtype.newbyteorder(">"))
    assert checksum(big_endian, mode, depth, palette, transparency) == expected
    if n == 1:
        assert checksum(planes[0], mode, depth, palette, transparency) == expected


def test_checksum_tells_shape_mode_depth_and_parts_apart() -> None:
    planes = np.zeros((1, 2, 3), dtype=np.uint8)
    sums = [
        checksum(planes, "L", 8, b"", b""),
        checksum(planes, "L", 4, b"", b""),
        checksum(planes, "P", 8, b"", b""),
        checksum(planes.reshape(1, 3, 2), "L", 8, b"", b""),
        checksum(planes.reshape(2, 1, 1, 3), "L", 8, b"", b""),
        checksum(planes, "P", 8, b"abc", b""),
        checksum(planes, "P", 8, b"", b"abc"),
        checksum(planes, "P", 8, b"ab", b"c"),
    ]
    assert len(set(sums)) == len(sums)
    assert {len(s) for s in sums} == {16}


@pytest.mark.parametrize(
    ("shape", "dtype", "mode", "depth"),
    [
        ((2, 3), "uint8", "L", 8),
        ((2, 2, 3), "uint8", "L", 8),
        ((1, 2, 3), "uint16", "L", 8),
        ((1, 2, 3), "uint8", "L", 16),
        ((1, 2, 3), "int64", "L", 8),
    ],
)
def test_checksum_refuses_other_arrays(shape: tuple[int, ...], dtype: str, mode: str, depth: int) -> None:
    with pytest.raises(UsageError, match="planes"):
        checksum(np.zeros(shape, dtype=dtype), mode, depth, b"", b"")
