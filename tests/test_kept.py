"""What an image file says beside its pixels is kept byte for byte, or the file is refused: tags, comments, ends."""

from __future__ import annotations

import io
import struct
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_image import picture_of

import pixzip
from pixzip.errors import ImageError
from pixzip.formats.directories import (
    EXIF_PART,
    GPS_PART,
    INTEROP_PART,
    Directories,
    Entry,
    made,
    numbers,
    packet,
    read_directories,
    write_directories,
)
from pixzip.formats.fax import check_whole
from pixzip.formats.image import from_pil, read_image, write_image

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
ICC = b"not a profile, but its bytes"


def saved(kind: str, pixels: Any = PIXELS, **options: Any) -> bytes:
    out = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, kind, **options)
    return out.getvalue()


def tiff(order: str = "<", main: dict[int, Entry] | None = None, parts: Any = None, is_big: bool = False) -> bytes:
    """A TIFF of PIXELS, uncompressed, with further tags."""
    sizes = {256: 4, 257: 4, 259: 1, 262: 2, 277: 3, 278: 4, 279: 48}
    layout = {tag: made(order, 4, value) for tag, value in sizes.items()} | {258: made(order, 3, 8, 8, 8)}
    own = Directories(order, layout | (main or {}), parts or {}, is_last=True)
    if not is_big:
        return write_directories(own, PIXELS.tobytes(), 273)
    entries = own.main | {273: made(order, 4, 16)}
    values_at = 16 + 48 + 8 + 20 * len(entries) + 8
    table, values = b"", b""
    for tag, entry in sorted(entries.items()):
        place = struct.pack(f"{order}Q", values_at + len(values))
        table += struct.pack(f"{order}HHQ", tag, entry.type, entry.number)
        table += entry.data.ljust(8, b"\0") if len(entry.data) <= 8 else place
        values += entry.data if len(entry.data) > 8 else b""
    head = struct.pack(f"{order}2sHHHQ", b"II" if order == "<" else b"MM", 43, 8, 0, 16 + 48)
    return head + PIXELS.tobytes() + struct.pack(f"{order}Q", len(entries)) + table + bytes(8) + values


def block_of(data: bytes) -> Directories:
    return read_directories(dict(read_image(data).metadata)["exif"])


# ------------------------------------------------------------------------ directories

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
ENTRIES = st.sampled_from(sorted(SIZES)).flatmap(
    lambda kind: st.integers(1, 9).flatmap(
        lambda n: st.binary(min_size=n * SIZES[kind], max_size=n * SIZES[kind]).map(lambda data: Entry(kind, n, data))
    )
)
TAGS = st.integers(1, 65535).filter(lambda tag: tag not in (EXIF_PART, GPS_PART, INTEROP_PART))
DIRECTORIES = st.dictionaries(TAGS, ENTRIES, min_size=1, max_size=6)


@given(st.sampled_from("<>"), DIRECTORIES, DIRECTORIES, DIRECTORIES, DIRECTORIES)
def test_directories_come_back(order: str, main: Any, exif: Any, gps: Any, interop: Any) -> None:
    parts = {EXIF_PART: exif, GPS_PART: gps, INTEROP_PART: interop}
    back = read_directories(write_directories(Directories(order, main, parts, is_last=True)))
    own = {tag: {k: e for k, e in part.items() if k not in parts} for tag, part in {0: back.main, **back.parts}.items()}
    assert (back.order, back.is_last, own) == (order, True, {0: main, **parts})


@given(
    st.binary(max_size=300),
    st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0\x10" + bytes(7)]),
)
def test_any_bytes_are_directories_or_refused(data: bytes, head: bytes) -> None:
    try:
        found = read_directories(head + data)
    except ImageError:
        return
    assert sum(len(entry.data) for entry in found.main.values()) <= len(head + data)


def test_entries_that_share_bytes_take_no_more_memory_than_the_file() -> None:
    count, data = 60000, bytes(1 << 20)
    entries = b"".join(struct.pack("<HHII", tag, 7, len(data), 8) for tag in range(count))
    with pytest.raises(ImageError, match="longer than the file"):
        read_directories(
            b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", count) + entries + bytes(4)
        )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"JFIF\0\0\0\0", "no header in 4a464946"),
        (b"II\x07\0\0\0\0\0", "no header in 49490700"),
        (b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 34665, 4, 2, 8) + bytes(12), "tag 34665 tells no place"),
        (b"II*\0\xff\0\0\0", "2 bytes at 255 are not in its 8"),
    ],
)
def test_damaged_directories_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        read_directories(data)


