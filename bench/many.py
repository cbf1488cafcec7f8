"""One photograph → seconds of commands over many small pictures cut from it: one by one, all at once, and packed.

    python bench/many.py PICTURE [--side 64] [--count 48] [--model NAME] [--threads N]

Each command is timed whole, in the second of two runs, and decompressed pictures are compared.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from sizes import pixels_of

from pixzip.formats.image import from_array, read_image, write_image


def crops(pixels: NDArray[np.uint8], side: int, count: int) -> list[NDArray[np.uint8]]:
    """The first pieces (side, side, 3) in raster order."""
    tops, lefts = (range(0, size - side + 1, side) for size in pixels.shape[:2])
    return [pixels[y : y + side, x : x + side] for y in tops for x in lefts][:count]


def seconds(*arguments: str) -> float:
    """Wall time of a pixzip command, the second time."""
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pixzip", *arguments, "--force", "-q"], check=True)
        took_s = time.perf_counter() - start
    return took_s


@click.command()
@click.argument("picture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--side", default=64)
@click.option("--count", default=48)
@click.option("--model", default="default")
@click.option("--threads", default=2)
def main(picture: Path, side: int, count: int, model: str, threads: int) -> None:
    """Measure pictures cut from PICTURE."""
    how = ["--model", model, "--threads", str(threads)]
    pieces = crops(pixels_of(picture), side, count)
    with tempfile.TemporaryDirectory() as folder:
        images, coded, back = (Path(folder) / name for name in ("images", "coded", "back"))
        for each in (images, coded, back):
            each.mkdir()
        for i, piece in enumerate(pieces):
            (images / f"{i:05}.png").write_bytes(write_image(from_array(piece), "PNG"))
        packed, first = str(Path(folder) / "all.pxz"), images / "00000.png"
        took = {
            "compress, one file": seconds("compress", str(first), "-o", str(coded), *how),
            "compress, all": seconds("compress", str(images), "-o", str(coded), *how),
            "compress --pack": seconds("compress", str(images), "--pack", "-o", packed, *how),
            "decompress, one file": seconds("decompress", str(coded / "00000.pxz"), "-o", str(back), *how),
            "decompress, all": seconds("decompress", str(coded), "-o", str(back), *how),
            "decompress, packed": seconds("decompress", packed, "-o", str(back), *how),
        }
        for path, piece in zip(sorted(back.iterdir()), pieces, strict=True):
            if not read_image(path.read_bytes()).same_pixels(from_array(piece)):
                raise SystemExit(f"{path.name}: the pixels did not come back")
        sizes = sum(path.stat().st_size for path in coded.iterdir()), Path(packed).stat().st_size
    print(f"{len(pieces)} pictures of {side}x{side}, {threads} threads: {sizes[0]} bytes in files, {sizes[1]} packed")
    for command, took_s in took.items():
        a_picture = "" if "one" in command else f", {1000 * took_s / len(pieces):.1f} ms a picture"
        print(f"    {command:22}{took_s:6.2f} s{a_picture}")


if __name__ == "__main__":
    main()
