"""Strips and tiles of a TIFF → whether each is in the file, and whole by the checksum that its compression has.

libtiff decodes what the samples need and looks at no checksum behind that. Deflate has one, so its strips are decoded
here as well; LZW, PackBits and Zstandard, as libtiff writes it, have none.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from pixzip.errors import ImageError
from pixzip.formats.directories import Directories, numbers
from pixzip.formats.tiff_tags import (
    BITS,
    COMPRESSION,
    HEIGHT,
    PLANAR,
    ROWS,
    SAMPLES,
    STRIP_AT,
    STRIP_BYTES,
    TILE_AT,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    WIDTH,
)

_NONE, _DEFLATE = 1, (8, 32946)
#: Decoded at once, and thrown away.
_PIECE_BYTES = 1 << 16


def values(found: Directories, tag: int, *default: int) -> list[int]:
    """The numbers of a tag of the first directory, or the default ones. Raises ImageError for what are no numbers."""
    return (numbers(found.order, found.main[tag]) if tag in found.main else []) or list(default)


def place_tags(found: Directories) -> tuple[int, int]:
    """The tags that say where strips or tiles are, and how long."""
    return (TILE_AT, TILE_BYTES) if TILE_AT in found.main else (STRIP_AT, STRIP_BYTES)


def check_strips(data: bytes, found: Directories) -> None:
    """Raises ImageError for strips or tiles that are not in the file, are too short, or have a wrong checksum.

    What says nothing of their lengths, or that they are none, as some writers do without compression, is left
    to who decodes it.
    """
    places, lengths = (values(found, tag) for tag in place_tags(found))
    if not any(lengths):
        return
    if len(places) != len(lengths):
        raise ImageError(f"TIFF with {len(places)} strips or tiles and the lengths of {len(lengths)}")
    compression, sizes = values(found, COMPRESSION, _NONE)[0], _decoded_bytes(found)
    for i, (at, length, (least, most)) in enumerate(zip(places, lengths, sizes, strict=False)):
        if at + length > len(data):
            raise ImageError(f"TIFF is truncated: strip {i} has {length} bytes at {at}, the file {len(data)}")
        if compression == _NONE and length < least:
            raise ImageError(f"TIFF is damaged: strip {i} has {length} bytes of {least}")
        if compression in _DEFLATE and (fault := _fault(memoryview(data)[at : at + length], least, most)):
            raise ImageError(f"TIFF is damaged: strip {i}: {fault}")


def _decoded_bytes(found: Directories) -> Iterator[tuple[int, int]]:
    """Of each strip or tile (the bytes of its samples, those of a whole one): a last strip may be either.

    There are as many as the picture has, whatever the file lists.
    """
    is_planar, samples = values(found, PLANAR, 1)[0] == 2, values(found, SAMPLES, 1)[0]
    bits = max(values(found, BITS, 1)) * (1 if is_planar else samples)
    width, height = (values(found, tag, 0)[0] for tag in (WIDTH, HEIGHT))
    across, rows = width, values(found, ROWS, height)[0]
    if TILE_AT in found.main:
        across, rows = (values(found, tag, 0)[0] for tag in (TILE_WIDTH, TILE_HEIGHT))
    elif rows > height:
        rows = height
    if not across or not rows:
        return
    row = -(-across * bits // 8)
    for _ in range(samples if is_planar else 1):
        for y in range(0, height, rows):
            least = rows if TILE_AT in found.main else min(rows, height - y)
            for _ in range(0, width, across):
                yield row * least, row * rows


def _fault(strip: memoryview, least: int, most: int) -> str | None:
    """What is wrong with a Deflate stream of so many bytes, of which the decoder needs the least and no checksum."""
    decoder, done = zlib.decompressobj(), 0
    try:
        for at in range(0, len(strip), _PIECE_BYTES):
            piece = bytes(strip[at : at + _PIECE_BYTES])
            while piece and not decoder.eof and done <= most:
                done += len(decoder.decompress(piece, _PIECE_BYTES))
                piece = decoder.unconsumed_tail
    except zlib.error as error:
        return str(error)
    if done > most:
        return f"its data go on after {most} bytes"
    return None if decoder.eof and done >= least else f"its data end after {done} of {least} bytes"