def test_parts_that_are_all_one_directory_take_no_more_memory_than_the_file() -> None:
    entries = [(1, 7, 40, 8), (EXIF_PART, 4, 1, 8), (GPS_PART, 4, 1, 8)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    with pytest.raises(ImageError, match="longer than the file of 50 bytes"):
        read_directories(b"II*\0\x08\0\0\0\3\0" + table + bytes(4))


def test_many_pages_are_refused_at_once() -> None:
    page = struct.pack("<HHHIII", 1, 256, 4, 1, 1, 0)
    pages = b"".join(page[:-4] + struct.pack("<I", 8 + (i + 1) * len(page)) for i in range(100_000))
    start = time.process_time()
    with pytest.raises(ImageError, match="several pages"):
        read_image(b"II*\0\x08\0\0\0" + pages + page)
    assert time.process_time() - start < 1


# ------------------------------------------------------------------------ tags of a TIFF

#: GeoTIFF's, GDAL's, Photoshop's layers, a Windows title, DNG's version, private ones of odd types.
OTHERS = {
    33550: Entry(12, 3, struct.pack("<3d", 0.5, 0.25, 0)),
    34735: made("<", 3, 1, 1, 0, 1),
    42113: Entry(2, 6, b"-9999\0"),
    37724: packet(b"Adobe Photoshop Document Data Block\0"),
    40091: Entry(1, 6, "Fjö".encode("utf-16-le")),
    50706: Entry(1, 4, b"\1\4\0\0"),
    65000: Entry(11, 2, struct.pack("<2f", 1.5, float("nan"))),
    65001: Entry(10, 1, struct.pack("<2i", -1, 3)),
}


@pytest.mark.parametrize("is_big", [False, True])
def test_all_tags_of_a_tiff_are_kept_and_go_into_a_tiff_again(is_big: bool) -> None:
    exif = {36864: packet(b"0232"), 37500: packet(b"maker's own"), 0xA005: made("<", 4, 0)}
    parts = {} if is_big else {EXIF_PART: exif, INTEROP_PART: {1: Entry(2, 4, b"R98\0")}}
    source = tiff(main=OTHERS | {271: Entry(2, 5, b"Caf\xe9\0")}, parts=parts, is_big=is_big)
    kept = block_of(source)
    assert kept.main.items() >= OTHERS.items() and kept.main[271].data == b"Caf\xe9\0"
    assert 273 not in kept.main and 256 not in kept.main
    back = write_image(pixzip.decompress(pixzip.compress(read_image(source), threads=1)), "TIFF")
    found = read_directories(back)
    assert found.main.items() >= OTHERS.items()
    if not is_big:
        assert found.parts[EXIF_PART].items() >= {k: v for k, v in exif.items() if k != 0xA005}.items()
        assert found.parts[INTEROP_PART] == parts[INTEROP_PART]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(back))), PIXELS)
    assert read_image(back).metadata == read_image(source).metadata


