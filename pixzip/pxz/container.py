"""Bytes ↔ header, chunks and checksums of a .pxz file; mirrors docs/format.md, sections 1 to 7.

It knows nothing of models, images or coding: payloads are bytes. Three kinds of error: FormatError for a bad file,
UsageError for a Header or Container that no file can hold, LimitError for a picture over the caller's limit.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pixzip.errors import FormatError, LimitError, UsageError
from pixzip.limits import MAX_PIXELS

if TYPE_CHECKING:  # files are read without numpy
    from numpy.typing import NDArray

# Section 1: layout.

MAGIC = b"\x89PXZ\r\n\x1a\n"
#: Versions that are read: the second where a file holds what only it has (version_of), else the first.
VERSION, DEEP_VERSION = 2, 3
_FIRST_CHUNK = 9  # byte at which the header chunk starts
#: Bytes from the magic to the end of the header chunk: all that read_header looks at.
HEADER_BYTES = 64

# Section 2: chunks.

HEAD, MODL, PTCH, PALT, TRNS = b"HEAD", b"MODL", b"PTCH", b"PALT", b"TRNS"
META, ALPH, STOR, TILE = b"meta", b"ALPH", b"STOR", b"TILE"
#: Type → (place in the order of chunks, least bytes of payload).
CHUNKS = {
    HEAD: (1, 43),
    MODL: (2, 1),
    PTCH: (3, 0),
    PALT: (4, 3),
    TRNS: (5, 1),
    META: (6, 2),
    ALPH: (7, 2),
    STOR: (8, 2),
    TILE: (8, 1),
}
_REPEATED = (META, TILE)
_FRAME_BYTES = 12
_MAX_PAYLOAD_BYTES = 2**32 - 1

# Section 3: header.


class Coding(IntEnum):
    """How the pixels are coded."""

    MODEL = 1
    STORED = 2


class _Mode(NamedTuple):
    id: int
    planes: int
    depths: tuple[int, ...]


_MODES = {
    "L": _Mode(1, 1, (1, 2, 4, 8, 16)),
    "LA": _Mode(2, 2, (8, 16)),
    "RGB": _Mode(3, 3, (8, 16)),
    "RGBA": _Mode(4, 4, (8, 16)),
    "P": _Mode(5, 1, (1, 2, 4, 8)),
}
#: width height pictures mode depth coding lanes tile learning digest checksum
_HEADER = struct.Struct("<IIIBBBBHB8s16s")
_MAX_COUNT = 2**31 - 1
MAX_LANES = 64
MAX_TILE = 65535
MAX_LEARNING = 255
DIGEST_BYTES = 8
CHECKSUM_BYTES = 16

# Sections 4 to 6: metadata, stored pictures, blocks.

_MAX_KEY_BYTES = 64
CONSTANT, PNG, WEBP, DEEP = 0, 1, 2, 3
#: Pictures in a block (one TILE chunk) of a file of several pictures.
BLOCK_PICTURES = 1024
#: Pixels that each of several pictures counts as at least, where a limit is compared: what it takes beside them.
LEAST_PIXELS = 64
#: Pixels of a band of a stored picture of kind DEEP; at least one row.
BAND_PIXELS = 1 << 20


@dataclass(frozen=True)
class Header:
    """What is known before any pixel: section 3. Raises UsageError when made with values that no file can hold."""

    width: int
    height: int
    pictures: int  # N pictures of equal size, mode and depth
    mode: str  # "L", "LA", "RGB", "RGBA", "P"
    depth: int  # bits a sample: 1, 2, 4, 8, 16, as the mode allows
    coding: int  # a Coding
    model_digest: bytes  # first 8 bytes of the SHA-256 of the model file; 8 zero bytes for STORED
    tile: int  # side of a tile in pixels
    lanes: int  # K, streams in a tile payload
    learning: int  # rate at which the model learns from the pixels coded so far, 0: not
    pixels_checksum: bytes  # see checksum()

    def __post_init__(self) -> None:
        """Check every field, then the fields against each other."""
        _check_range("width", self.width, _MAX_COUNT)
        _check_range("height", self.height, _MAX_COUNT)
        _check_range("pictures", self.pictures, _MAX_COUNT)
        _require(self.mode in _MODES, f"mode {self.mode!r}: must be one of {', '.join(_MODES)}")
        depths = _MODES[self.mode].depths
        _require(self.depth in depths, f"depth {self.depth}: mode {self.mode} has one of {', '.join(map(str, depths))}")
        _require(self.coding in (Coding.MODEL, Coding.STORED), f"coding {self.coding}: must be 1 (MODEL) or 2 (STORED)")
        _check_range("lanes", self.lanes, MAX_LANES)
        _check_range("tile", self.tile, MAX_TILE)
        _require(0 <= self.learning <= MAX_LEARNING, f"learning {self.learning}: must be 0 to {MAX_LEARNING}")
        _check_length("model digest", self.model_digest, DIGEST_BYTES)
        _check_length("pixels checksum", self.pixels_checksum, CHECKSUM_BYTES)
        _check_coding(self)


@dataclass(frozen=True)
class Container:
    """All that a file holds. Raises UsageError when made of parts that do not fit together."""

    header: Header
    palette: bytes  # mode P: RGB triples, 1 to 256; else empty
    transparency: bytes  # payload of PNG's tRNS; empty if there is none
    metadata: tuple[tuple[str, bytes], ...]  # (key, value) in order
    alpha: tuple[int, bytes] | None  # (kind, data), kind CONSTANT, PNG, WEBP or DEEP
    stored: tuple[int, bytes] | None  # (kind, data), kind PNG, WEBP or DEEP, for coding STORED
    tiles: tuple[bytes, ...]  # for coding MODEL: one payload a tile, or a block of pictures
    model: bytes | None = None  # embedded model file
    patch: bytes | None = None  # changes to the model: reserved, no version has any

    def __post_init__(self) -> None:
        """Check every part against the header."""
        _check_model(self)
        _check_colours(self)
        for key, _ in self.metadata:
            check_key(key)
        _check_stored(self)
        expected = tile_count(self.header)
        _require(len(self.tiles) == expected, f"{len(self.tiles)} tile payloads, the header implies {expected}")
        _require(all(self.tiles), "a tile payload is empty")


class Front(NamedTuple):
    """What a file says of its pictures before their pixels."""

    header: Header
    palette: bytes
    transparency: bytes
    metadata: tuple[tuple[str, bytes], ...]


def version_of(c: Container) -> int:
    """Return the version of the file (section 1): the lowest that has what the container holds."""
    kinds = [part[0] for part in (c.alpha, c.stored) if part is not None]
    by_model = c.header.depth == 16 and c.header.coding == Coding.MODEL
    return DEEP_VERSION if by_model or DEEP in kinds else VERSION


def tile_count(header: Header) -> int:
    """Return the number of TILE chunks that the header implies (section 6); 0 for coding STORED."""
    if header.coding == Coding.STORED:
        return 0
    if header.pictures > 1:
        return -(-header.pictures // BLOCK_PICTURES)
    return -(-header.width // header.tile) * -(-header.height // header.tile)


def tile_grid(width: int, height: int, tile: int) -> list[tuple[int, int, int, int]]:
    """Return (y, x, h, w) of all tiles of one picture in raster order (section 6)."""
    return [
        (y, x, min(tile, height - y), min(tile, width - x))
        for y in range(0, height, tile)
        for x in range(0, width, tile)
    ]


def checksum(planes: NDArray[Any], mode: str, depth: int, palette: bytes, transparency: bytes) -> bytes:
    """Return the pixels checksum, 16 bytes: section 7.

    planes: (c, h, w), or (n, c, h, w) of n pictures; uint8, or uint16 for depth 16. Raises UsageError for others.
    """
    _require(mode in _MODES, f"mode {mode!r}: must be one of {', '.join(_MODES)}")
    pictures = planes if planes.ndim == 4 else planes[None]  # (n, c, h, w)
    code, planes_a_picture, _ = _MODES[mode]
    dtype = "uint16" if depth == 16 else "uint8"
    fits = pictures.ndim == 4 and pictures.shape[1] == planes_a_picture and pictures.dtype.name == dtype
    _require(
        fits, f"planes {planes.shape} {planes.dtype}: mode {mode}, depth {depth} has {planes_a_picture} of {dtype}"
    )
    n, c, h, w = pictures.shape
    digest = hashlib.blake2b(struct.pack("<BBBIII", code, depth, c, n, w, h), digest_size=CHECKSUM_BYTES)
    for picture in pictures:
        for plane in picture:  # one at a time: a plane that must be copied costs no more than its own memory
            digest.update(plane.astype("<u2" if depth == 16 else "u1", order="C", copy=False))
    for part in (palette, transparency):
        digest.update(struct.pack("<I", len(part)) + part)
    return digest.digest()


# Reading.


def read_header(data: bytes) -> Header:
    """Read magic, version and header chunk; data may be the first HEADER_BYTES of a file.

    Raises FormatError.
    """
    check_magic(data)
    if len(data) >= _FIRST_CHUNK + _FRAME_BYTES:
        type_, length = struct.unpack_from("<4sI", data, _FIRST_CHUNK)
        if type_ != HEAD:
            raise FormatError(f"first chunk is {_name(type_)}, must be HEAD")
        if length != _HEADER.size:
            raise FormatError(f"header length {length}, must be {_HEADER.size}")
    header = _unpack_header(read_chunk(data, _FIRST_CHUNK, "HEAD").payload)
    version = data[len(MAGIC)]
    if version < DEEP_VERSION and header.depth == 16 and header.coding == Coding.MODEL:
        raise FormatError(f"header: depth 16: coding MODEL has at most 8 in version {version}")
    return header


def read_container(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Container:
    """Read a whole file.

    Raises FormatError for any damage, LimitError for more than max_pixels pixels in all pictures together.
    """
    header = read_header(data)
    check_pixels(header.pictures, header.height, header.width, max_pixels)
    c = _assemble(header, _read_chunks(data, header))
    version = data[len(MAGIC)]
    if version != version_of(c):
        raise FormatError(f"version {version}: what the file holds is of version {version_of(c)}")
    return c


def counted_pixels(pictures: int, height: int, width: int) -> int:
    """Pixels of all pictures together, as limits count them: many are not free because they are tiny."""
    return height * width if pictures == 1 else pictures * max(height * width, LEAST_PIXELS)


def check_pixels(pictures: int, height: int, width: int, max_pixels: int) -> None:
    """Raise LimitError for more than max_pixels pixels in all pictures together."""
    counted = counted_pixels(pictures, height, width)
    if counted > max_pixels:
        size, pixels = f"{width} x {height} x {pictures}", width * height * pictures
        size += f" = {pixels} pixels" + (f", which count as {counted}" if counted > pixels else "")
        raise LimitError(f"{size}, over the limit of {max_pixels} (max_pixels)")


def read_front(file: IO[bytes]) -> Front:
    """Read a file up to the first chunk with pixels; of those not a byte.

    file stands at the magic and can seek. Raises FormatError for damage so far.
    """
    start = file.tell()
    end = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    data = bytearray(file.read(HEADER_BYTES))
    header = read_header(bytes(data))
    last = STOR if header.coding == Coding.STORED else TILE
    chunks: list[Chunk] = []
    while (frame := file.read(8))[:4] != last:
        at = len(data)
        data += frame + file.read(min(int.from_bytes(frame[4:], "little") + 4, end - at))
        chunk = read_chunk(data, at, f"chunk {_name(last)}")
        if _is_known(chunk, within_tiles=False):
            _check_place(chunk, chunks[-1].type if chunks else HEAD, header)
            chunks.append(chunk)
    single = {chunk.type: chunk.payload for chunk in chunks if chunk.type != META}
    with _bad_file(""):
        metadata = tuple(unpack_metadata(chunk) for chunk in chunks if chunk.type == META)
        for key, _ in metadata:
            check_key(key)
        front = Front(header, single.get(PALT, b""), single.get(TRNS, b""), metadata)
        _check_colours(front)
    return front


class Chunk(NamedTuple):
    """A chunk whose CRC is right, at bytes start to end of the file."""

    type: bytes
    payload: bytes
    start: int
    end: int


def check_magic(data: bytes) -> None:
    """Section 1: magic and version."""
    start = data[: len(MAGIC)]
    if not MAGIC.startswith(start):
        raise FormatError(f"not a .pxz file: starts with {start.hex()}, must be {MAGIC.hex()}")
    if len(data) <= len(MAGIC):
        raise FormatError(f"truncated: the file ends at byte {len(data)}, within magic and version")
    version = data[len(MAGIC)]
    if version > DEEP_VERSION:
        raise FormatError(
            f"version {version} is newer than this pixzip reads ({DEEP_VERSION}): a newer pixzip is needed"
        )
    if version < VERSION:
        raise FormatError(f"version {version} was never released: it is not read")


def read_chunk(data: bytes | bytearray, start: int, wanted: str) -> Chunk:
    """Section 2: the frame of the chunk at start; `wanted` names it where the file ends instead."""
    left = len(data) - start
    if left == 0:
        raise FormatError(f"truncated: the file ends at byte {start}, {wanted} is missing")
    if left < _FRAME_BYTES:
        raise FormatError(
            f"truncated: the file ends at byte {len(data)}, within the frame of the chunk at byte {start}"
        )
    type_, length = struct.unpack_from("<4sI", data, start)
    where = f"chunk {_name(type_)} at byte {start}"
    if length > left - _FRAME_BYTES:
        raise FormatError(f"truncated: {where} has {length} bytes, the file {left - _FRAME_BYTES} more")
    end = start + _FRAME_BYTES + length
    payload = bytes(data[start + 8 : end - 4])
    (stored,) = struct.unpack_from("<I", data, end - 4)
    computed = _crc(type_, payload)
    if stored != computed:
        where = "header" if type_ == HEAD else f"{where}:"
        raise FormatError(f"{where} CRC {stored:08x}, computed {computed:08x}")
    return Chunk(type_, payload, start, end)


def _read_chunks(data: bytes, header: Header) -> list[Chunk]:
    """All known chunks after the header, in a valid order, to the end of the file."""
    last = STOR if header.coding == Coding.STORED else TILE
    expected = tile_count(header) or 1
    found = 0
    chunks: list[Chunk] = []
    start = HEADER_BYTES
    while found < expected:
        chunk = read_chunk(data, start, f"chunk {_name(last)} {found + 1} of {expected}")
        if _is_known(chunk, within_tiles=found > 0):
            _check_place(chunk, chunks[-1].type if chunks else HEAD, header)
            chunks.append(chunk)
        found += chunk.type == last
        start = chunk.end
    if start < len(data):
        raise FormatError(f"trailing bytes: {len(data) - start} after the last chunk, which ends at byte {start}")
    return chunks


def _is_known(chunk: Chunk, *, within_tiles: bool) -> bool:
    """Whether the chunk is of this version; False: ancillary, to be passed over; FormatError: neither."""
    name, where = _name(chunk.type), f"at byte {chunk.start}"
    if not chunk.type.isalpha():
        raise FormatError(f"chunk type {name} {where} is not four letters")
    if chunk.type == PTCH:
        raise FormatError(f"chunk PTCH {where}: files with a model patch need a newer pixzip")
    if chunk.type in CHUNKS:
        return True
    if chunk.type[:1].isupper():
        raise FormatError(f"unknown critical chunk {name} {where}: a newer pixzip may know it")
    if within_tiles:
        raise FormatError(f"chunk {name} {where} is out of order: after TILE")
    return False


def _check_place(chunk: Chunk, previous: bytes, header: Header) -> None:
    """Section 2: order, number and least length of a known chunk that follows one of type `previous`."""
    place, least_bytes = CHUNKS[chunk.type]
    where = f"chunk {_name(chunk.type)} at byte {chunk.start}"
    if chunk.type in (STOR, TILE) and (chunk.type == STOR) != (header.coding == Coding.STORED):
        raise FormatError(f"{where}: not in a file of coding {Coding(header.coding).name}")
    if chunk.type == previous and chunk.type not in _REPEATED:
        raise FormatError(f"{where} is a duplicate")
    if place < CHUNKS[previous][0]:
        raise FormatError(f"{where} is out of order: after {_name(previous)}")
    if len(chunk.payload) < least_bytes:
        raise FormatError(f"{where}: {len(chunk.payload)} bytes, must have at least {least_bytes}")


def _unpack_header(payload: bytes) -> Header:
    """Section 3."""
    *numbers, digest, pixels_checksum = _HEADER.unpack(payload)
    width, height, pictures, mode_id, depth, coding, lanes, tile, learning = numbers
    modes = {mode.id: name for name, mode in _MODES.items()}
    if mode_id not in modes:
        raise FormatError(f"header: mode id {mode_id}: must be 1 to {len(modes)}")
    with _bad_file("header: "):
        mode = modes[mode_id]
        return Header(width, height, pictures, mode, depth, coding, digest, tile, lanes, learning, pixels_checksum)


def _assemble(header: Header, chunks: list[Chunk]) -> Container:
    """Chunks of a valid order and number → Container, whose parts check themselves."""
    single = {chunk.type: chunk.payload for chunk in chunks if chunk.type not in _REPEATED}
    with _bad_file(""):
        return Container(
            header=header,
            palette=single.get(PALT, b""),
            transparency=single.get(TRNS, b""),
            metadata=tuple(unpack_metadata(chunk) for chunk in chunks if chunk.type == META),
            alpha=(single[ALPH][0], single[ALPH][1:]) if ALPH in single else None,
            stored=(single[STOR][0], single[STOR][1:]) if STOR in single else None,
            tiles=tuple(chunk.payload for chunk in chunks if chunk.type == TILE),
            model=single.get(MODL),
        )


def unpack_metadata(chunk: Chunk) -> tuple[str, bytes]:
    """Section 4: (key, value); latin-1 takes any byte, so that _check_key can name a wrong one."""
    key_bytes = int.from_bytes(chunk.payload[:1], "little")
    if key_bytes >= len(chunk.payload):
        where = f"chunk meta at byte {chunk.start}"
        raise FormatError(f"{where}: a key of {key_bytes} bytes in a payload of {len(chunk.payload)}")
    return chunk.payload[1 : 1 + key_bytes].decode("latin-1"), chunk.payload[1 + key_bytes :]


# Writing.


def write_container(c: Container) -> bytes:
    """Return the bytes of the file; the same Container gives the same bytes."""
    parts = [MAGIC, bytes([version_of(c)]), _frame(HEAD, _pack_header(c.header))]
    parts += [_frame(MODL, c.model)] if c.model is not None else []
    parts += [_frame(PALT, c.palette)] if c.palette else []
    parts += [_frame(TRNS, c.transparency)] if c.transparency else []
    parts += [_frame(META, bytes([len(key)]) + key.encode("ascii") + value) for key, value in c.metadata]
    parts += [_frame(ALPH, bytes([c.alpha[0]]) + c.alpha[1])] if c.alpha is not None else []
    parts += [_frame(STOR, bytes([c.stored[0]]) + c.stored[1])] if c.stored is not None else []
    parts += [_frame(TILE, payload) for payload in c.tiles]
    return b"".join(parts)


def _frame(type_: bytes, payload: bytes) -> bytes:
    """Section 2: a chunk with its type, length and CRC."""
    fits = len(payload) <= _MAX_PAYLOAD_BYTES
    _require(fits, f"chunk {_name(type_)}: {len(payload)} bytes, over {_MAX_PAYLOAD_BYTES}")
    return struct.pack("<4sI", type_, len(payload)) + payload + struct.pack("<I", _crc(type_, payload))


def _crc(type_: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(type_))


def _pack_header(h: Header) -> bytes:
    """Section 3."""
    sizes = (h.width, h.height, h.pictures)
    ids = (_MODES[h.mode].id, h.depth, h.coding, h.lanes, h.tile, h.learning)
    return _HEADER.pack(*sizes, *ids, h.model_digest, h.pixels_checksum)


# Checks that both directions share. They raise UsageError; _bad_file turns it into FormatError for a reader.


@contextmanager
def _bad_file(where: str) -> Iterator[None]:
    """Values that came from a file: what would be a caller's mistake is the file's."""
    try:
        yield
    except UsageError as error:
        raise FormatError(f"{where}{error}") from None


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise UsageError(fault)


def _check_range(name: str, value: int, most: int) -> None:
    _require(1 <= value <= most, f"{name} {value}: must be 1 to {most}")


def _check_length(name: str, value: bytes, length: int) -> None:
    _require(len(value) == length, f"{name} {value.hex()}: must have {length} bytes")


def _check_coding(h: Header) -> None:
    """Section 3: what coding MODEL and STORED ask of the other fields."""
    if h.coding == Coding.STORED:
        _require(not any(h.model_digest), f"model digest {h.model_digest.hex()}: must be 0 with coding STORED")
        _require(h.learning == 0, f"learning {h.learning}: must be 0 with coding STORED")
    else:
        fits = h.pictures == 1 or max(h.width, h.height) <= h.tile
        size = f"{h.pictures} pictures of {h.width} x {h.height} pixels"
        _require(fits, f"{size}: each must fit in one tile of {h.tile} x {h.tile}")


def _check_model(c: Container) -> None:
    """Section 2: no patch; an embedded model is the one that the header names."""
    _require(c.patch is None, "model patch: no version has any")
    if c.model is None:
        return
    _require(c.header.coding == Coding.MODEL, "embedded model: not with coding STORED")
    digest = hashlib.sha256(c.model).digest()[:DIGEST_BYTES]
    named = c.header.model_digest.hex()
    _require(digest.hex() == named, f"embedded model has digest {digest.hex()}, the header names {named}")


def _check_colours(c: Container | Front) -> None:
    """Section 4: palette and transparency as the mode has them."""
    mode, n = c.header.mode, len(c.palette)
    if mode == "P":
        _require(3 <= n <= 768 and n % 3 == 0, f"palette of {n} bytes: mode P has 3 to 768, three an entry")
    else:
        _require(n == 0, f"palette of {n} bytes: mode {mode} has none")
    n = len(c.transparency)
    lengths = {"L": (0, 2), "RGB": (0, 6), "P": range(257)}.get(mode, (0,))
    _require(n in lengths, f"transparency of {n} bytes: not one of mode {mode}")


def check_key(key: str) -> None:
    """Section 4: the key of a metadata entry."""
    _require(1 <= len(key) <= _MAX_KEY_BYTES, f"metadata key of {len(key)} bytes: must have 1 to {_MAX_KEY_BYTES}")
    _require(all("!" <= letter <= "~" for letter in key), f"metadata key {key!a}: must be printable ASCII, no space")


def _check_stored(c: Container) -> None:
    """Section 5: alpha and stored picture where mode and coding have them, of a known kind."""
    mode, coding = c.header.mode, Coding(c.header.coding)
    if c.alpha is not None:
        _require(mode in ("LA", "RGBA"), f"alpha: mode {mode} has none")
        kind, data = c.alpha
        _require(kind in (CONSTANT, PNG, WEBP, DEEP), f"alpha of kind {kind}: must be 0, 1, 2 or 3")
        _check_deep("alpha", kind, c.header)
        sample_bytes = c.header.depth // 8
        exact = kind != CONSTANT or len(data) == sample_bytes
        _require(exact, f"constant alpha of {len(data)} bytes: depth {c.header.depth} has {sample_bytes}")
        _require(len(data) > 0, "alpha: no data")
    elif coding == Coding.MODEL:
        _require(mode not in ("LA", "RGBA"), f"alpha missing: mode {mode} has it")
    if c.stored is None:
        _require(coding == Coding.MODEL, "stored picture missing: coding STORED has one")
    else:
        _require(coding == Coding.STORED, "stored picture: not with coding MODEL")
        kind, data = c.stored
        _require(kind in (PNG, WEBP, DEEP), f"stored picture of kind {kind}: must be 1, 2 or 3")
        _check_deep("stored picture", kind, c.header)
        apart = kind != DEEP or c.alpha is not None or mode not in ("LA", "RGBA")
        _require(apart, f"stored picture of kind 3: mode {mode} needs alpha apart")
        _require(len(data) > 0, "stored picture: no data")


def _check_deep(name: str, kind: int, header: Header) -> None:
    _require(kind != DEEP or header.depth == 16, f"{name} of kind 3: depth {header.depth}, must be 16")


def _name(type_: bytes) -> str:
    """Return a chunk type as text that is safe to print."""
    return type_.decode("ascii") if type_.isalpha() else type_.hex()
