"""docs/formats.md row by row: a file of every kind is kept as the table says, or refused with the words it quotes."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin
from test_image import EXIF, ICC, XMP, assert_as_pillow, bmp, frames, noise, picture_of, pillow_bytes, tga, tiff

import pixzip
from pixzip import cli
from pixzip.errors import ImageError
from pixzip.formats.image import MODES, read_image, write_image

DOCUMENT = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
JPEG = "--allow-jpeg"


def table(heading: str) -> list[list[str]]:
    """The cells of the table that follows a line, without its head."""
    rows = DOCUMENT.split(heading, 1)[1].split("|", 1)[1].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


PIXELS = {row[0]: row[1:] for row in table("## Pixels")}
RESTORED = {row[0]: row[1:] for row in table("Image files that are written hold:")}


def pngs(mode: str, *depths: int, **parts: Any) -> list[bytes]:
    return [write_image(picture_of(mode, depth, 5, 7, **parts), "PNG") for depth in depths]


def png_with(kind: bytes, payload: bytes, **how: Any) -> bytes:
    """A PNG of one gray pixel with one more chunk after its header."""
    data = pngs("L", 8)[0]
    chunk = struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))
    return data[:33] + chunk + data[33:]


def interlaced() -> bytes:
    """Pillow writes none: PngSuite's."""
    return (Path(__file__).parent / "pngsuite" / "basi2c08.png").read_bytes()


def clear(format: str, **how: Any) -> bytes:
    """RGBA with colours under alpha 0."""
    pixels = np.asarray(noise("RGBA")).copy()
    pixels[::2, :, 3] = 0
    return pillow_bytes(Image.fromarray(pixels), format, **how)


def bits(mode: str, depth: int, photometric: int) -> bytes:
    raw = {1: b"\x80\x40", 2: b"\x10\xe0", 4: b"\x1a\xf0", 8: b"\1\2\3\4", 16: bytes(range(8))}[depth]
    return tiff(raw, bits=(depth,), photometric=photometric)


def pnm(kind: str, maxval: int) -> bytes:
    samples = [0, maxval, 1] * (3 if kind in ("P3", "P6") else 1)
    head = f"{kind} 3 1\n" if kind in ("P1", "P4") else f"{kind} 3 1 {maxval}\n"
    if kind in ("P1", "P2", "P3"):
        return (head + " ".join(map(str, samples)) + "\n").encode()
    if kind == "P4":
        return head.encode() + b"\x60"
    return head.encode() + np.array(samples, dtype=">u2" if maxval > 255 else "u1").tobytes()


def array(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 2 if dtype is bool else 256, shape).astype(dtype)


