"""A frozen network of any architecture, executed: the trunk's drivers or those of the paper's networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pixzip.entropy import Lanes
from pixzip.model_file import Frozen
from pixzip.runtime import pipeline, rows, steps
from pixzip.runtime.engines import one_thread
from pixzip.runtime.stack import rows as stack_rows
from pixzip.runtime.stack import steps as stack_steps
from pixzip.stack_model import StackNetwork

Progress = Callable[[float], None]


def intervals(
    network: Frozen,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    progress: Progress | None = None,
    threads: int = 1,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """(left, f) of every symbol of a block (n, planes of the network, h, w): two arrays (h, colours, w * n).

    threads: at most as many work on the block; those of the paper's networks are one.
    """
    if isinstance(network, StackNetwork):
        with one_thread(engine):
            return stack_rows.intervals(network, engine, planes, colours, progress)
    return pipeline.intervals(network, engine, planes, colours, progress, threads)


def model_bits(network: Frozen, engine: str, planes: NDArray[np.uint8], colours: int) -> NDArray[np.float64]:
    """-log2 softmax of the integer logits, in float64, at every symbol: (h, colours, w * n)."""
    if isinstance(network, StackNetwork):
        return stack_rows.model_bits(network, engine, planes, colours)
    return rows.model_bits(network, engine, planes, colours)


def decode_block(
    network: Frozen,
    engine: str,
    lanes: Lanes,
    shape: tuple[int, int, int],
    colours: int,
    progress: Progress | None = None,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Pixels (n, planes of the network, h, w) of a block of shape (n, h, w); threads as in intervals."""
    if isinstance(network, StackNetwork):
        with one_thread(engine):
            return stack_steps.decode_block(network, engine, lanes, shape, colours, progress)
    return steps.decode_block(network, engine, lanes, shape, colours, progress, threads)
