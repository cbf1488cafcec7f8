"""Directories of a TIFF file or an EXIF block ↔ raw entries: type, count and bytes of every tag, nothing interpreted.

TIFF 6.0, section 2; BigTIFF; EXIF 2.32, section 4.6. A value's bytes stay in the byte order of the file it is from.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pixzip.errors import ImageError

#: Tags that say where a directory is: EXIF, GPS, and, in EXIF's own, interoperability.
EXIF_PART, GPS_PART, INTEROP_PART = 34665, 34853, 40965
#: Field types: byte, short, long, rational, undefined; of BigTIFF, a long of 8 bytes, signed, and a directory's place.
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, IFD = 1, 2, 3, 4, 5, 7, 13
_LONG8, _SLONG8, _IFD8 = 16, 17, 18
DIRECTORY_TYPES = (IFD, _IFD8)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
#: Of BigTIFF's types those of the same meaning that TIFF has.
_NARROW = {_LONG8: (LONG, "Q", "I"), _SLONG8: (9, "q", "i")}


class Entry(NamedTuple):
    """A tag's value: field type, how many values of it, and their bytes (none of a type that nobody knows)."""

    type: int
    number: int
    data: bytes


Directory = Mapping[int, Entry]


@dataclass(frozen=True)
class Directories:
    """The first directory of a file and those that it points to; order is "<" or ">", of all values' bytes."""

    order: str
    main: Directory
    parts: Mapping[int, Directory]  # EXIF, GPS and interoperability, by the tag that points there
    is_last: bool  # no other directory, which is another page or a thumbnail, follows the first


class _File(NamedTuple):
    """Where things are: in BigTIFF counts of entries have 8 bytes, and so have places."""

    data: bytes
    order: str
    is_big: bool

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.bytes(at, size), "little" if self.order == "<" else "big")

    def bytes(self, at: int, size: int) -> bytes:
        if at + size > len(self.data):
            raise ImageError(f"TIFF directory: {size} bytes at {at} are not in its {len(self.data)}")
        return self.data[at : at + size]

    @property
    def word(self) -> int:
        """Bytes of a place."""
        return 8 if self.is_big else 4


def read_directories(data: bytes) -> Directories:
    """The directories of a TIFF file or EXIF block. Raises ImageError where they are damaged.

    All values together are at most as long as the file, so that entries that share bytes take no more memory than it.
    """
    file, at = _header(data)
    main, after = _read(file, at)
    parts: dict[int, Directory] = {}
    for tag in (EXIF_PART, GPS_PART):
        if tag in main:
            parts[tag], _ = _read(file, _place(file, tag, main[tag]))
    exif = parts.get(EXIF_PART, {})
    if INTEROP_PART in exif:
        parts[INTEROP_PART], _ = _read(file, _place(file, INTEROP_PART, exif[INTEROP_PART]))
    if sum(len(entry.data) for directory in (main, *parts.values()) for entry in directory.values()) > len(data):
        raise ImageError(f"TIFF directory: values are longer than the file of {len(data)} bytes")
    return Directories(file.order, main, parts, is_last=file.number(after, file.word) == 0)


def _header(data: bytes) -> tuple[_File, int]:
    """The file and where its first directory is."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    version = int.from_bytes(data[2:4], "little" if order == "<" else "big")
    if not order or version not in (42, 43):
        raise ImageError(f"TIFF directory: no header in {data[:4].hex()}")
    file = _File(data, order, version == 43)
    return file, file.number(8 if file.is_big else 4, file.word)


def _read(file: _File, at: int) -> tuple[dict[int, Entry], int]:
    """The directory at a place, and where the place of the next one is."""
    head = 8 if file.is_big else 2
    each = 4 + 2 * file.word
    count, total = file.number(at, head), 0
    found: dict[int, Entry] = {}
    table = file.bytes(at + head, count * each)
    for i in range(count):
        tag, kind = struct.unpack_from(f"{file.order}HH", table, i * each)
        value_at = at + head + i * each + 4 + file.word
        number = file.number(value_at - file.word, file.word)
        size = number * _TYPE_BYTES.get(kind, 0)
        total += size
        if total > len(file.data):
            raise ImageError(f"TIFF directory: values are longer than the file of {len(file.data)} bytes")
        place = value_at if size <= file.word else file.number(value_at, file.word)
        found.setdefault(tag, Entry(kind, number, file.bytes(place, size)))
    return found, at + head + count * each


def _place(file: _File, tag: int, entry: Entry) -> int:
    """Where the directory is that an entry points to."""
    if entry.number != 1 or len(entry.data) not in (4, 8):
        raise ImageError(f"TIFF directory: tag {tag} tells no place")
    return int.from_bytes(entry.data, "little" if file.order == "<" else "big")


def made(order: str, kind: int, *values: int) -> Entry:
    """An entry of type SHORT, LONG, or RATIONAL (numerators and denominators in turn)."""
    letter = {SHORT: "H", LONG: "I", RATIONAL: "I"}[kind]
    count = len(values) // (2 if kind == RATIONAL else 1)
    return Entry(kind, count, struct.pack(f"{order}{len(values)}{letter}", *values))


def numbers(order: str, entry: Entry) -> list[int]:
    """The values of an entry of type SHORT or LONG, of BigTIFF's too. Raises ImageError for other types."""
    letter = {SHORT: "H", LONG: "I", _LONG8: "Q"}.get(entry.type)
    if letter is None:
        raise ImageError(f"TIFF directory: numbers of type {entry.type}, not short or long")
    return list(struct.unpack(f"{order}{entry.number}{letter}", entry.data))


