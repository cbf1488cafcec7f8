"""TIFF of several samples of 16 bits a pixel → samples, which Pillow by itself cuts to 8 bits.

The samples R G B R G B of a row are as well those of a gray picture three times as wide. So libtiff, through Pillow, is
given the file with a directory that says this, and all samples come out as they are. The predictor, whose differences
are between pixels, is left out of that directory and undone here (TIFF 6.0, section 14).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from pixzip.errors import ImageError
from pixzip.formats.directories import LONG, SHORT, Directories, Entry, made, read_directories, with_directory
from pixzip.formats.strips import check_strips, place_tags, values
from pixzip.formats.tiff_tags import (
    BITS,
    COMPRESSION,
    EXTRA,
    FILL_ORDER,
    FORMAT,
    HEIGHT,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS,
    SAMPLES,
    TILE_AT,
    TILE_HEIGHT,
    TILE_WIDTH,
    WIDTH,
)

#: None, LZW, Deflate, PackBits, LZMA, Zstandard.
LOSSLESS = {1, 5, 8, 32946, 32773, 34925, 50000}
#: Samples a pixel → (photometric interpretation, extra samples): gray and alpha, RGB, RGB and alpha.
_KINDS = {2: (1, [2]), 3: (2, []), 4: (2, [2])}
_DIFFERENCES = 2


class DeepTiff(NamedTuple):
    """Such a file: its bytes, directories and sizes."""

    data: bytes
    found: Directories
    channels: int
    height: int
    width: int

    def number(self, tag: int, default: int) -> int:
        """The value of a tag of one number."""
        return values(self.found, tag, default)[0]

    @property
    def is_planar(self) -> bool:
        """Whether samples stand in planes of their own, not beside the other samples of their pixel."""
        return self.number(PLANAR, 1) == 2


def deep_tiff(data: bytes) -> DeepTiff | None:
    """The file, if it is such a TIFF; None for all others.

    Raises ImageError for a damaged directory, and for what would not be kept whole: other colours than gray and RGB,
    premultiplied and further extra samples, signed and floating samples, lossy and unknown compressions.
    """
    found = read_directories(data)
    channels, bits = values(found, SAMPLES, 1)[0], set(values(found, BITS, 1))
    if channels == 1 or bits != {16}:
        return None
    width, height = (values(found, tag, 0)[0] for tag in (WIDTH, HEIGHT))
    tiff = DeepTiff(data, found, channels, height, width)
    _check(tiff)
    return tiff


def _check(tiff: DeepTiff) -> None:
    found, photometric, compression = tiff.found, tiff.number(PHOTOMETRIC, 0), tiff.number(COMPRESSION, 1)
    extra, formats = values(found, EXTRA), values(found, FORMAT, 1)
    if photometric not in (1, 2):
        raise ImageError(f"TIFF with photometric interpretation {photometric} of 16 bits: only gray and RGB are kept")
    if compression not in LOSSLESS:
        raise ImageError(f"TIFF with compression {compression}, which is lossy or unknown")
    if set(formats) != {1}:
        raise ImageError(f"TIFF with sample format {formats}: only unsigned integers are kept")
    if _KINDS.get(tiff.channels) != (photometric, extra):
        what = f"{tiff.channels} samples a pixel, extra samples {tuple(extra)}"
        raise ImageError(f"TIFF with {what}: only alpha of gray and RGB is kept")
    for tag, name in ((PREDICTOR, "predictor"), (PLANAR, "planar configuration")):
        if tiff.number(tag, 1) not in (1, 2):
            raise ImageError(f"TIFF with {name} {tiff.number(tag, 1)}, which is not known")


def read_deep_tiff(tiff: DeepTiff) -> NDArray[np.uint16]:
    """All samples (c, h, w), turned as the orientation tag says. Raises ImageError where strips are missing or damaged.

    What Pillow raises passes through.
    """
    if not any(values(tiff.found, place_tags(tiff.found)[1])):
        raise ImageError("TIFF without the lengths of its strips")  # a directory is to stand behind them
    check_strips(tiff.data, tiff.found)
    parts = [_samples(tiff, part, 1 if tiff.is_planar else tiff.channels) for part in _directories(tiff)]
    pixels = np.concatenate(parts, axis=2) if tiff.is_planar else parts[0]
    return np.ascontiguousarray(_turned(pixels.transpose(2, 0, 1), tiff.number(ORIENTATION, 1)))


def _directories(tiff: DeepTiff) -> Iterator[dict[int, Entry]]:
    """Directories of gray pictures: one for each plane, or one of all samples, as many times as wide."""
    order, main, places = tiff.found.order, tiff.found.main, place_tags(tiff.found)
    times = 1 if tiff.is_planar else tiff.channels
    kept = (
        HEIGHT,
        COMPRESSION,
        FILL_ORDER,
        ROWS,
        TILE_HEIGHT,
        *places,
    )
    gray = {tag: main[tag] for tag in kept if tag in main}
    gray |= {tag: made(order, SHORT, value) for tag, value in ((BITS, 16), (PHOTOMETRIC, 1), (SAMPLES, 1))}
    for tag in {WIDTH, TILE_WIDTH} & main.keys():
        gray[tag] = made(order, LONG, tiff.number(tag, 0) * times)
    if not tiff.is_planar:
        yield gray
        return
    for plane in range(tiff.channels):
        yield gray | {tag: _share(tiff, tag, plane) for tag in places if tag in main}


def _share(tiff: DeepTiff, tag: int, plane: int) -> Entry:
    """Of the places of all planes' strips, or of their lengths, those of one plane."""
    of_all = values(tiff.found, tag)
    count, rest = divmod(len(of_all), tiff.channels)
    if rest:
        raise ImageError(f"TIFF tag {tag} has {len(of_all)} values for {tiff.channels} planes")
    return made(tiff.found.order, LONG, *of_all[plane * count : (plane + 1) * count])


def _samples(tiff: DeepTiff, directory: dict[int, Entry], channels: int) -> NDArray[np.uint16]:
    """(h, w, channels) samples of a gray picture, the predictor undone."""
    image: Any = TiffImagePlugin.TiffImageFile(io.BytesIO(with_directory(tiff.data, tiff.found.order, directory)))
    covered = sum((x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), _, _ in image.tile)
    if covered != tiff.height * tiff.width * channels:
        raise ImageError(f"TIFF is truncated: strips cover {covered} of {tiff.height * tiff.width * channels} samples")
    samples = np.array(image, dtype=np.uint16).reshape(tiff.height, tiff.width, channels)
    if tiff.number(PREDICTOR, 1) == _DIFFERENCES:
        side = tiff.number(TILE_WIDTH, 0) if TILE_AT in directory else tiff.width
        for x in range(0, tiff.width, side):
            tile = samples[:, x : x + side]
            np.add.accumulate(tile, axis=1, dtype=np.uint16, out=tile)
    return samples


def _turned(planes: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Planes (c, h, w) as they look: where the first row and column of the file are (TIFF 6.0, Orientation)."""
    if orientation in (5, 6, 7, 8):  # rows of the file are columns
        planes = planes.transpose(0, 2, 1)
    if orientation in (2, 3, 6, 7):
        planes = planes[:, :, ::-1]
    if orientation in (3, 4, 7, 8):
        planes = planes[:, ::-1]
    return planes
