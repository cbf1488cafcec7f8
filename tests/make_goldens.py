"""Write tests/golden/: small pictures and the files that shipped models make of them, the default one but for thumb.

Run once for each released model or format version; files of earlier versions stay:

    python tests/make_goldens.py MODEL_LABEL [NAME ...]          all pictures, or those of these names
    python tests/make_goldens.py cifar10 thumb-32x32
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import pixzip

HERE = Path(__file__).parent
PHOTO = HERE.parent / "examples" / "photo.png"


def pictures() -> dict[str, tuple[Image.Image, int]]:
    """Name → picture and tile side."""
    photo = Image.open(PHOTO).convert("RGB")
    noise = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    with_alpha = photo.crop((200, 100, 224, 116)).convert("RGBA")
    with_alpha.putalpha(77)
    return {
        "photo-64x48": (photo.crop((100, 60, 164, 108)), 1024),
        "photo-8x6": (photo.crop((150, 90, 158, 96)), 1024),
        "photo-40x33-tile16": (photo.crop((30, 200, 70, 233)), 16),
        "gray-31x17": (photo.crop((300, 120, 331, 137)).convert("L"), 1024),
        "alpha77-24x16": (with_alpha, 1024),
        "noise-14x9": (Image.fromarray(noise), 1024),
        "one-pixel": (photo.crop((5, 5, 6, 6)), 1024),
        "thumb-32x32": (photo.crop((32, 0, 288, 256)).reduce(8), 1024),
    }


def deep_pictures() -> dict[str, tuple[pixzip.Picture, int]]:
    """Likewise of 16 bits a sample, which Pillow has no mode for: means of 2 x 2 pixels, a ramp with alpha."""
    photo = np.asarray(Image.open(PHOTO).convert("RGB"), dtype=np.uint32)
    mean = 16448 * photo.reshape(photo.shape[0] // 2, 2, photo.shape[1] // 2, 2, 3).sum(axis=(1, 3)) >> 8
    planes = mean.astype(np.uint16).transpose(2, 0, 1)
    ramp = np.add.outer(2000 * np.arange(11), 301 * np.arange(15)).astype(np.uint16)
    return {
        "photo16-40x33": (pixzip.Picture(planes[:, 30:63, 60:100].copy(), "RGB", 16), 1024),
        "photo16-8x6": (pixzip.Picture(planes[:, 45:51, 75:83].copy(), "RGB", 16), 1024),
        "ramp16-15x11": (pixzip.Picture(np.stack([ramp, ramp[::-1] // 3]), "LA", 16), 1024),
    }


def main(label: str, *names: str) -> None:
    """Write PNG and .pxz of every picture."""
    folder = HERE / "golden"
    folder.mkdir(exist_ok=True)
    for name, (image, tile) in (pictures() | deep_pictures()).items():
        if names and name not in names:
            continue
        if isinstance(image, Image.Image):
            image.save(folder / f"{name}.png")
        else:
            (folder / f"{name}.png").write_bytes(pixzip.write_image(image, "PNG"))
        model = "cifar10" if name.startswith("thumb") else "default"
        (folder / f"{name}.{label}.pxz").write_bytes(pixzip.compress(image, model=model, tile=tile, engine="float32"))


if __name__ == "__main__":
    main(*sys.argv[1:])
