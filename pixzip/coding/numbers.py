"""Numbers below 2^32 ↔ LEB128, seven bits a byte (docs/format.md, section 8); without numba."""

from __future__ import annotations

from pixzip.errors import FormatError


def number_bytes(number: int) -> bytes:
    """LEB128 of a number below 2^32."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def read_number(payload: bytes, at: int, name: str) -> tuple[int, int]:
    """The LEB128 number at a position, which errors call ``name``, and the position after it."""
    value, shift = 0, 0
    while True:
        if at >= len(payload) or shift > 28:
            raise FormatError(f"{name} is cut off or too long")
        byte = payload[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    if byte == 0 and shift > 7:
        raise FormatError(f"{name} is not in its shortest form")
    return value, at
