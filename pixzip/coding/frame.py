"""Pixels ↔ symbols and network inputs: the residual frame (docs/model-format.md, section 4).

Every function here looks at one pixel at a time and only at pixels that precede it in raster order, so the encoder
(row by row), the decoder (step by step) and training (crops) share it unchanged.

The 256 categories of a sub-pixel are ``(value - prediction) mod 256``: a bijection for every prediction, so the
softmax stays a full 256-way distribution over the value. With ``med`` the median edge detector of the neighbours
W, N, NW (LOCO-I, Weinberger et al. 2000, equation 1)::

    R:  prediction = med(R)
    G:  prediction = clip(R + med(G - R))        R of this pixel is known
    B:  prediction = clip(G + med(B - G))        R and G of this pixel are known
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixzip.jit import jit

#: (dy, dx) of the pixels that the trunk sees, as slope 2 allows: k < 2d on row -d.
WINDOW: tuple[tuple[int, int], ...] = (
    *((-3, dx) for dx in range(-3, 4)),
    *((-2, dx) for dx in range(-3, 4)),
    *((-1, dx) for dx in range(-3, 2)),
    *((0, dx) for dx in range(-3, 0)),
)
#: (dy, dx) of the pixels whose own coding errors the trunk sees.
ERROR_WINDOW: tuple[tuple[int, int], ...] = ((-2, 0), (-1, -1), (-1, 0), (-1, 1), (0, -2), (0, -1))
#: Input channels of the trunk: window differences, coding errors, levels; one zero fills up to a multiple of 8.
INPUTS = 3 * len(WINDOW) + 3 * len(ERROR_WINDOW) + 3 + 1
#: First guess where a pixel has no neighbour at all.
MIDDLE = 128

_WINDOW = np.array(WINDOW, dtype=np.int64)
_ERROR_WINDOW = np.array(ERROR_WINDOW, dtype=np.int64)


@jit
def _med(west: int, north: int, north_west: int) -> int:
    """Median of W, N and W + N - NW."""
    low = min(west, north)
    high = max(west, north)
    if north_west >= high:
        return low
    if north_west <= low:
        return high
    return west + north - north_west


@jit
def _level(planes: NDArray[np.uint8], c: int, y: int, x: int) -> int:
    """Channel c of one pixel as the predictor sees it: R, G - R or B - G."""
    if c == 0:
        return np.int64(planes[0, y, x])
    return np.int64(planes[c, y, x]) - np.int64(planes[c - 1, y, x])


@jit
def predict(planes: NDArray[np.uint8], c: int, y: int, x: int) -> int:
    """Prediction of sub-pixel (c, y, x) in 0..255 from sub-pixels before it.

    planes is (3, h, w) uint8. Missing neighbours: no row above, W; no column before, N; neither, 128 for R and a
    difference of 0 for G and B.
    """
    base = np.int64(planes[c - 1, y, x]) if c > 0 else np.int64(0)
    if y > 0 and x > 0:
        guess = _med(_level(planes, c, y, x - 1), _level(planes, c, y - 1, x), _level(planes, c, y - 1, x - 1))
    elif x > 0:
        guess = _level(planes, c, y, x - 1)
    elif y > 0:
        guess = _level(planes, c, y - 1, x)
    else:
        guess = np.int64(MIDDLE) if c == 0 else np.int64(0)
    return min(max(base + guess, 0), 255)


@jit
def _anchor(planes: NDArray[np.uint8], c: int, y: int, x: int) -> int:
    """Median edge detector within channel c: what the window differences are taken against."""
    if y > 0 and x > 0:
        return _med(np.int64(planes[c, y, x - 1]), np.int64(planes[c, y - 1, x]), np.int64(planes[c, y - 1, x - 1]))
    if x > 0:
        return np.int64(planes[c, y, x - 1])
    if y > 0:
        return np.int64(planes[c, y - 1, x])
    return np.int64(MIDDLE)


@jit
def _clip8(value: int) -> int:
    return min(max(value, -127), 127)


@jit
def pixel_inputs(planes: NDArray[np.uint8], errors: NDArray[np.int16], y: int, x: int, out: NDArray[np.int8]) -> None:
    """Write the trunk's INPUTS int8 inputs for pixel (y, x) into out.

    planes is (3, h, w) uint8, errors (3, h, w) int16 the signed coding errors; of both only pixels before (y, x) in
    raster order are read. Neighbours outside the picture give 0.
    """
    width = planes.shape[2]
    k = 0
    for c in range(3):
        anchor = _anchor(planes, c, y, x)
        for i in range(_WINDOW.shape[0]):
            ny, nx = y + _WINDOW[i, 0], x + _WINDOW[i, 1]
            if ny >= 0 and 0 <= nx < width:
                out[k] = _clip8(np.int64(planes[c, ny, nx]) - anchor)
            else:
                out[k] = 0
            k += 1
        for i in range(_ERROR_WINDOW.shape[0]):
            ny, nx = y + _ERROR_WINDOW[i, 0], x + _ERROR_WINDOW[i, 1]
            if ny >= 0 and 0 <= nx < width:
                out[k] = _clip8(np.int64(errors[c, ny, nx]))
            else:
                out[k] = 0
            k += 1
        out[k] = _clip8(anchor - MIDDLE)
        k += 1
    out[k] = 0


@jit
def picture_errors(planes: NDArray[np.uint8], errors: NDArray[np.int16]) -> None:
    """Write value - prediction of every sub-pixel; symbols are ``errors & 255``. Shapes (3 or 1, h, w)."""
    for c in range(planes.shape[0]):
        for y in range(planes.shape[1]):
            for x in range(planes.shape[2]):
                errors[c, y, x] = np.int64(planes[c, y, x]) - predict(planes, c, y, x)


@jit
def row_inputs(planes: NDArray[np.uint8], errors: NDArray[np.int16], y: int, out: NDArray[np.int8]) -> None:
    """Inputs of one picture row: out is (w, INPUTS) int8."""
    for x in range(planes.shape[2]):
        pixel_inputs(planes, errors, y, x, out[x])


@jit
def block_row_inputs(planes: NDArray[np.uint8], errors: NDArray[np.int16], y: int, out: NDArray[np.int8]) -> None:
    """Inputs of row y of n pictures: planes and errors (n, 3, h, w), out (w * n, INPUTS), position x * n + picture."""
    n = planes.shape[0]
    for x in range(planes.shape[3]):
        for i in range(n):
            pixel_inputs(planes[i], errors[i], y, x, out[x * n + i])


@jit
def block_step_inputs(
    planes: NDArray[np.uint8],
    errors: NDArray[np.int8] | NDArray[np.int16],
    step: int,
    slope: int,
    first: int,
    out: NDArray[np.int8],
) -> None:
    """Inputs of the pixels of one step from position ``first`` = y * n + picture on: out (m, INPUTS)."""
    n = planes.shape[0]
    for j in range(out.shape[0]):
        y = (first + j) // n
        i = (first + j) % n
        pixel_inputs(planes[i], errors[i], y, step - slope * y, out[j])
