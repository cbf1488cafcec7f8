"""The `raise`s of file readers that were reached: noted in every process of the suite, compared in the end."""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
import pytest

import pixzip
from pixzip.errors import PixzipError

PACKAGE = Path(pixzip.__file__).parent
#: Modules that read what others made: every raise in them is reached by a test of the suite.
READERS = ("api", "contents", "codec", "keywords", "coding/entropy", "coding/stored", "coding/deep")
READERS += ("pxz/container", "pxz/names", "pxz/remains")
_FORMATS = ("image", "png", "foreign", "pnm", "tiff", "deep_tiff", "strips", "directories", "fax", "segments")
READERS += tuple(f"formats/{name}" for name in _FORMATS)
READERS += tuple(f"model/{name}" for name in ("file", "checks", "stack", "multiscale"))
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


class Law:
    """A pytest plugin: a run of all tests in a folder fails where a reader has a refusal that none of them reached.

    With pytest-xdist every worker hands on what it reached, and the process that started them compares.
    """

    def __init__(self, folder: Path) -> None:
        self.wanted = {path.name for path in folder.glob("test_*.py")}
        self.collected: set[str] = set()
        self.left: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.collected |= {item.path.name for item in session.items}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """In the process that started it: what a worker of pytest-xdist hands on, nothing if it was killed."""
        handed = getattr(node, "workeroutput", {})
        self.collected |= set(handed.get("collected", []))
        reached.update(map(tuple, handed.get("reached", [])))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput |= {"collected": sorted(self.collected), "reached": sorted(reached)}
            return
        option = session.config.option
        chosen = (
            option.keyword or option.markexpr or option.deselect or any("::" in word for word in session.config.args)
        )
        if session.exitstatus != pytest.ExitCode.OK or chosen or self.wanted - self.collected or not find_spec("torch"):
            return
        self.left = [line for module in READERS for line in unreached(module, reached)]
        if self.left:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.left:
            terminalreporter.section("refusals that no test reaches", red=True)
            terminalreporter.write_line("\n".join(self.left))
