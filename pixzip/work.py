"""Sizes of pictures and a network → the work that coding takes at most, known before anything is allocated.

Work is counted in multiply-accumulates. What else a pixel and a step of the wavefront take is counted as so many of
them, and narrow pictures have steps of few pixels: the numbers are bounds on what bench/work.py measures.
"""

from __future__ import annotations

from collections.abc import Iterable

from pixzip.errors import LimitError
from pixzip.model.file import Frozen, TrunkNetwork
from pixzip.model.multiscale import MultiScaleNetwork

#: What a pixel takes beside the network: predictions, tables and the coder; and a step: its threads and its kernels.
_PIXEL_MACS, _STEP_MACS = 10**5, 10**8
#: What a step takes for each weight that learns, and for each layer and colour that is called by itself.
_LEARNED_MACS, _LAYER_MACS = 300, 10**7
#: A block of pictures, or a tile: its maps and buffers, as so many steps, and for each weight, which it has for itself:
#: copied with the trunk's plan, or packed anew.
_BLOCK_STEPS, _COPIED_MACS, _PACKED_MACS = 10, 300, 2000


def _step_macs(network: Frozen) -> int:
    """What a step takes beside its pixels."""
    if isinstance(network, TrunkNetwork):
        return _STEP_MACS + _LEARNED_MACS * _weights(network, "head.") * network.learns
    parts = (network.small, network.large) if isinstance(network, MultiScaleNetwork) else (network,)
    return _STEP_MACS + _LAYER_MACS * network.planes * sum(part.layers for part in parts)


def _weights(network: Frozen, of: str = "") -> int:
    """How many weights a network has, or those parts of it whose names begin so."""
    return sum(a.size for name, a in network.arrays.items() if name.startswith(of) and name.endswith(".weight"))


def work_of(network: Frozen, blocks: Iterable[tuple[int, int, int]]) -> int:
    """Of blocks, each of n pictures of h × w pixels that run through their steps together: (n, h, w)."""
    from pixzip.coding.schedule import number_of_steps  # loads numba, which stored pictures do without

    a_pixel, a_step, total = network.macs_per_pixel() + _PIXEL_MACS, _step_macs(network), 0
    of_weight = _COPIED_MACS if isinstance(network, TrunkNetwork) else _PACKED_MACS
    a_block = _BLOCK_STEPS * a_step + of_weight * _weights(network)
    for n, h, w in blocks:
        steps = number_of_steps(h, w, network.slope_at(w))
        total += n * h * w * a_pixel + steps * a_step + a_block
    return total


def check_tiles(count: int, max_work: int) -> None:
    """Raise LimitError for more tiles than max_work allows whatever the model: before a list of them is made."""
    work = count * _BLOCK_STEPS * _STEP_MACS
    if work > max_work:
        needed = f"{count} tiles take at least {work:.3g} multiply-accumulates"
        raise LimitError(f"{needed}, over the limit of {max_work:.3g} (max_work)")


def check_work(network: Frozen, blocks: Iterable[tuple[int, int, int]], max_work: int) -> None:
    """Raise LimitError for more work than max_work."""
    work = work_of(network, blocks)
    if work > max_work:
        needed = f"up to {work:.3g} multiply-accumulates for these pixels by this model"
        raise LimitError(f"{needed}, over the limit of {max_work:.3g} (max_work)")
