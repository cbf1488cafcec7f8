"""Files ↔ the work on each of them, side by side, and what failed at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pixzip.commands.arguments import Files, complain, remark, say, shown_name
from pixzip.commands.options import Settings
from pixzip.commands.progress import Meter
from pixzip.errors import LimitError, PixzipError

if TYPE_CHECKING:
    from pixzip.batch import Room

#: Files in work while a GPU codes, and the memory that they share without --max-memory: their threads read, wait for it
#: together, and write.
_FED_AT_ONCE = 256
_FED_BYTES = 8 << 30


def room_for(settings: Settings, files: Files) -> Room:
    """The threads and the memory that these files share."""
    from pixzip.batch import Room

    if settings.device == "cuda":
        jobs = settings.jobs or _FED_AT_ONCE
        return Room(cores(settings.threads), len(files.names), settings.max_memory, jobs, _FED_BYTES)
    return Room(cores(settings.threads), len(files.names), settings.max_memory, settings.jobs)


def cores(threads: int | None) -> int:
    """Threads asked for, or as many as there are cores."""
    return threads or os.cpu_count() or 1


def label_of(files: Files) -> str:
    """What a progress bar calls these files."""
    return shown_name(files.names[0]) if len(files.names) == 1 else f"{len(files.names)} files"


#: Where a piece of work begins and ends in the whole.
Part = tuple[float, float]


def parts_of(count: int) -> Callable[[], Part]:
    """Gives the parts of so many files, one after another."""
    numbers = iter(range(count))

    def following() -> Part:
        i = next(numbers)
        return i / count, (i + 1) / count

    return following


#: The whole work on a file, begun in its turn; it returns a line to print, or nothing.
Work = Callable[[], str | None]


def on_each(
    files: Files, begin: Callable[[str], Work], threads: int, meter: Meter | None = None, *, err: bool = True
) -> None:
    """Do the work on every file, whatever becomes of the others; then exit with the first failure's code.

    begin is called in the order of the files, and says what is to be done on one of ``threads`` threads. Lines are
    printed in this order too, failures after all others.
    """
    from pixzip.batch import in_order

    failures = []
    jobs = (_attempt(files, file, begin) for file in files.names)
    try:
        for file, result in zip(files.names, in_order(jobs, threads), strict=False):
            if isinstance(result, PixzipError):
                failures.append((file, result))
            elif result is not None:
                if meter is not None:
                    meter.clear()
                (remark if err else say)(result)
    finally:
        if meter is not None:
            meter.close()
        for file, error in failures:
            complain(shown_name(file), str(error))
    if failures:
        raise SystemExit(failures[0][1].exit_code)


def on_one(name: str, work: Callable[[str], None]) -> None:
    """Do the one work of a command; exit with its code where it fails."""
    try:
        work(name)
    except PixzipError as error:
        complain(shown_name(name), str(error))
        raise SystemExit(error.exit_code) from None
    except MemoryError as error:
        complain(shown_name(name), f"out of memory: {error}")
        raise SystemExit(LimitError.exit_code) from None


def _attempt(files: Files, file: str, begin: Callable[[str], Work]) -> Callable[[], str | PixzipError | None]:
    """The work on a file, which gives back what went wrong; what is found on beginning, in its turn."""

    def outcome(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except PixzipError as error:
            return error
        except MemoryError as error:
            return LimitError(f"out of memory: {error}")

    if file in files.faults:
        return lambda: files.faults[file]
    begun = outcome(lambda: begin(file))
    return (lambda: begun) if isinstance(begun, PixzipError) else (lambda: outcome(begun))