@pytest.mark.parametrize("order", "<>")
def test_bytes_that_a_writer_called_longs_stay_as_they_are(order: str) -> None:
    text = b"\x1c\x02\x50\0\5Smith\x1c\x02\x78\0\2ab\0\0\0"
    kept = block_of(tiff(order, {33723: Entry(4, len(text) // 4, text)}))
    assert kept.main[33723] == packet(text)


def test_numbers_of_64_bits_are_narrowed_or_refused() -> None:
    small, large = Entry(16, 1, struct.pack("<Q", 7)), Entry(16, 1, struct.pack("<Q", 1 << 40))
    assert block_of(tiff(main={65000: small}, is_big=True)).main[65000] == made("<", 4, 7)
    with pytest.raises(ImageError, match="tag 65000 has numbers of 64 bits"):
        read_image(tiff(main={65000: large}, is_big=True))


def test_a_resolution_that_is_no_rational_stays_a_tag() -> None:
    tags = {tag: Entry(11, 1, struct.pack("<f", 72.5)) for tag in (282, 283)}
    assert block_of(tiff(main=tags)).main == tags
    assert dict(read_image(tiff(main={282: made("<", 5, 72, 1), 283: made("<", 5, 72, 1)})).metadata) == {
        "resolution": b"72/1 72/1 inch"
    }


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({330: made("<", 4, 8)}, r"further pictures in sub-directories \(tag 330\)"),
        ({65000: Entry(13, 1, struct.pack("<I", 8))}, "tag 65000 points to a directory"),
        ({65000: Entry(99, 1, b"")}, "tag 65000 has the type 99"),
        ({259: made("<", 4, 3)}, r"compression 3 \(CCITT before Group 4\)"),
    ],
)
def test_what_would_be_lost_is_refused(tags: dict[int, Entry], words: str) -> None:
    data = bytearray(tiff(main=tags))
    if 65000 in tags and tags[65000].type == 99:  # which is not written
        data = bytearray(tiff(main={65000: Entry(7, 1, b"x")}))
        at = data.index(struct.pack("<HH", 65000, 7))
        data[at + 2 : at + 4] = struct.pack("<H", 99)
    with pytest.raises(ImageError, match=words):
        read_image(bytes(data))
    if 65000 in tags:
        assert read_image(bytes(data), strip=True).metadata == ()


def test_an_exif_block_that_is_damaged_goes_into_no_tiff() -> None:
    picture = picture_of("RGB", 8, 3, 4, metadata=(("exif", b"II*\0\xff\0\0\0"),))
    with pytest.raises(ImageError, match="TIFF directory"):
        write_image(picture, "TIFF")


def test_exif_of_a_tiff_that_pillow_opened_is_kept() -> None:
    image = Image.open(io.BytesIO(tiff(main={271: Entry(2, 5, b"make\0")})))
    assert read_directories(dict(from_pil(image).metadata)["exif"]).main[271].data == b"make\0"


# ------------------------------------------------------------------------ Group 4 codes


def scan(rows: int = 40, **tags: int) -> bytes:
    """A bilevel TIFF of 40 rows in strips."""
    pixels = np.random.default_rng(0).integers(0, 5, (40, 50)) == 0
    return saved("TIFF", pixels, compression="group4", tiffinfo={278: rows, **{int(k[1:]): v for k, v in tags.items()}})


def strips(data: bytes) -> list[tuple[int, int]]:
    found = read_directories(data)
    return list(zip(*(numbers("<", found.main[tag]) for tag in (273, 279)), strict=True))


@pytest.mark.parametrize("rows", [40, 16, 1])
@pytest.mark.parametrize("tags", [{}, {"t262": 0}, {"t266": 2}])
def test_group_4_codes_are_read(rows: int, tags: dict[str, int]) -> None:
    data = scan(rows, **tags)
    assert len(strips(data)) == -(-40 // rows)
    is_black = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(read_image(data).planes[0], is_black)
    at, count = strips(data)[-1]
    if "t266" not in tags:  # without the end of the block, with more zeros
        end = int.from_bytes(data[at : at + count], "big")
        cut = (end & ~(0x1001 << (end & -end).bit_length() - 1)).to_bytes(count, "big")
        assert read_image(data[:at] + cut + data[at + count :]).planes[0].tolist() == is_black.astype(int).tolist()


@pytest.mark.parametrize(
    ("tag", "entry", "words"),
    [
        (274, made("<", 3, 3), "turned"),
        (293, made("<", 4, 2), "uncompressed"),
        (278, made("<", 4, 1), "1 strips of 1 rows for 40"),
        (278, Entry(11, 1, struct.pack("<f", 40)), "numbers of type 11"),
    ],
)
def test_group_4_codes_that_cannot_be_compared_are_refused(tag: int, entry: Entry, words: str) -> None:
    data = scan()
    found = read_directories(data)
    at, count = strips(data)[0]
    own = Directories("<", {**found.main, tag: entry}, {}, is_last=True)
    image = Image.open(io.BytesIO(data))
    image.load()
    with pytest.raises(ImageError, match=words):
        check_whole(write_directories(own, data[at : at + count], 273), image)


@pytest.mark.parametrize("tags", [{}, {"t266": 2}])
def test_damaged_group_4_codes_are_refused(tags: dict[str, int]) -> None:
    """A change in any byte is refused or, where its codes are those of another picture, gives that one."""
    data, refused = scan(16, **tags), 0
    for at, count in strips(data):
        half = data[: at + count // 2] + bytes(count - count // 2) + data[at + count :]
        with pytest.raises(ImageError, match="coded again, is another"):
            read_image(half)
        for byte in range(at, at + count):
            for flip in (1, 0x80):
                changed = bytearray(data)
                changed[byte] ^= flip
                try:
                    read_image(bytes(changed))
                except ImageError:
                    refused += 1
    assert refused > 0.8 * 2 * sum(count for _, count in strips(data))


# ------------------------------------------------------------------------ ends of files, comments


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "JPEG", "BMP"])
def test_bytes_behind_the_end_are_kept(kind: str) -> None:
    data = saved(kind, **({"lossless": True} if kind == "WEBP" else {}))
    plain = read_image(data, allow_jpeg=True)
    more = read_image(data + b"behind it", allow_jpeg=True)
    assert dict(more.metadata)["trailer"] == b"behind it" and more.same_pixels(plain)
    assert "trailer" not in dict(plain.metadata)
    assert write_image(more, "PNG").endswith(b"behind it")


def test_every_comment_is_kept() -> None:
    gif = saved("GIF")
    comment = b"\x21\xfe\5after\3all\0"
    assert read_image(gif[:-1] + comment + b"\x3b").metadata == (("comment", b"afterall"),)
    jpeg = saved("JPEG", comment=b"first")
    second = b"\xff\xfe\0\6more"
    found = read_image(jpeg[:2] + second + jpeg[2:], allow_jpeg=True).metadata
    assert [value for key, value in found if key == "comment"] == [b"more", b"first"]


def test_a_jpegs_resolution_is_its_headers_and_not_made_up() -> None:
    exif = Image.Exif()
    exif[271] = "make"
    jpeg = bytearray(saved("JPEG", exif=exif))
    assert set(dict(read_image(bytes(jpeg), allow_jpeg=True).metadata)) == {"exif"}
    at = jpeg.index(b"JFIF\0")
    jpeg[at + 7 : at + 12] = struct.pack(">BHH", 0, 4, 3)
    assert dict(read_image(bytes(jpeg), allow_jpeg=True).metadata)["resolution"] == b"4/1 3/1 none"


def test_colour_profile_of_a_bmp_is_kept() -> None:
    bmp = saved("BMP")
    pixels = bmp[struct.unpack_from("<I", bmp, 10)[0] :]
    header = struct.pack("<IiiHHIIiiII", 124, 4, 4, 1, 24, 0, len(pixels), 0, 0, 0, 0) + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<IIII", 4, 124 + len(pixels), len(ICC), 0)
    assert len(header) == 124
    v5 = b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(ICC), 0, 0, 138) + header + pixels + ICC
    assert dict(read_image(v5).metadata) == {"icc": ICC}
    assert dict(read_image(v5 + b"more").metadata) == {"icc": ICC, "trailer": b"more"}


def test_run_lengths_of_a_bmp_are_no_trailer() -> None:
    rows = b"\4\1\0\0" * 2 + b"\0\1"
    for said, behind in ((0, ()), (len(rows), (("trailer", b"more"),))):
        header = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, said, 0, 0, 4, 0) + bytes(range(16))
        bmp = b"BM" + struct.pack("<IHHI", 70 + len(rows), 0, 0, 70) + header + rows
        assert read_image(bmp).metadata == () and read_image(bmp).planes.tolist() == [[[1] * 4] * 2]
        assert read_image(bmp + b"more").metadata == behind


