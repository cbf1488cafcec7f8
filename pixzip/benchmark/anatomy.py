"""Bytes of a .pxz file → how many of them each part takes; the parts sum to the file."""

from __future__ import annotations

import struct

from pixzip.coding.entropy import read_lanes
from pixzip.coding.halves import parts_of
from pixzip.pxz.container import HEAD, HEADER_BYTES, MAGIC, TILE, Coding, read_container

#: What stands before and after a chunk's payload: type, length, CRC.
_FRAME_BYTES = 12
#: Chunk → part; of TILE see below.
_PARTS = {
    b"HEAD": "header",
    b"MODL": "model_file",
    b"PALT": "palette",
    b"TRNS": "palette",
    b"meta": "metadata",
    b"ALPH": "alpha",
    b"STOR": "stored",
}
#: All parts, in the order of the file. header: sizes, model digest and pixels checksum; frames: types, lengths and
#: CRCs of all chunks; words: what the lanes' coders wrote; low_bytes: of 16-bit pictures, and where they begin.
PARTS = (
    *("magic", "header", "frames", "model_file", "palette", "metadata", "alpha", "stored"),
    *("lane_table", "words", "low_bytes", "other"),
)


def anatomy(file: bytes) -> dict[str, int]:
    """Bytes of every part of a .pxz file; their sum is its length. Raises FormatError for a damaged one."""
    container = read_container(file, max_pixels=2**93)
    lanes = container.header.lanes if container.header.coding == Coding.MODEL else 0
    out = dict.fromkeys(PARTS, 0)
    at = HEADER_BYTES - _FRAME_BYTES - _header_bytes(file)
    out["magic"] = at
    while at < len(file):
        type_, length = struct.unpack_from("<4sI", file, at)
        payload = file[at + 8 : at + 8 + length]
        out["frames"] += _FRAME_BYTES
        if type_ == TILE:
            high = parts_of(payload)[0] if container.header.depth == 16 else payload
            words = 4 * len(read_lanes(high, lanes).words)
            out["words"] += words
            out["lane_table"] += len(high) - words
            out["low_bytes"] += length - len(high)
        else:
            out[_PARTS.get(type_, "other")] += length
        at += _FRAME_BYTES + length
    return out


def _header_bytes(file: bytes) -> int:
    """Length of the header chunk's payload, which is the first."""
    start = len(MAGIC) + 1  # the version
    type_, length = struct.unpack_from("<4sI", file, start)
    assert type_ == HEAD
    return int(length)
