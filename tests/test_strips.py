"""pixzip.formats.strips: strips that are missing, short or damaged are refused, of any depth; whole ones never are."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any
from zlib import compress

import numpy as np
import pytest
import tifffile
from test_deep_tiff import by_tifffile, walk
from test_image import tiff

from pixzip.errors import ImageError
from pixzip.formats import image
from pixzip.formats.directories import numbers, read_directories
from pixzip.formats.image import read_image
from pixzip.formats.tiff_tags import STRIP_AT, STRIP_BYTES

DEFLATE: list[dict[str, Any]] = [{}, {"predictor": True}, {"rowsperstrip": 7}]


def few_bits(**how: Any) -> bytes:
    """A TIFF of 8 bits a sample, whose strips have more than one block of codes."""
    steps = np.random.default_rng(0).integers(0, 5, (40, 50, 3))
    out = io.BytesIO()
    tifffile.imwrite(out, np.cumsum(steps, 1).astype(np.uint8), photometric="rgb", metadata=None, **how)
    return out.getvalue()


def many_bits(**how: Any) -> bytes:
    return by_tifffile(walk(40, 30, 3), **how)


def first_strip(data: bytes) -> tuple[int, int]:
    """Where it is, and how long."""
    found = read_directories(data)
    at, length = (numbers(found.order, found.main[tag])[0] for tag in (STRIP_AT, STRIP_BYTES))
    return at, length


@pytest.mark.parametrize("how", DEFLATE, ids=str)
@pytest.mark.parametrize("made", [few_bits, many_bits])
def test_whatever_bit_of_a_deflate_strip_is_wrong_the_file_is_refused(made: Any, how: dict[str, Any]) -> None:
    """libtiff decodes what it needs, and looks at no checksum behind that."""
    data = made(compression="zlib", **how)
    assert read_image(data).planes.shape[:2] == (3, 40)
    at, length = first_strip(data)
    random = np.random.default_rng(0)
    for place in (*random.integers(at, at + length, 300), at + length - 1):
        damaged = bytearray(data)
        damaged[place] ^= 1 << random.integers(8)
        with pytest.raises(ImageError, match="TIFF is damaged: strip 0"):
            read_image(bytes(damaged))


def test_without_that_look_some_of_them_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = few_bits(compression="zlib")
    pixels, (at, length), wrong = read_image(data).planes, first_strip(data), 0
    monkeypatch.setattr(image, "check_strips", lambda data, found: None)
    random = np.random.default_rng(0)
    for place in random.integers(at, at + length, 300):
        damaged = bytearray(data)
        damaged[place] ^= 1 << random.integers(8)
        with suppress(ImageError):
            wrong += not np.array_equal(read_image(bytes(damaged)).planes, pixels)
    assert wrong


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (16, 32)}], ids=str)
@pytest.mark.parametrize("made", [few_bits, many_bits])
def test_a_file_that_ends_before_its_samples_is_refused(made: Any, how: dict[str, Any]) -> None:
    data = made(**how)
    assert int.from_bytes(data[4:8], "little") < 300 < len(data) - 100  # the directory stands before the samples
    for end in (len(data) - 1, len(data) - 100):
        with pytest.raises(ImageError, match="TIFF is truncated"):
            read_image(data[:end])


@pytest.mark.parametrize("bits", [8, 16])
def test_strips_that_are_none_of_the_picture_are_refused(bits: int) -> None:
    strip, rgb = bytes(12 * bits // 8), {"bits": (bits,) * 3, "photometric": 2}
    read_image(tiff(strip, **rgb))
    last = {"t257": ("H", (3,)), "t278": ("H", (2,)), "t273": ("I", (8, 8)), "compression": 8}
    for rows in (1, 2):  # of the last strip, which some writers fill up
        packed = [compress(bytes(6 * n * bits // 8)) for n in (2, rows)]
        places, lengths = (8, 8 + len(packed[0])), tuple(map(len, packed))
        more = last | {"t273": ("I", places), "t279": ("I", lengths)}
        assert read_image(tiff(b"".join(packed), **rgb | more)).planes.shape == (3, 3, 2)
    short = tiff(strip, **rgb, t279=("I", (len(strip) - 1,)))
    with pytest.raises(ImageError, match=f"strip 0 has {len(strip) - 1} bytes of {len(strip)}"):
        read_image(short)
    for lengths in ((6,), (6, 6, 6)):
        with pytest.raises(ImageError, match=f"TIFF with 2 strips or tiles and the lengths of {len(lengths)}"):
            read_image(tiff(strip, **rgb, t278=("H", (1,)), t273=("I", (8, 14)), t279=("I", lengths)))


def test_a_deflate_strip_that_ends_early_or_goes_on_is_refused() -> None:
    rgb: dict[str, Any] = {"bits": (8, 8, 8), "photometric": 2, "compression": 8}
    assert read_image(tiff(compress(bytes(12)), **rgb)).planes.max() == 0
    assert read_image(tiff(compress(bytes(12)), **rgb, t278=("H", (7,)))).planes.max() == 0
    for length in (13, 200000):
        with pytest.raises(ImageError, match="strip 0: its data go on after 12 bytes"):
            read_image(tiff(compress(bytes(length)), **rgb))
    with pytest.raises(ImageError, match="strip 0: its data end after 11 of 12 bytes"):
        read_image(tiff(compress(bytes(11)), **rgb))


def test_lengths_that_a_writer_left_out_are_no_damage() -> None:
    """Of 8 bits; a directory that is put behind the strips needs to know where they end."""
    for none in ((), (0,)):
        assert read_image(tiff(bytes(range(12)), bits=(8, 8, 8), photometric=2, t279=("I", none))).planes.max() == 11
        with pytest.raises(ImageError, match="without the lengths"):
            read_image(tiff(bytes(24), bits=(16, 16, 16), photometric=2, t279=("I", none)))


def test_strips_that_the_picture_has_not_are_not_decoded() -> None:
    """Else a small file of a million overlapping ones would take hours."""
    packed, count = compress(bytes(12)), 1000
    extra = {"t273": ("I", (8,) + (10**9,) * count), "t279": ("I", (len(packed),) * (count + 1))}
    assert read_image(tiff(packed, bits=(8, 8, 8), photometric=2, compression=8, **extra)).planes.max() == 0
