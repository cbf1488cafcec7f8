"""Sizes of pictures and a network → the work that coding takes at most, known before anything is allocated.

Work is counted in multiply-accumulates. What else a pixel and a step of the wavefront take is counted as so many of
them, and narrow pictures have steps of few pixels: the numbers are bounds on what bench/work.py measures.
"""

from __future__ import annotations

from collections.abc import Iterable

from pixzip.errors import LimitError
from pixzip.model.file import Frozen

#: What a pixel takes beside the network: predictions, tables and the coder; a step: its threads and its kernels; and a
#: block of pictures, or a tile: its maps and buffers.
_PIXEL_MACS, _STEP_MACS, _BLOCK_MACS = 10**5, 10**8, 10**9


def work_of(network: Frozen, blocks: Iterable[tuple[int, int, int]]) -> int:
    """Of blocks, each of n pictures of h × w pixels that run through their steps together: (n, h, w)."""
    from pixzip.coding.schedule import number_of_steps  # loads numba, which stored pictures do without

    a_pixel, total = network.macs_per_pixel() + _PIXEL_MACS, 0
    for n, h, w in blocks:
        steps = number_of_steps(h, w, network.slope_at(w))
        total += n * h * w * a_pixel + steps * _STEP_MACS + _BLOCK_MACS
    return total


def check_work(network: Frozen, blocks: Iterable[tuple[int, int, int]], max_work: int) -> None:
    """Raise LimitError for more work than max_work."""
    work = work_of(network, blocks)
    if work > max_work:
        needed = f"up to {work:.3g} multiply-accumulates for these pixels by this model"
        raise LimitError(f"{needed}, over the limit of {max_work:.3g} (max_work)")
