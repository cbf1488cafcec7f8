"""What augmentation does to a crop, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pixzip.data.augment import CODINGS, Coding, aged, grain, half_chroma

Picture = np.ndarray[Any, Any]


def coloured(h: int = 48, w: int = 40) -> Picture:
    """A picture of saturated blocks whose colours change at every pixel, away from the limits."""
    return np.random.default_rng(0).integers(60, 200, (h, w, 3), dtype=np.uint8)


def chroma(pixels: Picture) -> Picture:
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    return np.stack([pixels[:, :, 2] - luma, pixels[:, :, 0] - luma], axis=2)


def test_shares_of_zero_change_nothing() -> None:
    assert aged(coloured(), np.random.default_rng(1), 0.0, 0.0) is not None
    np.testing.assert_array_equal(aged(coloured(), np.random.default_rng(1), 0.0, 0.0), coloured())


def test_the_same_seed_gives_the_same_crop() -> None:
    first, second = (aged(coloured(), np.random.default_rng(5), 1.0, 1.0) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first != coloured()).any()


@pytest.mark.parametrize("seed", range(12))
def test_grain_has_the_stated_strength_and_no_offset(seed: int) -> None:
    flat = np.full((96, 96, 3), 120, dtype=np.float32)
    noise = grain(flat, np.random.default_rng(seed)) - flat
    assert 0.6 < noise.std() < 6.6
    assert abs(noise.mean()) < 0.5


@pytest.mark.parametrize("seed", range(8))
def test_half_chroma_keeps_luma_and_smooths_colour(seed: int) -> None:
    before = coloured().astype(np.float32)
    after = half_chroma(before, np.random.default_rng(seed))
    change = min(np.abs((c.of_rgb(after) - c.of_rgb(before))[..., 0]).max() - c.luma_step / 2 for c in CODINGS)
    assert change < 0.05
    assert np.abs(np.diff(chroma(after), axis=1)).mean() < 0.6 * np.abs(np.diff(chroma(before), axis=1)).mean()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2), (9, 9)])
def test_any_size_is_kept(size: tuple[int, int]) -> None:
    crop = coloured(*size)
    for seed in range(6):
        out = aged(crop, np.random.default_rng(seed), 1.0, 1.0)
        assert out.shape == crop.shape
        assert out.dtype == np.uint8


@pytest.mark.parametrize("seed", range(8))
def test_gray_stays_gray_when_chroma_is_halved(seed: int) -> None:
    gray = np.repeat(coloured()[:, :, :1], 3, axis=2)
    out = aged(gray, np.random.default_rng(seed), 0.0, 1.0)
    np.testing.assert_array_equal(out, np.repeat(out[:, :, :1], 3, axis=2))
    assert np.abs(out.astype(int) - gray).max() <= 1


@pytest.mark.parametrize("coding", CODINGS)
def test_codings_go_both_ways(coding: Coding) -> None:
    before = coloured().astype(np.float32)
    np.testing.assert_allclose(coding.to_rgb(coding.of_rgb(before)), before, atol=1e-3)
    np.testing.assert_allclose(coding.of_rgb(np.full((1, 1, 3), 80, np.float32)), [[[80, 0, 0]]], atol=1e-4)


def test_levels_of_full_range_jfif_are_those_of_its_8_bit_code() -> None:
    """Red = Y + 1.402 Cr: one step of Cr, in levels of R - Y."""
    ycc = CODINGS[0].of_rgb(np.array([[[200.0, 100.0, 50.0]]], dtype=np.float32)) / CODINGS[0].steps()
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    blue, red = 0.5 / 0.886 * (50 - luma), 0.5 / 0.701 * (200 - luma)
    np.testing.assert_allclose(ycc, [[[luma, blue, red]]], atol=1e-3)