def test_a_tga_with_an_extension_area_is_refused() -> None:
    tga = saved("TGA")
    assert tga.endswith(b"TRUEVISION-XFILE.\0")
    area = tga[:-26] + bytes(495) + struct.pack("<II", len(tga) - 26, 0) + tga[-18:]
    with pytest.raises(ImageError, match="extension or developer area"):
        read_image(area)
    assert read_image(area, strip=True).same_pixels(read_image(tga))


def test_an_animation_of_one_frame_is_refused() -> None:
    webp = saved("WEBP", lossless=True, exif=b"Exif\0\0II*\0")  # with VP8X
    assert webp[12:16] == b"VP8X"
    image = webp[webp.index(b"VP8L") :]
    image = image[: 8 + struct.unpack_from("<I", image, 4)[0] + 1 & ~1]
    frame = b"\0\0\0" * 2 + b"\3\0\0" * 2 + b"\0\0\0\0" + image
    chunks = webp[12:20] + b"\2\0\0\0" + webp[24:30] + b"ANIM\6\0\0\0" + bytes(6)
    chunks += b"ANMF" + struct.pack("<I", len(frame)) + frame
    with pytest.raises(ImageError, match="animated"):
        read_image(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks)


def test_indices_beyond_a_palette_have_black_and_keep_their_transparency() -> None:
    indices = Image.fromarray(np.array([[0, 1], [2, 3]], dtype=np.uint8), "P")
    indices.putpalette(bytes(range(12)))
    gif = bytearray(saved("GIF", indices, transparency=3))
    flags = gif[10]
    gif = gif[:13] + gif[13 : 13 + 6] + gif[13 + 12 :]  # two entries of four
    gif[10] = flags & ~7
    picture = read_image(bytes(gif))
    assert picture.palette == bytes(range(6)) + bytes(6) and picture.transparency == b"\xff\xff\xff\0"
    assert picture.planes.tolist() == [[[0, 1], [2, 3]]]


def test_bytes_between_blocks_of_a_gif_are_refused() -> None:
    gif = saved("GIF")
    with pytest.raises(ImageError, match="byte 7a where a block should begin"):
        read_image(gif[:-1] + b"z\x3b")
    assert read_image(gif[:-1] + b"\0\x3b").same_pixels(read_image(gif))
