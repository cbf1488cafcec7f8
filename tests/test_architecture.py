"""docs/architecture.md: every part of the package is in its table and imports from the rows below its own only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import pixzip

PACKAGE = Path(pixzip.__file__).parent
ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def rows_of(text: str) -> dict[str, int]:
    """Module or folder → its row of the table, 0 the topmost."""
    first = text.partition("|---|---|\n")[2].partition("\n\n")[0].splitlines()
    return {name: i for i, line in enumerate(first) for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


def part_of(module: str) -> str:
    """The part of the package that `pixzip.a.b` belongs to, as the table names it; of public names `__init__.py`."""
    words, rows = module.split(".")[1:], rows_of(TEXT)
    for length in range(len(words), 0, -1):
        path = "/".join(words[:length])
        for name in (f"{path}/", f"{path}.py"):
            if name in rows:
                return name
    assert len(words) < 2, f"{module} is in no part of the table"
    return "__init__.py"


def imports(source: str) -> set[str]:
    """Parts of pixzip that a module imports anywhere; `from pixzip import name` counts as the module of that name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        assert not (isinstance(node, ast.ImportFrom) and node.level), "a relative import"
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "pixzip":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "pixzip"}
    return {part_of(module) for module in found}


def upward(rows: dict[str, int], sources: dict[str, str]) -> list[str]:
    """Imports from a part's own row, but within itself, or from a row above it."""
    found = []
    for path, source in sources.items():
        own = part_of(module_of(path))
        others = sorted(imports(source) - {own})
        found += [f"{path} imports {other}" for other in others if rows[other] <= rows[own]]
    return found


def sources() -> dict[str, str]:
    paths = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    return {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def module_of(path: str) -> str:
    return "pixzip." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_every_part_of_the_package_is_in_the_table() -> None:
    bare = {path for path in sources() if path.endswith("/__init__.py")}
    assert rows_of(TEXT).keys() == {part_of(module_of(path)) for path in sources().keys() - bare} | {"__init__.py"}


def test_imports_go_down_only() -> None:
    assert upward(rows_of(TEXT), sources()) == []


def test_an_import_upwards_or_sideways_is_found() -> None:
    planted = {
        "coding/entropy.py": "def f():\n    from pixzip.runtime.kernels import x",
        "runtime/stack/steps.py": "from pixzip.runtime.trunk import layers",
        "model/file.py": "from pixzip import codec",
        "errors.py": "import pixzip.reports",
        "work.py": "from pixzip import Picture",
        "commands/info.py": "from pixzip import __version__, api\nfrom pixzip.commands.each import x",
    }
    assert upward(rows_of(TEXT), planted) == [
        "coding/entropy.py imports runtime/kernels.py",
        "runtime/stack/steps.py imports runtime/trunk/",
        "model/file.py imports codec.py",
        "errors.py imports reports.py",
        "work.py imports __init__.py",
    ]


# ------------------------------------------------------------------------ what loads what


def loaded_after(modules: list[str]) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after importing these."""
    script = f"import sys, {', '.join(modules)}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_reading_pictures_models_and_files_loads_neither_torch_nor_numba() -> None:
    folders = ("formats/", "model/", "pxz/")
    assert ", ".join(f"`{folder}`" for folder in folders) in TEXT
    modules = [f"pixzip.{path.removesuffix('.py').replace('/', '.')}" for path in sources() if path.startswith(folders)]
    assert len(modules) > 15 and not {"torch", "numba"} & loaded_after(modules)
    assert "numba" in loaded_after(["pixzip.codec"])


def test_only_the_learning_half_and_the_device_need_torch() -> None:
    """Modules that import torch when they are loaded."""
    found = {
        path for path, source in sources().items() for node in ast.parse(source).body
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "torch" for alias in node.names)
    }  # fmt: skip
    folders = ("nets/", "freezing/", "training/", "runtime/device/")
    assert found and all(path.startswith(folders) for path in found)


# ------------------------------------------------------------------------ names in prose


def places() -> dict[str, str]:
    """Documents and sources, by where they are."""
    paths = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    paths += [path for folder in (ROOT / "tests", ROOT / "bench") for path in folder.rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): path for path in paths if path != Path(__file__)}
    found |= {f"pixzip/{path.relative_to(PACKAGE).as_posix()}": path for path in PACKAGE.rglob("*.py")}
    return {place: path.read_text(encoding="utf-8") for place, path in found.items()}


def dangling(text: str) -> set[str]:
    """Paths of modules, and dotted names of modules, that are not there."""
    paths = re.findall(r"pixzip/[\w/]+\.(?:py|toml)", text)
    gone = {path for path in paths if not (PACKAGE.parent / path).is_file()}
    dotted = set(re.findall(r"(?<![\w./-])pixzip(?:\.[a-z_]+)+(?![\w/])", text))
    return gone | {name for name in dotted - NO_MODULES if not is_there(name)}


#: A name that a test asks for in vain, the end of a file's name, a module of the first commits (bench/first_loop.py).
NO_MODULES = {"pixzip.no_such_name", "pixzip.magic", "pixzip.train"}


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or begins with one, or is a public name."""
    words = name.split(".")
    if words[1] in dir(pixzip) or words[1].startswith("__") or words[1:] in (["png"], ["toml"]):
        return True
    if not (PACKAGE / words[1]).is_dir():
        return (PACKAGE / f"{words[1]}.py").is_file()
    return len(words) == 2 or find_spec(".".join(words[:3])) is not None


@pytest.mark.parametrize("place", sorted(places()))
def test_modules_that_documents_and_sources_name_are_there(place: str) -> None:
    assert dangling(places()[place]) == set()


def test_a_name_that_is_gone_is_found() -> None:
    text = (
        "`pixzip/stack_model.py`, pixzip/coding/entropy.py, pixzip.entropy.take, pixzip.coding.frame, pixzip.coding.png"
    )
    assert dangling(text) == {"pixzip/stack_model.py", "pixzip.entropy.take", "pixzip.coding.png"}
