"""pixzip.coding.entropy: three decoders of a lane agree on every outcome, both encoders on the words; damage shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_decoder import Lane, Refused
from reference_decoder import read_lanes as reference_read_lanes
from tiny_model import tables

from pixzip.coding.entropy import (
    Lanes,
    decode_words,
    encode_words,
    interval_rows,
    lane_lengths,
    lane_order,
    lane_payload,
    pop,
    read_lanes,
    words_of,
)
from pixzip.coding.frequencies import cumulate_binary, interval
from pixzip.errors import FormatError

constriction = pytest.importorskip("constriction")  # there is none for ARM under Linux

MASS = 2**24 - 256
Words = NDArray[np.uint32]


def random_weights(seed: int, n: int, kind: str) -> NDArray[np.int64]:
    """Weights (n, 256): flat, peaked at random places, all on one symbol, or at the edges of the alphabet."""
    random = np.random.default_rng(seed)
    if kind == "flat":
        return random.integers(1, 1 << 20, (n, 256))
    centre = random.integers(0, 256, (n, 1)) if kind != "edges" else random.choice([0, 255], (n, 1))
    distance = np.abs(np.arange(256) - centre)
    width = {"peaked": 9.0, "one": 0.01, "edges": 2.0}[kind]
    return np.floor(2**22 * np.exp(-distance / width)).astype(np.int64)


def cumulative_of(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """C_0 .. C_256 of each row (n, 257)."""
    return np.concatenate([np.zeros((len(weights), 1), dtype=np.int64), weights.cumsum(axis=1)], axis=1)


def lefts_of(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """left_0 .. left_256 of each row (n, 257), as docs/model-format.md, section 6."""
    cumulative = cumulative_of(weights)
    return cumulative * MASS // cumulative[:, -1:] + np.arange(257)


def full_rows(weights: NDArray[np.int64]) -> NDArray[np.float32]:
    """constriction's rows f - 1 of all 256 symbols."""
    rows = np.diff(lefts_of(weights), axis=1) - 1
    assert (rows >= 0).all()
    assert (rows.sum(axis=1) == MASS).all()
    return rows.astype(np.float32)


def intervals_of(weights: NDArray[np.int64], symbols: NDArray[np.int64]) -> tuple[Words, Words]:
    """(left, f) of the symbols."""
    left, each = lefts_of(weights), np.arange(len(weights))
    return left[each, symbols].astype(np.uint32), (left[each, symbols + 1] - left[each, symbols]).astype(np.uint32)


def encoded_by_document(left: Words, frequency: Words) -> list[int]:
    """docs/format.md, section 8, encoding a lane, word for word."""
    state, words = 0, []
    for start, f in zip(left.tolist()[::-1], frequency.tolist()[::-1], strict=True):
        if state >> 40 >= f:
            words.append(state % 2**32)
            state >>= 32
        state = (state // f) << 24 | start + state % f
    while state > 0:
        words.append(state % 2**32)
        state >>= 32
    return words


def popped(words: list[int], weights: NDArray[np.int64]) -> tuple[list[int], Lanes]:
    """Symbols by the kernel that the decoder uses, and the lane afterwards."""
    lanes = read_lanes(lane_payload([np.array(words, dtype=np.uint32)]), 1)
    cumulative = cumulative_of(weights)
    return [pop(row, 0, lanes.state, lanes.words, lanes.start, lanes.stop) for row in cumulative], lanes


def drawn_symbols(seed: int, weights: NDArray[np.int64], likely: bool) -> NDArray[np.int64]:
    """True symbols: drawn from the rows, or uniform over the alphabet."""
    random = np.random.default_rng(seed)
    if not likely:
        return random.integers(0, 256, len(weights))
    cumulative = cumulative_of(weights)
    at = random.integers(0, cumulative[:, -1:])
    return (cumulative[:, 1:] <= at).sum(axis=1)


KINDS = st.sampled_from(["flat", "peaked", "one", "edges"])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 80), kind=KINDS, likely=st.booleans())
def test_three_encoders_and_three_decoders_agree(seed: int, n: int, kind: str, likely: bool) -> None:
    weights = random_weights(seed, n, kind)
    symbols = drawn_symbols(seed, weights, likely)
    left, frequency = intervals_of(weights, symbols)
    words = encode_words(left, frequency)
    assert words.tolist() == encoded_by_document(left, frequency) == words_of(left, frequency).tolist()
    if n:
        coder = constriction.stream.stack.AnsCoder()
        family = constriction.stream.model.Categorical(perfect=False)
        coder.encode_reverse(symbols.astype(np.int32), family, full_rows(weights))
        assert np.array_equal(coder.get_compressed(), words)
        assert np.array_equal(decode_words(words, full_rows(weights)), symbols)
    by_kernel, lanes = popped(words.tolist(), weights)
    assert by_kernel == symbols.tolist()
    lanes.check_finished()
    reference = Lane(words.tolist())
    assert [reference.symbol(row) for row in lefts_of(weights).tolist()] == symbols.tolist()
    reference.end()


