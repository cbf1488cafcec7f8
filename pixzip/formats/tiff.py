"""TIFF: what its tags say about a picture ↔ metadata; samples and metadata → TIFF bytes, one Deflate strip.

Tags pass through as raw entries (directories.py), so that no value changes its type or bytes. Format: TIFF 6.0;
Deflate: TIFF Technical Note, compression 8.
"""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.errors import ImageError
from pixzip.formats import metadata as meta
from pixzip.formats import tiff_tags
from pixzip.formats.directories import (
    BYTE,
    DIRECTORY_TYPES,
    EXIF_PART,
    GPS_PART,
    LONG,
    RATIONAL,
    SHORT,
    Directories,
    Entry,
    made,
    packet,
    read_directories,
    write_directories,
)
from pixzip.formats.png import pack_rows
from pixzip.formats.strips import values

#: A tile of any picture; its sides are multiples of these, so that those of one tile may be a little larger.
_MOST_TILE_PX, _TILE_STEP_PX = 1 << 20, 16
#: How the samples are laid out and packed, which pixels alone keep: sizes, kinds of samples, fill order, orientation,
#: strips, planes, free space, CCITT's options, predictor, palette, tiles, extra samples, JPEG's tables, YCbCr.
_LAYOUT = {
    *(254, 255, *range(256, 260), 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284, 288, 289),
    *(292, 293, 317, 320, 322, 323, 324, 325, 338, 339, 340, 341, 347, *range(512, 522), *range(529, 533)),
}
#: Those with an entry of their own among a picture's metadata.
_PACKETS_OF_METADATA, _RESOLUTION = (
    {tiff_tags.XMP, tiff_tags.ICC},
    {tiff_tags.X_RESOLUTION, tiff_tags.Y_RESOLUTION, tiff_tags.UNIT},
)
#: IPTC, Photoshop's blocks and layers: bytes, whatever type a writer gave them.
_PACKETS = {33723, 34377, 37724}
_DEFLATE, _PLAIN_ALPHA = 8, 2
#: Mode → photometric interpretation: black is zero, RGB, palette.
_PHOTOMETRICS = {"L": 1, "LA": 1, "RGB": 2, "RGBA": 2, "P": 3}
_UNITS = {1: "none", 2: "inch", 3: "cm"}
#: Classic TIFF has 32-bit offsets.
_MOST_BYTES = (1 << 32) - (1 << 20)


def check_single(data: bytes) -> None:
    """Raises ImageError for a TIFF file of several pictures: pages, or others that the first one's tags point to.

    Of a camera's raw file the first is a thumbnail. Likewise for tiles that are no tiles of this picture.
    """
    directories = read_directories(data)
    if not directories.is_last:
        raise ImageError("TIFF file with several pages: only single pictures are kept")
    if tiff_tags.SUB_PICTURES in directories.main:
        raise ImageError("TIFF file with further pictures in sub-directories (tag 330): only single pictures are kept")
    _check_tiles(directories)


def _check_tiles(found: Directories) -> None:
    """Raises ImageError for tiles far beyond the picture: libtiff allocates a whole one, whatever the file holds."""
    wide, high = (max(values(found, tag, 0)) for tag in (tiff_tags.TILE_WIDTH, tiff_tags.TILE_HEIGHT))
    w, h = (max(values(found, tag, 0)) for tag in (tiff_tags.WIDTH, tiff_tags.HEIGHT))
    if wide * high > max(_MOST_TILE_PX, (w + _TILE_STEP_PX) * (h + _TILE_STEP_PX)):
        raise ImageError(f"TIFF with tiles of {wide} x {high} pixels in a picture of {w} x {h}")


def tiff_metadata(data: bytes) -> meta.Metadata:
    """ICC profile, resolution, XMP, and all other tags that do not lay out the file as an EXIF block.

    Raises ImageError for tags that point to directories of their own: what is there cannot be kept.
    """
    found = read_directories(data)
    for tag, entry in found.main.items():
        if entry.type in DIRECTORY_TYPES and tag not in (*_LAYOUT, EXIF_PART, GPS_PART):
            raise ImageError(f"TIFF tag {tag} points to a directory, which would be lost (strip leaves it out)")
    for directory in (found.main, *found.parts.values()):
        for tag, entry in directory.items():
            if entry.number and not entry.data and tag not in _LAYOUT:
                raise ImageError(f"TIFF tag {tag} has the type {entry.type}, which nobody knows (strip leaves it out)")
    resolution = _resolution(found)
    own = _LAYOUT | _PACKETS_OF_METADATA | (_RESOLUTION if resolution else set())
    rest = {tag: entry for tag, entry in found.main.items() if tag not in own}
    rest |= {tag: packet(rest[tag].data) for tag in _PACKETS & set(rest) if rest[tag].type != BYTE}
    packets = [("icc", found.main[tiff_tags.ICC].data)] if tiff_tags.ICC in found.main else []
    if rest:
        block = Directories(found.order, rest, found.parts, is_last=True)
        packets.append(("exif", write_directories(block)))
    if tiff_tags.XMP in found.main:
        packets.append(("xmp", found.main[tiff_tags.XMP].data))
    return (*packets, *resolution)


