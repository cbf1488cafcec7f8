"""Measurements ↔ lines of a file, so that a run that was cut off goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixzip.errors import OutputError


class Journal:
    """What was measured, by all that decides about it: pictures, codec, settings, versions, machine.

    A line of the file is {"key": {...}, "value": {...}}. Lines that are cut off or damaged are measured again. Raises
    OutputError where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        self.made = self.reused = 0  # by once
        if path.exists():
            for line in path.read_text(errors="replace").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self._known[_name(entry["key"])] = entry["value"]
        except (ValueError, KeyError, TypeError):
            return

    def once(self, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured under this key, measured now if it was not; what make raises is raised."""
        name = _name(key)
        if name not in self._known:
            value = make()
            self._append(json.dumps({"key": key, "value": value}))
            self._known[name] = value
            self.made += 1
        else:
            self.reused += 1
        return self._known[name]

    def _append(self, line: str) -> None:
        try:
            with self._path.open("a+b") as file:
                end = file.seek(0, 2)
                file.seek(max(0, end - 1))
                whole = end == 0 or file.read(1) == b"\n"  # an earlier run may have been cut off within a line
                file.write((("" if whole else "\n") + line + "\n").encode())
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from None


def _name(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
