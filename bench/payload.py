"""The first pictures of a source → bits/dim of a model, of its rows, and of the payload that all take as one block.

    python bench/payload.py MODEL SOURCE [--count 500]

SOURCE as `pixzip evaluate` takes it, its pictures of one size. Unlike a file, the payload is the model's even where
WebP would be shorter. It is decoded and compared.
"""

from __future__ import annotations

import click
import numpy as np

from pixzip import codec
from pixzip.data.cache import default_cache, load_pictures
from pixzip.evaluate import plane_bits
from pixzip.model.file import find_model


@click.command()
@click.argument("model")
@click.argument("source")
@click.option("--count", type=click.IntRange(1), default=500, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(model: str, source: str, count: int, threads: int) -> None:
    """Code, decode, compare, count."""
    found, pictures = find_model(model), load_pictures(source, default_cache())
    pixels = np.stack([pictures[i] for i in range(min(count, len(pictures)))]).transpose(0, 3, 1, 2)
    pixels, depth = np.ascontiguousarray(pixels), 1 if pictures.levels == 2 else 8
    bits = plane_bits(found, pixels, learning=0, threads=threads).sum()
    made = codec.encode(found, pixels, depth=depth, learning=0, threads=threads)
    again = codec.decode(found, made.tiles, pixels.shape, depth=depth, threads=threads, **made.layout)
    assert np.array_equal(again, pixels), "decoded pictures differ"
    payload = 8 * sum(map(len, made.tiles))
    shown = {"model bits": bits, "row bits": made.row_bits, "payload": payload}
    print(f"{found.name}, {len(pixels)} pictures: " + ", ".join(f"{k} {v / pixels.size:.4f}" for k, v in shown.items()))


if __name__ == "__main__":
    main()
