"""Intervals of 2^24 ↔ 32-bit words: the range variant of asymmetric numeral systems, one stack a lane (docs/format.md).

Encoding goes through constriction, where there is one: its builds leave out ARM under Linux, and there a kernel of ours
writes the same words. Decoding is a few lines of integer arithmetic that run inside the decoder's kernel and pop the
same words (``decode_words`` is constriction's own decoder, for comparison).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.frequencies import PRECISION, find_symbol, interval
from pixzip.coding.numbers import number_bytes, read_number
from pixzip.coding.schedule import first_row, last_row
from pixzip.errors import FormatError
from pixzip.jit import inner, jit

_TOTAL = 1 << PRECISION
_ENCODE_AT_ONCE = 1 << 17


@jit
def _fill_rows(
    left: NDArray[np.uint32], frequency: NDArray[np.uint32], symbols: NDArray[np.int32], rows: NDArray[np.float32]
) -> bool:
    """See interval_rows; whether every row is non-negative. rows (n, 2) or (n, 3), whose sums are 2^24 - 2 or - 3."""
    two, good = rows.shape[1] == 2, True
    for i in range(len(left)):
        start, size = np.int64(left[i]), np.int64(frequency[i])
        rest = _TOTAL - start - size
        if start == 0 and two:
            symbol, a, b, c = 0, size - 1, rest - 1, 0
        elif two:
            symbol, a, b, c = 1, start - 1, size - 1, 0
        elif start == 0:
            symbol, a, b, c = 0, size - 1, rest - 2, 0
        elif rest == 0:
            symbol, a, b, c = 2, 0, start - 2, size - 1
        else:
            symbol, a, b, c = 1, start - 1, size - 1, rest - 1
        symbols[i], rows[i, 0], rows[i, 1] = symbol, a, b
        if not two:
            rows[i, 2] = c
        good &= (a >= 0) & (b >= 0) & (c >= 0)
    return good


def interval_rows(
    left: NDArray[np.uint32], frequency: NDArray[np.uint32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Rows of few symbols that give exactly these intervals: symbols (n,) and rows (n, 3) for perfect=False.

    A row w makes symbol i cost w_i + 1 out of 2^24 when sum(w) = 2^24 - 3: [left - 1, f - 1, rest - 1], with the true
    symbol first at the left edge and last at the right edge. Where all are at an edge, rows have two symbols: in binary
    pictures left or rest may be 1, which three cannot share. Raises AssertionError for intervals that no row has.
    """
    at_edge = (left == 0) | (left + frequency.astype(np.int64) == _TOTAL)
    symbols = np.empty(len(left), dtype=np.int32)
    rows = np.empty((len(left), 2 if at_edge.all() else 3), dtype=np.float32)
    if not _fill_rows(left, frequency, symbols, rows):
        raise AssertionError("the weights of an interval's row must be non-negative")
    return symbols, rows


@cache
def _constriction() -> Any:
    """Its module of streams; None where it is not installed."""
    try:
        import constriction
    except ImportError:
        return None
    return constriction.stream