OTHERS = (
    "\0\0\0\x1cftypavif",
    "\0\0\0\x1cftypheic",
    "\xff\x0a",
    "\0\0\0\x0cjP  \r\n\x87\n",
    "qoif",
    "\0\0\1\0",
    "8BPS",
)
OTHERS += ("\x76\x2f\x31\x01", "%PDF", "P7\n", "PF\n", "\x8aMNG")
#: First cell of a row → what it speaks of: files, Pillow images and arrays.
MADE: dict[str, Callable[[], list[Any]]] = {
    "PNG: gray": lambda: pngs("L", 1, 2, 4, 8, 16),
    "PNG: gray and alpha": lambda: pngs("LA", 8, 16),
    "PNG: colour": lambda: pngs("RGB", 8, 16),
    "PNG: colour and alpha": lambda: [clear("PNG"), *pngs("RGBA", 16)],
    "PNG: palette": lambda: pngs("P", 1, 2, 4, 8),
    "PNG: a transparent colour": lambda: [
        *pngs("L", 8, transparency=b"\0\7"),
        *pngs("RGB", 16, transparency=b"\1\2\3\4\5\6"),
    ],
    "PNG: interlaced": lambda: [interlaced()],
    "PNG: animated": lambda: [frames("PNG")],
    "PNG: unknown critical chunk": lambda: [png_with(b"CgBI", bytes(4))],
    "PNM: P1 to P6, maxval 1, 3, 15, 255, 65535": lambda: [
        *(pnm(kind, 1) for kind in ("P1", "P4")),
        *(pnm(kind, maxval) for kind in ("P2", "P5") for maxval in (3, 15, 255, 65535)),
        *(pnm(kind, maxval) for kind in ("P3", "P6") for maxval in (255, 65535)),
    ],
    "PNM: another maxval": lambda: [pnm("P2", 100), pnm("P6", 100)],
    "PNM: several pictures": lambda: [2 * pnm("P5", 255), 2 * pnm("P6", 255)],
    "WebP: lossless": lambda: [pillow_bytes(noise("RGB"), "WEBP", lossless=True)],
    "WebP: lossless with alpha": lambda: [clear("WEBP", lossless=True, exact=True)],
    "WebP: lossy": lambda: [pillow_bytes(noise("RGB"), "WEBP", quality=60)],
    "WebP: animated": lambda: [frames("WEBP")],
    "TIFF: gray": lambda: [bits("L", depth, 1) for depth in (1, 2, 4, 8, 16)],
    "TIFF: gray, white is zero": lambda: [bits("L", depth, 0) for depth in (1, 4, 8)],
    "TIFF: gray of 16 bits, white is zero": lambda: [bits("L", 16, 0)],
    "TIFF: gray and alpha": lambda: [pillow_bytes(noise("LA"), "TIFF")],
    "TIFF: colour": lambda: [pillow_bytes(noise("RGB"), "TIFF", compression=c) for c in ("raw", "tiff_lzw")],
    "TIFF: colour and alpha": lambda: [clear("TIFF")],
    "TIFF: palette": lambda: [pillow_bytes(noise("P"), "TIFF")],
    "TIFF: palette of 16-bit colours": lambda: [tiff(bytes(4), bits=(8,), photometric=3, t320=("H", (0x1234,) * 768))],
    "TIFF: colour, and gray with alpha, of 16 bits": lambda: [
        tiff(bytes(range(24)), bits=(16, 16, 16), photometric=2),
        *(write_image(picture_of(mode, 16, 5, 7), "TIFF") for mode in ("LA", "RGB", "RGBA")),
    ],
    "TIFF: 12 or 32 bits": lambda: [tiff(bytes(16), bits=(depth,), photometric=1) for depth in (12, 32)],
    "TIFF: floating point": lambda: [pillow_bytes(Image.new("F", (2, 2)), "TIFF")],
    "TIFF: signed integers": lambda: [pillow_bytes(Image.new("I", (2, 2)), "TIFF")],
    "TIFF: CMYK": lambda: [pillow_bytes(Image.new("CMYK", (2, 2)), "TIFF")],
    "TIFF: YCbCr": lambda: [pillow_bytes(Image.new("YCbCr", (2, 2)), "TIFF")],
    "TIFF: Lab": lambda: [pillow_bytes(Image.new("LAB", (2, 2)), "TIFF")],
    "TIFF: premultiplied alpha": lambda: [tiff(bytes(16), bits=(8,) * 4, photometric=2, t338=("H", (1,)))],
    "TIFF: JPEG inside": lambda: [pillow_bytes(noise("RGB"), "TIFF", compression="jpeg")],
    "TIFF: bilevel in CCITT Group 4 codes": lambda: [pillow_bytes(noise("1"), "TIFF", compression="group4")],
    "TIFF: CCITT codes before Group 4": lambda: [pillow_bytes(noise("1"), "TIFF", compression="group3")],
    "TIFF: several pages": lambda: [frames("TIFF")],
    "TIFF: pictures in sub-directories, a camera's raw file": lambda: [
        pillow_bytes(noise("RGB"), "TIFF", tiffinfo={330: 8})
    ],
    "BMP: palette or gray, 1, 4, 8 bits": lambda: [
        pillow_bytes(noise("1"), "BMP"),
        pillow_bytes(noise("L"), "BMP"),
        bmp(b"\x1f\0\0\0\xa3\0\0\0", bits=4, palette=bytes(range(64))),
        pillow_bytes(noise("P"), "BMP"),
    ],
    "BMP: 24 bits, 32 bits without alpha": lambda: [
        pillow_bytes(noise("RGB"), "BMP"),
        bmp(bytes([1, 2, 3, 255] * 4), bits=32),
    ],
    "BMP: 16 bits": lambda: [bmp(bytes(8), bits=16)],
    "GIF: one frame": lambda: [pillow_bytes(small_palette(), "GIF", optimize=False)],
    "GIF: animated": lambda: [frames("GIF")],
    "GIF: frame smaller than its canvas": lambda: [
        b"GIF89a\3\0\3\0\x80\0\0" + bytes(6) + b",\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;"
    ],
    "TGA: gray, palette, colour, with alpha": lambda: [
        pillow_bytes(noise(mode), "TGA") for mode in ("L", "LA", "P", "RGB", "RGBA")
    ],
    "TGA: an extension or developer area": lambda: [
        pillow_bytes(noise("RGB"), "TGA")[:-26] + bytes(495) + struct.pack("<II", 66, 0) + b"TRUEVISION-XFILE.\0"
    ],
    "TGA: colour of 16 bits": lambda: [tga(2, 16, bytes(2))],
    "JPEG": lambda: [pillow_bytes(noise("RGB"), "JPEG")],
    "JPEG with --allow-jpeg": lambda: [pillow_bytes(noise(mode), "JPEG") for mode in ("L", "RGB")],
    "JPEG of CMYK with --allow-jpeg": lambda: [pillow_bytes(Image.new("CMYK", (2, 2)), "JPEG")],
    "AVIF, HEIC, JPEG XL, JPEG 2000, QOI, ICO, PSD, OpenEXR, PDF, PAM, PFM, MNG": lambda: [
        magic.encode("latin-1") + bytes(30) for magic in OTHERS
    ],
    "Pillow image: 1, L, LA, P, RGB, RGBA, I;16": lambda: [
        noise(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    ],
    "Pillow image: CMYK, LAB, YCbCr, HSV, F, I, PA, La, RGBa": lambda: [
        Image.new(mode, (2, 2)) for mode in ("CMYK", "LAB", "YCbCr", "HSV", "F", "I", "PA", "La", "RGBa")
    ],
    "Pillow image: 16-bit colour, already cut": lambda: [
        Image.open(io.BytesIO(data)) for data in (*pngs("RGB", 16), *pngs("RGBA", 16))
    ],
    "array: bool, uint8, uint16": lambda: [
        array(3, 4, dtype=bool),
        *(array(3, 4, dtype=dtype) for dtype in (np.uint8, np.uint16)),
        *(array(3, 4, channels) for channels in (2, 3, 4)),
        array(3, 4, 3, dtype=np.uint16),
    ],
    "array: other types and shapes": lambda: [
        *(array(3, 4, dtype=dtype) for dtype in (np.float32, np.int8, np.uint32)),
        *(array(*shape) for shape in ((3,), (3, 4, 5), (3, 4, 3, 1))),
    ],
}


def small_palette() -> Image.Image:
    image = Image.frombytes("P", (3, 1), b"\0\1\2")
    image.putpalette(bytes(range(12)))
    return image


def test_the_tests_know_every_row_of_the_document() -> None:
    assert list(MADE) == list(PIXELS)
    for kind, (kept, refused, *_) in PIXELS.items():
        assert bool(kept) != bool(refused), kind


def coded(image: Any, kind: str, model: Path) -> bytes:
    return pixzip.compress(image, model=model, allow_jpeg=JPEG in kind, threads=1)


def picture_in(image: Any) -> Any:
    """Another reader's view of it, a Pillow image or an array; none of PNM, whose samples Pillow scales."""
    if isinstance(image, (Image.Image, np.ndarray)):
        return image
    if image[:2] in (b"II", b"MM"):
        page: Any = tifffile.TiffFile(io.BytesIO(image)).pages[0]
        if page.dtype == np.uint16 and page.samplesperpixel > 1:
            return page.asarray()  # Pillow cuts them
    if image[:1] == b"P":
        return None
    opened = Image.open(io.BytesIO(image))
    opened.load()
    return opened


@pytest.mark.parametrize("kind", [kind for kind, row in PIXELS.items() if row[0]])
def test_what_the_document_says_is_kept_is_kept(kind: str, model: Path) -> None:
    found = set()
    for image in MADE[kind]():
        picture = pixzip.decompress(coded(image, kind, model), model=model, threads=1)
        found.add((picture.mode, picture.depth))
        expected = picture_in(image)
        if isinstance(expected, np.ndarray):
            assert np.array_equal(pixzip.to_array(picture), expected)
        elif expected is not None:
            assert_as_pillow(picture, expected)
        else:
            most = 2**picture.depth - 1
            row = [1, 0, 0] if image[:2] == b"P4" else [0, most, 1]
            assert picture.planes.transpose(1, 2, 0).ravel().tolist() == row * len(picture.planes) or most == 1
        png = write_image(picture, "PNG")
        assert read_image(png).same_pixels(picture)
    said = re.findall(r"([A-Z]+) ([\d, ]*\d)", PIXELS[kind][0])
    assert found == {(mode, int(depth)) for mode, depths in said for depth in depths.split(", ")}


@pytest.mark.parametrize("kind", [kind for kind, row in PIXELS.items() if row[1]])
def test_what_the_document_says_is_refused_is_refused_with_these_words(kind: str, model: Path) -> None:
    words = PIXELS[kind][1].strip('"')
    for image in MADE[kind]():
        with pytest.raises(ImageError) as caught:
            coded(image, kind, model)
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("format", "suffix"), [("PNG", ".png"), ("WEBP", ".webp"), ("TIFF", ".tif")])
def test_colours_of_fully_transparent_pixels_come_back(format: str, suffix: str, model: Path, tmp_path: Path) -> None:
    how = {"lossless": True, "exact": True} if format == "WEBP" else {}
    (tmp_path / f"a{suffix}").write_bytes(clear(format, **how))
    before = np.asarray(Image.open(tmp_path / f"a{suffix}"))
    assert before[before[:, :, 3] == 0].any()
    assert cli.main(["compress", str(tmp_path / f"a{suffix}"), "-q", "--model", str(model)]) == 0
    back = tmp_path / f"b{suffix}"
    assert cli.main(["decompress", str(tmp_path / "a.pxz"), "-o", str(back), "--model", str(model)]) == 0
    assert np.array_equal(np.asarray(Image.open(back)), before)


