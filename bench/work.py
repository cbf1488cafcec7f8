"""Seconds of coding against the work that pixzip.work counts, for shapes from one column to a photograph's.

    python bench/work.py [MODEL ...] [--photo PNG]

The photograph's pixels are wrapped into each shape. The last column is seconds over the work, in seconds for 10^12
multiply-accumulates; where it is small, the work is reckoned higher than it is.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from pixzip.codec import decode, encode
from pixzip.memory import Extent
from pixzip.model.file import find_model
from pixzip.work import work_of

_PHOTO = Path(__file__).parents[1] / "examples" / "photo.png"
#: (width, height, tile) for networks that a shipped model has, and for the paper's, whose runtime is slower.
SHAPES = {
    True: ((40, 40, 1), (1, 4000, 1024), (4, 4000, 1024), (16, 4000, 1024), (64, 2000, 1024), (768, 512, 1024)),
    False: ((20, 20, 1), (1, 1000, 1024), (32, 32, 1024), (200, 50, 1024)),
}


@click.command()
@click.argument("models", nargs=-1)
@click.option("--photo", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=_PHOTO)
def main(models: tuple[str, ...], photo: Path) -> None:
    """Print the table."""
    with Image.open(photo) as file:
        samples = np.asarray(file.convert("RGB")).reshape(-1, 3)
    print(
        f"{'model':32} {'width':>6} {'height':>6} {'tile':>5} {'work':>8} {'encode':>8} {'decode':>8} {'s / 1e12':>9}"
    )
    for name in models or ("default", "fast"):
        model = find_model(name)
        binary = model.network.pictures == "binary"
        for width, height, tile in SHAPES[hasattr(model.network, "blocks")]:
            pixels = np.resize(samples, (1, height, width, 3)).transpose(0, 3, 1, 2)
            if binary:
                pixels = pixels[:, :1] >> 7
            pixels, depth = np.ascontiguousarray(pixels), 1 if binary else 8
            encode(model, pixels[:, :, :8], depth=depth, tile=tile)  # compiles
            started = time.perf_counter()
            coded = encode(model, pixels, depth=depth, tile=tile)
            encoded = time.perf_counter()
            decoded = decode(model, coded.tiles, pixels.shape, depth=depth, **coded.layout)
            ended = time.perf_counter()
            assert np.array_equal(decoded, pixels)
            encode_s, decode_s = encoded - started, ended - encoded
            work = work_of(model.network, Extent(1, 3, height, width, 1).blocks(tile))
            rate = max(encode_s, decode_s) / work * 1e12
            shape = f"{model.name:32.32} {width:6} {height:6} {tile:5}"
            print(f"{shape} {work:8.2g} {encode_s:8.2f} {decode_s:8.2f} {rate:9.2f}")


if __name__ == "__main__":
    main()