def encode_words(left: NDArray[np.uint32], frequency: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """One lane: intervals in decoding order (n,) → words; the decoder pops them from the end."""
    stream = _constriction()
    if stream is None:
        return words_of(left, frequency)
    coder, family = stream.stack.AnsCoder(), stream.model.Categorical(perfect=False)
    for stop in range(len(left), 0, -_ENCODE_AT_ONCE):
        piece = slice(max(0, stop - _ENCODE_AT_ONCE), stop)
        symbols, rows = interval_rows(left[piece], frequency[piece])
        coder.encode_reverse(symbols, family, rows)
    return np.asarray(coder.get_compressed(), dtype=np.uint32)


@jit
def _push_all(left: NDArray[np.uint32], frequency: NDArray[np.uint32], words: NDArray[np.uint32]) -> int:
    """Write the words of one lane; returns how many.

    words (3 n // 4 + 3,): n symbols of at most 24 bits, and what is left of the state.
    """
    state, count = np.uint64(0), 0
    for i in range(len(left) - 1, -1, -1):
        f = np.uint64(frequency[i])
        if state >> np.uint64(40) >= f:
            words[count] = np.uint32(state & np.uint64(0xFFFFFFFF))
            count += 1
            state >>= np.uint64(32)
        state = (state // f << np.uint64(PRECISION)) | (np.uint64(left[i]) + state % f)
    while state > np.uint64(0):
        words[count] = np.uint32(state & np.uint64(0xFFFFFFFF))
        count += 1
        state >>= np.uint64(32)
    return count


def words_of(left: NDArray[np.uint32], frequency: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """encode_words in a kernel of ours, one pass without copies: the same words."""
    words = np.empty(3 * len(left) // 4 + 3, dtype=np.uint32)
    return words[: _push_all(left, frequency, words)].copy()


def decode_words(words: NDArray[np.uint32], rows: NDArray[np.float32]) -> NDArray[np.int32]:
    """constriction's decoder: words and integer rows w (n, symbols) with sum 2^24 - symbols → symbols (n,)."""
    stream = _constriction()
    coder, family = stream.stack.AnsCoder(words), stream.model.Categorical(perfect=False)
    return np.asarray(coder.decode(family, rows), dtype=np.int32)


def lane_payload(lanes: list[NDArray[np.uint32]]) -> bytes:
    """Word counts of all lanes as LEB128, then their words, little-endian."""
    table = b"".join(number_bytes(len(words)) for words in lanes)
    return table + b"".join(words.astype("<u4").tobytes() for words in lanes)


@dataclass
class Lanes:
    """Decoder state of K lanes: state (K,) uint64; words of all lanes; lane k has words[start[k]:stop[k]] left."""

    state: NDArray[np.uint64]
    words: NDArray[np.uint32]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def check_finished(self) -> None:
        """Raise FormatError unless every lane ended in state 0 with no words left."""
        for k in np.flatnonzero((self.state != 0) | (self.stop != self.start)):
            left = int(self.stop[k] - self.start[k])
            raise FormatError(f"lane {k} ends in state {int(self.state[k]):#x} with {left} words left")


def _read_counts(payload: bytes, lanes: int) -> tuple[list[int], int]:
    """Word counts and the position after them; only minimal LEB128 of at most 5 bytes is accepted."""
    counts, at = [], 0
    for lane in range(lanes):
        value, at = read_number(payload, at, f"lane table: length of lane {lane}")
        counts.append(value)
    return counts, at


def read_lanes(payload: bytes, lanes: int) -> Lanes:
    """A tile's payload → decoder state. Raises FormatError when table and words do not fill it exactly."""
    counts, at = _read_counts(payload, lanes)
    if len(payload) - at != 4 * sum(counts):
        raise FormatError(f"lane table promises {4 * sum(counts)} bytes of words, the tile has {len(payload) - at}")
    return _begin_lanes(np.frombuffer(payload, dtype="<u4", offset=at).astype(np.uint32), counts)


def read_lane(data: bytes) -> Lanes:
    """The words of one lane → decoder state. Raises FormatError."""
    if len(data) % 4:
        raise FormatError(f"{len(data)} bytes of words: must be a multiple of 4")
    return _begin_lanes(np.frombuffer(data, dtype="<u4").astype(np.uint32), [len(data) // 4])


def _begin_lanes(words: NDArray[np.uint32], counts: list[int]) -> Lanes:
    lanes = len(counts)
    stop = np.cumsum(np.array(counts, dtype=np.int64))
    start = stop - np.array(counts, dtype=np.int64)
    state = np.zeros(lanes, dtype=np.uint64)
    for k in range(lanes):
        if counts[k] and words[stop[k] - 1] == 0:
            raise FormatError(f"lane {k} ends in a zero word")
        for _ in range(min(2, counts[k])):
            stop[k] -= 1
            state[k] = (state[k] << np.uint64(32)) | np.uint64(words[stop[k]])
    return Lanes(state, words, start, stop)


@inner
def quantile_of(state: NDArray[np.uint64], lane: int) -> int:
    """Where in 2^24 the next symbol of a lane lies."""
    return np.int64(state[lane] & np.uint64(_TOTAL - 1))


@inner
def take(
    left: int,
    frequency: int,
    lane: int,
    state: NDArray[np.uint64],
    words: NDArray[np.uint32],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
) -> None:
    """Remove the symbol that owns [left, left + frequency), where the lane's quantile lies."""
    s = state[lane]
    offset = np.uint64(np.int64(s & np.uint64(_TOTAL - 1)) - left)
    s = (s >> np.uint64(PRECISION)) * np.uint64(frequency) + offset
    if s < np.uint64(1 << 32) and stop[lane] > start[lane]:
        stop[lane] -= 1
        s = (s << np.uint64(32)) | np.uint64(words[stop[lane]])
    state[lane] = s


@jit
def pop(
    cumulative: NDArray[np.int64],
    lane: int,
    state: NDArray[np.uint64],
    words: NDArray[np.uint32],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
) -> int:
    """Decode one symbol of a lane with the row that these cumulative weights (257,) define."""
    symbol = find_symbol(cumulative, quantile_of(state, lane))
    left, frequency = interval(cumulative, symbol)
    take(left, frequency, lane, state, words, start, stop)
    return symbol


@jit
def lane_lengths(height: int, n: int, width: int, colours: int, lanes: int) -> NDArray[np.int64]:
    """Symbols of each lane of a block."""
    out = np.zeros(lanes, dtype=np.int64)
    for p in range(height * n):
        out[p % lanes] += width * colours
    return out


@jit
def lane_order(
    values: NDArray[np.uint32], n: int, slope: int, lanes: int, starts: NDArray[np.int64], out: NDArray[np.uint32]
) -> None:
    """Sort a block's values (h, colours, w * n), position x * n + picture, into lanes one after another.

    Inside a lane: step, colour, row position p = y * n + picture. starts (lanes,) says where each lane begins in out.
    """
    height, colours, width = values.shape[0], values.shape[1], values.shape[2] // n
    at = starts.copy()
    for step in range(width + slope * (height - 1)):
        for colour in range(colours):
            for y in range(first_row(step, width, slope), last_row(step, height, slope) + 1):
                x = step - slope * y
                for i in range(n):
                    lane = (y * n + i) % lanes
                    out[at[lane]] = values[y, colour, x * n + i]
                    at[lane] += 1
