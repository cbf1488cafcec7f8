"""Which `raise` of the modules that read files were reached in this session: conftest notes them, one test compares."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import FrameType

import hypothesis

import pixzip
from pixzip.errors import PixzipError

PACKAGE = Path(pixzip.__file__).parent
#: (module's name, line) of the frames where an error of pixzip's was made.
reached: set[tuple[str, int]] = set()
#: Frames above the one that makes an error: `_check_range` calls `_require`, which raises.
_DEPTH = 4


def note() -> None:
    """From now on note where errors are made, but for the random inputs of hypothesis, which differ from run to run."""

    def noting(self: PixzipError, *arguments: object) -> None:
        Exception.__init__(self, *arguments)
        if hypothesis.currently_in_test_context():
            return
        frame: FrameType | None = sys._getframe(1)
        for _ in range(_DEPTH):
            if frame is None:
                return
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(PACKAGE):
                reached.add((path.relative_to(PACKAGE).with_suffix("").as_posix(), frame.f_lineno))
            frame = frame.f_back

    PixzipError.__init__ = noting  # type: ignore[method-assign]


def sites(source: str) -> list[tuple[range, str]]:
    """Lines and text of every place that raises an error of pixzip's: `raise XError(...)`, `_require(...)`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            made = ast.unparse(node.exc.func)
            ours = made.endswith("Error") and hasattr(pixzip.errors, made)
        else:
            ours = isinstance(node, ast.Call) and ast.unparse(node.func) == "_require"
        if ours:
            found.append((range(node.lineno, (node.end_lineno or node.lineno) + 1), ast.unparse(node)))
    return found


def unreached(module: str, seen: set[tuple[str, int]]) -> list[str]:
    """The places in a module that are not among those seen."""
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    return [
        f"{module}.py:{lines[0]}: {text}"
        for lines, text in sites(source)
        if not any((module, line) in seen for line in lines)
    ]
