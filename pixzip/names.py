"""Names of the pictures in one file ↔ the value of its metadata entry `names` (docs/format.md, section 4)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from pixzip.errors import FormatError, UsageError

KEY = "names"
_MAX_BYTES = 255


def _fault(name: bytes) -> str | None:
    """Why this is not the name of a file in a folder."""
    if not 1 <= len(name) <= _MAX_BYTES:
        return f"of {len(name)} bytes: must have 1 to {_MAX_BYTES}"
    if name in (b".", b"..") or any(byte < 32 or byte in b"/\\\x7f" for byte in name):
        return "is not the plain name of a file"
    return None


def pack_names(names: Sequence[str]) -> bytes:
    """The names in order, each followed by a zero byte, deflated. Raises UsageError for what is no file's name."""
    parts = [name.encode("utf-8", "surrogateescape") for name in names]
    for part in parts:
        if (fault := _fault(part)) is not None:
            raise UsageError(f"name {part!r} {fault}")
    return zlib.compress(b"".join(part + b"\0" for part in parts), 9)


def unpack_names(value: bytes, pictures: int) -> tuple[str, ...]:
    """The inverse. Raises FormatError unless there is one plain name, without any folder, for each picture."""
    inflater = zlib.decompressobj()
    most = (_MAX_BYTES + 1) * pictures
    try:
        text = inflater.decompress(value, most + 1)
    except zlib.error as error:
        raise FormatError(f"names of the pictures: {error}") from None
    if len(text) > most or not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
        raise FormatError(f"names of the pictures: not one deflate stream of at most {most} bytes")
    parts = text.split(b"\0")
    if len(parts) != pictures + 1 or parts[-1]:
        raise FormatError(f"names of the pictures: {len(parts) - 1} names, {pictures} pictures")
    for part in parts[:-1]:
        if (fault := _fault(part)) is not None:
            raise FormatError(f"names of the pictures: {part!r} {fault}")
    return tuple(part.decode("utf-8", "surrogateescape") for part in parts[:-1])
