"""A TIFF of CCITT Group 4 codes, decoded → whether it was whole.

libtiff makes what is missing or damaged white and does not say so. The codes of rows are determined by T.6 (ITU-T), so
a picture that was whole has, coded again, the codes that are in its file.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import ImageChops

from pixzip.errors import ImageError
from pixzip.formats.directories import Directory, numbers, read_directories

GROUP_4 = 4
_FILL_ORDER, _PHOTOMETRIC, _STRIP_AT, _ROWS, _STRIP_BYTES, _OPTIONS, _ORIENTATION = 266, 262, 273, 278, 279, 293, 274
#: The end of a facsimile block, 24 bits, which some writers leave out.
_END, _END_BITS = 0x001001, 24


def check_whole(data: bytes, image: Any) -> None:
    """Raises ImageError where the rows of a loaded image of mode 1 are not those that the file's strips hold."""
    found = read_directories(data)
    tags = found.main

    def values(tag: int, default: int) -> list[int]:
        return numbers(found.order, tags[tag]) if tag in tags else [default]

    if (
        values(_ORIENTATION, 1) != [1]
        or values(_OPTIONS, 0) != [0]
        or _STRIP_AT not in tags
        or _STRIP_BYTES not in tags
    ):
        raise ImageError("TIFF with CCITT codes in tiles, uncompressed or turned: damage to it would not be seen")
    stored = ImageChops.invert(image) if values(_PHOTOMETRIC, 0) == [0] else image
    rows = min(values(_ROWS, image.height)[0], image.height)
    is_reversed = values(_FILL_ORDER, 1) == [2]
    strips = list(zip(values(_STRIP_AT, 0), values(_STRIP_BYTES, 0), strict=False))
    if len(strips) != -(-image.height // rows):
        raise ImageError(f"TIFF with {len(strips)} strips of {rows} rows for {image.height}")
    for i, (at, count) in enumerate(strips):
        strip = _bits_reversed(data[at : at + count]) if is_reversed else data[at : at + count]
        own = stored.crop((0, i * rows, image.width, min((i + 1) * rows, image.height)))
        if not _begins_with(strip, _coded(own)):
            raise ImageError(
                f"TIFF is damaged, or coded in an unusual way: strip {i} of CCITT codes, coded again, is another"
            )


def _bits_reversed(data: bytes) -> bytes:
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    return np.packbits(bits.reshape(-1, 8)[:, ::-1]).tobytes()


def _coded(image: Any) -> bytes:
    """One strip of Group 4 codes."""
    out = io.BytesIO()
    image.save(out, "TIFF", compression="group4", tiffinfo={_ROWS: image.height})
    found = read_directories(out.getvalue())
    tags: Directory = found.main
    (at,), (count,) = (numbers(found.order, tags[tag]) for tag in (_STRIP_AT, _STRIP_BYTES))
    return out.getvalue()[at : at + count]


def _begins_with(strip: bytes, coded: bytes) -> bool:
    """Whether a strip is these codes, with the end of the block or without it, filled up with zeros."""
    whole, found = int.from_bytes(coded, "big"), int.from_bytes(strip, "big")
    codes = 8 * len(coded) - _zeros(whole) - _END_BITS  # bits of the codes before the end
    rest = 8 * len(strip) - codes
    if rest < 0 or found >> rest != whole >> 8 * len(coded) - codes:
        return False
    end = found & (1 << rest) - 1
    return end >> _zeros(end) in (0, _END)


def _zeros(bits: int) -> int:
    """How many zeros are behind the last one of a number; 0 for 0."""
    return max((bits & -bits).bit_length() - 1, 0)
