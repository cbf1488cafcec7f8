"""pixzip.formats.image: image files ↔ pictures, against Pillow and files made by hand, and what is refused."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pixzip.errors import ImageError, LimitError, PixzipError
from pixzip.formats import metadata as meta
from pixzip.formats.image import Picture, from_array, from_pil, read_image, to_array, to_pil, write_image

KINDS = [("L", 1), ("L", 2), ("L", 4), ("L", 8), ("L", 16), ("LA", 8), ("LA", 16), ("RGB", 8), ("RGB", 16)]
KINDS += [("RGBA", 8), ("RGBA", 16), ("P", 1), ("P", 2), ("P", 4), ("P", 8)]
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "P": 1}
FORMATS = ("PNG", "WEBP", "TIFF", "BMP", "PPM")
ICC, XMP = b"not really a profile" * 5, b"<x:xmpmeta/>"


def exif_packet() -> bytes:
    exif = Image.Exif()
    exif[270], exif[271] = "a description", "a make"
    exif.get_ifd(34665)[36867] = "2020:01:02 03:04:05"
    exif.get_ifd(34853)[1] = "N"
    return exif.tobytes().removeprefix(b"Exif\0\0")


EXIF = exif_packet()


def picture_of(mode: str, depth: int, h: int, w: int, seed: int = 0, **parts: Any) -> Picture:
    samples = np.random.default_rng(seed).integers(0, 2**depth, (CHANNELS[mode], h, w))
    palette = bytes((7 * i + i // 3) % 256 for i in range(3 * 2**depth)) if mode == "P" else b""
    return Picture(samples.astype(np.uint16 if depth == 16 else np.uint8), mode, depth, **{"palette": palette, **parts})


def pillow_bytes(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def noise(mode: str, h: int = 13, w: int = 17) -> Image.Image:
    """A Pillow image of noise."""
    rng = np.random.default_rng(3)
    if mode == "1":
        return Image.fromarray(rng.integers(0, 2, (h, w)).astype(bool))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (h, w)).astype(np.uint16))
    if mode == "P":
        image = Image.fromarray(rng.integers(0, 256, (h, w)).astype(np.uint8)).convert("P")
        image.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
        return image
    shape = (h, w, len(mode)) if len(mode) > 1 else (h, w)
    return Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))


sides = st.one_of(st.just(1), st.integers(1, 20))


# The law, for every format.


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(FORMATS), sides, sides, st.integers(0, 1000))
def test_a_written_picture_reads_the_same_or_is_refused(
    kind: tuple[str, int], format: str, h: int, w: int, seed: int
) -> None:
    picture = picture_of(*kind, h, w, seed)
    try:
        data = write_image(picture, format)
    except ImageError as error:
        assert format != "PNG"
        assert f"{format} cannot hold mode {kind[0]}" in str(error)
        return
    back = read_image(data)
    if format == "WEBP":  # knows no gray, and leaves out alpha that is 255 everywhere
        assert colours(back) == colours(picture)
        return
    assert back.same_pixels(picture) or (kind == ("P", 8) and np.array_equal(back.planes, picture.planes))
    assert back.mode == picture.mode
    assert data == write_image(picture, format)


def colours(picture: Picture) -> bytes:
    return to_pil(picture).convert("RGBA").tobytes()


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["L", "RGB", "P"]), st.binary(max_size=30), st.integers(1, 200))
def test_png_keeps_palette_transparency_and_metadata(mode: str, payload: bytes, entries: int) -> None:
    transparency = {"L": b"\0\7", "RGB": b"\0\1\0\2\0\3", "P": bytes(range(entries))}[mode]
    palette = bytes(range(entries)) * 3 if mode == "P" else b""
    keys = (
        "gama",
        "chrm",
        "srgb",
        "iccp",
        "sbit",
        "bkgd",
        "phys",
        "time",
        "text",
        "ztxt",
        "itxt",
        "exif",
        "vpAg",
        "trailer",
    )
    metadata = tuple((key, payload + b"!") for key in keys)
    picture = picture_of(mode, 8, 3, 4, palette=palette, transparency=transparency, metadata=metadata)
    back = read_image(write_image(picture, "PNG"))
    assert back.same_pixels(picture)
    assert back.metadata == metadata


@pytest.mark.parametrize("format", ["TIFF", "WEBP"])
def test_tiff_and_webp_keep_icc_exif_xmp_and_give_them_to_pillow(format: str) -> None:
    metadata = (("icc", ICC), ("exif", EXIF), ("xmp", XMP))
    data = write_image(picture_of("RGB", 8, 5, 6, metadata=metadata), format)
    assert read_image(data).metadata == metadata
    image = Image.open(io.BytesIO(data))
    exif = image.getexif()
    assert (image.info["icc_profile"], image.info["xmp"], exif[270]) == (ICC, XMP, "a description")
    assert exif.get_ifd(34665)[36867] == "2020:01:02 03:04:05"
    assert exif.get_ifd(34853)[1] == "N"


def test_metadata_of_webp_goes_into_png_and_back() -> None:
    metadata = (("icc", ICC), ("exif", EXIF), ("xmp", XMP))
    png = write_image(picture_of("RGB", 8, 5, 6, metadata=metadata), "PNG")
    assert Image.open(io.BytesIO(png)).info["icc_profile"] == ICC
    assert [key for key, _ in read_image(png).metadata] == ["iccp", "exif", "itxt"]
    assert read_image(write_image(read_image(png), "WEBP")).metadata == metadata


def test_resolution_of_tiff_is_kept_exactly() -> None:
    picture = picture_of("L", 8, 5, 6, metadata=(("resolution", b"300/1 236/3 inch"),))
    tiff = write_image(picture, "TIFF")
    assert Image.open(io.BytesIO(tiff)).info["dpi"] == (300, Fraction(236, 3))
    assert read_image(tiff).metadata == picture.metadata
    assert Image.open(io.BytesIO(write_image(picture, "PNG"))).info["dpi"] == pytest.approx((300, 236 / 3), abs=0.02)


@pytest.mark.parametrize("format", ["TIFF", "BMP"])
def test_resolution_of_png_goes_into_tiff_and_bmp(format: str) -> None:
    picture = picture_of("RGB", 8, 2, 2, metadata=(("phys", struct.pack(">IIB", 2835, 11811, 1)),))
    back = read_image(write_image(picture, format))
    assert meta.resolution(back.metadata) == (Fraction(2835, 100), Fraction(11811, 100), "cm")


def test_orientation_goes_into_tiff_so_that_pillow_shows_the_same() -> None:
    exif = Image.Exif()
    exif[274] = 6
    picture = picture_of("L", 8, 3, 5, metadata=(("exif", exif.tobytes().removeprefix(b"Exif\0\0")),))
    shown = Image.open(io.BytesIO(write_image(picture, "TIFF")))
    assert np.array_equal(np.asarray(shown), np.rot90(picture.planes[0], -1))
    assert np.array_equal(read_image(write_image(picture, "TIFF")).planes[0], np.rot90(picture.planes[0], -1))


def test_metadata_cannot_change_the_picture_of_a_png() -> None:
    hostile = tuple(
        (key, b"\0\0") for key in ("IDAT", "PLTE", "tRNS", "plte", "acTL", "IEND", "a", "gAMA?", "", "éGHI")
    )
    picture = picture_of("L", 8, 2, 2)
    assert write_image(replace(picture, metadata=hostile), "PNG") == write_image(picture, "PNG")


def test_a_suggested_palette_that_would_damage_a_png_is_left_out_of_it() -> None:
    """Found by bench/fuzz.py: metadata of a .pxz file is any bytes."""
    picture = picture_of("RGB", 8, 2, 2)
    for entries in ([b"four"], [b""], [bytes(771)], [b"abc", b"def"]):
        hostile = replace(picture, metadata=tuple(("plte", value) for value in entries))
        assert write_image(hostile, "PNG") == write_image(picture, "PNG")
    good = replace(picture, metadata=(("plte", b"abcdef"),))
    assert read_image(write_image(good, "PNG")).metadata == good.metadata


# Reading other formats: Pillow's pixels, where Pillow loses none.


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"lossless": True, "exact": True}),
        ("WEBP", "RGB", {"quality": 60}),
        *(("TIFF", mode, {"compression": c}) for mode in ("L", "LA", "RGB", "RGBA", "P") for c in ("raw", "tiff_lzw")),
        *(("TIFF", "I;16", {"compression": compression}) for compression in ("raw", "tiff_adobe_deflate")),
        *(("TIFF", "1", {"compression": compression}) for compression in ("raw", "group4", "packbits")),
        *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")),
        *(("TGA", mode, {"compression": c}) for mode in ("L", "LA", "P", "RGB", "RGBA") for c in (None, "tga_rle")),
        ("GIF", "P", {}),
        *(("PPM", mode, {}) for mode in ("1", "L", "RGB")),
    ],
)
def test_reads_what_pillow_wrote(format: str, mode: str, options: dict[str, Any]) -> None:
    data = pillow_bytes(noise(mode), format, **options)
    image = Image.open(io.BytesIO(data))
    expected, picture = np.asarray(image).astype(np.uint16), read_image(data)
    assert picture.mode == ("L" if mode in ("1", "I;16") else mode)
    assert picture.depth == {"1": 1, "I;16": 16}.get(mode, 8)
    assert np.array_equal(to_array(picture), expected.astype(to_array(picture).dtype))
    if mode == "P" and format != "GIF":
        assert picture.palette == bytes(image.getpalette("RGB") or ())
    assert to_pil(picture).convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


def test_big_endian_sixteen_bit_tiffs_read_right() -> None:
    samples = np.array([[0x1234, 0xFF00], [0x00FF, 0x8001]], dtype=">u2")
    for compression, strip in ((1, samples.tobytes()), (8, zlib.compress(samples.tobytes()))):
        picture = read_image(tiff(strip, bits=(16,), photometric=1, compression=compression, order=">"))
        assert (picture.mode, picture.depth, picture.planes.tolist()) == ("L", 16, [samples.tolist()])
    swapped = samples.astype("<u2").tobytes()
    assert read_image(tiff(swapped, bits=(16,), photometric=1)).planes.tolist() == [samples.tolist()]


def test_gray_tiffs_of_two_and_four_bits_keep_their_values() -> None:
    assert read_image(tiff(b"\x10\xe0", bits=(2,), photometric=1)).planes.tolist() == [[[0, 1], [3, 2]]]
    assert read_image(tiff(b"\x1a\xf0", bits=(4,), photometric=1)).planes.tolist() == [[[1, 10], [15, 0]]]
    assert read_image(tiff(b"\x1a\xf0", bits=(4,), photometric=0)).planes.tolist() == [[[14, 5], [0, 15]]]


def test_gif_takes_the_depth_of_its_palette_and_keeps_transparency_and_comment() -> None:
    image = Image.frombytes("P", (3, 1), b"\0\1\2")
    image.putpalette(bytes(range(12)))
    picture = read_image(pillow_bytes(image, "GIF", transparency=1, comment=b"hello", optimize=False))
    assert (picture.mode, picture.depth, picture.transparency) == ("P", 2, b"\xff\0")
    assert picture.metadata == (("comment", b"hello"),)
    assert picture.planes.tolist() == [[[0, 1, 2]]]
    assert picture.palette[:9] == bytes(range(9))


def test_bmp_with_sixteen_colours_has_depth_four() -> None:
    palette = b"".join(bytes([i, 2 * i, 3 * i, 0]) for i in range(16))
    picture = read_image(bmp(b"\x1f\0\0\0\xa3\0\0\0", bits=4, palette=palette))
    assert (picture.mode, picture.depth, picture.planes.tolist()) == ("P", 4, [[[10, 3], [1, 15]]])
    assert picture.palette[3:6] == bytes([3, 2, 1])


def test_pnm_of_every_depth_reads_right() -> None:
    expected = [[[0, 1, 1], [1, 0, 1]]]
    assert read_image(b"P1 # comment\n3 2\n100\n01 0").planes.tolist() == expected
    assert read_image(b"P4 3 2\n\x80\x40").planes.tolist() == expected
    assert read_image(b"P2\n2 1\n#\n15\n3 #\n 15\n").planes.tolist() == [[[3, 15]]]
    assert read_image(b"P5 2 1 3\n\1\3").depth == 2
    assert read_image(b"P3 1 1 65535 1 2 65535").planes.ravel().tolist() == [1, 2, 65535]
    assert read_image(b"P6 1 1 65535\n\0\1\x80\0\xff\xff").planes.ravel().tolist() == [1, 0x8000, 65535]


def test_jpeg_is_read_only_where_allowed() -> None:
    data = pillow_bytes(noise("RGB"), "JPEG", exif=b"Exif\0\0" + EXIF)
    with pytest.raises(ImageError, match="JPEG is lossy"):
        read_image(data)
    picture = read_image(data, allow_jpeg=True)
    assert np.array_equal(to_array(picture), np.asarray(Image.open(io.BytesIO(data))))
    assert ("exif", EXIF) in picture.metadata


# Arrays and Pillow images.


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", bool])
def test_to_array_is_the_inverse_of_from_array(dtype: Any) -> None:
    for shape in [(3, 5), (1, 1)] + [(3, 5, c) for c in (2, 3, 4) if dtype is not bool]:
        array = np.random.default_rng(1).integers(0, 256, shape).astype(dtype)
        picture = from_array(array)
        assert picture.planes.flags.c_contiguous
        assert np.array_equal(to_array(picture), array)
        assert to_array(picture).dtype == np.dtype(dtype).newbyteorder("=")


def test_from_array_copies() -> None:
    array = np.zeros((2, 2), np.uint8)
    picture = from_array(array)
    array[:] = 1
    assert not picture.planes.any()


@pytest.mark.parametrize(
    "array",
    [np.zeros(shape, np.uint8) for shape in ((), (3,), (2, 2, 1), (2, 2, 5), (1, 2, 2, 3), (0, 3), (3, 0, 3))]
    + [np.zeros((2, 2), dtype) for dtype in (np.int8, np.float32, np.uint32, np.complex64)]
    + [np.zeros((2, 2, 3), bool)],
)
def test_from_array_refuses_what_is_no_picture(array: NDArray[Any]) -> None:
    with pytest.raises(ImageError):
        from_array(array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_to_pil_is_the_inverse_of_from_pil(mode: str) -> None:
    image = noise(mode)
    back = to_pil(from_pil(image))
    assert back.mode == mode
    assert back.tobytes() == image.tobytes()
    assert back.getpalette() == image.getpalette()


def test_pillow_images_carry_metadata_and_transparency_both_ways() -> None:
    chunks = (("phys", struct.pack(">IIB", 2835, 2835, 1)),)
    metadata = (("icc", ICC), ("exif", EXIF), ("xmp", XMP), *chunks)
    for mode, transparency in (("L", b"\0\7"), ("RGB", b"\0\1\0\2\0\3"), ("P", b"\xff\0\7")):
        picture = picture_of(mode, 8, 2, 3, transparency=transparency, metadata=metadata)
        image = to_pil(picture)
        back = from_pil(image)
        assert back.same_pixels(picture)
        assert back.metadata == metadata
        assert image.info["dpi"] == pytest.approx((72, 72), abs=0.02)


def test_two_and_four_bit_gray_is_spread_as_pillow_spreads_it() -> None:
    for depth in (2, 4):
        picture = picture_of("L", depth, 4, 9)
        pillow = Image.open(io.BytesIO(write_image(picture, "PNG")))
        assert to_pil(picture).tobytes() == pillow.tobytes()


def test_what_pillow_cut_or_cannot_hold_is_refused() -> None:
    sixteen = picture_of("RGB", 16, 2, 2)
    with pytest.raises(ImageError, match="no image of mode RGB with 16 bits"):
        to_pil(sixteen)
    with pytest.raises(ImageError, match="pass the file's bytes"):
        from_pil(Image.open(io.BytesIO(write_image(sixteen, "PNG"))))
    for mode in ("CMYK", "YCbCr", "LAB", "HSV", "I", "F", "PA", "La"):
        with pytest.raises(ImageError, match=f"mode {mode} cannot be kept"):
            from_pil(Image.new(mode, (2, 2)))
    with pytest.raises(ImageError, match="0 x 5 pixels"):
        from_pil(Image.new("L", (0, 5)))
    with pytest.raises(ImageError, match="cannot be loaded"):
        from_pil(Image.open(io.BytesIO(pillow_bytes(noise("RGB"), "BMP")[:-20])))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": "CMYK"}, "mode CMYK"),
        ({"depth": 3}, "depth 3"),
        ({"depth": 16}, "of uint8"),
        ({"planes": np.zeros((3, 2, 2), np.uint8)}, r"planes \(3, 2, 2\)"),
        ({"planes": np.zeros((1, 0, 2), np.uint8)}, "2 x 0 pixels"),
        ({"planes": np.full((1, 2, 2), 16, np.uint8), "depth": 4}, "sample 16"),
        ({"palette": b"abc"}, "palette of 3 bytes in mode L"),
        ({"mode": "P"}, "palette of 0 bytes in mode P"),
        ({"mode": "P", "palette": b"ab"}, "palette of 2 bytes"),
        ({"mode": "P", "palette": bytes(771)}, "palette of 771 bytes"),
        ({"mode": "P", "palette": bytes(3), "transparency": b"ab"}, "transparency of 2 bytes"),
        ({"transparency": b"abc"}, "transparency of 3 bytes"),
    ],
)
def test_pictures_whose_parts_do_not_fit_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        replace(picture_of("L", 8, 2, 2), **change)


# Files by hand, and what is refused.


def tiff(
    strip: bytes, *, bits: tuple[int, ...], photometric: int, compression: int = 1, order: str = "<", **tags: Any
) -> bytes:
    """A TIFF of 2 x 2 pixels in one strip; tags are further (or other) ones: tNNN=(type, values)."""
    entries: dict[int, tuple[str, tuple[int, ...]]] = {
        **{
            256: ("H", (2,)),
            257: ("H", (2,)),
            258: ("H", bits),
            259: ("H", (compression,)),
            262: ("H", (photometric,)),
        },
        **{273: ("I", (8,)), 277: ("H", (len(bits),)), 278: ("H", (2,)), 279: ("I", (len(strip),))},
        **{int(name[1:]): value for name, value in tags.items()},
    }
    strip += b"\0" * (len(strip) % 2)
    spill_at, spill, rows = 8 + len(strip) + 6 + 12 * len(entries), b"", b""
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(packed) > 4:
            packed, spill = struct.pack(f"{order}I", spill_at + len(spill)), spill + packed
        rows += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + packed.ljust(4, b"\0")
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(strip))
    return header + strip + struct.pack(f"{order}H", len(entries)) + rows + bytes(4) + spill


def bmp(pixels: bytes, *, bits: int, palette: bytes = b"", compression: int = 0) -> bytes:
    """A BMP of 2 x 2 pixels."""
    at = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", at + len(pixels), 0, 0, at) + header + palette + pixels


def frames(format: str) -> bytes:
    return pillow_bytes(noise("RGB"), format, save_all=True, append_images=[noise("RGB").rotate(90, expand=False)])


def tga(kind: int, depth: int, pixels: bytes, palette: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    return struct.pack("<BBBHHBHHHHBB", 0, palette[0], kind, 0, palette[1], palette[2], 0, 0, 1, 1, depth, 32) + pixels


GRAYS = b"".join(bytes([i, i, i, 0]) for i in range(16))
REFUSED: dict[str, bytes] = {
    "the file is empty": b"",
    "not an image": b"hello, this is no image at all",
    "begins with 89504e470a0d1a0a": b"\x89PNG\n\r\x1a\n" + bytes(30),
    "AVIF": b"\0\0\0\x1cftypavif" + bytes(30),
    "HEIC": b"\0\0\0\x1cftypheic" + bytes(30),
    "JPEG XL": b"\xff\x0a" + bytes(30),
    "QOI": b"qoif" + bytes(30),
    "ICO": pillow_bytes(noise("RGBA", 16, 16), "ICO"),
    "WEBP file with 2 frames": frames("WEBP"),
    "GIF file with 2 frames": frames("GIF"),
    "TIFF file with several pages": frames("TIFF"),
    "animated PNG": frames("PNG"),
    "photometric interpretation 5": pillow_bytes(Image.new("CMYK", (2, 2)), "TIFF"),
    "photometric interpretation 8": pillow_bytes(Image.new("LAB", (2, 2)), "TIFF"),
    "photometric interpretation 6": pillow_bytes(Image.new("YCbCr", (2, 2)), "TIFF"),
    "sample format [3]": pillow_bytes(Image.new("F", (2, 2)), "TIFF"),
    "sample format [2]": pillow_bytes(Image.new("I", (2, 2)), "TIFF"),
    "compression 7": pillow_bytes(noise("RGB"), "TIFF", compression="jpeg"),
    "unknown pixel mode": tiff(bytes(24), bits=(16, 16, 8), photometric=2),
    "bits (12,), black is zero": tiff(bytes(6), bits=(12,), photometric=1),
    "bits (32,), black is zero": tiff(bytes(16), bits=(32,), photometric=1),
    "bits (16,), white is zero": tiff(bytes(8), bits=(16,), photometric=0),
    "extra samples (0,)": tiff(bytes(16), bits=(8,) * 4, photometric=2, t338=("H", (0,))),
    "extra samples (1,)": tiff(bytes(16), bits=(8,) * 4, photometric=2, t338=("H", (1,))),
    "extra samples (2, 0)": tiff(bytes(20), bits=(8,) * 5, photometric=2, t338=("H", (2, 0))),
    "palette of 16 bits": tiff(bytes(4), bits=(8,), photometric=3, t320=("H", (0x1234,) * 768)),
    "strips cover 4 of 40 samples": tiff(bytes(4), bits=(8,), photometric=1, t257=("H", (20,))),
    "strips cover 4 of 12 samples": tiff(bytes(12), bits=(8,) * 3, photometric=2, t284=("H", (2,))),
    "TIFF file is damaged": tiff(zlib.compress(bytes(4)), bits=(8,), photometric=1, compression=8, t257=("H", (20,))),
    "TIFF file is damaged or of an unknown kind": tiff(b"", bits=(8,), photometric=1, t256=("H", (0,))),
    "16 bits a pixel": bmp(bytes(8), bits=16),
    "header calls unused": bmp(bytes(range(16)), bits=32),
    "4 bits a pixel and a gray palette": bmp(bytes(8), bits=4, palette=GRAYS),
    "8 bits a pixel and a gray palette": bmp(bytes(8), bits=8, palette=b"\0\0\0\0\xff\xff\xff\0"),
    "TGA of type 2 with 16": tga(2, 16, bytes(2)),
    "palette of 32": tga(1, 8, bytes(9), (1, 2, 32)),
    "does not cover its canvas": b"GIF89a\3\0\3\0\x80\0\0" + bytes(6) + b",\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;",
    "maxval 100": b"P5 1 1 100\n\1",
    "maxval 4095": b"P6 1 1 4095\n" + bytes(6),
    "picture of 0 x 1 pixels": b"P5 0 1 255\n",
    "no maxval": b"P5 1 1 \n",
    "2 bytes of pixels, not 1": b"P5 1 1 255\nab",
    "0 bytes of pixels, not 6": b"P6 1 1 65535\n",
    "sample 2 over maxval 1": b"P5 1 1 1\n\2",
    "1 samples, not 2": b"P2 2 1 255 1",
    "up to 5 digits": b"P2 1 1 255 1000000",
    "no number": b"P2 1 1 255 -1",
    "maxval is 255": b"P2 1 1 255 256",
    "samples from 0 to 9": b"P1 2 1 09",
    "PAM": b"P7\nWIDTH 1\n",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses_with_the_reason(reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(REFUSED[reason])
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_by_hand_are_read_where_nothing_is_wrong_with_them() -> None:
    assert read_image(tiff(bytes(range(12)), bits=(8,) * 3, photometric=2)).planes[1].tolist() == [[1, 4], [7, 10]]
    separate: dict[str, Any] = {"t284": ("H", (2,)), "t273": ("I", (8, 12, 16)), "t279": ("I", (4, 4, 4))}
    assert read_image(tiff(bytes(range(12)), bits=(8,) * 3, photometric=2, **separate)).planes[1].tolist() == [
        [4, 5],
        [6, 7],
    ]
    assert read_image(bmp(bytes([1, 2, 3, 255] * 4), bits=32)).planes[:, 0, 0].tolist() == [3, 2, 1]
    assert read_image(tga(2, 24, b"\1\2\3")).planes[:, 0, 0].tolist() == [3, 2, 1]
    assert read_image(tga(1, 8, b"\0\0\0\1\2\3\1", (1, 2, 24))).palette == b"\0\0\0\3\2\1"


@pytest.mark.parametrize("format", ["WEBP", "TIFF", "BMP", "GIF", "TGA", "PPM", "PNG"])
def test_truncated_files_are_refused(format: str) -> None:
    data = pillow_bytes(noise("RGB" if format != "GIF" else "P"), format)
    for length in sorted(random.Random(1).sample(range(len(data) // 2), 20)):
        with pytest.raises(ImageError):
            read_image(data[:length])


@pytest.mark.parametrize("format", ["WEBP", "TIFF", "BMP", "GIF", "TGA", "PPM", "PNG", "JPEG"])
def test_limit_is_checked_before_decoding(format: str) -> None:
    data = pillow_bytes(Image.new("P" if format == "GIF" else "RGB", (60, 50)), format)
    with pytest.raises(LimitError, match="60 x 50 = 3000 pixels, over the limit of 2999"):
        read_image(data, max_pixels=2999, allow_jpeg=True)
    assert read_image(data, max_pixels=3000, allow_jpeg=True).width == 60


def test_sizes_that_pillow_warns_about_are_ours_to_limit() -> None:
    """A BMP of 200 megapixels in 62 bytes: the limit speaks; with the limit raised, the missing pixels do."""
    data = bytearray(bmp(bytes(8), bits=24))
    data[18:26] = struct.pack("<ii", 20000, 10000)
    with pytest.raises(LimitError, match="200000000 pixels"):
        read_image(bytes(data))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["WEBP", "TIFF", "BMP", "GIF", "TGA", "PPM", "PNG"]), st.data())
def test_damaged_files_give_a_picture_or_an_error_of_ours(format: str, choose: st.DataObject) -> None:
    data = bytearray(pillow_bytes(noise("P" if format in ("GIF", "BMP") else "RGB", 5, 6), format))
    for _ in range(choose.draw(st.integers(1, 4))):
        data[choose.draw(st.integers(0, len(data) - 1))] = choose.draw(st.integers(0, 255))
    try:
        picture = read_image(bytes(data), max_pixels=100_000)
    except PixzipError as error:
        assert "\n" not in str(error)
        return
    assert read_image(write_image(picture, "PNG")).same_pixels(picture)


def test_formats_that_cannot_hold_a_picture_say_so() -> None:
    keyed = picture_of("RGB", 8, 2, 2, transparency=bytes(6))
    for format in ("WEBP", "TIFF", "BMP", "PPM"):
        with pytest.raises(ImageError, match=f"{format} cannot hold a transparent colour"):
            write_image(keyed, format)
    with pytest.raises(ImageError, match="a side is over 16383"):
        write_image(picture_of("RGB", 8, 1, 16384), "WEBP")
    with pytest.raises(ImageError, match="JPEG is not written"):
        write_image(keyed, "JPEG")


# Real files.

DATA = Path(os.environ.get("PIXZIP_DATA", ""))
FILES = sorted((DATA / "formats").rglob("*.*")) if "PIXZIP_DATA" in os.environ else []


@pytest.mark.data
@pytest.mark.skipif(not FILES, reason="PIXZIP_DATA is not set")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_files_read_as_pillow_reads_them_or_are_refused(path: Path) -> None:
    data = path.read_bytes()
    try:
        picture = read_image(data)
    except (ImageError, LimitError) as error:
        assert "\n" not in str(error)
        assert path.name.startswith("x") or "_x_" in path.name, error
        return
    assert not (path.parent.name == "pngsuite" and path.name.startswith("x"))
    image = Image.open(path)
    image.load()
    assert_as_pillow(picture, image)
    back = read_image(write_image(picture, "PNG"))
    assert back.same_pixels(picture)
    assert back.metadata == picture.metadata


def assert_as_pillow(picture: Picture, image: Image.Image) -> None:
    """Pixels as Pillow has them: 16-bit colour cut to high bytes, 16-bit LA as RGBA, 2- and 4-bit gray spread."""
    expected = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    planes = picture.planes
    if picture.depth == 16 and picture.mode != "L":
        planes = (planes >> 8).astype(np.uint8)
    if picture.mode == "LA" and image.mode == "RGBA":
        planes = planes[[0, 0, 0, 1]]
    if picture.mode == "L" and picture.depth in (2, 4):
        planes = planes * np.uint8(255 // (2**picture.depth - 1))
    assert np.array_equal(planes, expected)
    if picture.mode == "P":
        assert picture.palette == bytes(image.getpalette("RGB") or ())
