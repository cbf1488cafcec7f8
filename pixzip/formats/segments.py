"""Blocks of a GIF, JPEG, WebP or BMP file → what Pillow does not tell: every comment, and the bytes behind the end.

GIF89a, sections 17 to 27; JPEG, ITU-T T.81, annex B; WebP, RFC 9649; BMP, BITMAPV5HEADER.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pixzip.errors import ImageError
from pixzip.formats.metadata import Metadata

#: JPEG markers: of restarts, the end, a scan, a comment; those of no length are restarts, start, end and TEM.
_RESTARTS, _END, _SCAN, _COMMENT = range(0xD0, 0xD8), 0xD9, 0xDA, 0xFE
_WITHOUT_LENGTH = (*_RESTARTS, 0xD8, _END, 0x01)
#: Where a BMP's header of version 5 has the colour space (MBED: a profile is inside), the profile's place and size.
_V5_SPACE, _V5_PROFILE, _V5_BYTES = 14 + 56, 14 + 112, 14 + 124


def metadata_of(data: bytes, kind: str) -> Metadata:
    """Comments, a BMP's colour profile, and what stands behind the end (as PNG's ``trailer``) of a file."""
    found = {"GIF": _of_gif, "JPEG": _of_jpeg, "WEBP": _of_webp, "BMP": _of_bmp}.get(kind)
    return found(data) if found else ()


def gif_frames(data: bytes) -> int:
    """Number of a GIF's frames. Raises ImageError for bytes between its blocks."""
    return sum(kind == 0x2C for kind, _, _ in _gif_blocks(data))


def _gif_table(flags: int) -> int:
    """Bytes of a colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, where it begins, where the next one does) of a GIF's blocks, up to the end or where the file is cut off.

    Kinds are 0x2C, an image; 0x100 + label, an extension; 0x3B, the end.
    """
    at = 13 + _gif_table(data[10] if len(data) > 10 else 0)
    while at < len(data):
        start, kind = at, data[at]
        if kind == 0x3B:
            yield kind, start, at + 1
            return
        if kind == 0:  # one more terminator than there are blocks, which some writers write
            at += 1
            continue
        if kind not in (0x21, 0x2C):
            raise ImageError(f"GIF with the byte {kind:02x} where a block should begin, at {at}")
        at += 2 if kind == 0x21 else 11 + _gif_table(data[at + 9] if at + 9 < len(data) else 0)
        while at < len(data) and data[at]:
            at += data[at] + 1
        at += 1
        yield (0x100 + (data[start + 1] if start + 1 < len(data) else 0) if kind == 0x21 else kind), start, at


def _of_gif(data: bytes) -> Metadata:
    entries: list[tuple[str, bytes]] = []
    end = len(data)
    for kind, start, after in _gif_blocks(data):
        if kind == 0x1FE:
            entries.append(("comment", _joined(data, start + 2)))
        end = after
    return (*entries, *_trailer(data, end))


def _joined(data: bytes, at: int) -> bytes:
    """A GIF's sub-blocks as one."""
    out = bytearray()
    while at < len(data) and data[at]:
        out += data[at + 1 : at + 1 + data[at]]
        at += data[at] + 1
    return bytes(out)


def _of_jpeg(data: bytes) -> Metadata:
    entries: list[tuple[str, bytes]] = []
    at = 0
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        marker = data[at + 1]
        if marker == _END:
            return (*entries, *_trailer(data, at + 2))
        if marker in (0, 0xFF) or marker in _WITHOUT_LENGTH:  # 0 in a scan; 0xFF fills up
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _COMMENT:
            entries.append(("comment", data[at + 4 : at + 2 + length]))
        at += 2 + max(length, 2)
    return tuple(entries)


def _of_webp(data: bytes) -> Metadata:
    size = int.from_bytes(data[4:8], "little")
    return _trailer(data, 8 + size + size % 2)


def _of_bmp(data: bytes) -> Metadata:
    header = int.from_bytes(data[14:18], "little")
    offset = int.from_bytes(data[10:14], "little")
    if header < 40:  # of OS/2
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        image_bytes, compression = 0, 0
    else:
        width, height, _, bits, compression, image_bytes = struct.unpack_from("<iiHHII", data, 18)
    if compression in (0, 3):
        image_bytes = (abs(width) * bits + 31) // 32 * 4 * abs(height)
    end = offset + image_bytes
    entries = []
    if header >= 124 and data[_V5_SPACE : _V5_SPACE + 4] == b"DEBM":
        at, size = struct.unpack_from("<II", data, _V5_PROFILE)
        entries.append(("icc", data[14 + at : 14 + at + size]))
        end = max(end, 14 + at + size)
    is_known = compression in (0, 3) or image_bytes > 0  # of run lengths only the header says how many bytes they are
    is_filling = len(data) - end < 4 and not any(data[end:])
    return (*entries, *(_trailer(data, end) if is_known and not is_filling else ()))


def _trailer(data: bytes, end: int) -> Metadata:
    return (("trailer", data[end:]),) if len(data) > end else ()
