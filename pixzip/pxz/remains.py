"""A damaged file's bytes → the chunks in it that are intact, the Container they make, and which tiles are missing.

A chunk has a CRC of its own but no number, and its length is not under the CRC. So a chunk with wrong bytes is passed
over by its length, if another chunk or the end of the file follows there; otherwise the next intact chunk is looked
for, and how many chunks were in between is not known: tiles after such a gap are counted from the end of the file.
Where that may put a tile in a wrong place, it is said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from pixzip.errors import FormatError, UsageError
from pixzip.pxz.container import (
    ALPH,
    BLOCK_PICTURES,
    CHUNKS,
    CONSTANT,
    HEADER_BYTES,
    META,
    MODL,
    PALT,
    STOR,
    TILE,
    TRNS,
    Chunk,
    Coding,
    Container,
    Header,
    check_key,
    check_pixels,
    read_chunk,
    read_container,
    read_header,
    tile_count,
    tile_grid,
    unpack_metadata,
)

_TYPES = re.compile(b"|".join(sorted(CHUNKS)))
#: Looking for chunks computes CRCs of so many times the file's bytes at most: one may hold what looks like millions.
_SEARCH_TIMES = 16
#: In place of a lost tile: no lane table begins so and ends here.
_NO_TILE = b"\x80"


class Gap(NamedTuple):
    """Bytes that are no intact chunk; type: of the one chunk that they were, by what can still be read."""

    start: int
    end: int
    type: bytes | None
    reason: str


@dataclass(frozen=True)
class Lost:
    """Pixels that are not known: rows y to y + h, columns x to x + w of pictures first to last, ends not included."""

    first: int
    last: int
    y: int
    x: int
    h: int
    w: int
    reason: str

    def __str__(self) -> str:
        """Counted from 0, ends included."""
        rows, columns = f"rows {self.y} to {self.y + self.h - 1}", f"columns {self.x} to {self.x + self.w - 1}"
        several = f"pictures {self.first} to {self.last - 1}: " if self.last - self.first > 1 else ""
        return f"{several}{rows}, {columns}: {self.reason}"


@dataclass(frozen=True)
class Remains:
    """What is left of a file: parts that stand in for lost ones make the Container complete."""

    container: Container
    missing: dict[int, str]  # number of a tile → why it is not there
    faults: tuple[str, ...]  # of other parts, a line each


def find_remains(data: bytes, *, max_pixels: int) -> Remains:
    """What is left of a file whose header is intact.

    Raises FormatError where that is not so, or no pixel is left, or what is left makes no picture; LimitError.
    """
    header = read_header(data)
    check_pixels(header.pictures, header.height, header.width, max_pixels)
    if tile_count(header) > len(data):
        raise FormatError(f"the header says {tile_count(header)} tiles, the file has {len(data)} bytes")
    pieces = _pieces(data)
    faults = [piece.reason for piece in pieces if isinstance(piece, Gap) and piece.type != TILE]
    parts = {piece.type: piece.payload for piece in reversed(pieces) if isinstance(piece, Chunk)}
    metadata, bad = _metadata(pieces)
    faults += bad
    tiles: dict[int, bytes] = {}
    if header.coding == Coding.STORED:
        if STOR not in parts:
            raise FormatError("nothing to salvage: the picture is stored in one piece, which is damaged")
    else:
        tiles, notes = _placed(pieces, tile_count(header))
        faults += notes
        if not tiles:
            raise FormatError("nothing to salvage: no tile is intact")
        if header.mode in ("LA", "RGBA") and ALPH not in parts:
            parts[ALPH] = bytes([CONSTANT]) + b"\xff" * (header.depth // 8)
            faults.append("chunk ALPH is lost: opaque everywhere")
    container = _container(header, parts, metadata, tiles)
    missing = _reasons(pieces, tiles, tile_count(header))
    if not faults and not missing:
        faults += _strict(data, max_pixels)
    return Remains(container, missing, tuple(faults))


def _strict(data: bytes, max_pixels: int) -> list[str]:
    """Why a file whose chunks are all intact is none that the format allows: their order, number or kind."""
    try:
        read_container(data, max_pixels=max_pixels)
    except FormatError as error:
        return [str(error)]
    return []


def _metadata(pieces: list[Chunk | Gap]) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Entries that are what they should be, and why others are not."""
    entries, faults = [], []
    for piece in pieces:
        if isinstance(piece, Chunk) and piece.type == META:
            try:
                entry = unpack_metadata(piece)
                check_key(entry[0])
            except (FormatError, UsageError) as error:
                faults.append(str(error))
            else:
                entries.append(entry)
    return entries, faults


