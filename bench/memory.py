"""One photograph → memory that whole commands take by size, beside the bound that --max-memory reckons with.

    python bench/memory.py PICTURE [--megapixels 0.1,0.4,1,4,10] [--model NAME] [--threads N] [--runs N]

Pictures are made as in bench/sizes.py. Each command is a process of its own; its peak is the largest resident size that
the system saw, in the last of --runs: the first may compile, which takes up to 300 MiB for itself. "least" is the
command once more, with --max-memory the least that it does not refuse: one tile at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from sizes import photograph, pixels_of

from pixzip.api import need_to_compress, need_to_decompress
from pixzip.formats.image import from_array, write_image
from pixzip.memory import MIB, Need
from pixzip.model.file import find_model


def peak_mib(runs: int, *arguments: str) -> float:
    """Largest resident size of a pixzip command, of its last run."""
    for _ in range(runs):
        process = subprocess.Popen([sys.executable, "-m", "pixzip", *arguments])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"pixzip {' '.join(arguments)}: exit code {process.returncode}")
    return usage.ru_maxrss / 1024


def least_mib(need: Need) -> int:
    """The least --max-memory, in MiB."""
    return -(-need.bytes() // MIB)


@click.command()
@click.argument("picture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--megapixels", default="0.1,0.4,1,4,10", show_default=True, help="Sizes, separated by commas.")
@click.option("--model", default="default")
@click.option("--threads", default=2)
@click.option("--runs", default=2)
def main(picture: Path, megapixels: str, model: str, threads: int, runs: int) -> None:
    """Measure pictures made of PICTURE."""
    source, how = pixels_of(picture), ["--model", model, "--threads", str(threads), "--force", "-q"]
    print(f"{threads} threads; MiB\n")
    print("| megapixels | compress | least | bound | decompress | least | bound |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for size in map(float, megapixels.split(",")):
            image, coded = Path(folder) / "a.png", Path(folder) / "a.pxz"
            pixels = photograph(source, size)
            image.write_bytes(write_image(from_array(pixels), "PNG"))
            need = need_to_compress([image.read_bytes()], find_model(model), tile=1024, max_pixels=2**31)
            row = [peak_mib(runs, "compress", str(image), *how)]
            row += [
                peak_mib(runs, "compress", str(image), *how, "--max-memory", f"{least_mib(need)}M"),
                least_mib(need),
            ]
            need = need_to_decompress(coded.read_bytes(), model=model, max_pixels=2**31)
            row += [peak_mib(runs, "decompress", str(coded), *how)]
            row += [
                peak_mib(runs, "decompress", str(coded), *how, "--max-memory", f"{least_mib(need)}M"),
                least_mib(need),
            ]
            print(f"| {pixels[..., 0].size / 1e6:.2f} | {' | '.join(f'{mib:.0f}' for mib in row)} |", flush=True)


if __name__ == "__main__":
    main()