@settings(deadline=None)
@given(
    words=st.lists(st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**32 - 1])), max_size=12),
    last=st.integers(1, 2**32 - 1),
    n=st.integers(1, 60),
    kind=KINDS,
)
def test_three_decoders_agree_on_garbage(words: list[int], last: int, n: int, kind: str) -> None:
    """Also beyond the end of the words, where symbols go on for ever."""
    words = [*words, last]
    weights = random_weights(n, n, kind)
    by_kernel, lanes = popped(words, weights)
    assert by_kernel == decode_words(np.array(words, dtype=np.uint32), full_rows(weights)).tolist()
    reference = Lane(list(words))
    assert by_kernel == [reference.symbol(row) for row in lefts_of(weights).tolist()]
    assert int(lanes.state[0]) == reference.state
    assert int(lanes.stop[0]) == len(reference.words)


@pytest.mark.parametrize("words", [[], [1], [2**32 - 1], [0, 1], [7, 2**32 - 1], [0, 0, 1]])
def test_three_decoders_agree_on_lanes_of_few_words(words: list[int]) -> None:
    for kind in ("flat", "peaked", "one", "edges"):
        weights = random_weights(1, 9, kind)
        by_kernel, _ = popped(words, weights)
        assert by_kernel == decode_words(np.array(words, dtype=np.uint32), full_rows(weights)).tolist()
        reference = Lane(list(words))
        assert by_kernel == [reference.symbol(row) for row in lefts_of(weights).tolist()]


def test_an_empty_lane_yields_the_first_symbol_without_end() -> None:
    symbols, lanes = popped([], random_weights(2, 50, "flat"))
    assert symbols == [0] * 50
    lanes.check_finished()


def test_symbols_of_one_kind_of_lane_may_need_no_words() -> None:
    weights = random_weights(2, 50, "flat")
    assert encode_words(*intervals_of(weights, np.zeros(50, dtype=np.int64))).size == 0


def test_long_lanes_are_coded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(3, 50, "peaked")
    left, frequency = intervals_of(weights, drawn_symbols(3, weights, likely=True))
    whole = encode_words(left, frequency)
    for size in (1, 7, 49, 50):
        monkeypatch.setattr("pixzip.coding.entropy._ENCODE_AT_ONCE", size)
        assert np.array_equal(encode_words(left, frequency), whole)


