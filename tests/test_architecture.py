"""docs/architecture.md: every part of the package is in its table and imports from the rows below its own only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pixzip

PACKAGE = Path(pixzip.__file__).parent
TEXT = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")


def rows_of(text: str) -> dict[str, int]:
    """Module or folder → its row of the table, 0 the topmost."""
    first = text.partition("|---|---|\n")[2].partition("\n\n")[0].splitlines()
    return {name: i for i, line in enumerate(first) for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


def part_of(module: str) -> str:
    """The part of the package that `pixzip.a.b` belongs to, as the table names it."""
    words = module.split(".")
    if len(words) == 1:
        return "__init__.py"
    return f"{words[1]}/" if (PACKAGE / words[1]).is_dir() else f"{words[1]}.py"


def imports(source: str) -> set[str]:
    """Parts of pixzip that a module imports anywhere; `from pixzip import name` counts as the module of that name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "pixzip":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "pixzip"}
    return {part_of(module.removesuffix(".__version__")) for module in found}


def upward(rows: dict[str, int], sources: dict[str, str]) -> list[str]:
    """Imports from a part's own row, but within itself, or from a row above it."""
    found = []
    for path, source in sources.items():
        own = part_of("pixzip." + path.removesuffix(".py").replace("/", "."))
        others = sorted(imports(source) - {own})
        found += [f"{path} imports {other}" for other in others if rows[other] <= rows[own]]
    return found


def sources() -> dict[str, str]:
    paths = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    return {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_every_part_of_the_package_is_in_the_table() -> None:
    parts = {part_of("pixzip." + path.split("/")[0].removesuffix(".py")) for path in sources()}
    assert rows_of(TEXT).keys() == parts | {"__init__.py"}


def test_imports_go_down_only() -> None:
    assert upward(rows_of(TEXT), sources()) == []


def test_an_import_upwards_or_sideways_is_found() -> None:
    planted = {
        "coding/entropy.py": "def f():\n    from pixzip.runtime.kernels import x",
        "model/file.py": "from pixzip import codec",
        "errors.py": "import pixzip.reports",
        "commands/info.py": "from pixzip import __version__, api\nfrom pixzip.commands.each import x",
    }
    assert upward(rows_of(TEXT), planted) == [
        "coding/entropy.py imports runtime/",
        "model/file.py imports codec.py",
        "errors.py imports reports.py",
    ]
