"""pixzip.coding.frequencies: every row has f >= 1 and sum 2^24, and find_symbol inverts interval."""

from __future__ import annotations

from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_model import tables

from pixzip.coding.frequencies import cumulate, find_symbol, interval, row_intervals, symbol_bits
from pixzip.shifts import addend

EXP = tables()["table.exp"]
ZEROS = np.zeros(256, dtype=np.int32)

LOGITS = {
    "equal": np.zeros(256),
    "ramp": np.arange(256),
    "falling ramp": -np.arange(256) * 8,
    "one symbol, first": np.where(np.arange(256) == 0, 5000, 0),
    "one symbol, last": np.where(np.arange(256) == 255, 5000, 0),
    "two symbols far apart": np.where(np.isin(np.arange(256), (0, 255)), 5000, 0),
    "last entry of the table": np.where(np.arange(256) == 7, 1023, 0),
    "first beyond the table": np.where(np.arange(256) == 7, 1024, 0),
    "largest accumulators": np.where(np.arange(256) % 2, 2**24 - 1, -(2**24) + 1),
    "noise": np.random.default_rng(1).integers(-600, 600, 256),
    "all negative": np.full(256, -(2**24) + 1),
}


def cumulated(logits: NDArray[np.int64], exp: NDArray[np.int32] = EXP) -> NDArray[np.int64]:
    """The kernel's C_0 .. C_256."""
    out = np.empty(257, dtype=np.int64)
    cumulate(np.asarray(logits, dtype=np.int32), ZEROS, ZEROS, exp, out)
    return out


def naive_lefts(logits: list[int], exp: list[int]) -> list[int]:
    """left_0 .. left_256 as docs/model-format.md, section 6, in Python integers."""
    weights = [exp[max(logits) - l] if max(logits) - l < 1024 else 0 for l in logits]  # noqa: E741
    return [sum(weights[:i]) * (2**24 - 256) // sum(weights) + i for i in range(257)]


def assert_row_is_right(cumulative: NDArray[np.int64], lefts: list[int]) -> None:
    """f >= 1, sum 2^24, equal to the naive row, and find_symbol is right at both ends of every interval."""
    assert (lefts[0], lefts[256]) == (0, 2**24)
    for symbol in range(256):
        left, f = interval(cumulative, symbol)
        assert (left, f) == (lefts[symbol], lefts[symbol + 1] - lefts[symbol])
        assert f >= 1
        assert find_symbol(cumulative, left) == symbol
        assert find_symbol(cumulative, left + f - 1) == symbol


@pytest.mark.parametrize("case", LOGITS)
def test_rows_of_extreme_logits(case: str) -> None:
    logits = LOGITS[case].astype(np.int64)
    assert_row_is_right(cumulated(logits), naive_lefts(logits.tolist(), EXP.tolist()))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([1, 40, 600, 1100, 2**24 - 1]))
def test_rows_of_any_logits(seed: int, spread: int) -> None:
    logits = np.random.default_rng(seed).integers(-spread, spread + 1, 256)
    assert_row_is_right(cumulated(logits), naive_lefts(logits.tolist(), EXP.tolist()))


@pytest.mark.parametrize("entries", ["all largest", "all smallest", "only the first", "rising", "zeros inside"])
def test_rows_of_any_table(entries: str) -> None:
    j = np.arange(1024)
    table = {
        "all largest": np.full(1024, 2**24),
        "all smallest": np.ones(1024),
        "only the first": j == 0,
        "rising": 1 + j * 16000,
        "zeros inside": np.where(j % 3 == 0, 2**24, 0),
    }[entries].astype(np.int32)
    logits = LOGITS["noise"] if entries != "all largest" else LOGITS["equal"]
    logits = logits.astype(np.int64)
    assert_row_is_right(cumulated(logits, table), naive_lefts(logits.tolist(), table.tolist()))


def test_every_quantile_of_a_narrow_row_finds_its_symbol() -> None:
    cumulative = cumulated(LOGITS["one symbol, last"].astype(np.int64))
    assert [find_symbol(cumulative, q) for q in range(400)] == [min(q, 255) for q in range(400)]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("shifts", [[0], [1], [5], [24], [0, 1, 5, 10, 24]], ids=str)
def test_row_intervals_round_logits_and_read_symbols_mod_256(dtype: type, shifts: list[int]) -> None:
    random = np.random.default_rng(2)
    shift = random.choice(np.array(shifts, dtype=np.int32), 256)
    acc = random.integers(-(2**20), 2**20, (300, 256)).astype(dtype)
    bias = random.integers(-(2**20), 2**20, 256).astype(np.int32)
    errors = random.integers(-255, 256, 300).astype(np.int16)
    left, frequency = np.empty(300, dtype=np.uint32), np.empty(300, dtype=np.uint32)
    row_intervals(acc, addend(bias, shift), shift, EXP, errors, left, frequency)
    for r in range(0, 300, 30):
        logits = [floor((int(a) + int(b)) / 2.0**s + 0.5) for a, b, s in zip(acc[r], bias, shift, strict=True)]
        lefts, symbol = naive_lefts(logits, EXP.tolist()), int(errors[r]) % 256
        assert (left[r], left[r] + frequency[r]) == (lefts[symbol], lefts[symbol + 1])


def test_symbol_bits_are_near_row_bits() -> None:
    random = np.random.default_rng(3)
    acc = random.integers(-200, 200, (50, 256)).astype(np.int32)
    errors = random.integers(-255, 256, 50).astype(np.int16)
    each, left, frequency = np.empty(50), np.empty(50, dtype=np.uint32), np.empty(50, dtype=np.uint32)
    symbol_bits(acc, ZEROS, ZEROS, errors, each)
    row_intervals(acc, ZEROS, ZEROS, EXP, errors, left, frequency)
    assert np.allclose(each, 24 - np.log2(frequency), atol=0.01)


def test_symbol_bits_of_equal_logits_are_eight() -> None:
    each = np.empty(1)
    symbol_bits(np.zeros((1, 256), dtype=np.int32), ZEROS, ZEROS, np.array([7], dtype=np.int16), each)
    assert each[0] == pytest.approx(8)
