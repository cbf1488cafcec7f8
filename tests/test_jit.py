"""pixzip.jit: compiled functions are kept on disk, damaged files replaced, read-only folders lived with."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pixzip import jit

CODE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, kernel
assert kernel.double(np.arange(3)).tolist() == [0, 2, 4]
print(sum(kernel.double.stats.cache_hits.values()), kernel.double._cache.cache_path)
"""
KERNEL = """
from pixzip.jit import jit

@jit
def double(values):
    return 2 * values
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A module with one kernel."""
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "kernel.py").write_text(KERNEL)
    return tmp_path / "module"


def run(folder: Path, home: Path) -> tuple[int, Path]:
    """Call the kernel in a process of its own: how often it came from the disk, and where its cache is."""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(home), "HOME": str(home)}
    command = [sys.executable, "-c", CODE, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=120)
    hits, place = done.stdout.split(maxsplit=1)
    return int(hits), Path(place.strip())


def test_the_second_process_takes_machine_code_from_disk(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path)[0] == 0
    assert run(folder, tmp_path) == (1, folder / "__pycache__")


def test_damaged_cache_files_are_replaced(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path)
    for suffix in (".nbi", ".nbc"):
        for damage in ("cut", "empty", "flipped"):
            (path,) = (folder / "__pycache__").glob("*" + suffix)
            whole = path.read_bytes()
            middle = len(whole) // 2
            flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
            path.write_bytes({"cut": whole[:middle], "empty": b"", "flipped": flipped}[damage])
            assert run(folder, tmp_path)[0] == 0, (suffix, damage)
    assert run(folder, tmp_path)[0] == 1


def test_a_folder_that_cannot_be_written_sends_the_cache_to_the_users(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    (folder / "__pycache__").write_text("a file where the folder would be")
    home = tmp_path / "home"
    home.mkdir()
    hits, place = run(folder, home)
    assert (hits, home in place.parents) == (0, True)
    assert run(folder, home)[0] == 1


def test_without_any_folder_kernels_are_compiled_each_time(folder: Path, tmp_path: Path) -> None:
    (folder / "__pycache__").write_text("a file where the folder would be")
    home = tmp_path / "home"
    home.write_text("a file too")
    code = CODE.replace("kernel.double._cache.cache_path", "0")
    command = [sys.executable, "-c", code, str(folder)]
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(home), "HOME": str(home)}
    for _ in range(2):
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=120)
        assert done.stdout.split()[0] == "0"


def imported(path: Path, package: Path) -> set[Path]:
    """Modules of the package that a module imports when it is loaded."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    names = [f"{n.module}.{alias.name}" for n in nodes for alias in n.names if str(n.module).startswith(package.name)]
    places = {
        package.parent.joinpath(*name.split(".")[:cut]).with_suffix(".py") for name in names for cut in (-1, None)
    }
    return {place for place in places if place.is_file()}


def unstamped(package: Path, sources: tuple[str, ...]) -> set[str]:
    """Modules that compiled functions come from, or take numbers from, and that the stamp leaves out."""
    covered = {path for pattern in sources for path in package.glob(pattern)}
    reached: set[Path] = set()
    left = {path for path in package.rglob("*.py") if package / "jit.py" in imported(path, package)}
    while left:
        reached |= left
        left = {place for path in left for place in imported(path, package)} - reached
    return {path.relative_to(package).as_posix() for path in reached - covered}


def test_the_stamp_covers_what_compiled_functions_come_from() -> None:
    package = Path(jit.__file__).parent
    assert unstamped(package, jit.SOURCES) == set()
    fewer = tuple(pattern for pattern in jit.SOURCES if not pattern.startswith(("coding", "pxz")))
    assert {"coding/entropy.py", "pxz/container.py"} <= unstamped(package, fewer)


@pytest.mark.parametrize("arrays", [True, False])
def test_only_functions_that_count_references_make_arrays(folder: Path, tmp_path: Path, arrays: bool) -> None:
    kernel = f"from functools import partial\n{KERNEL}".replace("@jit", f"@partial(jit, arrays={arrays})")
    (folder / "kernel.py").write_text(kernel)
    if arrays:
        assert run(folder, tmp_path)[0] == 0
        return
    with pytest.raises(subprocess.CalledProcessError) as found:
        run(folder, tmp_path)
    assert "Only accept returning of array passed into the function" in found.value.stderr
