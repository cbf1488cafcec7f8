"""Samples and tags → TIFF bytes: one Deflate strip, big-endian.

Pillow's own compressed writer loses EXIF and GPS directories and makes floats of resolutions; its directory writer does
not, so only that is used. Format: TIFF 6.0; Deflate: TIFF Technical Note, compression 8.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pixzip.errors import ImageError
from pixzip.formats.png import pack_rows

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS = 256, 257, 258, 259, 262, 277, 278
_STRIP_AT, _STRIP_BYTES, _COLORMAP, _EXTRA = 273, 279, 320, 338
_DEFLATE, _LONG, _PLAIN_ALPHA = 8, 4, 2
#: Mode → photometric interpretation: black is zero, RGB, palette.
_PHOTOMETRICS = {"L": 1, "LA": 1, "RGB": 2, "RGBA": 2, "P": 3}
#: Classic TIFF has 32-bit offsets.
_MOST_BYTES = (1 << 32) - (1 << 20)


def write_tiff(samples: NDArray[Any], mode: str, depth: int, palette: bytes, tags: dict[int, Any]) -> bytes:
    """A TIFF of (c, h, w) samples; a palette is filled up with black to 2**depth entries.

    tags are further ones, in Pillow's types; dictionaries become directories. Raises ImageError beyond 4 GB.
    """
    c, h, w = samples.shape
    strip = zlib.compress(pack_rows(samples, depth).data, 9)
    if len(strip) > _MOST_BYTES:
        raise ImageError(f"TIFF cannot hold {len(strip)} bytes")
    directory = ImageFileDirectory_v2(b"MM\0*\0\0\0\x08")
    layout = {_WIDTH: w, _HEIGHT: h, _ROWS: h, _STRIP_AT: 0, _STRIP_BYTES: len(strip)}
    kind = {_BITS: (depth,) * c, _COMPRESSION: _DEFLATE, _PHOTOMETRIC: _PHOTOMETRICS[mode], _SAMPLES: c}
    if mode in ("LA", "RGBA"):
        kind[_EXTRA] = _PLAIN_ALPHA
    if mode == "P":
        colours = np.frombuffer(palette.ljust(3 << depth, b"\0"), dtype=np.uint8)[: 3 << depth].reshape(-1, 3)
        kind[_COLORMAP] = tuple((colours.T.astype(int) * 257).ravel().tolist())
    for tag, value in {**tags, **layout, **kind}.items():
        directory[tag] = value
    directory.tagtype.update(dict.fromkeys(layout, _LONG))
    out = io.BytesIO()
    directory.save(out)
    return out.getvalue() + strip
