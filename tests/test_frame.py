"""pixzip.coding.frame: predictions, symbols and inputs, against formulas typed from docs/model-format.md, section 4."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import photo

from pixzip.coding.frame import (
    ERROR_WINDOW,
    INPUTS,
    WINDOW,
    block_row_inputs,
    block_step_inputs,
    picture_errors,
    pixel_inputs,
    predict,
    row_inputs,
)
from pixzip.coding.schedule import slope_of
from pixzip.model import file

Pixels = NDArray[np.uint8]


def some_pixels(seed: int, h: int, w: int) -> Pixels:
    """(3, h, w): smooth, noise or only 0 and 255, by seed."""
    random = np.random.default_rng(seed)
    if seed % 3 == 0:
        return photo(seed, (1, 3, h, w))[0]
    if seed % 3 == 1:
        return random.integers(0, 256, (3, h, w), dtype=np.uint8)
    return random.choice(np.array([0, 255], dtype=np.uint8), (3, h, w))


def errors_of(planes: Pixels) -> NDArray[np.int16]:
    """picture_errors of planes (3, h, w)."""
    errors = np.empty(planes.shape, dtype=np.int16)
    picture_errors(planes, errors)
    return errors


def naive_guess(values: list[list[int]], y: int, x: int, origin: int) -> int:
    """The median of W, N and W + N - NW: another way to say med."""
    if y == 0 and x == 0:
        return origin
    if y == 0:
        return values[y][x - 1]
    if x == 0:
        return values[y - 1][x]
    w, n, nw = values[y][x - 1], values[y - 1][x], values[y - 1][x - 1]
    return sorted([w, n, w + n - nw])[1]


def naive_prediction(planes: Pixels, c: int, y: int, x: int) -> int:
    """p_c of the document."""
    d = planes.astype(int)
    if c == 0:
        return min(max(naive_guess(d[0].tolist(), y, x, 128), 0), 255)
    guess = naive_guess((d[c] - d[c - 1]).tolist(), y, x, 0)
    return min(max(int(d[c - 1, y, x]) + guess, 0), 255)


def naive_inputs(planes: Pixels, errors: NDArray[np.int16], y: int, x: int) -> list[int]:
    """The 88 inputs, from the document's three lists."""
    _, h, w = planes.shape
    window = [(-3, k) for k in (-3, -2, -1, 0, 1, 2, 3)] + [(-2, k) for k in (-3, -2, -1, 0, 1, 2, 3)]
    window += [(-1, k) for k in (-3, -2, -1, 0, 1)] + [(0, k) for k in (-3, -2, -1)]
    out = []
    for c in range(3):
        a = naive_guess(planes[c].astype(int).tolist(), y, x, 128)
        values = []
        for dy, dx in window:
            inside = 0 <= y + dy < h and 0 <= x + dx < w
            values.append(int(planes[c, y + dy, x + dx]) - a if inside else 0)
        for dy, dx in ((-2, 0), (-1, -1), (-1, 0), (-1, 1), (0, -2), (0, -1)):
            inside = 0 <= y + dy < h and 0 <= x + dx < w
            values.append(int(errors[c, y + dy, x + dx]) if inside else 0)
        out += [min(max(v, -127), 127) for v in [*values, a - 128]]
    return [*out, 0]


SIZES = pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (2, 2), (5, 8)])
SEEDS = pytest.mark.parametrize("seed", range(6))


@SIZES
@SEEDS
def test_predictions_are_those_of_the_document(size: tuple[int, int], seed: int) -> None:
    planes = some_pixels(seed, *size)
    for c, y, x in np.ndindex(*planes.shape):
        assert predict(planes, c, y, x) == naive_prediction(planes, c, y, x)


@SIZES
@SEEDS
def test_inputs_are_those_of_the_document(size: tuple[int, int], seed: int) -> None:
    planes = some_pixels(seed, *size)
    errors, out = errors_of(planes), np.full(INPUTS, 99, dtype=np.int8)
    for y, x in np.ndindex(*size):
        pixel_inputs(planes, errors, y, x, out)
        assert out.tolist() == naive_inputs(planes, errors, y, x)


