"""What a run says while it goes: lines for a person, log.csv, and TensorBoard's files where asked for."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixzip.errors import OutputError, UsageError
from pixzip.files import staged

COLUMNS = ("step", "train_bits_per_dim", "validation_bits_per_dim", "rate", "pixels_per_s", "event")


@dataclass(frozen=True)
class Entry:
    """One row of log.csv: bits/dim of training and validation, the rate; validation is None where not measured."""

    step: int
    train: float
    validation: float | None
    rate: float


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a log.csv, one dict each; what a power cut left of others is passed over."""
    text = path.read_bytes().decode("utf-8", "replace").replace("\0", "")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [row for row in rows if set(row) == set(COLUMNS) and None not in row.values() and _is_row(row)]


def _is_row(row: dict[str, str]) -> bool:
    """Whether the cells are numbers where they have to be."""
    try:
        int(row["step"])
        for name in COLUMNS[1:5]:
            float(row[name] or 0)
    except ValueError:
        return False
    return True


def _time(s: float) -> str:
    """Seconds as a person says them."""
    if s < 90:
        return f"{s:.0f} s"
    return f"{s / 60:.0f} min" if s < 5400 else f"{s / 3600:.1f} h"


def silent(line: str) -> None:
    """What processes say that do not lead."""


class Log:
    """Appends rows to log.csv and tells them to a person, with the time left."""

    def __init__(
        self,
        folder: Path,
        steps: int,
        done: int,
        pixels: int,
        say: Callable[[str], None],
        board: Callable[[int], Any] | None,
    ) -> None:
        """Rows of steps after ``done``, which a resumed run takes again, are dropped; pixels are those of a step.

        board: as ``tensorboard`` gives it.
        """
        self._path, self._steps, self._pixels, self.say = folder / "log.csv", steps, pixels, say
        self._open_board, self._board = board, None
        self.go_back(done)

    def go_back(self, done: int) -> None:
        """Drop the rows of later steps, which will come again; events stay."""
        self._mark = (time.monotonic(), done)
        rows = read_log(self._path) if self._path.exists() else []
        rows = [row for row in rows if int(row["step"]) <= done or row["event"]]
        text = io.StringIO()
        out = csv.DictWriter(text, COLUMNS)
        out.writeheader()
        out.writerows(rows)
        with staged(self._path, text.getvalue().encode(), force=True):
            pass
        if self._open_board is not None:
            self.close()
            self._board = self._open_board(done)

    def report(self, entry: Entry) -> None:
        """Record a row."""
        now = time.monotonic()
        step_s = (now - self._mark[0]) / max(1, entry.step - self._mark[1])
        self._mark = (now, entry.step)
        speed = self._pixels / max(step_s, 1e-9)
        shown = "" if entry.validation is None else f"{entry.validation:.4f}"
        self._append([entry.step, f"{entry.train:.4f}", shown, f"{entry.rate:.3g}", round(speed), ""])
        self.say(
            f"step {entry.step:6d}/{self._steps}  train {entry.train:.4f}  validation {shown or '-':>6}  "
            f"rate {entry.rate:.2e}  {speed / 1e3:.1f} k pixels/s  {_time((self._steps - entry.step) * step_s)} left"
        )
        if self._board is not None:
            self._board.add_scalar("bits_per_dim/train", entry.train, entry.step)
            self._board.add_scalar("rate", entry.rate, entry.step)
            if entry.validation is not None:
                self._board.add_scalar("bits_per_dim/validation", entry.validation, entry.step)

    def event(self, step: int, text: str) -> None:
        """Record something that a person should know of."""
        self._append([step, "", "", "", "", text])
        self.say(text)

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._board is not None:
            self._board.close()

    def _append(self, row: list[Any]) -> None:
        try:
            with self._path.open("a", newline="") as handle:
                csv.writer(handle).writerow(row)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from None


def tensorboard(folder: Path) -> Callable[[int], Any]:
    """What opens a writer of TensorBoard's files after so many steps; those of later steps are dropped, as in log.csv.

    Raises UsageError where the package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("--tensorboard needs tensorboard: install pixzip[tensorboard]") from None
    return lambda done: SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
