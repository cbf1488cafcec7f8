"""Samples of 16 bits ↔ intervals of 2^24, one after another: prediction, scale and frequencies in integers.

docs/format.md, section 12, is this module in words. Samples are ranks: r is the r-th smallest of a plane's values.
Predictions and errors have six fractional bits (q6). Encoder and decoder are one traversal, ``code_ranks``: it takes a
rank from the stream or from the picture, and everything else is the same.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, localcontext
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.entropy import quantile_of, take
from pixzip.coding.frequencies import PRECISION
from pixzip.errors import UsageError
from pixzip.jit import entry, inner, jit

Rows = NDArray[np.int64]
Ints = NDArray[np.int64]

#: Values that a sample of 16 bits can have.
VALUES = 1 << 16
#: Planes that a stream has at most: colours of a picture.
MOST_PLANES = 3
#: Neighbours in a plane of its own, and for each plane before it, that the adaptive predictor weighs.
_OWN, _OTHER = 7, 5
_WEIGHTS = _OWN + (MOST_PLANES - 1) * _OTHER
_WEIGHT_MOST = 1 << 24  # of weights with 20 fractional bits
_PREDICTORS = 5
#: Contexts: half octaves of the error around, times what the error of the plane before says.
_OCTAVES, _OTHERS = 48, 4
#: Scales that are mixed: octaves from the context's own.
_SCALES = 4
_SHARE_ONE, _SHARE_LEAST = 1 << 20, 1 << 12  # shares have 20 fractional bits
_RATE_LEAST = 1 << 12  # rates have 16
#: Every value's part in the mixture, beside 2^28 for all.
_FLOOR = 4
_LADDER = 52  # half octaves of the scale, from 1/64 on
_TABLE_BITS = 28
_FIRST_ERROR = 1 << 10
_MISS_LEAST = 5
#: Half octaves from a context's own to the smallest of its scales.
_BELOW = 4
#: States of the adaptive bits that list a plane's values: same gap (2), length (17 · 17), the three bits below the top.
_BITS = 2 + 17 * 17 + 17 * 8
_GAP_LENGTHS, _GAP_TOPS = 2, 2 + 17 * 17

_DECIMAL = Context(prec=50, rounding=ROUND_HALF_EVEN, Emin=-99, Emax=99, clamp=0, flags=[], traps=[])


def _logistic() -> NDArray[np.int64]:
    """The nearest integers to 2^28 / (1 + exp(-k / 16)), k = 0 .. 256: decimal arithmetic, the same everywhere.

    In a context of its own: a program may have set traps and limits of its own before this is imported.
    """
    with localcontext(_DECIMAL):
        values = [Decimal(1 << _TABLE_BITS) / (1 + (Decimal(-k) / 16).exp()) for k in range(257)]
        return np.array([int(v.to_integral_value(ROUND_HALF_UP)) for v in values], dtype=np.int64)


LOGISTIC = _logistic()
#: floor(2^(38 - i/2)): what turns q6 into 1 / 2^18 of the i-th scale 2^(i/2), times 2^20.
INVERSE_SCALES = np.array([math.isqrt(1 << (76 - i)) for i in range(_LADDER)], dtype=np.int64)


class Memory(NamedTuple):
    """What coding a block of c planes of width w learns and remembers. Of rows, three: row y is at y mod 3."""

    ranks: Rows  # (c, 3, w + 3): x is at x + 2, see _around
    errors: Rows  # (c, 3, w + 3): |64 rank - prediction|, q6
    misses: Rows  # (5 c, 3, w + 3): likewise of predictor k of plane c, at 5 c + k
    weights: NDArray[np.int64]  # (c, 17): of the adaptive predictor, 20 fractional bits, |weight| <= 2^24
    shares: NDArray[np.int64]  # (c, contexts, scales): 20 fractional bits
    uses: NDArray[np.int64]  # (c, contexts)
    features: NDArray[np.int64]  # (_WEIGHTS,): of this sample
    guesses: NDArray[np.int64]  # (predictors,): of this sample, q6


def new_memory(planes: int, width: int) -> Memory:
    """Memory before the first sample. Raises UsageError for more planes than MOST_PLANES."""
    if planes > MOST_PLANES:  # features would not have room, and compiled code does not look
        raise UsageError(f"{planes} planes in one stream: must be 1 to {MOST_PLANES}")
    contexts = _OTHERS * _OCTAVES
    return Memory(
        np.zeros((planes, 3, width + 3), dtype=np.int64),
        np.zeros((planes, 3, width + 3), dtype=np.int64),
        np.zeros((_PREDICTORS * planes, 3, width + 3), dtype=np.int64),
        np.zeros((planes, _WEIGHTS), dtype=np.int64),
        np.full((planes, contexts, _SCALES), _SHARE_ONE // _SCALES, dtype=np.int64),
        np.zeros((planes, contexts), dtype=np.int64),
        np.zeros(_WEIGHTS, dtype=np.int64),
        np.zeros(_PREDICTORS, dtype=np.int64),
    )


@inner
def _median(west: int, north: int, corner: int) -> int:
    """Median of W, N and W + N - NW."""
    low, high = min(west, north), max(west, north)
    if corner >= high:
        return low
    if corner <= low:
        return high
    return west + north - corner


@inner
def _around(rows: NDArray[np.int64], c: int, y: int, x: int) -> tuple[int, int, int, int, int, int, int]:
    """W, WW, N, NW, NE, NN, NNE; rows (planes, 3, w + 3).

    Rows go on at both ends (_begin_row, _end_row). In row 0, all neighbours above are W; in row 1, NN is N and NNE NE.
    """
    own, north = y % 3, (y + 2) % 3
    west, west2 = rows[c, own, x + 1], rows[c, own, x]
    if y == 0:
        return west, west2, west, west, west, west, west
    north2 = north if y == 1 else (y + 1) % 3
    return (
        west,
        west2,
        rows[c, north, x + 2],
        rows[c, north, x + 1],
        rows[c, north, x + 3],
        rows[c, north2, x + 2],
        rows[c, north2, x + 3],
    )


@inner
def _begin_row(rows: NDArray[np.int64], c: int, y: int, first: int) -> None:
    """What stands left of a row: the first of the row above; of row 0, ``first``."""
    value = first if y == 0 else rows[c, (y + 2) % 3, 2]
    rows[c, y % 3, 0] = value
    rows[c, y % 3, 1] = value


@inner
def _end_row(rows: NDArray[np.int64], c: int, y: int, width: int) -> None:
    """What stands right of a row: its last."""
    rows[c, y % 3, width + 2] = rows[c, y % 3, width + 1]


@inner
def _guess(m: Memory, c: int, y: int, x: int, most: int) -> int:
    """Write features and guesses (q6, 0 to most) of a sample; returns how many features there are."""
    west, west2, north, corner, east, north2, east2 = _around(m.ranks, c, y, x)
    base = _median(west, north, corner)
    f, g = m.features, m.guesses
    f[0], f[1], f[2], f[3] = west - base, north - base, corner - base, east - base
    f[4], f[5], f[6] = west2 - base, north2 - base, east2 - base
    g[1], g[3] = 64 * base, 32 * (west + east)
    g[2], g[4] = 64 * (west + north - corner), 32 * (north + east + west - corner)
    count = _OWN
    for q in range(c - 1, -1, -1):
        here = m.ranks[q, y % 3, x + 2]
        w, _, n, nw, ne, _, _ = _around(m.ranks, q, y, x)
        other = _median(w, n, nw)
        f[count], f[count + 1], f[count + 2] = here - other, w - other, n - other
        f[count + 3], f[count + 4] = nw - other, ne - other
        count += _OTHER
        if q == c - 1:
            g[1] = 64 * (here + _median(west - w, north - n, corner - nw))
            g[3] = 64 * here + 32 * (west - w + north - n)
    total = np.int64(0)
    for i in range(count):
        total += m.weights[c, i] * f[i]  # |weight| <= 2^24, |f| < 2^17, 17 of them: < 2^46
    g[0] = 64 * base + (total >> 14)
    for k in range(_PREDICTORS):
        g[k] = min(max(g[k], 0), most)
    return count


@inner
def _missed(misses: Rows, k: int, y: int, x: int) -> int:
    """How far predictor k missed around here, q6: W, WW, N, NW, NE; in row 0 all above are W."""
    west = misses[k, y % 3, x + 1]
    if y == 0:
        return 4 * west + misses[k, 0, x]
    north = (y + 2) % 3
    above = misses[k, north, x + 1] + misses[k, north, x + 2] + misses[k, north, x + 3]
    return west + misses[k, y % 3, x] + above


@inner
def _predict(m: Memory, c: int, y: int, x: int) -> int:
    """The mean of all guesses, q6, each weighed by the inverse cube of how far it missed around here."""
    least = np.int64(1) << 40
    for k in range(_PREDICTORS):
        least = min(least, _missed(m.misses, _PREDICTORS * c + k, y, x))
    total, weighed = np.int64(0), np.int64(0)
    for k in range(_PREDICTORS):
        ratio = ((least + _MISS_LEAST) << 10) // (
            _missed(m.misses, _PREDICTORS * c + k, y, x) + _MISS_LEAST
        )  # 0 to 2^10
        weight = ratio * ratio * ratio
        total += weight
        weighed += weight * m.guesses[k]  # < 2^30 * 2^22 * 5
    return weighed // total  # total >= 2^30: one ratio is 2^10


@inner
def _context(m: Memory, c: int, y: int, x: int) -> int:
    """Half octave of the error around, and how large the plane before it erred on this very pixel."""
    west, west2, north, corner, east, north2, _ = _around(m.errors, c, y, x)
    around = (2 * west + west2 + 2 * north + corner + east + north2) >> 3
    size, bits = around + 1, 0
    while size >> bits > 1:
        bits += 1
    half = (size >> (bits - 1)) & 1 if bits > 0 else 0
    octave = min(2 * bits + half, _OCTAVES - 1)
    if c == 0:
        return octave
    error = m.errors[c - 1, y % 3, x + 2]
    if 2 * error < around:
        return octave + _OCTAVES
    return octave + (2 * _OCTAVES if 2 * error < 3 * around else 3 * _OCTAVES)


@inner
def _part(z: int, ladder: int, logistic: Ints, inverse: Ints) -> int:
    """2^28 times the part of a logistic distribution below z (q6 from its middle), of scale 2^(ladder/2) / 64."""
    i = min(max(ladder, 0), _LADDER - 1)
    u = min((abs(z) * inverse[i]) >> 20, (1 << 22) - 1)  # |z| < 2^23, inverse <= 2^38
    k = u >> 14
    part = logistic[k] + (((logistic[k + 1] - logistic[k]) * (u & ((1 << 14) - 1))) >> 14)
    return part if z >= 0 else (1 << _TABLE_BITS) - part


@inner
def _below(m: Memory, c: int, context: int, prediction: int, rank: int, logistic: Ints, inverse: Ints) -> int:
    """The mixture's weight of all ranks below one: at most 2^28 · (2^20 + small) / 2^20 + 4 · 2^16."""
    z, first = 64 * rank - 32 - prediction, context % _OCTAVES - _BELOW
    total = np.int64(0)
    for j in range(_SCALES):
        total += m.shares[c, context, j] * _part(z, first + 2 * j, logistic, inverse)
    return (total >> 20) + _FLOOR * rank


