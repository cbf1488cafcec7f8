"""Compress a photograph, decompress it, compare the pixels, and print its size beside PNG's and WebP's."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

from PIL import Image

import pixzip


def bytes_as(image: Image.Image, image_format: str, **options: object) -> int:
    """Size of the file that Pillow writes."""
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return len(out.getvalue())


def main(path: Path) -> None:
    """Do as the module says, for one image file."""
    source = path.read_bytes()
    picture = pixzip.read_image(source)
    print(f"{path.name}: {picture.width} x {picture.height} pixels; the first run also compiles, for some seconds")
    start = time.perf_counter()
    coded = pixzip.compress(source)
    middle = time.perf_counter()
    decoded = pixzip.decompress(coded)
    end = time.perf_counter()
    if not decoded.same_pixels(picture):
        sys.exit("the pixels differ: please report this")
    print(f"compressed in {middle - start:.1f} s, decompressed in {end - middle:.1f} s, pixels identical")
    image = pixzip.to_pil(picture)
    image.info.clear()  # metadata is no part of the comparison
    sizes = {
        "PNG, optimised": bytes_as(image, "PNG", optimize=True),
        "WebP lossless, quality 100, method 6": bytes_as(
            image, "WEBP", lossless=True, exact=True, quality=100, method=6
        ),
        "pixzip": len(coded),
    }
    for name, size in sizes.items():
        print(f"{size:>9} bytes  {100 * size / sizes['PNG, optimised']:5.1f} %  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("photo.png"))
