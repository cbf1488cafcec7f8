"""A lane's symbols of one step and colour in one kernel: DeviceLanes.decode in Triton, for GPUs.

A lane's symbols come one after another, dozens in a step, so that whole-tensor operations would be launched thousands
of times a step. Here each lane is a program: the rows of weights it needs, their sums and the search are 256 wide.
"""

# No annotations from the future: triton reads those of its kernels.

import triton
import triton.language as tl
from torch import Tensor

from pixzip.coding.frequencies import MASS, PRECISION, SYMBOLS


@triton.jit(do_not_specialize=["n", "period"])
def take_symbols(  # type: ignore[no-untyped-def]
    weights,
    symbols,
    state,
    words,
    start,
    stop,
    block,
    lane,
    lanes,
    heights,
    widths,
    step,
    n,
    period,
    MASS: tl.constexpr,
    PRECISION: tl.constexpr,
    SYMBOLS: tl.constexpr,
):
    """Pointers: weights (positions, SYMBOLS) int32, symbols (positions,) int64, the rest int64, most one a lane."""
    k = tl.program_id(0)
    order = tl.arange(0, SYMBOLS)
    t = tl.load(step)
    count, first = tl.load(lanes + k), tl.load(block + k) * n
    top = tl.maximum((t - tl.load(widths + k) + 2) // 2, 0) * n
    end = (tl.minimum(tl.load(heights + k) - 1, t // 2) + 1) * n
    row = top + ((tl.load(lane + k) - top) % count + count) % count  # % is C's
    s = tl.load(state + k).to(tl.uint64, bitcast=True)
    lowest, at = tl.load(start + k), tl.load(stop + k)
    while row < end:
        position = (first + row % n) * period + (row // n) % period
        own = tl.load(weights + position * SYMBOLS + order).to(tl.int64)
        total = tl.sum(own, 0)
        quantile = (s & ((1 << PRECISION) - 1)).to(tl.int64)
        below = (tl.cumsum(own, 0) - own) * MASS < (quantile - order + 1) * total
        symbol = tl.sum(below.to(tl.int64), 0) - 1
        before = tl.sum(tl.where(order < symbol, own, 0), 0)
        after = before + tl.sum(tl.where(order == symbol, own, 0), 0)
        left = before * MASS // total + symbol
        frequency = after * MASS // total + symbol + 1 - left
        s = (s >> PRECISION) * frequency.to(tl.uint64) + (quantile - left).to(tl.uint64)
        refills = ((s >> 32) == 0) & (at > lowest)
        at = tl.where(refills, at - 1, at)
        word = tl.load(words + at, mask=refills, other=0)
        s = tl.where(refills, (s << 32) | word.to(tl.uint64), s)
        tl.store(symbols + position, symbol)
        row += count
    tl.store(state + k, s.to(tl.int64, bitcast=True))
    tl.store(stop + k, at)


def take(
    weights: Tensor,
    symbols: Tensor,
    coder: tuple[Tensor, Tensor, Tensor, Tensor],
    places: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    step: Tensor,
    pictures: int,
    period: int,
) -> None:
    """Take the symbols of a step in one colour from all lanes.

    coder: state, words, start, stop; places: block, lane, lanes, heights, widths; as DeviceLanes has them. state and
    stop go on, symbols (positions,) are written where a position has one.
    """
    program = take_symbols[(len(coder[0]),)]
    program(weights, symbols, *coder, *places, step, pictures, period, MASS, PRECISION, SYMBOLS, num_warps=1)
