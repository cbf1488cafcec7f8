"""pixzip.formats.deep_tiff: 16-bit colour in every layout is what tifffile has; what would lose any is refused."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from test_image import EXIF, ICC, pillow_bytes, tiff

import pixzip
from pixzip.errors import ImageError, LimitError
from pixzip.formats import deep_tiff
from pixzip.formats.directories import LONG, SHORT, made, read_directories, with_directory
from pixzip.formats.image import claimed_shape, read_image, write_image

Samples = NDArray[np.uint16]
#: Channels → what tifffile is told of them.
KINDS: dict[int, dict[str, Any]] = {
    2: {"photometric": "minisblack", "extrasamples": ["unassalpha"]},
    3: {"photometric": "rgb"},
    4: {"photometric": "rgb", "extrasamples": ["unassalpha"]},
}
LAYOUTS: list[dict[str, Any]] = [{}, {"rowsperstrip": 4}, {"tile": (16, 32)}]


def walk(height: int, width: int, channels: int, seed: int = 0) -> Samples:
    """Samples (h, w, channels) whose differences pass 2^16."""
    steps = np.random.default_rng(seed).integers(0, 40000, (height, width, channels))
    return np.cumsum(steps, axis=1).astype(np.uint16)


def by_tifffile(samples: Samples, **how: Any) -> bytes:
    out = io.BytesIO()
    planar = how.get("planarconfig") == "separate"
    stored = np.ascontiguousarray(samples.transpose(2, 0, 1)) if planar else samples
    tifffile.imwrite(out, stored, metadata=None, **KINDS[samples.shape[2]], **how)
    return out.getvalue()


def samples_in(data: bytes) -> Samples:
    return read_image(data).planes.transpose(1, 2, 0)


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("packing", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}], ids=str)
def test_samples_of_every_layout_are_those_that_another_writer_wrote(
    planarconfig: str, packing: dict[str, Any]
) -> None:
    for channels, layout, byteorder, bigtiff, (h, w) in itertools.product(
        KINDS, LAYOUTS, "<>", (False, True), ((1, 1), (5, 7), (33, 50))
    ):
        samples = walk(h, w, channels)
        how = {"planarconfig": planarconfig, "byteorder": byteorder, "bigtiff": bigtiff} | packing | layout
        data = by_tifffile(samples, **how)
        assert claimed_shape(data) == (channels, h, w, 16)
        np.testing.assert_array_equal(samples_in(data), samples, err_msg=str((how, channels)))


def by_libtiff(samples: Samples, compression: str, predictor: bool) -> bytes:
    """libtiff's gray picture of all samples, and a directory that says what they are."""
    h, w, channels = samples.shape
    before = np.zeros_like(samples)
    before[:, 1:] = samples[:, :-1]
    stored = samples - before if predictor else samples
    image = Image.fromarray(stored.reshape(h, -1))
    data = pillow_bytes(image, "TIFF", compression=compression, tiffinfo={278: 8})
    found = read_directories(data)
    colours = {258: (16,) * channels, 262: (2,), 277: (channels,), 317: (2 if predictor else 1,)}
    own = dict(found.main) | {tag: made(found.order, SHORT, *values) for tag, values in colours.items()}
    return with_directory(data, found.order, own | {256: made(found.order, LONG, w)})


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_samples_in_libtiffs_own_compressions(compression: str, predictor: bool) -> None:
    samples = walk(37, 41, 3)
    data = by_libtiff(samples, compression, predictor)
    np.testing.assert_array_equal(samples_in(data), samples)
    if compression == "raw" and not predictor:
        np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), samples)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_pillow_turns_one_of_8_bits(orientation: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    few = read_image(pillow_bytes(Image.fromarray(pixels), "TIFF", tiffinfo={274: orientation})).planes
    many = by_tifffile(pixels.astype(np.uint16) * 257, extratags=[(274, "H", 1, orientation, True)])
    np.testing.assert_array_equal(read_image(many).planes, few.astype(np.uint16) * 257)


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_files_that_are_written_are_those_that_others_read(mode: str) -> None:
    picture = pixzip.from_array(walk(6, 9, len(mode)))
    picture = replace(picture, metadata=(("icc", ICC), ("exif", EXIF)))
    data = write_image(picture, "TIFF")
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), walk(6, 9, len(mode)))
    again = read_image(data)
    assert again.same_pixels(picture) and dict(again.metadata)["icc"] == ICC


