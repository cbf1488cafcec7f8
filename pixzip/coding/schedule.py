"""Picture sizes → which pixels each step codes, in which lane, and how pictures are cut into tiles.

Pixel (y, x) is coded in step t = x + slope * y. A block of n pictures of equal size runs through its steps together:
position p = y * n + picture numbers the rows of all of them, and the positions of one step are a range::

    slope 2, one picture 5 wide:      y 0 | 0 1 2 3 4
    (numbers are steps)               y 1 | 2 3 4 5 6
                                      y 2 | 4 5 6 7 8
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pixzip.jit import jit
from pixzip.pxz.container import BLOCK_PICTURES, MAX_LANES

PIXELS_PER_LANE = 32768
#: Positions of small pictures that run side by side: enough for products at full speed, and a bound of memory.
_SIDE_BY_SIDE = 4096


def pictures_together(pictures: int, positions: int, *, learning: bool = False) -> int:
    """How many of these pictures run side by side, each with so many positions at a time (of a row, or of a step).

    learning: whether the network learns from what it codes; then a block learns as one, and all run together.
    """
    return pictures if learning else min(pictures, max(1, _SIDE_BY_SIDE // positions))


def slope_of(edges: Iterable[tuple[int, int]]) -> int:
    """Smallest s with k < s * d for every edge (-d, k) with d >= 1; edges with d = 0 need k <= 0.

    Raises ValueError for an edge that no order by steps allows.
    """
    slope = 1
    for dy, k in edges:
        if dy > 0 or (dy == 0 and k > 0):
            raise ValueError(f"edge ({dy}, {k}) looks ahead of raster order")
        if dy < 0:
            slope = max(slope, k // -dy + 1)
    return slope


@jit
def first_row(step: int, width: int, slope: int) -> int:
    """First picture row that has a pixel in this step (may be beyond the last row that has)."""
    return max(0, (step - width + slope) // slope)


@jit
def last_row(step: int, height: int, slope: int) -> int:
    """Last picture row that has a pixel in this step."""
    return min(height - 1, step // slope)


def number_of_steps(height: int, width: int, slope: int) -> int:
    """Steps until the last pixel is coded."""
    return width + slope * (height - 1)


def default_lanes(pixels: int) -> int:
    """Lanes for a tile or block of this many pixels: pixels / 32768, 1 to 64, rounded down to 1, 2 or a multiple of 4.

    A lane costs some 6 bytes; two or four threads have equal shares. 768×512 pixels have 12.
    """
    lanes = min(max(pixels // PIXELS_PER_LANE, 1), MAX_LANES)
    return lanes & ~3 if lanes >= 4 else lanes & ~1 or 1


@dataclass(frozen=True)
class Tile:
    """Pictures first .. last - 1, rows y .. y + h - 1, columns x .. x + w - 1: what one payload codes."""

    first: int
    last: int
    y: int
    x: int
    h: int
    w: int


def tiles_of(pictures: int, height: int, width: int, side: int) -> list[Tile]:
    """Blocks of small pictures, or the tiles of each larger picture in raster order."""
    if height <= side and width <= side:
        starts = range(0, pictures, BLOCK_PICTURES)
        return [Tile(i, min(i + BLOCK_PICTURES, pictures), 0, 0, height, width) for i in starts]
    return [
        Tile(i, i + 1, y, x, min(side, height - y), min(side, width - x))
        for i in range(pictures)
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
