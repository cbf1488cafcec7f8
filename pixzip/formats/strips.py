"""Strips and tiles of a TIFF → whether each is in the file, and whole by the checksum that its compression has.

libtiff decodes what the samples need and looks at no checksum behind that. Deflate has one, so its strips are decoded
here as well; LZW, PackBits and Zstandard, as libtiff writes it, have none.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from pixzip.errors import ImageError
from pixzip.formats import tiff_tags
from pixzip.formats.directories import Directories, numbers

_NONE, _DEFLATE = 1, (8, 32946)
#: Decoded at once, and thrown away.
_PIECE_BYTES = 1 << 16


def values(found: Directories, tag: int, *default: int) -> list[int]:
    """The numbers of a tag of the first directory, or the default ones. Raises ImageError for what are no numbers."""
    return (numbers(found.order, found.main[tag]) if tag in found.main else []) or list(default)


def check_strips(data: bytes, found: Directories) -> None:
    """Raises ImageError for strips or tiles that are not in the file, are too short, or have a wrong checksum.

    What says nothing of their lengths, or that they are none, as some writers do without compression, is left
    to who decodes it.
    """
    tiled = tiff_tags.TILE_AT in found.main
    places, lengths = (
        values(found, tag)
        for tag in ((tiff_tags.TILE_AT, tiff_tags.TILE_BYTES) if tiled else (tiff_tags.STRIP_AT, tiff_tags.STRIP_BYTES))
    )
    if not any(lengths):
        return
    if len(places) != len(lengths):
        raise ImageError(f"TIFF with {len(places)} strips or tiles and the lengths of {len(lengths)}")
    compression, wanted = values(found, tiff_tags.COMPRESSION, _NONE)[0], _decoded_bytes(found, tiled)
    for i, (at, length) in enumerate(zip(places, lengths, strict=True)):
        if at + length > len(data):
            raise ImageError(f"TIFF is truncated: strip {i} has {length} bytes at {at}, the file {len(data)}")
        if compression == _NONE and length < wanted(i)[0]:
            raise ImageError(f"TIFF is damaged: strip {i} has {length} bytes of {wanted(i)[0]}")
        if compression in _DEFLATE and (fault := _fault(memoryview(data)[at : at + length], *wanted(i))):
            raise ImageError(f"TIFF is damaged: strip {i}: {fault}")


def _decoded_bytes(found: Directories, tiled: bool) -> Callable[[int], tuple[int, int]]:
    """Number of a strip or tile → (the bytes of its samples, those of a whole one): a last strip may be either."""
    samples, planar = values(found, tiff_tags.SAMPLES, 1)[0], values(found, tiff_tags.PLANAR, 1)[0] == 2
    bits = max(values(found, tiff_tags.BITS, 1)) * (1 if planar else samples)
    sides = (tiff_tags.TILE_WIDTH, tiff_tags.TILE_HEIGHT) if tiled else (tiff_tags.WIDTH, tiff_tags.HEIGHT)
    width, height = (values(found, tag, 0)[0] for tag in sides)
    row = -(-width * bits // 8)
    rows = height if tiled else max(1, min(height, values(found, tiff_tags.ROWS, height)[0]))
    strips = max(1, -(-height // rows))  # of a plane
    return lambda i: (row * min(rows, height - i % strips * rows), row * rows)


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
