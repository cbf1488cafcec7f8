"""Names of the pictures in one file ↔ the value of its metadata entry `names` (docs/format.md, section 4)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from pixzip.errors import FormatError, UsageError

KEY = "names"
_MAX_BYTES = 255
#: Of the value that are inflated at once: deflate makes 1032 times as many of them at most.
_PIECE_BYTES = 256


def _fault(name: bytes) -> str | None:
    """Why this is not the name of a file in a folder."""
    if not 1 <= len(name) <= _MAX_BYTES:
        return f"of {len(name)} bytes: must have 1 to {_MAX_BYTES}"
    if name in (b".", b"..") or any(byte < 32 or byte in b"/\\\x7f" for byte in name):
        return "is not the plain name of a file"
    return None


def pack_names(names: Sequence[str]) -> bytes:
    """The names in order, each followed by a zero byte, deflated. Raises UsageError for what is no file's name."""
    try:
        parts = [name.encode("utf-8", "surrogateescape") for name in names]
    except UnicodeEncodeError as error:
        raise UsageError(f"name {error.object!r} is no text: a surrogate that stands for no byte") from None
    for part in parts:
        if (fault := _fault(part)) is not None:
            raise UsageError(f"name {part!r} {fault}")
    return zlib.compress(b"".join(part + b"\0" for part in parts), 9)


def unpack_names(value: bytes, pictures: int) -> tuple[str, ...]:
    """The inverse. Raises FormatError unless there is one plain name, without any folder, for each picture.

    The names are counted first: what says that it has more, or other ones, is refused without memory for any. Equal
    names are one object.
    """
    _check_count(value, pictures)
    found: list[str] = []
    known: dict[bytes, str] = {}
    rest = b""
    for text in _texts(value):
        *whole, rest = (rest + text).split(b"\0")
        if len(rest) > _MAX_BYTES:
            raise FormatError(f"names of the pictures: a name of over {_MAX_BYTES} bytes")
        for name in whole:
            if name not in known:
                if (fault := _fault(name)) is not None:
                    raise FormatError(f"names of the pictures: {name[:_MAX_BYTES]!r} {fault}")
                known[name] = name.decode("utf-8", "surrogateescape")
            found.append(known[name])
    if rest:
        raise FormatError(f"names of the pictures: {len(rest)} bytes behind the last")
    return tuple(found)


def _texts(value: bytes) -> Iterator[bytes]:
    """What is inflated of _PIECE_BYTES at a time. Raises FormatError unless value is one whole deflate stream."""
    inflater, at = zlib.decompressobj(), 0
    try:
        while not inflater.eof and at < len(value):
            yield inflater.decompress(value[at : at + _PIECE_BYTES])
            at += _PIECE_BYTES
    except zlib.error as error:
        raise FormatError(f"names of the pictures: {error}") from None
    if not inflater.eof or inflater.unused_data or at < len(value):
        raise FormatError("names of the pictures: not one whole deflate stream")


def _check_count(value: bytes, pictures: int) -> None:
    """Raise FormatError unless as many names as pictures end in the text."""
    names, length, most = 0, 0, (_MAX_BYTES + 1) * pictures
    for text in _texts(value):
        names, length = names + text.count(b"\0"), length + len(text)
        if length > most:
            raise FormatError(f"names of the pictures: over {most} bytes")
    if names != pictures:
        raise FormatError(f"names of the pictures: {names} names, {pictures} pictures")