def packet(data: bytes) -> Entry:
    """An entry that holds bytes as they are."""
    return Entry(UNDEFINED, len(data), data)


def write_directories(directories: Directories, behind: bytes = b"", place_tag: int = 0) -> bytes:
    """A TIFF file or EXIF block of these directories. Raises ImageError for values that only BigTIFF holds.

    behind are bytes that the file ends with; the tag place_tag of the first directory is made to tell where.
    """
    order, parts = directories.order, {tag: dict(part) for tag, part in directories.parts.items() if part}
    unplaced = made(order, LONG, 0)
    main = {tag: entry for tag, entry in directories.main.items() if tag not in (EXIF_PART, GPS_PART)}
    main |= {tag: unplaced for tag in (EXIF_PART, GPS_PART) if tag in parts}
    main |= {place_tag: unplaced} if place_tag else {}
    exif = parts.get(EXIF_PART, {})
    exif.pop(INTEROP_PART, None)
    if INTEROP_PART in parts:
        exif[INTEROP_PART] = unplaced
    at = 8 + len(_written(order, main, 0))
    for tag, pointer_in in ((EXIF_PART, main), (INTEROP_PART, exif), (GPS_PART, main)):
        if tag in pointer_in:
            pointer_in[tag] = made(order, LONG, at)
            at += len(_written(order, parts[tag], 0))
    if place_tag:
        main[place_tag] = made(order, LONG, at)
    out = bytearray(_header_of(order, 8))
    for directory in (main, exif, parts.get(INTEROP_PART, {}) if INTEROP_PART in exif else {}, parts.get(GPS_PART, {})):
        out += _written(order, directory, len(out)) if directory else b""
    return bytes(out) + behind


def with_directory(data: bytes, order: str, directory: Directory) -> bytes:
    """A TIFF file with this directory as its only one, at its end: places in it are those of the file, whose it is.

    Raises ImageError beyond 4 GB, which only BigTIFF can point to.
    """
    at = len(data) + len(data) % 2
    if at >= 1 << 32:
        raise ImageError(f"TIFF of {len(data)} bytes: its samples of 16 bits are not read beyond 4 GB")
    header = _header_of(order, at)
    behind = bytes(at - len(data)) + _written(order, directory, at)
    return b"".join((header, memoryview(data)[len(header) :], behind))


def _header_of(order: str, at: int) -> bytes:
    return struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, at)


def _written(order: str, directory: Directory, at: int) -> bytes:
    """A directory that is to stand at this place, and its values; entries of types that nobody knows are left out."""
    directory = {tag: entry for tag, entry in directory.items() if entry.data or not entry.number}
    table, values = bytearray(), bytearray()
    values_at = at + 2 + 12 * len(directory) + 4
    for tag in sorted(directory):
        kind, count, data = _narrow(order, tag, directory[tag])
        place = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(f"{order}I", values_at + len(values))
        table += struct.pack(f"{order}HHI", tag, kind, count) + place
        values += data + bytes(len(data) % 2) if len(data) > 4 else b""
    return struct.pack(f"{order}H", len(directory)) + bytes(table) + bytes(4) + bytes(values)


def _narrow(order: str, tag: int, entry: Entry) -> Entry:
    """The entry in a type that TIFF has."""
    if entry.type not in _NARROW:
        return entry
    kind, wide, letter = _NARROW[entry.type]
    try:
        values = struct.unpack(f"{order}{entry.number}{wide}", entry.data)
        return Entry(kind, entry.number, struct.pack(f"{order}{entry.number}{letter}", *values))
    except struct.error:
        raise ImageError(f"TIFF tag {tag} has numbers of 64 bits, which no EXIF block holds") from None