# ------------------------------------------------------------------------ metadata


#: Row of the second table → entry, and where Pillow finds it in the written file.
ENTRIES: dict[str, tuple[tuple[str, bytes], Callable[[Image.Image], bool]]] = {
    "ICC profile": (("icc", ICC), lambda image: image.info.get("icc_profile") == ICC),
    "EXIF": (("exif", EXIF), lambda image: image.getexif().get(270) == "a description"),
    "XMP": (("xmp", XMP), lambda image: image.info.get("xmp") == XMP),
    "resolution": (
        ("phys", struct.pack(">IIB", 11811, 11811, 1)),
        lambda image: np.allclose(image.info.get("dpi", 0), 300, atol=0.02),
    ),
    "text, comment": (("text", b"Title\0of it"), lambda image: "of it" in map(str, image.info.values())),
    "gamma, chromaticities, all other chunks": (
        ("gama", struct.pack(">I", 45455)),
        lambda image: image.info.get("gamma") == 0.45455,
    ),
}


@pytest.mark.parametrize("row", RESTORED)
@pytest.mark.parametrize("column", range(5))
def test_written_files_hold_the_metadata_that_the_document_says(row: str, column: int) -> None:
    entry, is_there = ENTRIES[row]
    format = ("PNG", "WEBP", "TIFF", "BMP", "PPM")[column]
    written = write_image(picture_of("RGB", 8, 3, 4, metadata=(entry,)), format)
    plain = write_image(picture_of("RGB", 8, 3, 4), format)
    image = Image.open(io.BytesIO(written))
    assert RESTORED[row][column] == ("yes" if is_there(image) else "no")
    assert (written != plain) == (RESTORED[row][column] == "yes")


