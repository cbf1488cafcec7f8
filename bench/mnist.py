"""Test pictures of binarised MNIST → bits of a model, of rows, payload and file, together in one file and each alone.

    python bench/mnist.py MODEL FOLDER [--count 500] [--alone 100]

FOLDER as for binary-mnist/test (docs/training.md). The test pictures are sorted by class, so COUNT of them are taken
evenly from all. Every file is decoded and compared.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

import pixzip
from pixzip import codec
from pixzip.benchmark.anatomy import anatomy
from pixzip.data.cache import default_cache, load_pictures
from pixzip.evaluate import plane_bits
from pixzip.formats.image import from_array
from pixzip.model.file import find_model


def line(name: str, bits: float, pictures: int) -> None:
    """Bits of all pictures, as bits and nats a picture."""
    print(
        f"{name:<24}{bits:12.1f} bits  {bits / pictures:9.3f} bits a picture  {bits / pictures * np.log(2):8.3f} nats"
    )


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--count", type=int, default=500)
@click.option("--alone", type=int, default=100, help="So many of them also each in a file of its own.")
@click.option("--threads", type=int, default=1)
def main(model: str, folder: Path, count: int, alone: int, threads: int) -> None:
    """Code, decode, compare, count."""
    found = find_model(model)
    test = load_pictures(f"binary-mnist/test:{folder}", default_cache(), lambda text: None)
    chosen = np.linspace(0, len(test), count, endpoint=False).astype(int)
    pixels = np.stack([np.asarray(test[int(i)])[..., :1] for i in chosen]).transpose(0, 3, 1, 2)
    pixels = np.ascontiguousarray(pixels)  # (n, 1, h, w) of 0 and 1
    pictures = [from_array(picture[0].astype(bool)) for picture in pixels]
    print(
        f"{found.name}, {len(found.data)} bytes, digest {found.digest[:8].hex()}: {count} of {len(test)} test pictures"
    )
    line("model bits", float(plane_bits(found, pixels, threads=threads).sum()), count)
    line("row bits", codec.encode(found, pixels, depth=1, threads=threads).row_bits, count)
    together = pixzip.compress_batch(pictures, model=model, threads=threads)
    again = pixzip.decompress_batch(together, model=model, threads=threads)
    assert all((a.planes == b.planes).all() for a, b in zip(again, pictures, strict=True)), "decoded pictures differ"
    parts = anatomy(together)
    line("payload, one file", 8.0 * (parts["words"] + parts["lane_table"]), count)
    line("one file", 8.0 * len(together), count)
    sizes = []
    for picture in pictures[:: max(1, count // alone)][:alone]:
        data = pixzip.compress(picture, model=model, threads=threads)
        assert (pixzip.decompress(data, model=model, threads=threads).planes == picture.planes).all(), "differs"
        sizes.append(len(data))
    line(f"{len(sizes)} files of one", 8.0 * sum(sizes), len(sizes))


if __name__ == "__main__":
    main()