@inner
def _share_out(m: Memory, c: int, context: int, prediction: int, rank: int, logistic: Ints, inverse: Ints) -> None:
    """Shift the scales' shares to what each gave to this rank."""
    z, first = 64 * rank - 32 - prediction, context % _OCTAVES - _BELOW
    total = np.int64(0)
    for j in range(_SCALES):
        part = _part(z + 64, first + 2 * j, logistic, inverse) - _part(z, first + 2 * j, logistic, inverse) + 1
        m.guesses[j] = m.shares[c, context, j] * part  # < 2^21 * 2^29
        total += m.guesses[j]
    total = (total >> 20) + 1
    rate = max(_RATE_LEAST, (1 << 16) // (m.uses[c, context] + 2))
    for j in range(_SCALES):
        share = m.shares[c, context, j]
        m.shares[c, context, j] = max(share + (((m.guesses[j] // total - share) * rate) >> 16), _SHARE_LEAST)
    m.uses[c, context] += 1


@inner
def _learn(m: Memory, c: int, count: int, error: int) -> None:
    """Normalised least mean squares: weights move by error · feature / (32 · energy). error: q6, |error| < 2^23."""
    energy = np.int64(count)
    for i in range(count):
        energy += m.features[i] * m.features[i]
    gain = (error << 25) // energy
    for i in range(count):
        # |gain · f| <= 2^48 · |f| / f^2, or 0
        weight = m.weights[c, i] + ((gain * m.features[i] + (1 << 15)) >> 16)
        m.weights[c, i] = min(max(weight, -_WEIGHT_MOST), _WEIGHT_MOST)


@inner
def _remember(m: Memory, c: int, y: int, x: int, rank: int, prediction: int) -> None:
    """Write a coded sample and how far each predictor missed it."""
    m.ranks[c, y % 3, x + 2] = rank
    m.errors[c, y % 3, x + 2] = abs(64 * rank - prediction)
    for k in range(_PREDICTORS):
        m.misses[_PREDICTORS * c + k, y % 3, x + 2] = abs(64 * rank - m.guesses[k])


@inner
def _begin_all(m: Memory, c: int, y: int, middle: int) -> None:
    _begin_row(m.ranks, c, y, middle)
    _begin_row(m.errors, c, y, _FIRST_ERROR)
    for k in range(_PREDICTORS):
        _begin_row(m.misses, _PREDICTORS * c + k, y, 0)


@inner
def _end_all(m: Memory, c: int, y: int, width: int) -> None:
    _end_row(m.ranks, c, y, width)
    _end_row(m.errors, c, y, width)
    for k in range(_PREDICTORS):
        _end_row(m.misses, _PREDICTORS * c + k, y, width)


class Stream(NamedTuple):
    """One lane to decode (as entropy.Lanes), or intervals to be encoded; at (1,): how many there are."""

    decoding: bool
    state: NDArray[np.uint64]
    words: NDArray[np.uint32]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    left: NDArray[np.uint32]
    frequency: NDArray[np.uint32]
    at: NDArray[np.int64]


@inner
def _pass(s: Stream, left: int, frequency: int) -> None:
    """A symbol's interval, taken from the stream or noted for it."""
    if s.decoding:
        take(left, frequency, 0, s.state, s.words, s.start, s.stop)
    else:
        s.left[s.at[0]], s.frequency[s.at[0]] = left, frequency
        s.at[0] += 1


@inner
def _code_rank(
    s: Stream,
    m: Memory,
    c: int,
    context: int,
    prediction: int,
    rank: int,
    first: int,
    last: int,
    logistic: Ints,
    inverse: Ints,
) -> int:
    """A rank in [first, last), of which there are two or more; ``rank`` counts only in encoding."""
    start = _below(m, c, context, prediction, first, logistic, inverse)
    total = _below(m, c, context, prediction, last, logistic, inverse) - start
    mass = (1 << PRECISION) - (last - first)
    low, low_weight = first, np.int64(0)
    if s.decoding:
        quantile, high = quantile_of(s.state, 0), last
        high_weight = total
        while high - low > 1:
            middle = (low + high) >> 1
            weight = _below(m, c, context, prediction, middle, logistic, inverse) - start
            if weight * mass < (quantile - (middle - first) + 1) * total:  # left <= quantile
                low, low_weight = middle, weight
            else:
                high, high_weight = middle, weight
    else:
        low = rank
        low_weight = _below(m, c, context, prediction, low, logistic, inverse) - start
        high_weight = _below(m, c, context, prediction, low + 1, logistic, inverse) - start
    left = low_weight * mass // total + (low - first)
    _pass(s, left, high_weight * mass // total + (low - first) + 1 - left)
    return low


@entry
def code_ranks(
    s: Stream,
    m: Memory,
    ranks: NDArray[np.uint16],
    high: NDArray[np.uint8],
    starts: NDArray[np.int64],
    logistic: Ints,
    inverse: Ints,
) -> bool:
    """Code the ranks (n, c, h, w) of a block; False where a high byte has no value that its plane lists.

    starts (c, 257): the ranks at which the values of each high byte begin, and the number of all. high (n, c, h, w) are
    the high bytes, known before; of size 0 where they are not. Decoding writes ranks.
    """
    n, planes, height, width = ranks.shape
    split = high.size > 0
    for i in range(n):
        for y in range(height):
            for c in range(planes):
                count = starts[c, 256]
                _begin_all(m, c, y, count >> 1)
                first, last = np.int64(0), count
                for x in range(width):
                    if split:
                        first, last = starts[c, high[i, c, y, x]], starts[c, np.int64(high[i, c, y, x]) + 1]
                        if first == last:
                            return False
                    features = _guess(m, c, y, x, 64 * (count - 1))
                    prediction = _predict(m, c, y, x)
                    rank = first if s.decoding else np.int64(ranks[i, c, y, x])
                    context = _context(m, c, y, x)
                    if last - first > 1:
                        rank = _code_rank(s, m, c, context, prediction, rank, first, last, logistic, inverse)
                    ranks[i, c, y, x] = rank
                    _remember(m, c, y, x, rank, prediction)
                    _learn(m, c, features, 64 * rank - m.guesses[0])
                    if last - first > 1:
                        _share_out(m, c, context, prediction, rank, logistic, inverse)
                _end_all(m, c, y, width)
    return True


@inner
def _code_bit(s: Stream, bits: NDArray[np.int64], k: int, bit: int) -> int:
    """A bit whose probability of 1, times 2^16, is bits[k]; ``bit`` counts only in encoding."""
    zero = (1 << PRECISION) - (bits[k] << 8)
    if s.decoding:
        bit = np.int64(quantile_of(s.state, 0) >= zero)
    if bit:
        _pass(s, zero, (1 << PRECISION) - zero)
        bits[k] = min(bits[k] + (((1 << 16) - bits[k]) >> 5), (1 << 16) - 64)
    else:
        _pass(s, 0, zero)
        bits[k] = max(bits[k] - (bits[k] >> 5), 64)
    return bit


@inner
def _code_even(s: Stream, even: NDArray[np.int64], bit: int) -> int:
    """A bit that is as likely 0 as 1."""
    even[0] = 1 << 15
    return _code_bit(s, even, 0, bit)


@inner
def _length(value: int) -> int:
    """Bits of a positive number."""
    bits = 0
    while value >> bits > 0:
        bits += 1
    return bits


@inner
def _code_gap(s: Stream, bits: NDArray[np.int64], even: NDArray[np.int64], before: int, gap: int) -> int:
    """A gap of 1 to 2^17 - 1 other than the one before, whose length is the context: its length, then its bits."""
    wanted, context, length = _length(gap), _length(before), 1
    while length < 17 and _code_bit(s, bits, _GAP_LENGTHS + 17 * (context - 1) + length - 1, wanted > length):
        length += 1
    value = 1
    for place in range(length - 2, -1, -1):
        bit = (gap >> place) & 1
        top = _GAP_TOPS + 8 * (length - 1) + value
        bit = _code_bit(s, bits, top, bit) if value < 8 else _code_even(s, even, bit)
        value = 2 * value + bit
    return value


@jit
def code_values(s: Stream, values: NDArray[np.int64]) -> int:
    """Code the values that a plane has, ascending, values[:count]; returns count, or -1 where one is over 65535.

    values (65536,); encoding begins with values[0] to values[count - 1], then one of -1 where there is room.
    """
    bits = np.full(_BITS, 1 << 15, dtype=np.int64)
    even = np.zeros(1, dtype=np.int64)
    count = 0
    while not s.decoding and count < VALUES and values[count] >= 0:
        count += 1
    coded = 0
    for place in range(15, -1, -1):
        coded = 2 * coded + _code_even(s, even, ((count - 1) >> place) & 1)
    value, before, same = -1, 1, 0
    for i in range(coded + 1):
        gap = before if s.decoding else values[i] - value
        same = _code_bit(s, bits, same, gap == before)
        if not same:
            gap = _code_gap(s, bits, even, before, gap)
        value, before = value + gap, gap
        if value >= VALUES:
            return -1
        values[i] = value
    return coded + 1
