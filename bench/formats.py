"""A folder of image files of many kinds → each one coded, decoded and compared by readers that pixzip does not use.

    python bench/formats.py FOLDER [--model NAME]

PNG files are read by pypng (raw samples, depth, palette, tRNS), other files by Pillow. A file that pixzip refuses must
be refused with a PixzipError before anything is written. Sizes are compared with the reference of docs/format.md: the
lossless WebP (exact, quality 75, method 4) where Pillow and WebP can hold the picture, else the optimised PNG.
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
import png
from PIL import Image

import pixzip
from pixzip.container import read_container


def png_facts(data: bytes) -> tuple[Any, ...]:
    """(samples (h, w * planes), depth, planes, palette, transparency) as pypng reads a PNG file."""
    reader = png.Reader(bytes=data)
    _, _, rows, info = reader.read()
    samples = np.array([np.array(row, dtype=np.uint16) for row in rows])
    return samples, info["bitdepth"], info["planes"], reader.plte, reader.trns


def png_is_same(source: bytes, back: bytes) -> bool:
    """Whether two PNG files hold the same picture, by pypng."""
    a, b = png_facts(source), png_facts(back)
    return np.array_equal(a[0], b[0]) and a[1:] == b[1:]


def pillow_is_same(source: bytes, back: bytes) -> bool:
    """Whether two image files hold the same pixels, by Pillow, in RGBA or in 16 bits."""
    with Image.open(io.BytesIO(source)) as a, Image.open(io.BytesIO(back)) as b:
        mode = "I" if a.mode.startswith("I") else "RGBA"
        return a.size == b.size and a.convert(mode).tobytes() == b.convert(mode).tobytes()


def reference_bytes(picture: pixzip.Picture) -> int:
    """Size of the file that pixzip's must not exceed but for its fixed overhead."""
    bare = pixzip.write_image(pixzip.Picture(picture.planes, picture.mode, picture.depth, picture.palette), "PNG")
    if picture.depth != 8 or picture.mode not in ("L", "RGB", "RGBA") or max(picture.planes.shape[1:]) > 16383:
        return len(bare)
    out = io.BytesIO()
    pixzip.to_pil(picture).save(out, "WEBP", lossless=True, exact=True, quality=75, method=4)
    return len(out.getvalue())


def overhead_bytes(coded: bytes) -> int:
    """Header, chunk frames, metadata, palette and transparency: what a reference file is not charged for."""
    c = read_container(coded)
    chunks = sum(12 + len(key) + 1 + len(value) for key, value in c.metadata)
    return 80 + chunks + 12 + len(c.palette) + 12 + len(c.transparency)


def judge(path: Path, model: str) -> tuple[str, str]:
    """(verdict, detail) of one file."""
    data = path.read_bytes()
    try:
        picture = pixzip.read_image(data)
        coded = pixzip.compress(data, model=model)
    except pixzip.PixzipError as error:
        return "refused", str(error)
    back = pixzip.write_image(pixzip.decompress(coded, model=model), "PNG")
    try:
        same = png_is_same(data, back) if data.startswith(b"\x89PNG") else pillow_is_same(data, back)
    except png.Error as error:
        same = pillow_is_same(data, back)
        click.echo(f"{path.name}: pypng says {error}; compared by Pillow")
    if not same:
        return "DIFFERENT", ""
    how = "model" if read_container(coded).tiles else "stored"
    excess = len(coded) - overhead_bytes(coded) - reference_bytes(picture)
    return (how, f"{len(coded)} bytes") if excess <= 0 else ("LARGER", f"by {excess} bytes, coded {how}")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", default="default")
def main(folder: Path, model: str) -> None:
    """Judge every file below FOLDER."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in Image.registered_extensions()):
        verdict, detail = judge(path, model)
        counts[path.parent.name, verdict] += 1
        if verdict not in ("model", "stored"):
            click.echo(f"{verdict:10} {path.parent.name}/{path.name}: {detail}")
    for (kind, verdict), count in sorted(counts.items()):
        click.echo(f"{kind:20} {verdict:10} {count:4}")
    sys.exit(any(verdict in ("DIFFERENT", "LARGER") for _, verdict in counts))


if __name__ == "__main__":
    main()
