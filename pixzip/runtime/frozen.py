"""A frozen network of any architecture, executed: the trunk's drivers or those of the paper's networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.entropy import Lanes
from pixzip.coding.frequencies import LOGITS_PER_NAT, binary_bits, binary_intervals, row_intervals, symbol_bits
from pixzip.model.file import Frozen, TrunkNetwork
from pixzip.model.multiscale import MultiScaleNetwork
from pixzip.model.stack import StackNetwork
from pixzip.runtime.engines import one_thread
from pixzip.runtime.stack import layers as stack_layers
from pixzip.runtime.stack import multiscale
from pixzip.runtime.stack import rows as stack_rows
from pixzip.runtime.stack import steps as stack_steps
from pixzip.runtime.trunk import layers as trunk_layers
from pixzip.runtime.trunk import pipeline, plain, rows, steps

Progress = Callable[[float], None]


def shares_a_block(network: Frozen) -> bool:
    """Whether several threads can work on one block; otherwise each works on blocks of its own."""
    return isinstance(network, TrunkNetwork)


@contextmanager
def products_alone(network: Frozen) -> Iterator[None]:
    """Within the block numpy's products, which the trunk does without, run on the thread that calls them."""
    if isinstance(network, TrunkNetwork):
        yield
        return
    with one_thread():
        yield


#: Rows and columns x * n + picture of positions: one row and all its columns, or one of each for every position.
_Where = tuple[Any, Any]


def _scored(
    network: Frozen,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    rate: int,
    write: Callable[[_Where, int, Any, Any, NDArray[np.int16]], None],
    progress: Progress | None = None,
) -> None:
    """Call write(where, colour, accumulators, logit_row of the colour, symbols) for all positions of a block."""
    if isinstance(network, MultiScaleNetwork):

        def some(part: StackNetwork, y: int, columns: Any, colour: int, acc: Any, symbols: NDArray[np.int16]) -> None:
            write((y, columns), colour, acc, stack_layers.logit_row(part, colour), symbols)

        multiscale.traverse(network, engine, planes, colours, some, progress)
        return
    if isinstance(network, StackNetwork):
        heads: Any = [stack_layers.logit_row(network, colour) for colour in range(colours)]
    else:
        heads = [trunk_layers.logit_row(network, colour) for colour in range(colours)]

    def row(y: int, colour: int, acc: Any, symbols: NDArray[np.int16]) -> None:
        write((y, slice(None)), colour, acc, heads[colour], symbols)

    def step(y: Any, columns: Any, colour: int, acc: Any, symbols: NDArray[np.int16]) -> None:
        write((y, columns), colour, acc, heads[colour], symbols)

    if isinstance(network, StackNetwork):
        stack_rows.traverse(network, engine, planes, colours, row, progress)
    elif rate > 0:
        plain.traverse(network, engine, planes, colours, rate, step, progress)
    else:
        rows.traverse(network, engine, planes, colours, row, progress)


def _is_binary(network: Frozen) -> bool:
    return network.pictures == "binary"


def plain_intervals(
    network: Frozen,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    progress: Progress | None = None,
    rate: int = 0,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """As intervals, plainly on one thread: what the trunk's fast traversals are compared with."""
    n, _, height, width = planes.shape
    left = np.empty((height, colours, width * n), dtype=np.uint32)
    frequency = np.empty_like(left)
    of_row: Any = binary_intervals if _is_binary(network) else row_intervals

    def write(where: _Where, colour: int, acc: Any, head: Any, symbols: NDArray[np.int16]) -> None:
        found = np.empty((2, len(symbols)), dtype=np.uint32)
        of_row(acc, *head, symbols, *found)
        for values, of_found in zip((left, frequency), found, strict=True):
            values[where[0], colour, where[1]] = of_found

    _scored(network, engine, planes, colours, rate, write, progress)
    return left, frequency


def intervals(
    network: Frozen,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    progress: Progress | None,
    threads: int = 1,
    rate: int = 0,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """(left, f) of every symbol of a block (n, planes of the network, h, w): two arrays (h, colours, w * n).

    Position x * n + picture. threads: at most as many work on the block, where the network lets them (shares_a_block).
    rate: of learning, 0 where the network does not learn.
    """
    if not isinstance(network, TrunkNetwork):
        return plain_intervals(network, engine, planes, colours, progress)
    if rate > 0:
        return steps.intervals(network, engine, planes, colours, progress, threads, rate=rate)
    return pipeline.intervals(network, engine, planes, colours, progress, threads)


def model_bits(
    network: Frozen, engine: str, planes: NDArray[np.uint8], colours: int, threads: int = 1, rate: int = 0
) -> NDArray[np.float64]:
    """-log2 softmax of the integer logits, in float64, at every symbol: (h, colours, w * n).

    threads and rate as in intervals.
    """
    n, _, height, width = planes.shape
    bits = np.empty((height, colours, width * n), dtype=np.float64)
    if isinstance(network, TrunkNetwork):
        steps.intervals(network, engine, planes, colours, threads=threads, rate=rate, bits=bits)
        return bits
    of_row: Any = binary_bits if _is_binary(network) else symbol_bits

    def write(where: _Where, colour: int, acc: Any, head: Any, symbols: NDArray[np.int16]) -> None:
        found = np.empty(len(symbols), dtype=np.float64)
        of_row(acc, *head[:2], symbols, found)
        bits[where[0], colour, where[1]] = found

    _scored(network, engine, planes, colours, 0, write)
    return bits


def probabilities(
    network: Frozen,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    rate: int,
    visit: Callable[[NDArray[np.float64], NDArray[np.int64]], None],
) -> None:
    """Call visit(p, symbols) for all positions of a block, some at a time: p (m, 256), or (m, 2) of binary pictures.

    p: the softmax of the integer logits, in float64; symbols (m,): the true ones, in the frame of the network.
    """

    def write(where: _Where, colour: int, acc: Any, head: Any, symbols: NDArray[np.int16]) -> None:
        logits = ((acc.astype(np.int64) + head[0]) >> head[1]) / LOGITS_PER_NAT
        if _is_binary(network):
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        visit(p / p.sum(axis=1, keepdims=True), symbols.astype(np.int64) & 255)

    _scored(network, engine, planes, colours, rate, write)


def decode_block(
    network: Frozen,
    engine: str,
    lanes: Lanes,
    shape: tuple[int, int, int],
    colours: int,
    progress: Progress | None,
    threads: int = 1,
    rate: int = 0,
) -> NDArray[np.uint8]:
    """Pixels (n, planes of the network, h, w) of a block of shape (n, h, w); threads and rate as in intervals."""
    if not isinstance(network, TrunkNetwork):
        decode = multiscale.decode_block if isinstance(network, MultiScaleNetwork) else stack_steps.decode_block
        planes: NDArray[np.uint8] = decode(network, engine, lanes, shape, colours, progress)  # type: ignore[arg-type]
        lanes.check_finished()
        return planes
    return steps.decode_block(network, engine, lanes, shape, colours, progress, threads, rate=rate)
