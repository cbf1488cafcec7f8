"""Signals and time ↔ work: it stops where a signal came, and shows a bar where it takes long."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import click

from pixzip.commands.arguments import remark

#: Work that takes no longer shows no progress bar.
QUIET_S = 1.0


class Interrupted(BaseException):
    """A signal asks to stop. Not an Exception, nor a KeyboardInterrupt, which click answers in its own way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Stop:
    """Whether a signal has come: threads that work on tiles ask between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Answer a signal, in the main thread."""
        self.signal = number
        raise Interrupted(number)

    def check(self) -> None:
        """Raise Interrupted in any thread once a signal has come."""
        if self.signal is not None:
            raise Interrupted(self.signal)


@contextmanager
def handled_signals(stop: Stop) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the work cleanly within this block; nohup keeps the last away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop.handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Meter:
    """A progress bar on a terminal for work that takes over a second; everywhere, where work notices a signal."""

    def __init__(self, label: str, stop: Stop, *, quiet: bool) -> None:
        self._label, self._stop = label, stop
        self._shown = not quiet and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._from = time.monotonic() + QUIET_S
        self._bar: Any = None
        self._lock = threading.Lock()

    def part(self, start: float, end: float) -> Callable[[float], None]:
        """What one piece of work calls with its fraction done, from start to end of the whole."""

        def report(fraction: float) -> None:
            self._stop.check()
            if self._shown and time.monotonic() >= self._from:
                self._show(start + fraction * (end - start))

        return report

    def _show(self, done: float) -> None:
        with self._lock, suppress(OSError):
            if self._bar is None:
                self._bar = click.progressbar(length=1000, label=self._label, file=sys.stderr)
                self._bar.render_progress()
            self._bar.update(max(0, int(1000 * done) - self._bar.pos))

    def clear(self) -> None:
        """Take the bar off its line, for a line of text; the next report draws it again."""
        if self._bar is not None:
            remark("\r\033[K", newline=False)

    def check(self) -> None:
        """Raise Interrupted once a signal has come."""
        self._stop.check()

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.render_finish()
            self._bar = None


@contextmanager
def metered(label: str, stop: Stop, *, quiet: bool) -> Iterator[Meter]:
    """A meter for the block, its bar ended with it."""
    meter = Meter(label, stop, quiet=quiet)
    try:
        yield meter
    finally:
        meter.close()
