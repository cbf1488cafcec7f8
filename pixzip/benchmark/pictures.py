"""A folder of image files, or a known data set → named pictures of 8 bits a sample, or why there is none."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pixzip.benchmark.measure import Pixels
from pixzip.data.sources import UNREADABLE, open_source
from pixzip.errors import ImageError, PixzipError, UsageError
from pixzip.files import files_in, read_file
from pixzip.formats.image import read_image, to_pil

#: Image files that a folder is searched for.
SUFFIXES = (".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pnm")
#: Colour modes that are taken, and what is measured of them.
_AS = {"L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "P": "RGB"}
_THUMBNAIL_PX, _LEAST_PX = 220, 128

#: A picture's name, and the picture or what was wrong with it.
Found = tuple[str, Pixels | PixzipError]


def pictures_of(source: str, *, gray: bool, limit: int | None) -> Iterator[Found]:
    """The pictures of a folder (not of its subfolders), or of DATASET/PART:PLACE, at most ``limit``, in order.

    Alpha and metadata are left out. gray: turn them into 8-bit gray first (ITU-R 601-2 luma). Raises UsageError,
    TrainingDataError where there is no such source.
    """
    found = _in_folder(Path(source)) if Path(source).is_dir() else _in_data_set(source)
    for i, (name, picture) in enumerate(found):
        if i == limit:
            return
        if gray and not isinstance(picture, PixzipError) and picture.ndim == 3:
            picture = np.asarray(Image.fromarray(picture).convert("L"))
        yield name, picture


def count_of(source: str, limit: int | None) -> int | None:
    """How many pictures a folder has by its files; None of a data set."""
    if not Path(source).is_dir():
        return limit
    return len(_files(Path(source))[:limit])


def title_of(source: str) -> str:
    """The last part of a source's name: of no machine."""
    return source.partition(":")[0] if not Path(source).is_dir() else Path(source).resolve().name


def shown(source: str) -> str:
    """A source as commands in reports name it: without the machine's folders."""
    data_set, colon, place = source.partition(":")
    return title_of(source) if Path(source).is_dir() or not colon else f"{data_set}:{Path(place).resolve().name}"


def _files(folder: Path) -> list[Path]:
    files = [path for path in files_in(folder) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise UsageError(f"no files {', '.join(SUFFIXES)} in {folder}")
    return files


def _in_folder(folder: Path) -> Iterator[Found]:
    for path in _files(folder):
        try:
            yield path.name, _pixels(path)
        except PixzipError as error:
            yield path.name, error


def _pixels(path: Path) -> Pixels:
    """An image file as (h, w) or (h, w, 3) uint8. Raises ImageError, LimitError, UsageError."""
    picture = read_image(read_file(path))
    if picture.depth == 16:
        raise ImageError("16 bits a sample: the benchmark measures pictures of 8")
    return np.asarray(to_pil(picture).convert(_AS[picture.mode]))


def _in_data_set(text: str) -> Iterator[Found]:
    source = open_source(text)
    for path in source.files:
        try:
            for name, pixels in source.read(path):
                flat = pixels if source.planes == 3 else pixels[..., 0]
                yield name, flat.astype(np.bool_) if source.levels == 2 else flat
        except UNREADABLE as error:
            yield path.name, ImageError(f"cannot be read: {error}")


def hash_of(*pictures: Pixels) -> str:
    """A name for the contents of pictures."""
    digest = hashlib.blake2b(digest_size=12)
    for picture in pictures:
        digest.update(f"{picture.shape}{picture.dtype}".encode())
        digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.hexdigest()


def thumbnail(picture: Pixels) -> bytes:
    """A small JPEG file of a picture."""
    image = Image.fromarray(picture).convert("RGB")
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    times = max(1, _LEAST_PX // max(image.size))
    image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82)
    return out.getvalue()