def test_a_photograph_goes_through_a_pxz_file_and_back_with_all_its_tags(model: Path) -> None:
    tags = [(34675, "B", len(ICC), ICC, True), (315, "s", 0, "someone", True), (33432, "s", 0, "CC0", True)]
    data = by_tifffile(walk(20, 24, 3), compression="zlib", predictor=True, extratags=tags, resolution=(300, 300))
    back = write_image(pixzip.decompress(pixzip.compress(data, model=model), model=model), "TIFF")
    with tifffile.TiffFile(io.BytesIO(back)) as found:
        page = found.pages[0]
        assert (page.tags[315].value, page.tags[33432].value, page.tags[34675].value) == ("someone", "CC0", ICC)
        assert page.tags[282].value == (300, 1)
        np.testing.assert_array_equal(page.asarray(), walk(20, 24, 3))


REFUSED: dict[str, dict[str, Any]] = {
    "photometric interpretation 5": {"photometric": 5},
    "photometric interpretation 0 of 16 bits": {"photometric": 0},
    "compression 7, which is lossy": {"compression": 7},
    "sample format \\[3, 3, 3\\]": {"t339": ("H", (3, 3, 3))},
    "predictor 3": {"t317": ("H", (3,))},
    "planar configuration 3": {"t284": ("H", (3,))},
    "further pictures in sub-directories": {"t330": ("I", (8,))},
    "tag 273 has 1 values for 3 planes": {"t284": ("H", (2,))},
    "strips cover 6 of 12 samples": {"t278": ("H", (1,))},
    "without the lengths of its strips": {"t279": ("H", ())},
    "3 samples a pixel, extra samples \\(1,\\)": {"t338": ("H", (1,))},
    "tiles of 65536 x 32 pixels": {"t322": ("I", (65536,)), "t323": ("I", (32,))},
    "picture of 0 x 2 pixels": {"t256": ("H", (0,))},
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_would_lose_something_is_refused(words: str) -> None:
    whole = {"bits": (16, 16, 16), "photometric": 2}
    assert read_image(tiff(bytes(24), **whole)).planes.shape == (3, 2, 2)
    with pytest.raises(ImageError, match=words):
        read_image(tiff(bytes(24), **whole | REFUSED[words]))


@pytest.mark.parametrize("extra", [(), (0,), (1,), (2, 2)])
def test_a_fourth_sample_that_is_no_plain_alpha_is_refused(extra: tuple[int, ...]) -> None:
    tags = {"t338": ("H", extra)} if extra else {}
    with pytest.raises(ImageError, match="only alpha of gray and RGB"):
        read_image(tiff(bytes(32), bits=(16,) * 4, photometric=2, **tags))


def test_a_large_picture_is_refused_by_its_header() -> None:
    data = tiff(bytes(24), bits=(16, 16, 16), photometric=2, t256=("I", (1 << 20,)), t257=("I", (1 << 20,)))
    for read in (read_image, claimed_shape):
        with pytest.raises(LimitError):
            read(data)


def test_beyond_4_gb_there_is_no_place_for_a_directory() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 1 << 32

    with pytest.raises(ImageError, match="beyond 4 GB"):
        with_directory(Long(), "<", {})


def test_the_law_finds_a_predictor_that_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = by_tifffile(walk(9, 9, 3), compression="zlib", predictor=True)
    monkeypatch.setattr(deep_tiff, "_DIFFERENCES", 0)
    assert not np.array_equal(samples_in(data), walk(9, 9, 3))
