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


#: Crops of a thread at least: the products of fewer are small.
_LEAST_CROPS = 3


class Threads:
    """``count`` threads, in each of which torch has ``inside`` threads.

    Two threads that each have some of the crops meet once a step. Threads inside every operation would meet at the end
    of each, and the passes of pixzip.nets.fused would have one thread while the other waits.
    """

    def __init__(self, count: int = 1, inside: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(inside,))

    @staticmethod
    def sharing(crops: int) -> Threads:
        """As many as share so many crops well, with all the threads that torch has now."""
        cores = torch.get_num_threads()
        count = max(1, min(cores, crops // _LEAST_CROPS))
        return Threads(count, cores // count)

    def map(self, function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        """function(item) of every item, in their order; one thread is the caller's own.

        What is local to a thread, torch.no_grad() for one, must be set in the function.
        """
        return list(map(function, items) if self.count == 1 else self._pool.map(function, items))

    @contextmanager
    def outside(self, count: int) -> Iterator[None]:
        """Within the block torch has so many threads outside of these; more would spin beside them."""
        before = torch.get_num_threads()
        if self.count > 1:
            torch.set_num_threads(count)
        try:
            yield
        finally:
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
