"""Photographs → bits/dim at several rates of learning.

    python bench/learning.py FOLDER [--model NAME] [--rates 0,4,8,16] [--size N] [--aged]

Every picture, or its centre square of N pixels, is coded at each rate (row bits, headers not counted); the saving is
over the first rate, with a bootstrap interval over pictures. --aged codes the pictures with grain and with chroma at
half the resolution (pixzip/data/augment.py), as scans, video and JPEG leave them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from pixzip import codec, evaluate
from pixzip.data.augment import aged
from pixzip.model.file import find_model

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def picture(path: Path, size: int | None, age: bool) -> Pixels:
    """Planes (1, 3, h, w) of an image file."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    if size is not None:
        top, left = ((side - size) // 2 for side in pixels.shape[:2])
        if min(top, left) < 0:
            raise SystemExit(f"{path}: smaller than {size} x {size}")
        pixels = pixels[top : top + size, left : left + size]
    if age:
        pixels = aged(pixels, np.random.default_rng(0), 1.0, 1.0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", default="default")
@click.option("--rates", default="0,4,8,16", help="The first is what the others are compared with.")
@click.option("--size", default=None, type=int, help="Side of a centre square.")
@click.option("--aged", "age", is_flag=True, help="Add grain, halve chroma.")
@click.option("--threads", default=2)
def main(folder: Path, model: str, rates: str, size: int | None, age: bool, threads: int) -> None:
    """Code the pictures of FOLDER."""
    network, tried = find_model(model), [int(rate) for rate in rates.split(",")]
    rows = []
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".png", ".webp")):
        planes = picture(path, size, age)
        coded = [codec.encode(network, planes, learning=rate, threads=threads) for rate in tried]
        rows.append([each.row_bits / planes.size for each in coded])
        print(f"{path.name:40}" + "".join(f" {bits:8.4f}" for bits in rows[-1]), flush=True)
    bits = np.array(rows)
    for k, rate in enumerate(tried):
        saving = 100 * (1 - bits[:, k] / bits[:, 0])
        low, high = evaluate.bootstrap(saving)
        print(
            f"rate {rate:3}: {bits[:, k].mean():.4f} bits/dim, saving {saving.mean():.2f} % ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
