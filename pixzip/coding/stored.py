"""Planes ↔ the smallest code stream without a model: lossless WebP, PNG, or deep (docs/format.md, section 5).

What pixzip falls back on where a model loses, and how it keeps alpha planes.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.errors import FormatError, ImageError, LimitError
from pixzip.formats.image import MODES, WEBP_SIDE_PX
from pixzip.formats.png import GRAY, PALETTE, Png, read_header, read_png, write_png
from pixzip.pxz.container import DEEP, PNG, WEBP

#: Bytes of a WebP before its VP8L payload: "RIFF", size, "WEBP", "VP8L", size; then signature 2f and 28 + 1 + 3 bits.
_VP8L_AT, _VP8L_HEADER_END = 20, 25


def store(planes: NDArray[Any], mode: str, depth: int, threads: int = 1) -> tuple[int, bytes]:
    """(kind, data): the shortest of PNG; for 8-bit L, P, RGB and RGBA WebP; for 16-bit L and RGB pixzip's own coding.

    WebP is lossless, exact, of quality 75, method 4. threads: what the last may use, of 2^20 pixels or more each.

    planes is (c, h, w), uint8 or for depth 16 uint16. Indices of mode P, and alpha planes (mode L), are stored as gray.
    The same planes give the same bytes, as long as zlib and libwebp stay the same.
    """
    candidates = [(PNG, write_png(Png(planes, _colour(mode), depth)))]
    if depth == 8 and mode != "LA" and max(planes.shape[1:]) <= WEBP_SIDE_PX:
        candidates.append((WEBP, write_webp(planes)))
    if depth == 16 and mode in ("L", "RGB"):
        from pixzip.coding.deep import encode_planes  # loads numba, which other stored pictures do without

        candidates.append((DEEP, encode_planes(planes, threads)))
    return min(candidates, key=lambda candidate: len(candidate[1]))


def restore(
    kind: int, data: bytes, shape: tuple[int, int, int], mode: str, depth: int, threads: int = 1
) -> NDArray[Any]:
    """The planes (c, h, w) that store was given.

    Raises FormatError when the stream is damaged or does not hold just these planes; its own header is compared with
    shape, mode and depth before anything is decoded.
    """
    channels, _, depths = MODES[mode]
    if shape[0] != channels or depth not in depths:
        raise FormatError(f"stored picture of shape {shape} in mode {mode}, depth {depth}")
    if kind == PNG:
        return _restore_png(data, shape, _colour(mode), depth)
    if kind == WEBP:
        if depth != 8 or mode == "LA":
            raise FormatError(f"stored WebP in mode {mode}, depth {depth}")
        return _restore_webp(data, shape)
    if kind == DEEP:
        if depth != 16 or mode not in ("L", "RGB"):
            raise FormatError(f"stored picture of kind 3 in mode {mode}, depth {depth}")
        from pixzip.coding.deep import decode_planes

        return decode_planes(data, shape, threads)
    raise FormatError(f"stored picture of unknown kind {kind}")


def _colour(mode: str) -> int:
    """PNG colour type; indices without their palette are gray."""
    colour = MODES[mode][1]
    return GRAY if colour == PALETTE else colour


def _restore_png(data: bytes, shape: tuple[int, int, int], colour: int, depth: int) -> NDArray[Any]:
    try:
        header = read_header(data)
        found = (header.height, header.width, header.colour, header.depth)
        if found != (*shape[1:], colour, depth):
            raise FormatError(f"stored PNG has (h, w, colour, depth) {found}, must have {(*shape[1:], colour, depth)}")
        png = read_png(data, max_pixels=shape[1] * shape[2])
    except (ImageError, LimitError) as error:
        raise FormatError(f"stored {error}") from None
    if png.trailer:
        raise FormatError(f"stored PNG has {len(png.trailer)} bytes after its end")
    return png.samples


def write_webp(planes: NDArray[Any]) -> bytes:
    """Planes (1, 3 or 4, h, w) uint8 → a lossless, exact WebP; one plane as all three, for want of gray."""
    from PIL import Image

    pixels = np.stack([planes[0]] * 3, axis=2) if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, exact=True, quality=75, method=4)
    return out.getvalue()


def _check_webp(data: bytes, shape: tuple[int, int, int]) -> None:
    """One VP8L chunk, nothing else, with these sides."""
    size = len(data) - 8
    if len(data) < _VP8L_HEADER_END or data[:4] + data[8:16] != b"RIFFWEBPVP8L" or data[_VP8L_AT] != 0x2F:
        raise FormatError(f"stored WebP is not lossless WebP: {len(data)} bytes, begins with {data[:16].hex()}")
    riff_bytes, vp8l_bytes = (int.from_bytes(data[at : at + 4], "little") for at in (4, 16))
    if riff_bytes != size or vp8l_bytes + vp8l_bytes % 2 != size - 12:
        raise FormatError(f"stored WebP of {size} bytes says {riff_bytes}, its picture {vp8l_bytes} of {size - 12}")
    bits = int.from_bytes(data[_VP8L_AT + 1 : _VP8L_HEADER_END], "little")
    width, height, version = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bits >> 29
    if (height, width) != shape[1:] or version:
        raise FormatError(f"stored WebP of {width} x {height} pixels, version {version}, not {shape[2]} x {shape[1]}")


def _restore_webp(data: bytes, shape: tuple[int, int, int]) -> NDArray[Any]:
    from PIL import WebPImagePlugin

    _check_webp(data, shape)
    try:
        image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, EOFError, ValueError, RuntimeError) as error:
        raise FormatError(f"stored WebP is damaged: {' '.join(str(error).split())}") from None
    planes = np.asarray(image).transpose(2, 0, 1)
    if shape[0] == 4 and len(planes) == 3:  # libwebp leaves out alpha that is 255 everywhere
        planes = np.concatenate([planes, np.full((1, *shape[1:]), 255, dtype=np.uint8)])
    if len(planes) != max(3, shape[0]) or planes.shape[1:] != shape[1:]:
        raise FormatError(f"stored WebP decodes to planes {planes.shape}, must be {shape}")
    if shape[0] == 1 and not (np.array_equal(planes[0], planes[1]) and np.array_equal(planes[0], planes[2])):
        raise FormatError("stored WebP of one plane has colours")
    return np.ascontiguousarray(planes[: shape[0]])