@pytest.mark.parametrize(("left", "f"), [(0, 1), (0, 2**24 - 255), (1, 1), (2**24 - 1, 1), (255, 2**24 - 255), (9, 77)])
def test_three_entry_rows_are_valid_at_both_edges(left: int, f: int) -> None:
    lefts, sizes = (np.array(both, dtype=np.uint32) for both in ((left, 9), (f, 77)))  # the second is at no edge
    symbols, rows = interval_rows(lefts, sizes)
    sizes = rows[0].astype(np.int64) + 1
    assert sizes.sum() == 2**24
    assert sizes.min() >= 1
    before = sizes[: symbols[0]].sum()
    assert (before, sizes[symbols[0]]) == (left, f)


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(
        st.one_of(st.integers(-1200, 1200), st.sampled_from([-(2**30), -1024, 0, 1023, 2**30])), max_size=60
    ),
    seed=st.integers(0, 99),
)
def test_rows_of_two_symbols_are_coded_as_the_document_says(logits: list[int], seed: int) -> None:
    """Also where one of them has 2^24 - 1 parts of 2^24, which leaves a row of three no room."""
    symbols = np.random.default_rng(seed).integers(0, 2, len(logits))
    exp = tables()["table.exp"]
    rows = np.zeros((len(logits), 3), dtype=np.int64)
    for logit, row in zip(logits, rows, strict=True):
        cumulate_binary(logit, exp, row)
    pairs = [interval(row, symbol) for row, symbol in zip(rows, symbols, strict=True)]
    left, frequency = (np.array([pair[i] for pair in pairs], dtype=np.uint32) for i in (0, 1))
    words = encode_words(left, frequency)
    assert words.tolist() == encoded_by_document(left, frequency)
    lanes = read_lanes(lane_payload([words]), 1)
    by_kernel = [pop(row, 0, lanes.state, lanes.words, lanes.start, lanes.stop) for row in rows]
    assert by_kernel == symbols.tolist()
    lanes.check_finished()
    reference = Lane(words.tolist())
    found = [reference.symbol([0, int(interval(row, 1)[0]), 2**24]) for row in rows]
    assert found == symbols.tolist()
    reference.end()


@pytest.mark.parametrize(("left", "f"), [(0, 1), (0, 2**24 - 1), (2**24 - 1, 1), (1, 2**24 - 1), (0, 2**23)])
def test_two_entry_rows_are_valid_at_both_edges(left: int, f: int) -> None:
    symbols, rows = interval_rows(np.array([left], dtype=np.uint32), np.array([f], dtype=np.uint32))
    sizes = rows[0].astype(np.int64) + 1
    assert (len(sizes), sizes.sum(), sizes.min() >= 1) == (2, 2**24, True)
    assert (sizes[: symbols[0]].sum(), sizes[symbols[0]]) == (left, f)


@pytest.mark.parametrize(("left", "f"), [(0, 0), (5, 0), (2**24, 1), (1, 2**24), (0, 2**24), (0, 2**24 - 1)])
def test_an_interval_without_a_row_is_refused(left: int, f: int) -> None:
    """Empty, beyond 2^24, or without room for the two symbols beside it."""
    lefts, sizes = (np.array(both, dtype=np.uint32) for both in ((9, left), (77, f)))
    with pytest.raises(AssertionError, match="non-negative"):
        interval_rows(lefts, sizes)


@pytest.mark.parametrize(("left", "f"), [(0, 0), (2**24, 0), (0, 2**24), (2**32 - 1, 2**24 + 1)])
def test_nor_is_one_at_an_edge_taken_for_two_symbols(left: int, f: int) -> None:
    with pytest.raises(AssertionError, match="non-negative"):
        interval_rows(np.array([left], dtype=np.uint32), np.array([f], dtype=np.uint32))


# The lane table and the end of a lane.


@settings(deadline=None)
@given(counts=st.lists(st.one_of(st.integers(0, 3), st.sampled_from([127, 128, 300, 16384])), min_size=1, max_size=8))
def test_read_lanes_inverts_lane_payload(counts: list[int]) -> None:
    random = np.random.default_rng(len(counts))
    lanes = [random.integers(1, 2**32, n, dtype=np.uint32) for n in counts]
    payload = lane_payload(lanes)
    read = read_lanes(payload, len(lanes))
    for k, (words, reference) in enumerate(zip(lanes, reference_read_lanes(payload, len(lanes)), strict=True)):
        assert int(read.state[k]) == reference.state
        assert read.words[read.start[k] : read.stop[k]].tolist() == reference.words
        assert read.stop[k] - read.start[k] == max(0, len(words) - 2)


