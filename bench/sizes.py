"""One photograph → seconds a megapixel and peak memory of coding, from 0.1 to 50 megapixels.

    python bench/sizes.py PICTURE [--megapixels 0.1,0.4,1,4] [--model NAME] [--threads N] [--repeats N] [--plots PREFIX]

Pictures of every size are made of one: crops of 96 to 384 pixels from anywhere in it, mirrored and turned at random by
a seed, side by side. Each size has a process of its own, which codes a small picture first, so that nothing is compiled
in the time that counts. Seconds are medians over --repeats of encoding and decoding pixels in memory, without files;
verified. Peak memory is the whole process's, resident. --plots draws both against the size, PREFIX-cost.svg and
PREFIX-memory.svg.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixzip import codec
from pixzip.benchmark.plots import Figure, around
from pixzip.model.file import find_model

_ENCODE, _DECODE = "#1f6fb4", "#c2571a"


def photograph(source: NDArray[np.uint8], megapixels: float, seed: int = 0) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) of about so many megapixels, 3:2, made of pieces of a photograph (h, w, 3)."""
    random = np.random.default_rng(seed)
    height = max(1, round((megapixels * 1e6 / 1.5) ** 0.5))
    width = round(height * 1.5)
    out = np.empty((height, width, 3), dtype=np.uint8)
    y = 0
    while y < height:
        side = min(int(random.integers(96, 385)), *source.shape[:2])
        for x in range(0, width, side):
            top, left = (int(random.integers(0, size - side + 1)) for size in source.shape[:2])
            piece = source[top : top + side, left : left + side]
            piece = np.rot90(piece[:, :: random.choice((-1, 1))], int(random.integers(4)))
            out[y : y + side, x : x + side] = piece[: height - y, : width - x]
        y += side
    return out


def pixels_of(picture: Path) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) of an image file."""
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


def measure(picture: Path, megapixels: float, model_name: str, threads: int, repeats: int) -> dict[str, float]:
    """Run in the child process: seconds of encoding and decoding, bytes, peak resident MiB."""
    model, source = find_model(model_name), pixels_of(picture)
    small, large = (photograph(source, size).transpose(2, 0, 1)[None] for size in (0.01, megapixels))
    encode_s, decode_s = [], []
    for planes in (small, *[large] * repeats):
        start = time.perf_counter()
        encoded = codec.encode(model, planes, threads=threads)
        middle = time.perf_counter()
        decoded = codec.decode(model, encoded.tiles, planes.shape, **encoded.layout, threads=threads)
        decode_s.append(time.perf_counter() - middle)
        encode_s.append(middle - start)
        if not np.array_equal(decoded, planes):
            raise SystemExit("the pixels did not come back")
    return {
        "pixels": large[0, 0].size,
        "tiles": len(encoded.tiles),
        "encode_s": statistics.median(encode_s[1:]),
        "decode_s": statistics.median(decode_s[1:]),
        "bytes": sum(map(len, encoded.tiles)),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def draw(prefix: str, rows: list[dict[str, float]]) -> None:
    """Write the plots of all sizes."""
    sizes = [row["pixels"] / 1e6 for row in rows]
    costs = {
        (name, colour): [row[f"{name}_s"] / size for row, size in zip(rows, sizes, strict=True)]
        for name, colour in (("encode", _ENCODE), ("decode", _DECODE))
    }
    across = around(sizes, "megapixels", log=True)
    highest = [max(values) for values in zip(*costs.values(), strict=True)]
    cost = Figure(across, around(highest, "seconds a megapixel", zero=True))
    for (name, colour), values in costs.items():
        cost.line(list(zip(sizes, values, strict=True)), colour)
        for size, value in zip(sizes, values, strict=True):
            cost.dot((size, value), colour, f"{name}, {size:.2f} MP: {value:.2f} s/MP")
        cost.names([((sizes[-1], values[-1]), name)])
    peaks = [row["peak_mib"] for row in rows]
    memory = Figure(across, around(peaks, "peak memory, MiB", zero=True))
    memory.line(list(zip(sizes, peaks, strict=True)), _ENCODE)
    for size, peak in zip(sizes, peaks, strict=True):
        memory.dot((size, peak), _ENCODE, f"{size:.2f} MP: {peak:.0f} MiB")
    Path(f"{prefix}-cost.svg").write_text(as_file(cost.svg("seconds a megapixel against size")))
    Path(f"{prefix}-memory.svg").write_text(as_file(memory.svg("peak memory against size")))


def as_file(svg: str) -> str:
    """A drawing as a document of its own."""
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


@click.command()
@click.argument("picture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--megapixels", default="0.1,0.4,1,4", show_default=True, help="Sizes, separated by commas.")
@click.option("--model", default="default")
@click.option("--threads", default=2)
@click.option("--repeats", default=3)
@click.option("--plots", help="Where plots go: the beginning of their names.")
@click.option("--child", is_flag=True, help="Measure one size in this process and print JSON.")
def main(
    picture: Path, megapixels: str, model: str, threads: int, repeats: int, plots: str | None, child: bool
) -> None:
    """Measure pictures made of PICTURE."""
    sizes = [float(size) for size in megapixels.split(",")]
    if child:
        print(json.dumps(measure(picture, sizes[0], model, threads, repeats)))
        return
    print(f"{threads} threads, medians of {repeats}\n")
    print("| megapixels | tiles | bits/dim | encode, s/MP | decode, s/MP | peak, MiB |")
    print("|---:|---:|---:|---:|---:|---:|")
    rows = []
    for size in sizes:
        options = ["--megapixels", str(size), "--model", model, "--threads", str(threads), "--repeats", str(repeats)]
        command = [sys.executable, __file__, str(picture), "--child", *options]
        r = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(r)
        mp = r["pixels"] / 1e6
        print(
            f"| {mp:.2f} | {r['tiles']} | {8 * r['bytes'] / (3 * r['pixels']):.3f} | {r['encode_s'] / mp:.2f} "
            f"| {r['decode_s'] / mp:.2f} | {r['peak_mib']:.0f} |",
            flush=True,
        )
    if plots is not None:
        draw(plots, rows)


if __name__ == "__main__":
    main()