def _container(
    header: Header, parts: dict[bytes, bytes], metadata: list[tuple[str, bytes]], tiles: dict[int, bytes]
) -> Container:
    try:
        return Container(
            header=header,
            palette=parts.get(PALT, b""),
            transparency=parts.get(TRNS, b""),
            metadata=tuple(metadata),
            alpha=(parts[ALPH][0], parts[ALPH][1:]) if parts.get(ALPH) else None,
            stored=(parts[STOR][0], parts[STOR][1:]) if parts.get(STOR) else None,
            tiles=tuple(tiles.get(i, _NO_TILE) or _NO_TILE for i in range(tile_count(header))),
            model=parts.get(MODL),
        )
    except UsageError as error:
        raise FormatError(f"what is left makes no picture: {error}") from None


def areas(header: Header, missing: dict[int, str]) -> tuple[Lost, ...]:
    """Where the pixels of these tiles, or blocks of pictures, stand."""
    if not missing:
        return ()  # not even the grid of a stored picture: writers put 1 for the side of its tiles
    if header.pictures > 1:
        size = (0, 0, header.height, header.width)
        blocks = {i: (i * BLOCK_PICTURES, min((i + 1) * BLOCK_PICTURES, header.pictures)) for i in missing}
        return tuple(Lost(*blocks[i], *size, reason) for i, reason in sorted(missing.items()))
    grid = tile_grid(header.width, header.height, header.tile)
    return tuple(Lost(0, 1, *grid[i], reason) for i, reason in sorted(missing.items()))


# ------------------------------------------------------------------------ chunks


def _pieces(data: bytes) -> list[Chunk | Gap]:
    """All bytes after the header."""
    pieces: list[Chunk | Gap] = []
    search = _Search(data)
    at = HEADER_BYTES
    while at < len(data):
        try:
            piece: Chunk | Gap = read_chunk(data, at, "a chunk")
        except FormatError as error:
            piece = search.gap(at, str(error))
        pieces.append(piece)
        at = piece.end
    return pieces


class _Search:
    """Looks for intact chunks, within a bound on the bytes that it computes CRCs of."""

    def __init__(self, data: bytes) -> None:
        self._data, self._left = data, _SEARCH_TIMES * len(data)

    def gap(self, start: int, reason: str) -> Gap:
        """The gap from a chunk that is not intact to the next that is, or to the end."""
        data = self._data
        if _TYPES.match(data, start):
            end = start + 12 + int.from_bytes(data[start + 4 : start + 8], "little")
            if end == len(data) or (end < len(data) and self._intact(end)):
                return Gap(start, end, data[start : start + 4], reason)
        for found in _TYPES.finditer(data, start + 1):
            if self._intact(found.start()):
                return Gap(start, found.start(), None, reason)
        return Gap(start, len(data), None, reason)

    def _intact(self, at: int) -> bool:
        if self._left <= 0 or not _TYPES.match(self._data, at):
            return False
        length = int.from_bytes(self._data[at + 4 : at + 8], "little")
        self._left -= 12
        if length > len(self._data) - at - 12:
            return False
        self._left -= length
        try:
            read_chunk(self._data, at, "a chunk")
        except FormatError:
            return False
        return True


# ------------------------------------------------------------------------ tiles


def _placed(pieces: list[Chunk | Gap], count: int) -> tuple[dict[int, bytes], list[str]]:
    """Payloads of intact tiles by their numbers, and what must be said of how these were found."""
    run = [piece for piece in pieces if piece.type in (TILE, None)]
    tiles: dict[int, bytes] = {}
    before = _number(tiles, run, range(count))
    if before == len(run):
        short = (
            f"{len(run)} tiles without a gap, the header says {count}: if not the last are missing, places are wrong"
        )
        return tiles, [short] if len(run) != count else []
    from_end: dict[int, bytes] = {}
    after = _number(from_end, run[::-1], range(count - 1, -1, -1))
    notes = []
    if from_end and before + after <= count:
        tiles |= from_end
        notes.append(f"tiles after byte {run[-after].start} are counted from the end of the file")
    unplaced = sum(isinstance(piece, Chunk) for piece in run) - len(tiles)
    if unplaced:
        notes.append(f"{unplaced} intact tiles are left out: their place is not known")
    return tiles, notes


def _number(tiles: dict[int, bytes], run: list[Chunk | Gap], numbers: range) -> int:
    """Give tiles these numbers in turn, up to the first gap of unknown content; returns how many pieces come before."""
    for i, piece in enumerate(run):
        if piece.type is None:
            return i
        if isinstance(piece, Chunk) and i < len(numbers):
            tiles[numbers[i]] = piece.payload
    return len(run)


def _reasons(pieces: list[Chunk | Gap], tiles: dict[int, bytes], count: int) -> dict[int, str]:
    """Why each tile that was not found is missing."""
    run = [piece for piece in pieces if piece.type in (TILE, None)]
    known = next((i for i, piece in enumerate(run) if piece.type is None), len(run))
    otherwise = run[known] if known < len(run) else None
    later = otherwise.reason if isinstance(otherwise, Gap) else "the file ends before it"
    reasons = {}
    for i in range(count):
        piece = run[i] if i < known else None
        if i not in tiles:
            reasons[i] = piece.reason if isinstance(piece, Gap) else later
    return reasons