def keys(data: bytes, **how: Any) -> dict[str, bytes]:
    return dict(read_image(data, **how).metadata)


def test_metadata_of_every_format_is_read_as_the_document_says() -> None:
    packets = {"icc_profile": ICC, "exif": b"Exif\0\0" + EXIF, "xmp": XMP}
    webp = pillow_bytes(noise("RGB"), "WEBP", lossless=True, **packets)
    assert keys(webp) == {"icc": ICC, "exif": EXIF, "xmp": XMP}
    jpeg = keys(pillow_bytes(noise("RGB"), "JPEG", **packets, comment=b"says", dpi=(300, 300)), allow_jpeg=True)
    assert (jpeg["icc"], jpeg["exif"], jpeg["xmp"], jpeg["comment"]) == (ICC, EXIF, XMP, b"says")
    assert jpeg["phys"] == struct.pack(">IIB", 11811, 11811, 1)
    assert keys(pillow_bytes(noise("P"), "GIF", comment=b"says")) == {"comment": b"says"}
    assert keys(pillow_bytes(noise("RGB"), "BMP", dpi=(300, 300))) == {"phys": jpeg["phys"]}
    assert keys(pillow_bytes(noise("RGB"), "TGA", id_section=b"says")) == {"comment": b"says"}
    assert keys(b"P5 # says\n1 1 255\n\1") == {}


