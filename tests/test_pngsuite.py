"""bench/formats.py on files of PngSuite: pixels and every chunk come back, or a refusal says why; planted faults."""

from __future__ import annotations

import importlib.util
import struct
import sys
import zlib
from pathlib import Path
from types import ModuleType

import pytest

import pixzip

ROOT = Path(__file__).parents[1]
FILES = {path.stem: path for path in sorted((ROOT / "tests" / "pngsuite").glob("*.png"))}
BROKEN = {
    "xc1n0g08": "colour type 1",
    "xcrn0g04": "not an image, or none that pixzip knows: begins with 89504e470d0d1a0d",
    "xcsn0g01": "chunk IDAT has CRC 4353554d, computed d02f14c9",
    "xd9n2c08": "bit depth 99",
    "xdtn0g01": "no chunk IDAT",
    "xhdn0g08": "chunk IHDR has CRC",
    "xlfn0g04": "begins with 89504e470a0a1a0a",
    "xs1n0g01": "begins with 09504e470d0a1a0a",
}
#: What each file is here for, as its chunks; gAMA is in nearly all.
CHUNKS = {
    "ccwn3p08": "cHRM",
    "cdsn2c08": "pHYs",
    "ch1n3p04": "hIST",
    "cm0n0g04": "tIME",
    "cs3n2c16": "sBIT",
    "bgwn6a08": "bKGD",
    "g05n3p04": "gAMA",
    "ct1n0g04": "tEXt",
    "ctzn0g04": "zTXt",
    "ctfn0g04": "iTXt",
    "cthn0g04": "iTXt",
    "exif2c08": "eXIf",
    "ps1n0g08": "sPLT",
    "tbbn0g04": "tRNS",
    "tbrn2c08": "tRNS",
    "tp1n3p08": "tRNS",
    "tm3n3p02": "tRNS",
    "basn3p02": "PLTE",
}


