"""Fractions done of pieces of work → of the whole call: what a caller's `progress` is called with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

Progress = Callable[[float], None]


class Report:
    """Hands fractions on to a caller's function: none less than the one before, none over 1, and 1 at the end.

    The work may leave its last part out, and a sum of many parts may be 1e-15 over 1. One thread calls at a time.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._done = progress, 0.0

    def __call__(self, fraction: float) -> None:
        """The caller hears of so much done; what its function raises ends the work."""
        self._done = min(max(self._done, fraction), 1.0)
        self._progress(self._done)

    def finish(self) -> None:
        """The work has ended."""
        if self._done < 1:
            self(1.0)


class Shares:
    """Sums the progress of pieces that run side by side, weighted by their sizes, and reports the whole."""

    def __init__(self, sizes: Sequence[int], report: Progress | None) -> None:
        total = sum(sizes)
        self._weights = [size / total for size in sizes]
        self._done, self._sum = [0.0] * len(sizes), 0.0
        self._report, self._lock = report, threading.Lock()
        #: What the caller's function raised: no fault of the piece in which that comes out.
        self.raised: list[BaseException] = []

    def of(self, index: int) -> Progress | None:
        """What piece ``index`` calls with its own fraction."""
        report = self._report
        if report is None:
            return None

        def update(fraction: float) -> None:
            with self._lock:
                before, self._done[index] = self._done[index], fraction * self._weights[index]
                self._sum += self._done[index] - before
                try:
                    report(self._sum)
                except BaseException as error:
                    self.raised.append(error)
                    raise

        return update


def part_of(report: Progress | None, start: float, stop: float) -> Progress | None:
    """What a piece that goes from start to stop of the whole calls with its own fraction."""
    return None if report is None else lambda fraction: report(start + fraction * (stop - start))