#: TIFF tags: document and page name, artist, transfer function, white point, primaries, IPTC, Photoshop.
TIFF_TAGS: dict[int, Any] = {
    **{269: "a document", 285: "a page", 315: "José", 33432: "© Вася".encode()},
    **{301: tuple(range(768)), 318: (0.3127, 0.329), 319: (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)},
    **{33723: b"\x1c\x02\x05some", 34377: b"8BIM\x04\x04\0\0"},
}


def test_descriptive_tags_of_a_tiff_come_back_value_by_value() -> None:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in TIFF_TAGS.items():
        directory[tag] = value.encode("latin-1") if isinstance(value, str) else value
    directory.tagtype |= {33723: 7, 34377: 1}
    source = pillow_bytes(noise("RGB"), "TIFF", tiffinfo=directory)
    back = write_image(read_image(source), "TIFF")
    for data in (source, back):
        tags = Image.open(io.BytesIO(data)).tag_v2  # type: ignore[attr-defined]
        for tag, value in TIFF_TAGS.items():
            text = value.decode("latin-1") if tag == 33432 else value
            assert tags[tag] == pytest.approx(text) if tag in (318, 319) else tags[tag] == text, tag
    assert "© Вася".encode() + b"\0" in back  # the bytes, whatever their encoding
    assert read_image(back).metadata == read_image(source).metadata


def test_strip_leaves_out_metadata_and_nothing_else(model: Path, tmp_path: Path) -> None:
    entries = (("iccp", b"n\0\0" + zlib.compress(ICC)), ("text", b"Title\0t"), ("trailer", b"after"))
    picture = picture_of("P", 8, 5, 7, transparency=b"\1\2", metadata=entries)
    path, target = tmp_path / "photo.png", tmp_path / "photo.pxz"
    path.write_bytes(write_image(picture, "PNG"))
    assert cli.main(["compress", str(path), "-q", "--model", str(model)]) == 0
    assert pixzip.decompress(target.read_bytes()).metadata == entries
    assert cli.main(["compress", str(path), "-q", "--strip", "--force", "--delete", "--model", str(model)]) == 0
    back = pixzip.decompress(target.read_bytes())
    assert back.same_pixels(picture) and back.metadata == ()
    assert target.read_bytes() == pixzip.compress(picture, model=model, strip=True)
    assert target.read_bytes() == pixzip.compress(replace(picture, metadata=()), model=model)
    assert not path.exists()


def test_strip_packs_pictures_that_differ_in_metadata_only(model: Path, tmp_path: Path) -> None:
    for i in range(2):
        picture = picture_of("RGB", 8, 5, 7, i, metadata=(("text", bytes([97 + i])),))
        (tmp_path / f"{i}.png").write_bytes(write_image(picture, "PNG"))
    line = ["compress", str(tmp_path / "0.png"), str(tmp_path / "1.png"), "--pack", "-o", str(tmp_path / "all.pxz")]
    assert cli.main([*line, "-q", "--model", str(model)]) == 2
    assert cli.main([*line, "-q", "--model", str(model), "--strip"]) == 0


def test_every_mode_and_depth_is_in_the_document() -> None:
    said = {
        (mode, int(depth))
        for kept, *_ in PIXELS.values()
        for mode, depths in re.findall(r"([A-Z]+) ([\d, ]*\d)", kept)
        for depth in depths.split(", ")
    }
    assert said == {(mode, depth) for mode, (_, _, depths) in MODES.items() for depth in depths}
