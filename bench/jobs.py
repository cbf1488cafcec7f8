"""A folder of pictures compressed by one process whose threads work on files side by side, and by as many processes.

    python bench/jobs.py FOLDER [--count 12] [--rounds 3]

Each of several processes has one thread and its share of the pictures. Whole commands, by turns, compiled code cached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click


def command(source: Path, target: Path, threads: int) -> list[str]:
    """Compress all pictures of a folder."""
    how = ["--threads", str(threads), "--no-verify", "--quiet"]
    return [sys.executable, "-m", "pixzip", "compress", "-r", str(source), "-o", str(target), *how]


def seconds(commands: list[list[str]]) -> float:
    """Of commands side by side, until the last has ended."""
    start = time.perf_counter()
    running = [subprocess.Popen(each) for each in commands]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit("a command failed")
    return time.perf_counter() - start


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", default=12, show_default=True, help="Pictures.")
@click.option("--rounds", default=3, show_default=True)
def main(folder: Path, count: int, rounds: int) -> None:
    """Print seconds and their ratio."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        for i, picture in enumerate(sorted(folder.glob("*.png"))[:count]):
            for name in ("all", f"part{i % cores}"):
                (top / name).mkdir(exist_ok=True)
                shutil.copy(picture, top / name)
        parts = [path.name for path in sorted(top.glob("part*"))]
        subprocess.run(command(top / parts[0], top / "first", 1), check=True)
        for i in range(rounds):
            one = seconds([command(top / "all", top / f"one{i}", cores)])
            each = seconds([command(top / part, top / f"several{i}" / part, 1) for part in parts])
            print(f"one process {one:.2f} s, {len(parts)} processes {each:.2f} s: {one / each:.3f}", flush=True)


if __name__ == "__main__":
    main()