W = b"\x01\0\0\0"
REFUSED = {
    "no table": (b"", 1, "lane 0 is cut off"),
    "table ends early": (b"\0", 2, "lane 1 is cut off"),
    "varint ends early": (b"\x80", 1, "lane 0 is cut off"),
    "varint of six bytes": (b"\x80\x80\x80\x80\x80\0", 1, "lane 0 is cut off or too long"),
    "varint not minimal": (b"\x81\0" + W, 1, "lane 0 is not in its shortest form"),
    "zero not minimal": (b"\x80\0", 1, "lane 0 is not in its shortest form"),
    "varint of 2^32": (b"\x80\x80\x80\x80\x10", 1, None),
    "largest varint": (b"\xff\xff\xff\xff\x7f", 1, None),
    "words missing": (b"\2" + W, 1, "promises 8 bytes of words, the tile has 4"),
    "words too many": (b"\1" + W + W, 1, "promises 4 bytes of words, the tile has 8"),
    "half a word": (b"\1" + W[:2], 1, "promises 4 bytes of words, the tile has 2"),
    "trailing byte": (b"\1" + W + b"\0", 1, "promises 4 bytes of words, the tile has 5"),
    "last word zero": (b"\1\0\0\0\0", 1, "lane 0 ends in a zero word"),
    "last word of lane 1 zero": (b"\1\1" + W + bytes(4), 2, "lane 1 ends in a zero word"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_lane_tables_are_refused(case: str) -> None:
    payload, lanes, message = REFUSED[case]
    with pytest.raises(FormatError, match=message):
        read_lanes(payload, lanes)
    with pytest.raises(Refused):
        reference_read_lanes(payload, lanes)


@settings(deadline=None)
@given(payload=st.binary(max_size=24), lanes=st.integers(1, 3))
def test_read_lanes_and_reference_refuse_the_same_payloads(payload: bytes, lanes: int) -> None:
    try:
        reference_read_lanes(payload, lanes)
    except Refused:
        with pytest.raises(FormatError):
            read_lanes(payload, lanes)
    else:
        read_lanes(payload, lanes)


def test_a_lane_with_words_or_state_left_is_refused() -> None:
    for words in ([5], [5, 6], [5, 6, 7]):
        with pytest.raises(FormatError, match="lane 1 ends in state 0x"):
            read_lanes(lane_payload([np.array(w, dtype=np.uint32) for w in ([], words)]), 2).check_finished()


# The order in a lane.


@pytest.mark.parametrize(
    ("n", "colours", "h", "w"), [(1, 1, 3, 6), (1, 3, 5, 4), (3, 3, 4, 5), (2, 1, 1, 3), (4, 3, 3, 1)]
)
@pytest.mark.parametrize("lanes", [1, 2, 5, 64])
@pytest.mark.parametrize("slope", [1, 2, 4])
def test_lane_order_is_that_of_the_document(n: int, colours: int, h: int, w: int, lanes: int, slope: int) -> None:
    values = np.arange(h * colours * w * n, dtype=np.uint32).reshape(h, colours, w * n)
    lengths = lane_lengths(h, n, w, colours, lanes)
    starts = np.concatenate([[0], lengths.cumsum()[:-1]]).astype(np.int64)
    out = np.empty(values.size, dtype=np.uint32)
    lane_order(values, n, slope, lanes, starts, out)
    symbols = [(x + slope * y, c, y * n + i, x) for y, x, c, i in np.ndindex(h, w, colours, n)]
    for lane in range(lanes):
        mine = sorted(s for s in symbols if s[2] % lanes == lane)  # step, colour, row index
        assert lengths[lane] == len(mine)
        expected = [int(values[r // n, c, x * n + r % n]) for _, c, r, x in mine]
        assert out[starts[lane] : starts[lane] + lengths[lane]].tolist() == expected


def test_lane_order_is_that_of_the_documents_example() -> None:
    """docs/format.md, section 8: two lanes, h = 3, w = 6, s = 2."""
    values = np.array([[10 * y + x for x in range(6)] for y in range(3)], dtype=np.uint32).reshape(3, 1, 6)
    out = np.empty(18, dtype=np.uint32)
    lane_order(values, 1, 2, 2, np.array([0, 12]), out)
    assert out[:9].tolist() == [0, 1, 2, 3, 4, 20, 5, 21, 22]
    assert out[12:].tolist() == [10, 11, 12, 13, 14, 15]
