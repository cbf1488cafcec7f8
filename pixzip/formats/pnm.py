"""PNM bytes (PBM, PGM, PPM; plain and raw) ↔ samples, no value rescaled.

Pillow scales every maxval to 255 and writes no 16-bit colour. Here a maxval must be 2**depth - 1, and samples stay as
they are.
Format: netpbm.sourceforge.net/doc, pbm(5), pgm(5), ppm(5).
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.errors import ImageError
from pixzip.formats.png import check_size

#: Magic number → (channels, plain text).
_KINDS = {b"P1": (1, True), b"P2": (1, True), b"P3": (3, True), b"P4": (1, False), b"P5": (1, False), b"P6": (3, False)}
_BITMAPS = (b"P1", b"P4")
_DEPTHS = {2**depth - 1: depth for depth in (1, 2, 4, 8, 16)}
#: One number of the header with what may stand before it: white space and comments.
_NUMBER = re.compile(rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+([0-9]{1,10})")


def is_pnm(data: bytes) -> bool:
    """Whether the bytes begin like a PBM, PGM or PPM."""
    return data[:2] in _KINDS and (data[2:3].isspace() or data[2:3] == b"#")


def _read_size(data: bytes) -> tuple[tuple[int, int, int], int]:
    """(width, height, maxval) of a PNM and where its header ends."""
    kind, at = data[:2], 2
    numbers = []
    for name in ("width", "height") if kind in _BITMAPS else ("width", "height", "maxval"):
        match = _NUMBER.match(data, at)
        if match is None:
            raise ImageError(f"PNM is damaged: no {name} at byte {at}")
        numbers.append(int(match[1]))
        at = match.end()
    width, height, maxval = (*numbers, 1)[:3]
    if maxval not in _DEPTHS:
        raise ImageError(f"PNM with maxval {maxval} cannot be kept: only {', '.join(map(str, _DEPTHS))}")
    return (width, height, maxval), at


def pnm_shape(data: bytes) -> tuple[int, int, int, int]:
    """(channels, height, width, depth) that a PNM's header claims. Raises ImageError."""
    (width, height, maxval), _ = _read_size(data)
    return _KINDS[data[:2]][0], height, width, _DEPTHS[maxval]


def read_pnm(data: bytes, *, max_pixels: int) -> tuple[NDArray[Any], int]:
    """(samples (c, h, w), depth) of the one picture in a PNM.

    Raises ImageError for damage, several pictures, and a maxval that is not 2**depth - 1; LimitError beyond max_pixels.
    """
    kind = data[:2]
    (width, height, maxval), at = _read_size(data)
    check_size(width, height, max_pixels)
    channels, plain = _KINDS[kind]
    read = _plain if plain else _raw
    samples = read(kind, data[at + (not plain) :], (height, width, channels), maxval)
    return np.ascontiguousarray(samples.transpose(2, 0, 1)), _DEPTHS[maxval]


def _raw(kind: bytes, body: bytes, shape: tuple[int, int, int], maxval: int) -> NDArray[Any]:
    """Binary samples, (h, w, c); bitmaps have eight to a byte and 1 for black."""
    h, w, c = shape
    row_bytes = (w + 7) // 8 if kind == b"P4" else w * c * (1 + (maxval > 255))
    if len(body) < h * row_bytes or body[h * row_bytes :].strip():
        raise ImageError(f"PNM holds {len(body)} bytes of pixels, not {h * row_bytes}")
    rows = np.frombuffer(body, dtype=np.uint8, count=h * row_bytes).reshape(h, row_bytes)
    if kind == b"P4":
        return 1 - np.unpackbits(rows, axis=1, count=w).reshape(shape)
    samples: NDArray[Any] = rows.view(">u2").astype(np.uint16) if maxval > 255 else rows
    if samples.max() > maxval:
        raise ImageError(f"PNM is damaged: sample {samples.max()} over maxval {maxval}")
    return samples.reshape(shape)


def _plain(kind: bytes, body: bytes, shape: tuple[int, int, int], maxval: int) -> NDArray[Any]:
    """Samples in decimal, (h, w, c); the digits of a bitmap need no space between them."""
    text = re.sub(rb"#[^\r\n]*", b"", body)
    if re.search(rb"[^0-9 \t\r\n\v\f]|[0-9]{6}", text) and kind != b"P1":
        raise ImageError("PNM is damaged: a sample is no number of up to 5 digits")
    if kind == b"P1":
        samples = np.frombuffer(text.translate(None, b" \t\r\n\v\f"), dtype=np.uint8).astype(np.int64) - ord("0")
    else:
        samples = np.fromstring(text.decode("ascii"), dtype=np.int64, sep=" ")
    if samples.size != math.prod(shape):
        raise ImageError(f"PNM holds {samples.size} samples, not {math.prod(shape)}")
    if not 0 <= samples.min() <= samples.max() <= maxval:
        raise ImageError(f"PNM is damaged: samples from {samples.min()} to {samples.max()}, maxval is {maxval}")
    return (1 - samples if kind == b"P1" else samples).astype(np.uint16 if maxval > 255 else np.uint8).reshape(shape)


def write_pnm(samples: NDArray[Any], depth: int) -> bytes:
    """Raw PBM (depth 1), PGM or PPM of (1 or 3, h, w) samples."""
    c, h, w = samples.shape
    pixels = samples.transpose(1, 2, 0)
    if c == 1 and depth == 1:
        return b"P4\n%d %d\n" % (w, h) + np.packbits(1 - pixels[:, :, 0], axis=1).tobytes()
    header = b"P%d\n%d %d\n%d\n" % (6 if c == 3 else 5, w, h, 2**depth - 1)
    return header + pixels.astype(">u2" if depth == 16 else np.uint8).tobytes()