def _resolution(found: Directories) -> meta.Metadata:
    sides = [found.main.get(tag) for tag in (tiff_tags.X_RESOLUTION, tiff_tags.Y_RESOLUTION)]
    numbers = [struct.unpack(f"{found.order}2I", side.data) for side in sides if side and side.type == RATIONAL]
    if len(numbers) != 2 or not all(map(all, numbers)):
        return ()
    unit = found.main.get(tiff_tags.UNIT)
    number = struct.unpack(f"{found.order}H", unit.data)[0] if unit and (unit.type, unit.number) == (SHORT, 1) else 2
    return (meta.resolution_entry(Fraction(*numbers[0]), Fraction(*numbers[1]), _UNITS.get(number, "none")),)


def write_tiff(samples: NDArray[Any], mode: str, depth: int, palette: bytes, metadata: meta.Metadata) -> bytes:
    """A TIFF of (c, h, w) samples with ICC, EXIF, XMP and resolution; a palette is filled up with black.

    It has the byte order of the EXIF block, whose values stay as they are, orientation too. Raises ImageError beyond
    4 GB, and for a damaged EXIF block.
    """
    exif = meta.exif_packet(metadata)
    found = read_directories(exif) if exif else Directories(">", {}, {}, is_last=True)
    order = found.order
    strip = zlib.compress(_in_order(pack_rows(samples, depth).data, depth, order), 9)
    if len(strip) > _MOST_BYTES:
        raise ImageError(f"TIFF cannot hold {len(strip)} bytes")
    main = {tag: entry for tag, entry in found.main.items() if tag not in _LAYOUT - {tiff_tags.ORIENTATION}}
    own = _of_metadata(metadata, order)
    if tiff_tags.UNIT in own:
        main = {tag: entry for tag, entry in main.items() if tag not in _RESOLUTION}
    main |= own | _of_samples(samples.shape, mode, depth, palette, order)
    main[tiff_tags.STRIP_BYTES] = made(order, LONG, len(strip))
    return write_directories(Directories(order, main, found.parts, is_last=True), strip, tiff_tags.STRIP_AT)


def _in_order(rows: bytes | memoryview, depth: int, order: str) -> bytes:
    """Rows of samples, those of 16 bits from big-endian to this order."""
    return np.frombuffer(rows, dtype=">u2").astype(f"{order}u2").tobytes() if depth == 16 else bytes(rows)


def _of_metadata(metadata: meta.Metadata, order: str) -> dict[int, Entry]:
    packets = {tiff_tags.ICC: meta.icc_profile(metadata), tiff_tags.XMP: meta.xmp_packet(metadata)}
    tags = {tag: packet(data) for tag, data in packets.items() if data}
    resolution = meta.resolution(metadata)
    if resolution:
        units = {name: number for number, name in _UNITS.items()}
        for tag, value in zip((tiff_tags.X_RESOLUTION, tiff_tags.Y_RESOLUTION), resolution[:2], strict=True):
            tags[tag] = made(order, RATIONAL, value.numerator, value.denominator)
        tags[tiff_tags.UNIT] = made(order, SHORT, units[resolution[2]])
    return tags


def _of_samples(shape: tuple[int, ...], mode: str, depth: int, palette: bytes, order: str) -> dict[int, Entry]:
    c, h, w = shape
    kinds = {
        tiff_tags.BITS: [depth] * c,
        tiff_tags.COMPRESSION: [_DEFLATE],
        tiff_tags.PHOTOMETRIC: [_PHOTOMETRICS[mode]],
        tiff_tags.SAMPLES: [c],
    }
    if mode in ("LA", "RGBA"):
        kinds[tiff_tags.EXTRA] = [_PLAIN_ALPHA]
    if mode == "P":
        colours = np.frombuffer(palette.ljust(3 << depth, b"\0"), dtype=np.uint8)[: 3 << depth].reshape(-1, 3)
        kinds[tiff_tags.COLORMAP] = (colours.T.astype(int) * 257).ravel().tolist()
    sizes = {
        tag: made(order, LONG, value)
        for tag, value in ((tiff_tags.WIDTH, w), (tiff_tags.HEIGHT, h), (tiff_tags.ROWS, h))
    }
    return sizes | {tag: made(order, SHORT, *values) for tag, values in kinds.items()}
