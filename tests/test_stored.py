"""pixzip.coding.stored: planes ↔ the shorter of WebP and PNG, and streams that do not hold what the header says."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pixzip.coding.stored import restore, store
from pixzip.errors import FormatError
from pixzip.formats.png import Png, write_png
from pixzip.pxz.container import DEEP, PNG, WEBP

KINDS = [("L", 1), ("L", 2), ("L", 4), ("L", 8), ("L", 16), ("LA", 8), ("LA", 16), ("RGB", 8), ("RGB", 16)]
KINDS += [("RGBA", 8), ("RGBA", 16), ("P", 1), ("P", 2), ("P", 4), ("P", 8)]
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "P": 1}


def planes_of(mode: str, depth: int, h: int, w: int, seed: int) -> NDArray[Any]:
    """Noise, a constant or a slope."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 2**depth, (CHANNELS[mode], h, w))
    values = (noise, 0 * noise + 2**depth - 1, np.add.outer(np.arange(h), np.arange(w)) % 2**depth + 0 * noise)
    return values[seed % 3].astype(np.uint16 if depth == 16 else np.uint8)


sides = st.one_of(st.just(1), st.integers(1, 40))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), sides, sides, st.integers(0, 1000))
def test_restoring_what_was_stored_gives_the_same_planes(kind: tuple[str, int], h: int, w: int, seed: int) -> None:
    planes = planes_of(*kind, h, w, seed)
    which, data = store(planes, *kind)
    back = restore(which, data, planes.shape, *kind)
    assert back.dtype == planes.dtype
    assert back.flags.c_contiguous
    assert np.array_equal(back, planes)
    assert (which, data) == store(planes, *kind)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_stored_is_no_longer_than_webp_or_optimised_png(mode: str) -> None:
    for seed in (0, 1, 2):
        planes = planes_of(mode, 8, 60, 50, seed)
        pixels = planes.transpose(1, 2, 0) if len(planes) > 1 else planes[0]
        webp, png = io.BytesIO(), io.BytesIO()
        Image.fromarray(pixels).save(webp, "WEBP", lossless=True, exact=True, quality=75, method=4)
        Image.fromarray(pixels).save(png, "PNG", optimize=True)
        assert len(store(planes, mode, 8)[1]) <= min(len(webp.getvalue()), len(png.getvalue()) + 8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_smooth_pictures_go_to_webp_and_pillow_reads_them(mode: str) -> None:
    planes = planes_of(mode, 8, 100, 100, 2)
    which, data = store(planes, mode, 8)
    assert which == WEBP
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).transpose(2, 0, 1)
    assert np.array_equal(pixels[: len(planes)], planes)


def test_colours_under_full_transparency_are_kept() -> None:
    planes = planes_of("RGBA", 8, 30, 30, 0)
    planes[3] = 0
    which, data = store(planes, "RGBA", 8)
    assert np.array_equal(restore(which, data, planes.shape, "RGBA", 8), planes)


def test_opaque_alpha_comes_back_from_a_webp_that_leaves_it_out() -> None:
    planes = planes_of("RGBA", 8, 100, 100, 2)
    planes[3] = 255
    which, data = store(planes, "RGBA", 8)
    assert which == WEBP
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    assert np.array_equal(restore(which, data, planes.shape, "RGBA", 8), planes)


def test_sides_beyond_webp_go_to_png() -> None:
    planes = planes_of("L", 8, 1, 16384, 2)
    which, data = store(planes, "L", 8)
    assert which == PNG
    assert np.array_equal(restore(which, data, planes.shape, "L", 8), planes)
    assert store(planes[:, :, :-1], "L", 8)[0] == WEBP


# Planted faults.

GRAY = planes_of("L", 8, 9, 11, 0)
RGB = planes_of("RGB", 8, 9, 11, 0)


