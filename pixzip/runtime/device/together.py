"""Blocks of whoever asks → batches on a device.

Threads that each work on a file of their own hand in its blocks and wait. One of them runs all blocks handed in so far
as one batch, as many as memory allows, and half of them where it does not after all; what comes in meanwhile is the
next batch. A block's result does not depend on what else is in its batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pixzip.coding.entropy import Lanes
from pixzip.errors import LimitError, UsageError
from pixzip.model.file import TrunkNetwork
from pixzip.reports import Progress, part_of
from pixzip.runtime.device.pixels import period_of
from pixzip.runtime.device.wavefront import Block, decode_blocks, intervals_of_blocks

Intervals = tuple[NDArray[np.uint32], NDArray[np.uint32]]
#: How long a thread that is about to run a batch waits for others to hand in more.
_PATIENCE_S = 0.02
#: Of a device's memory for a batch (what torch keeps of the last one is free for it); of a processor's in any case.
_SHARE, _HOST_BYTES = 0.6, 1 << 30


@dataclass(eq=False)
class _Request:
    """Blocks that have to be in one batch with others of their kind; the result of each, or what went wrong."""

    network: TrunkNetwork
    blocks: Sequence[Block]
    colours: int
    sources: Sequence[Any]  # Lanes to decode, or planes
    decodes: bool
    progress: Progress | None
    results: list[Any] = field(default_factory=list)
    fault: BaseException | None = None
    done: bool = False

    def fits_with(self, other: _Request) -> bool:
        """Whether one batch can have both."""
        own, its = ((r.decodes, r.colours, r.blocks[0].shape[0]) for r in (self, other))
        return self.network is other.network and own == its


def batch_bytes(network: TrunkNetwork, shapes: Sequence[tuple[int, int, int]]) -> int:
    """Memory that a batch of blocks of shapes (n, h, w) takes on a device, about."""
    pictures = sum(n for n, _, _ in shapes)
    positions = pictures * (period_of(shapes) + 1)
    maps = 4 * 4 * (network.channels * len(network.blocks) + 2 * network.lstm * network.blocks.count("l"))
    step = 4 * (8 * network.channels + 4 * network.hidden + 16 * network.lstm) + 3 * 256 * 40
    learned = len(shapes) * 3 * network.head * (network.channels + 256) * 8 * 6
    height, width = (max(shape[i] for shape in shapes) for i in (1, 2))
    return positions * (maps + step) + learned + pictures * 3 * (height + 3) * (width + 6) * 12


class Together:
    """One device and the threads that share it."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._busy = device, threading.Lock()
        self._waiting: list[_Request] = []

    def _most_bytes(self) -> int:
        if self._device.type == "cuda":  # others may use it too
            free = torch.cuda.mem_get_info(self._device)[0] + torch.cuda.memory_reserved(self._device)
            return int(_SHARE * free)
        return _HOST_BYTES

    def run(self, request: _Request) -> list[Any]:
        """The results of a request's blocks; raises what its batch raised."""
        self._waiting.append(request)
        with self._busy:
            if not request.done:
                try:
                    self._wait_for_more()
                except BaseException:
                    self._waiting.remove(request)
                    raise
                self._run_batch(self._batch_of(request))
        if request.fault is not None:
            raise request.fault
        return request.results

    def _wait_for_more(self) -> None:
        seen, nothing = 0, threading.Event()
        while seen != len(self._waiting):
            seen = len(self._waiting)
            nothing.wait(_PATIENCE_S)

    def _batch_of(self, request: _Request) -> list[_Request]:
        """The request and those waiting that fit in with it, in the order they came, within memory."""
        batch, most = [request], self._most_bytes()
        for other in list(self._waiting):
            if other is not request and other.fits_with(request):
                shapes = [block.shape for r in (*batch, other) for block in r.blocks]
                if batch_bytes(request.network, shapes) <= most:
                    batch.append(other)
        for taken in batch:
            self._waiting.remove(taken)
        return batch

    def _run_batch(self, batch: list[_Request]) -> None:
        first = batch[0]
        blocks = [block for request in batch for block in request.blocks]
        sources = [source for request in batch for source in request.sources]

        def progress(fraction: float) -> None:
            for request in batch:
                if request.progress is not None:
                    request.progress(fraction)

        try:
            code: Callable[..., list[Any]] = decode_blocks if first.decodes else intervals_of_blocks
            results = iter(code(first.network, self._device, blocks, sources, first.colours, progress))
            for request in batch:
                request.results = [next(results) for _ in request.blocks]
        except torch.OutOfMemoryError as fault:
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if len(batch) > 1:  # what others take on the device, or more than was reckoned
                self._run_batch(batch[: len(batch) // 2])
                self._run_batch(batch[len(batch) // 2 :])
                return
            first.fault = LimitError(f"out of the device's memory: {str(fault).splitlines()[0]}")
        except BaseException as fault:
            for request in batch:
                request.fault = fault
        for request in batch:
            request.done = True

    def pieces(self, network: TrunkNetwork, blocks: Sequence[Block], at_once: int | None) -> list[slice]:
        """Neighbouring blocks of as many pictures that memory, and at_once, let a batch have."""
        most, found, first = self._most_bytes(), list[slice](), 0
        for i in range(1, len(blocks) + 1):
            shapes = [block.shape for block in blocks[first : i + 1]]
            alike = i < len(blocks) and shapes[0][0] == shapes[-1][0]
            if not alike or len(shapes) > (at_once or len(shapes)) or batch_bytes(network, shapes) > most:
                found.append(slice(first, i))
                first = i
        return found


def check_device(engine: str) -> None:
    """Raise UsageError where there is no such device."""
    if engine == "cuda" and not torch.cuda.is_available():
        raise UsageError("engine cuda: torch finds no CUDA device")


@cache
def _together(engine: str) -> Together:
    check_device(engine)
    return Together(torch.device("cuda" if engine == "cuda" else "cpu"))


@dataclass(frozen=True)
class Call:
    """What decoding and encoding are told alike; engine: "cuda" or "torch", at_once: most blocks in a batch."""

    network: TrunkNetwork
    engine: str
    blocks: Sequence[Block]
    colours: int
    at_once: int | None
    progress: Progress | None


def decode_together(call: Call, lanes: Sequence[Lanes]) -> list[tuple[NDArray[np.uint8], Lanes]]:
    """Pixels (n, 3, h, w) of blocks, and what is left of their lanes. Raises UsageError without such a device."""
    return _run(call, lanes, decodes=True)


def intervals_together(call: Call, planes: Sequence[NDArray[np.uint8]]) -> list[Intervals]:
    """(left, f) of every symbol of blocks (n, 3, h, w), as wavefront.intervals_of_blocks has them."""
    return _run(call, planes, decodes=False)


def _run(call: Call, sources: Sequence[Any], *, decodes: bool) -> list[Any]:
    together, results, count = _together(call.engine), list[Any](), len(call.blocks)
    for piece in together.pieces(call.network, call.blocks, call.at_once):
        progress = part_of(call.progress, piece.start / count, piece.stop / count)
        request = _Request(call.network, call.blocks[piece], call.colours, sources[piece], decodes, progress)
        results += together.run(request)
    return results
