"""Pieces of work, one a file → their results in order, side by side on threads within bounded memory.

A picture of a fraction of a megapixel leaves threads waiting for each other; several pictures, each on a thread of its
own, do not wait, and one process pays once for what starting up takes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pixzip.memory import MIB, PROCESS_BYTES, THREAD_BYTES, Need

#: What files side by side may take together where no limit is given, beside PROCESS_BYTES.
_ROOM_BYTES = 1024 * MIB

_R = TypeVar("_R")


def in_order(jobs: Iterable[Callable[[], _R]], threads: int) -> Iterator[_R]:
    """Results of jobs in their order, at most ``threads`` at work; one thread is the caller's own.

    jobs is read as they are taken up, at most two for each thread ahead of the results. What a job raises is raised
    here, after the jobs at work have ended; those not begun are given up.
    """
    if threads == 1:
        for job in jobs:
            yield job()
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[_R]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Share:
    """What one piece of work may use while it is let in."""

    threads: int
    max_memory: int | None


class Room:
    """Threads and memory in equal shares for pieces of work side by side, which are let in in the order they ask.

    A piece that needs more than a share has several, or all: large pictures are worked on alone, on all threads.
    jobs: most pieces side by side; None: one for each thread. room_bytes: what they have together without max_memory.
    """

    def __init__(
        self,
        threads: int,
        pieces: int,
        max_memory: int | None,
        jobs: int | None = None,
        room_bytes: int = _ROOM_BYTES,
    ) -> None:
        self.side_by_side = min(jobs or threads, max(1, pieces))
        self._threads, self._max_memory = threads, max_memory
        limit = max_memory if max_memory is not None else PROCESS_BYTES + room_bytes
        self._share_bytes = max(1, (limit - PROCESS_BYTES) // self.side_by_side)
        self._left = self.side_by_side
        self._door, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def taken(self, need: Need, check: Callable[[], None]) -> Iterator[Share]:
        """Wait for as many shares as cover the need, and have them in the block. Raises LimitError where all do not.

        check is called before, and while waiting ten times a second; it may raise.
        """
        need.tiles_within(self._max_memory)
        beside = need.bytes() - PROCESS_BYTES + THREAD_BYTES
        wanted = min(self.side_by_side, max(1, -(-beside // self._share_bytes)))
        with self._door:
            self._wait(wanted, check)
        try:
            threads = max(1, self._threads * wanted // self.side_by_side)
            alone = wanted == self.side_by_side
            shared = self._max_memory if alone else PROCESS_BYTES + wanted * self._share_bytes
            yield Share(threads, shared if self._max_memory is not None else None)
        finally:
            with self._changed:
                self._left += wanted
                self._changed.notify_all()

    def _wait(self, wanted: int, check: Callable[[], None]) -> None:
        with self._changed:
            check()
            while self._left < wanted:
                self._changed.wait(0.1)
                check()
            self._left -= wanted
