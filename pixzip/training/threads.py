"""Threads that share a step's batch, and the memory that they take again and again."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import torch

_T = TypeVar("_T")
_R = TypeVar("_R")

#: Numbers of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


class Threads:
    """``count`` threads, in each of which torch computes alone.

    Two threads that each have some of the crops meet once a step. Threads inside every operation would meet at the end
    of each, and the passes of pixzip.nets.fused would have one thread while the other waits.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1)) if count > 1 else None

    def map(self, function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        """function(item) of every item, in their order; with one thread, by the caller and all of torch's threads.

        What is local to a thread, torch.no_grad() for one, must be set in the function.
        """
        return list(map(function, items) if self._pool is None else self._pool.map(function, items))

    @contextmanager
    def outside(self, count: int) -> Iterator[None]:
        """Within the block torch has so many threads outside of these; more would spin beside them."""
        before = torch.get_num_threads()
        if self._pool is not None:
            torch.set_num_threads(count)
        try:
            yield
        finally:
            if self._pool is not None:
                torch.set_num_threads(before)


def shares(count: int, parts: int) -> list[range]:
    """0 .. count - 1 in at most so many ranges, none empty, that differ by one at most."""
    parts = min(count, parts)
    ends = [count * i // parts for i in range(parts + 1)]
    return [range(a, b) for a, b in pairwise(ends)]


def keep_memory() -> None:
    """Let glibc keep what is freed, for all threads; elsewhere nothing.

    By default it gives large blocks back after every layer and takes them again, which costs a third of the time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_TRIM_THRESHOLD, -1)
    mallopt(_MMAP_MAX, 0)
    mallopt(_ARENA_MAX, 1)