def _bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("formats", ROOT / "bench" / "formats.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


formats = _bench()


def png_of(*chunks: tuple[str, bytes]) -> bytes:
    framed = (
        struct.pack(">I4s", len(p), k.encode()) + p + struct.pack(">I", zlib.crc32(k.encode() + p)) for k, p in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def changed(data: bytes, kind: str, payload: bytes | None) -> bytes:
    """The PNG with other payloads in its chunks of a type, or without them."""
    chunks = [(k, payload if k == kind else p) for k, p in formats.png_chunks(data)]
    return png_of(*((k, p) for k, p in chunks if p is not None))


@pytest.mark.parametrize("name", sorted(FILES.keys() - BROKEN.keys()))
def test_pixels_and_every_chunk_come_back(name: str, model: Path) -> None:
    found = formats.judge(FILES[name], model)
    assert found.verdict in ("model", "stored"), found
    assert not found.lost
    kinds = {kind for kind, _ in formats.png_chunks(FILES[name].read_bytes())} - {"IHDR", "IDAT", "IEND"}
    assert found.kept.keys() == kinds
    assert name not in CHUNKS or CHUNKS[name] in kinds


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_with_the_reason(name: str, model: Path) -> None:
    found = formats.judge(FILES[name], model)
    assert found.verdict == "refused"
    assert BROKEN[name] in found.detail


def test_texts_of_three_kinds_come_back_letter_by_letter(model: Path) -> None:
    """Latin-1, compressed, and UTF-8 with its language: not only the same bytes, but what a reader makes of them."""
    texts = {}
    for name in ("ct1n0g04", "ctzn0g04", "cthn0g04"):
        coded = pixzip.compress(FILES[name].read_bytes(), model=model)
        texts[name] = dict(formats.png_chunks(pixzip.write_image(pixzip.decompress(coded, model=model), "PNG")))
    assert texts["ct1n0g04"]["tEXt"].decode("latin-1").startswith("Disclaimer\0Freeware")
    keyword, _, packed = texts["ctzn0g04"]["zTXt"].partition(b"\0")
    assert (keyword, zlib.decompress(packed[1:])) == (b"Disclaimer", b"Freeware.")
    keyword, rest = texts["cthn0g04"]["iTXt"].split(b"\0", 1)
    language, translated, text = rest[2:].split(b"\0", 2)
    assert (keyword, rest[:2], language) == (b"Disclaimer", b"\0\0", b"hi")
    assert translated.decode() and "\u092b" in text.decode()  # in Devanagari


def made(colour: int, depth: int, row: bytes, *chunks: tuple[str, bytes], width: int = 4) -> bytes:
    """A PNG of one row."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    return png_of(("IHDR", header), *chunks, ("IDAT", zlib.compress(b"\0" + row)), ("IEND", b""))


MADE = {
    "palette longer than the indices in use": made(3, 8, b"\0\1\0\1", ("PLTE", bytes(range(90)))),
    "palette of 256, depth 8, indices 0 to 3": made(3, 8, b"\0\1\2\3", ("PLTE", bytes(768))),
    "palette of one entry at 4 bits": made(3, 4, b"\0\0", ("PLTE", b"abc")),
    "tRNS shorter than the palette": made(3, 2, b"\x1b", ("PLTE", bytes(range(12))), ("tRNS", b"\7\0")),
    "tRNS as long as the palette": made(3, 2, b"\x1b", ("PLTE", bytes(range(12))), ("tRNS", b"\7\0\xff\1")),
    "tRNS of bilevel gray": made(0, 1, b"\xa0", ("tRNS", b"\0\1")),
    "tRNS of 16-bit gray": made(0, 16, bytes(range(8)), ("tRNS", b"\2\3")),
    "tRNS of 16-bit colour": made(2, 16, bytes(range(24)), ("tRNS", b"\0\1\2\3\4\5")),
    "suggested palette": made(2, 8, bytes(range(12)), ("gAMA", bytes(4)), ("PLTE", bytes(30)), ("hIST", bytes(20))),
    "profile, sRGB and code points": made(
        2, 8, bytes(range(12)), ("cICP", b"\1\2\0\1"), ("iCCP", b"n\0\0" + zlib.compress(b"p" * 99)), ("sRGB", b"\1")
    ),
    "the same text twice, and none": made(
        0, 8, b"abcd", *[("tEXt", b"a\0b")] * 2, ("tEXt", b"a\0"), ("tIME", bytes(7))
    ),
    "private chunks": made(0, 8, b"abcd", ("vpAg", b"\1\2"), ("prVt", b""), ("caNv", bytes(16))),
}


@pytest.mark.parametrize("name", MADE)
def test_made_files_come_back_chunk_by_chunk(name: str, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "made.png"
    path.write_bytes(MADE[name])
    found = formats.judge(path, model)
    assert (found.verdict in ("model", "stored"), found.lost) == (True, {}), found
    assert sum(found.kept.values()) == sum(k not in ("IHDR", "IDAT", "IEND") for k, _ in formats.png_chunks(MADE[name]))


def test_chunk_that_is_left_out_is_listed_with_its_reason(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "apple.png"
    path.write_bytes(made(0, 8, b"abcd", ("iDOT", bytes(28)), ("gAMA", bytes(4))))
    found = formats.judge(path, model)
    assert (found.verdict, dict(found.kept), dict(found.lost)) == (found.verdict, {"gAMA": 1}, {"iDOT": 1})
    assert found.verdict in ("model", "stored") and formats.NOT_KEPT["iDOT"]


@pytest.mark.parametrize("kind", ["gAMA", "tEXt", "tRNS", "PLTE", "sBIT"])
@pytest.mark.parametrize("payload", [None, b"\0\0\0\1"])
def test_a_planted_loss_or_change_is_found(kind: str, payload: bytes | None) -> None:
    source = made(
        3,
        8,
        b"\0\1\2\3",
        ("gAMA", b"abcd"),
        ("sBIT", b"\5\6\7"),
        ("PLTE", bytes(12)),
        ("tRNS", b"\1"),
        ("tEXt", b"a\0b"),
    )
    kept, lost = formats.compare_chunks(source, changed(source, kind, payload))
    assert dict(lost) == {kind: 1} and kept[kind] == 0


def test_a_planted_disorder_or_extra_chunk_is_found() -> None:
    gamma, palette, end = ("gAMA", b"abcd"), ("PLTE", bytes(12)), ("IEND", b"")
    texts = [("tEXt", b"a\0b"), ("tEXt", b"c\0d")]
    source = png_of(gamma, palette, *texts, end)
    assert not formats.compare_chunks(source, png_of(gamma, *texts, palette, end))[1]
    for other, wrong in (
        (png_of(palette, gamma, *texts, end), "gAMA"),
        (png_of(gamma, palette, *texts[::-1], end), "tEXt"),
        (png_of(gamma, palette, *texts, ("tIME", bytes(7)), end), "tIME"),
    ):
        assert set(formats.compare_chunks(source, other)[1]) == {wrong}


def test_background_before_its_palette_is_found() -> None:
    palette, background, end = ("PLTE", bytes(12)), ("bKGD", b"\1"), ("IEND", b"")
    _, lost = formats.compare_chunks(png_of(palette, background, end), png_of(background, palette, end))
    assert dict(lost) == {"bKGD": 1}


def test_a_planted_loss_in_pixzip_is_a_fault_of_the_bench(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = pixzip.write_image
    monkeypatch.setattr(pixzip, "write_image", lambda picture, format: changed(write(picture, format), "tIME", None))
    found = formats.judge(FILES["cm0n0g04"], model)
    assert (found.verdict, found.detail) == ("CHANGED", "tIME")
