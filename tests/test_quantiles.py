"""Random numbers of sub-pixels depend on (seed, picture, y, x, c) alone, are uniform, and find a symbol of a row."""

from __future__ import annotations

import numpy as np
import pytest

from pixzip.coding.frequencies import MASS, find_symbol, interval
from pixzip.coding.quantiles import philox, quantiles
from pixzip.errors import UsageError


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers of Random123
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0_A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(
    counter: tuple[int, ...], key: int, expected: tuple[int, int, int, int]
) -> None:
    words = [np.array([c], dtype=np.uint64) for c in counter]
    assert tuple(int(w[0]) for w in philox((words[0], words[1], words[2], words[3]), key)) == expected


def test_a_quantile_depends_on_its_place_alone() -> None:
    y, x = np.mgrid[:6, :7]
    whole = quantiles(5, 0, y, x, 1)
    assert whole.shape == (6, 7) and whole.min() >= 0 and whole.max() < 1 << 24
    for a, b in np.ndindex(6, 7):
        assert quantiles(5, 0, a, b, 1) == whole[a, b]
    np.testing.assert_array_equal(quantiles(5, [3, 0], y[..., None], x[..., None], 1)[..., 1], whole)


def test_every_coordinate_and_the_seed_matter() -> None:
    base = {"picture": 1, "y": 2, "x": 3, "c": 0}
    seen = {int(quantiles(9, **base))}
    for name in base:
        seen.add(int(quantiles(9, **{**base, name: 7})))
    seen |= {int(quantiles(seed, **base)) for seed in (0, 9 << 32, (1 << 64) - 1)}
    assert len(seen) == 8


def test_quantiles_are_uniform_and_neighbours_independent() -> None:
    y, x, c = np.mgrid[:128, :128, :3]
    u = quantiles(0, 0, y, x, c) / 2**24
    counts = np.histogram(u, 64, (0, 1))[0]
    expected = u.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 120  # 63 degrees of freedom; beyond it 2 in 100,000
    for other in (u[1:], u[:, 1:], u[:, :, 1:]):
        mine = u[tuple(slice(0, s) for s in other.shape)]
        assert abs(np.corrcoef(mine.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(other.size)


def test_drawing_inverts_the_rows_a_decoder_reads() -> None:
    random = np.random.default_rng(0)
    weights = random.integers(0, 1 << 20, (20, 256)) * (random.random((20, 256)) < 0.3)
    weights[0], weights[1] = 0, 0
    weights[0, 17], weights[1, 255] = 5, 1
    cumulative = np.concatenate([np.zeros((20, 1), dtype=np.int64), weights.cumsum(axis=1)], axis=1)
    for row in cumulative:
        edges = [interval(row, symbol) for symbol in range(256)]
        assert edges[0][0] == 0 and sum(f for _, f in edges) == MASS + 256
        for symbol in (0, 1, 16, 17, 18, 254, 255):
            left, f = edges[symbol]
            assert find_symbol(row, left) == find_symbol(row, left + f - 1) == symbol


def test_a_seed_beyond_64_bits_is_refused() -> None:
    for seed in (-1, 1 << 64):
        with pytest.raises(UsageError, match="seed"):
            quantiles(seed, 0, 0, 0, 0)