@SEEDS
def test_symbols_and_predictions_give_the_values_back(seed: int) -> None:
    planes = some_pixels(seed, 6, 7)
    errors = errors_of(planes)
    assert np.abs(errors).max() <= 255
    symbols = errors & 255
    again = np.zeros_like(planes)
    for y, x, c in np.ndindex(6, 7, 3):
        again[c, y, x] = (predict(again, c, y, x) + int(symbols[c, y, x])) % 256
    assert np.array_equal(again, planes)


@pytest.mark.parametrize("c", range(3))
@SEEDS
def test_every_symbol_stands_for_one_value(seed: int, c: int) -> None:
    planes = some_pixels(seed, 2, 3)
    values = [(predict(planes, c, 1, 2) + symbol) % 256 for symbol in range(256)]
    assert sorted(values) == list(range(256))
    for symbol, value in enumerate(values):
        planes[c, 1, 2] = value
        assert errors_of(planes)[c, 1, 2] & 255 == symbol


@SEEDS
def test_a_sub_pixel_changes_no_prediction_and_no_input_up_to_its_own(seed: int) -> None:
    h, w = 5, 6
    planes = some_pixels(seed, h, w)

    def views(planes: Pixels) -> tuple[list[int], NDArray[np.int8]]:
        errors, inputs = errors_of(planes), np.empty((h * w, INPUTS), dtype=np.int8)
        for y in range(h):
            row_inputs(planes, errors, y, inputs[y * w : (y + 1) * w])
        return [predict(planes, c, y, x) for y, x, c in np.ndindex(h, w, 3)], inputs

    predictions, inputs = views(planes)
    for j, (y, x, c) in enumerate(np.ndindex(h, w, 3)):
        changed = planes.copy()
        changed[c, y, x] ^= 0xA7
        predictions_after, inputs_after = views(changed)
        assert predictions_after[: j + 1] == predictions[: j + 1]
        assert np.array_equal(inputs_after[: j // 3 + 1], inputs[: j // 3 + 1])


def test_gray_pictures_have_no_errors_in_planes_1_and_2() -> None:
    planes = np.repeat(some_pixels(1, 6, 7)[:1], 3, axis=0)
    assert (errors_of(planes)[1:] == 0).all()


@SIZES
@pytest.mark.parametrize("n", [1, 3])
def test_inputs_by_rows_and_by_steps_are_those_by_pixels(size: tuple[int, int], n: int) -> None:
    h, w = size
    planes = np.stack([some_pixels(seed, h, w) for seed in range(n)])
    errors = np.stack([errors_of(p) for p in planes])
    one = np.empty(INPUTS, dtype=np.int8)
    for y in range(h):
        row = np.empty((w * n, INPUTS), dtype=np.int8)
        block_row_inputs(planes, errors, y, row)
        for x, i in np.ndindex(w, n):
            pixel_inputs(planes[i], errors[i], y, x, one)
            assert np.array_equal(row[x * n + i], one)
    for step in range(w + 2 * (h - 1)):
        ys = [y for y in range(h) if 0 <= step - 2 * y < w]
        out = np.empty((len(ys) * n, INPUTS), dtype=np.int8)
        block_step_inputs(planes, errors, step, 2, ys[0] * n if ys else 0, out)
        for j, i in np.ndindex(len(ys), n):
            pixel_inputs(planes[i], errors[i], ys[j], step - 2 * ys[j], one)
            assert np.array_equal(out[j * n + i], one)


def test_windows_allow_slope_2() -> None:
    assert slope_of(WINDOW + ERROR_WINDOW) == 2
    assert all(dy < 0 or dx < 0 for dy, dx in WINDOW + ERROR_WINDOW)
    assert INPUTS == 88 == file.INPUTS  # model files are read without numba, which frame loads