def webp_of(planes: NDArray[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(planes.transpose(1, 2, 0)).save(out, "WEBP", **{"lossless": True, "exact": True, **options})
    return out.getvalue()


def gray_png(samples: NDArray[Any]) -> bytes:
    return write_png(Png(samples, 0, 8))


FAULTS: dict[str, tuple[int, bytes, tuple[int, int, int], str, int]] = {
    "unknown kind 4": (4, gray_png(GRAY), GRAY.shape, "L", 8),
    "kind 3 in mode L, depth 8": (DEEP, b"\1\0", GRAY.shape, "L", 8),
    "kind 3 in mode LA, depth 16": (DEEP, b"\1\0", (2, 9, 11), "LA", 16),
    "length of band 0": (DEEP, b"", GRAY.shape, "L", 16),
    "shape (3, 9, 11) in mode L": (PNG, gray_png(GRAY), RGB.shape, "L", 8),
    "depth 3": (PNG, gray_png(GRAY), GRAY.shape, "L", 3),
    "not a PNG": (PNG, b"garbage", GRAY.shape, "L", 8),
    "(11, 9, 0, 8)": (PNG, gray_png(GRAY.transpose(0, 2, 1)), GRAY.shape, "L", 8),
    "(9, 11, 2, 8)": (PNG, write_png(Png(RGB, 2, 8)), GRAY.shape, "L", 8),
    "(9, 11, 0, 8)": (PNG, gray_png(GRAY), GRAY.shape, "L", 4),
    "truncated": (PNG, gray_png(GRAY)[:-1], GRAY.shape, "L", 8),
    "after its end": (PNG, gray_png(GRAY) + b"x", GRAY.shape, "L", 8),
    "not lossless WebP": (WEBP, webp_of(RGB, lossless=False), RGB.shape, "RGB", 8),
    "not lossless": (WEBP, b"garbage", RGB.shape, "RGB", 8),
    "begins with": (WEBP, webp_of(RGB, xmp=b"x"), RGB.shape, "RGB", 8),
    "9 x 11 pixels": (WEBP, webp_of(RGB.transpose(0, 2, 1)), RGB.shape, "RGB", 8),
    "says": (WEBP, webp_of(RGB) + b"xx", RGB.shape, "RGB", 8),
    "its picture": (WEBP, webp_of(RGB)[:-2], RGB.shape, "RGB", 8),
    "has colours": (WEBP, webp_of(RGB), GRAY.shape, "L", 8),
    "decodes to planes (4, 9, 11)": (WEBP, webp_of(planes_of("RGBA", 8, 9, 11, 0)), RGB.shape, "RGB", 8),
    "mode LA": (WEBP, webp_of(RGB), (2, 9, 11), "LA", 8),
    "depth 4": (WEBP, webp_of(RGB), GRAY.shape, "L", 4),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_refuses_with_the_reason(reason: str) -> None:
    with pytest.raises(FormatError) as caught:
        restore(*FAULTS[reason])
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_webp_cut_short_inside_is_refused() -> None:
    data = webp_of(planes_of("RGB", 8, 40, 40, 0))
    short = data[:200]
    riff = short[:4] + (len(short) - 8).to_bytes(4, "little") + short[8:16] + (len(short) - 20).to_bytes(4, "little")
    with pytest.raises(FormatError, match="damaged"):
        restore(WEBP, riff + short[20:], (3, 40, 40), "RGB", 8)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([PNG, WEBP]), st.data())
def test_damaged_streams_give_planes_of_the_right_shape_or_a_format_error(kind: int, choose: st.DataObject) -> None:
    data = bytearray(write_png(Png(RGB, 2, 8)) if kind == PNG else webp_of(RGB))
    for _ in range(choose.draw(st.integers(1, 4))):
        data[choose.draw(st.integers(0, len(data) - 1))] = choose.draw(st.integers(0, 255))
    try:
        back = restore(kind, bytes(data), RGB.shape, "RGB", 8)
    except FormatError:
        return
    assert back.shape == RGB.shape
