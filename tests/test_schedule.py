"""pixzip.coding.schedule: slopes, the rows of a step and tiles, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixzip.coding.schedule import (
    default_lanes,
    first_row,
    last_row,
    number_of_steps,
    pictures_together,
    slope_of,
    tiles_of,
)
from pixzip.pxz.container import BLOCK_PICTURES


@pytest.mark.parametrize(
    ("edges", "slope"),
    [
        ([], 1),
        ([(0, -1)], 1),
        ([(0, 0), (-1, 0), (-1, -1)], 1),
        ([(-1, 1)], 2),
        ([(-2, 1)], 1),
        ([(-2, 2)], 2),
        ([(-2, 3), (-3, 5)], 2),
        ([(-3, 3), (-1, 3)], 4),
        ([(-1, 9)], 10),
    ],
)
def test_slope_of_known_edges(edges: list[tuple[int, int]], slope: int) -> None:
    assert slope_of(edges) == slope


@given(st.lists(st.tuples(st.integers(-4, -1), st.integers(-9, 9)), max_size=6))
def test_slope_is_the_smallest_that_all_edges_allow(edges: list[tuple[int, int]]) -> None:
    allowed = [s for s in range(1, 12) if all(k < s * -dy for dy, k in edges)]
    assert slope_of(edges) == allowed[0]


@pytest.mark.parametrize("edge", [(0, 1), (1, 0), (1, -5), (0, 7)])
def test_slope_of_an_edge_ahead_of_raster_order_is_refused(edge: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="looks ahead of raster order"):
        slope_of([(-1, 1), edge])


@settings(deadline=None)
@given(h=st.integers(1, 12), w=st.integers(1, 12), slope=st.integers(1, 5))
def test_rows_of_a_step_are_those_of_brute_force(h: int, w: int, slope: int) -> None:
    pixels = [(x + slope * y, y) for y in range(h) for x in range(w)]
    steps = number_of_steps(h, w, slope)
    assert max(t for t, _ in pixels) == steps - 1
    for step in range(steps):
        expected = sorted(y for t, y in pixels if t == step)
        assert list(range(first_row(step, w, slope), last_row(step, h, slope) + 1)) == expected


@pytest.mark.parametrize(
    ("pixels", "lanes"),
    [(1, 1), (65535, 1), (65536, 2), (131071, 2), (131072, 4), (768 * 512, 12), (1 << 20, 32), (1 << 40, 64)],
)
def test_default_lanes(pixels: int, lanes: int) -> None:
    assert default_lanes(pixels) == lanes


@given(n=st.integers(1, 3), h=st.integers(1, 30), w=st.integers(1, 30), side=st.integers(1, 40))
def test_tiles_cover_every_pixel_once_and_in_order(n: int, h: int, w: int, side: int) -> None:
    tiles = tiles_of(n, h, w, side)
    covered = np.zeros((n, h, w), dtype=np.int64)
    for t in tiles:
        assert 1 <= t.h <= side
        assert 1 <= t.w <= side
        covered[t.first : t.last, t.y : t.y + t.h, t.x : t.x + t.w] += 1
    assert (covered == 1).all()
    assert [(t.first, t.y, t.x) for t in tiles] == sorted((t.first, t.y, t.x) for t in tiles)


@pytest.mark.parametrize("n", [1, 2, 1023, 1024, 1025, 5000])
def test_small_pictures_are_coded_in_blocks(n: int) -> None:
    blocks = tiles_of(n, 4, 8, 8)
    assert [t.last - t.first for t in blocks[:-1]] == [BLOCK_PICTURES] * (len(blocks) - 1)
    assert (blocks[0].first, blocks[-1].last, len(blocks)) == (0, n, -(-n // 1024))
    assert all(a.last == b.first for a, b in itertools.pairwise(blocks))


def test_small_pictures_run_side_by_side_within_bounds() -> None:
    assert [pictures_together(1000, side) for side in (1, 32, 4096, 5000)] == [1000, 128, 1, 1]
    assert pictures_together(5, 32) == 5 and pictures_together(1000, 32, learning=True) == 1000
