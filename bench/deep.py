"""16-bit pictures → bytes by PNG, JPEG XL and pixzip, one line each; each .pxz file is decoded and compared first.

    python bench/deep.py PATH ... [--made 4] [--model NAME]
    python bench/deep.py PATH --speed

PATH: PNG files, or folders of them. Those of 16 bits a sample are taken as they are: the decoded picture is written as
PNG and compared by pypng. With --made N, pictures of 8 bits are taken instead, and of each three 16-bit ones are made:
light (linear intensities) of N x N pixels averaged, as 16 bits of light; the same by sRGB's curve; and that cut to 12
bits, times 16, as many cameras and scanners store them.

Columns: PNG is what pixzip stored such pictures as before version 3 of its format, with the header; JPEG XL is libjxl,
lossless, effort 7, by imagecodecs (`pip install imagecodecs`), "-" without it; own is pixzip without a model; model is
with it, and low the part of that which is low bytes; file is what `pixzip compress` writes, with metadata: the smallest
of PNG, own and model. The last line says for how many pictures the shorter of own and model is below JPEG XL.

--speed: nanoseconds of processor time a sample of pixzip's own coder on the first picture of 8 bits, each pixel as 16.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import png
from numpy.typing import NDArray
from PIL import Image

import pixzip
from pixzip import api, contents
from pixzip.coding import deep
from pixzip.coding.halves import halves
from pixzip.formats.png import Png, write_png
from pixzip.keywords import rate_of
from pixzip.model.file import find_model
from pixzip.pxz.container import PNG, Coding, write_container

COLUMNS = ("PNG", "JPEG XL", "own", "model", "low", "file")
COLOURS = {"L": 0, "LA": 4, "RGB": 2, "RGBA": 6}


def light(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Intensities 0 to 1 of sRGB samples."""
    a = pixels / 255
    return np.where(a <= 0.04045, a / 12.92, ((a + 0.055) / 1.055) ** 2.4)


