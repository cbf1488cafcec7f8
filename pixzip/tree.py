"""A folder and all below it ↔ the same tree of results in another folder: what is where, what is done, what it came to.

A result that is there, and not older than its source, is done: results get their names when they are whole
(pixzip/files.py), so that a command that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixzip.errors import OutputError, UsageError


def names_below(root: Path) -> tuple[list[Path], dict[Path, str]]:
    """(all in a folder and the folders in it but these themselves, by name; folders that cannot be read, and why).

    What is hidden and what is below links to folders are left out. Raises UsageError where root cannot be read.
    """
    faults: dict[Path, str] = {}

    def fail(error: OSError) -> None:
        if Path(error.filename) == root:
            raise UsageError(f"folder {error.filename} cannot be read: {error.strerror}")
        faults[Path(error.filename)] = f"folder cannot be read: {error.strerror}"

    found = []
    for folder, subfolders, names in os.walk(root, onerror=fail):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found, faults


@dataclass(frozen=True)
class Tree:
    """A folder whose tree is mirrored in another, or in itself."""

    root: Path
    output: Path

    def target(self, file: str, suffix: str) -> Path:
        """Where the result for a file in the tree goes."""
        return (self.output / Path(file).relative_to(self.root)).with_suffix(suffix)


def tree_of(arguments: Sequence[str], output: str | None) -> Tree:
    """The tree that -r means. Raises UsageError for anything but one folder."""
    if len(arguments) != 1 or not os.path.isdir(arguments[0]):
        raise UsageError("-r takes one folder")
    if output == "-" or (output is not None and os.path.exists(output) and not os.path.isdir(output)):
        raise UsageError(f"-r needs a folder as output, not {output}")
    return Tree(Path(arguments[0]), Path(output or arguments[0]))


def make_folder(folder: Path) -> None:
    """Make a folder and those that it is in. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make folder {folder}: {error.strerror}") from None


def is_done(file: str, targets: Sequence[Path]) -> bool:
    """Whether all results for a file are there and none is older than it."""
    try:
        source = os.stat(file).st_mtime_ns
        return all(target.is_file() and target.stat().st_mtime_ns >= source for target in targets)
    except OSError:
        return False


@dataclass
class Tally:
    """What became of the files of one command; threads may count side by side."""

    command: str
    files: int
    worked: int = 0
    before: int = 0  # done by an earlier command
    passed_over: int = 0  # beside these files: by their suffixes, or no files
    read_bytes: int = 0
    written_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, read_bytes: int = 0, written_bytes: int = 0, *, before: bool = False) -> None:
        """One file is done, or was before."""
        with self._lock:
            self.before += before
            self.worked += not before
            self.read_bytes += read_bytes
            self.written_bytes += written_bytes

    def as_json(self) -> str:
        """One object; failed: neither done now nor before."""
        counts = {name: getattr(self, name) for name in ("command", "files", "worked", "before")}
        sizes = {"read_bytes": self.read_bytes, "written_bytes": self.written_bytes}
        rest = {"failed": self.files - self.worked - self.before, "passed_over": self.passed_over}
        return json.dumps(counts | rest | sizes)

    def __str__(self) -> str:
        """One line."""
        failed = self.files - self.worked - self.before
        share = f", {100 * self.written_bytes / self.read_bytes:.1f} %" if self.read_bytes else ""
        sizes = f": {self.read_bytes} -> {self.written_bytes} bytes{share}" if self.worked else ""
        return f"{self.files} files, {self.worked} done now, {self.before} before, {failed} not{sizes}"