def curve(intensity: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB's curve, 0 to 1."""
    return np.where(intensity <= 0.0031308, intensity * 12.92, 1.055 * intensity ** (1 / 2.4) - 0.055)


def made_of(path: Path, by: int) -> Iterator[tuple[str, NDArray[np.uint16]]]:
    """Three 16-bit pictures of an 8-bit one: (kind, (h, w, 3))."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    h, w = pixels.shape[0] // by, pixels.shape[1] // by
    mean = light(pixels[: h * by, : w * by]).reshape(h, by, w, by, 3).mean(axis=(1, 3))
    yield "light", np.rint(65535 * mean).astype(np.uint16)
    curved = np.rint(65535 * curve(mean)).astype(np.uint16)
    yield "sRGB", curved
    yield "12 bits", curved & 0xFFF0


def by_jpeg_xl(picture: pixzip.Picture) -> int | None:
    """Bytes of lossless JPEG XL, effort 7; None where it cannot be written here."""
    if find_spec("imagecodecs") is None:
        return None
    import imagecodecs

    pixels = np.ascontiguousarray(pixzip.to_array(picture))
    coded = imagecodecs.jpegxl_encode(pixels, lossless=True, effort=7)
    if not np.array_equal(imagecodecs.jpegxl_decode(coded).reshape(pixels.shape), pixels):
        raise click.ClickException("JPEG XL gives back other pixels")
    return len(coded)


def sizes(picture: pixzip.Picture, source: bytes | None, model: str) -> dict[str, int | None]:
    """Bytes of every coding, as columns."""
    coded = pixzip.compress(picture, model=model, threads=1)
    back = pixzip.decompress(coded, threads=1)
    if not back.same_pixels(picture) or (source is not None and not same_png(source, pixzip.write_image(back, "PNG"))):
        raise click.ClickException("pixzip gives back other pixels")
    how = contents.How(1, None, None)
    planes, bare = picture.planes[None], replace(picture, metadata=())
    as_png = write_png(Png(picture.planes, COLOURS[picture.mode], 16))
    stored = contents.container_of(bare, planes, Coding.STORED, stored=(PNG, as_png))
    own = contents.as_stored(bare, planes, how)
    found = find_model(model)
    by_model = contents.as_coded(bare, planes, found, contents.Layout(1024, None, rate_of(found, None)), how)
    lengths = [len(write_container(c)) for c in (stored, own, by_model)]
    found = dict(zip(("PNG", "own", "model"), lengths, strict=True))
    low = sum(map(len, halves(by_model.tiles)[1]))
    return {"JPEG XL": by_jpeg_xl(picture), "file": len(coded), "low": low, **found}


def same_png(source: bytes, back: bytes) -> bool:
    """Whether two PNG files hold the same picture, by pypng."""

    def facts(data: bytes) -> tuple[Any, ...]:
        width, height, rows, info = png.Reader(bytes=data).read()
        return width, height, info["bitdepth"], info["planes"], [bytes(memoryview(row).cast("B")) for row in rows]

    return facts(source) == facts(back)


def pictures(paths: tuple[Path, ...], by: int | None) -> Iterator[tuple[str, str, pixzip.Picture, bytes | None]]:
    """(kind, name, picture, PNG file) of all."""
    files = [f for p in paths for f in (sorted(p.rglob("*.png")) if p.is_dir() else [p])]
    for path in files:
        if by is not None:
            for kind, pixels in made_of(path, by):
                yield kind, path.stem, api.from_array(pixels), None
            continue
        data = path.read_bytes()
        try:
            picture = pixzip.read_image(data)
        except pixzip.PixzipError:
            continue
        if picture.depth == 16:
            yield path.parent.name, path.stem, picture, data


def line(name: str, found: dict[str, int | None]) -> str:
    """A row of the table."""
    return f"{name:52}" + "".join(f"{'-' if found[c] is None else found[c]:>10}" for c in COLUMNS)


def measure(planes: NDArray[np.uint16]) -> None:
    """Print the best of three, with and without high bytes known."""
    high = (planes >> 8).astype(np.uint8)
    for name, known in (("low bytes", high), ("all 16 bits", None)):
        times = []
        for _ in range(3):
            start = time.process_time()
            data = deep.encode_with(planes, known is not None, [None] * planes.shape[1])
            middle = time.process_time()
            deep.decode_block(data, planes.shape, known)
            times.append((middle - start, time.process_time() - middle))
        encoding, decoding = (1e9 * min(t) / planes.size for t in zip(*times, strict=True))
        click.echo(f"{name}: {planes.shape}, encode {encoding:.0f} ns a sample, decode {decoding:.0f}")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--made", type=click.IntRange(1), help="Make 16-bit pictures of 8-bit ones, of N x N pixels each.")
@click.option("--model", default="default")
@click.option("--speed", is_flag=True, help="Measure the time of the first picture instead.")
def main(paths: tuple[Path, ...], made: int | None, model: str, speed: bool) -> None:
    """Print a line a picture, and sums of each kind."""
    if speed:
        _, _, picture, _ = next(pictures(paths, 1))
        measure(picture.planes[None])
        return
    wins: dict[str, list[bool]] = defaultdict(list)
    click.echo(f"{'':52}" + "".join(f"{c:>10}" for c in COLUMNS))
    sums: dict[str, dict[str, int | None]] = defaultdict(lambda: dict.fromkeys(COLUMNS, 0))
    for kind, name, picture, source in pictures(paths, made):
        found = sizes(picture, source, model)
        click.echo(line(f"{name} {picture.mode} {picture.width}x{picture.height}", found))
        if found["JPEG XL"] is not None:
            wins[kind].append(min(found["own"] or 0, found["model"] or 0) < found["JPEG XL"])
        for column, size in found.items():
            before = sums[kind][column]
            sums[kind][column] = None if size is None or before is None else before + size
    for kind, total in sums.items():
        click.echo(line(f"all of {kind}", total))
        click.echo(f"{'':52}below JPEG XL: {sum(wins[kind])} of {len(wins[kind])}")


if __name__ == "__main__":
    main()
