"""Metadata entries (key, value) ↔ what image formats call them: PNG chunks, ICC, EXIF and XMP packets, resolution.

Keys:

    icc, exif, xmp      the bare packet, from WebP, TIFF and JPEG; exif also eXIf of PNG
    resolution          TIFF: "300/1 300/1 inch", also "cm" and "none": exact rationals, which pHYs cannot hold
    comment             GIF, JPEG; the field before a TGA's pixels
    trailer             bytes behind the end of a PNG, WebP, GIF, BMP or JPEG
    gama, iccp, text …  PNG chunks of the PNG specification and its extensions: type in lower case, payload unchanged
    caNv, vpAg …        other ancillary PNG chunks: the type as it is

A PNG keeps its iCCP and XMP (in iTXt) as chunks, so that they come back byte for byte; icc_profile and xmp_packet
unpack either form.
"""

from __future__ import annotations

import re
import struct
import zlib
from fractions import Fraction

Metadata = tuple[tuple[str, bytes], ...]

#: Key → PNG chunk type.
_CHUNKS = {
    kind.lower(): kind
    for kind in (
        *("cHRM", "cICP", "cLLI", "eXIf", "gAMA", "iCCP", "mDCV", "sBIT", "sRGB", "bKGD", "hIST", "pHYs"),
        *("sPLT", "tIME", "iTXt", "tEXt", "zTXt", "oFFs", "pCAL", "sCAL", "sTER", "gIFg", "gIFx", "PLTE"),
    )
}
_OTHER_CHUNK = re.compile(r"[a-z][A-Za-z][A-Z][A-Za-z]")
#: Chunks that a metadata entry must not bring into a PNG: they would change the picture.
_NEVER = frozenset({"tRNS", "acTL", "fcTL", "fdAT"})

_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_EXIF_PREFIX = b"Exif\0\0"
#: Most that a compressed profile or packet is inflated to.
_MAX_PACKET_BYTES = 1 << 26
_UNITS_METRE = {"inch": Fraction(254, 10000), "cm": Fraction(1, 100)}
_RESOLUTION = re.compile(rb"([0-9]{1,10})/([0-9]{1,10}) ([0-9]{1,10})/([0-9]{1,10}) (inch|cm|none)")


def from_chunk(kind: str, payload: bytes) -> tuple[str, bytes]:
    """The entry for an ancillary PNG chunk (or the suggested PLTE of a colour picture)."""
    return (kind.lower() if kind in _CHUNKS.values() else kind), payload


def to_chunks(metadata: Metadata) -> tuple[tuple[str, bytes], ...]:
    """PNG chunks, in order; entries that have no place in a PNG are left out."""
    return tuple(chunk for key, value in metadata for chunk in _to_chunk(key, value))


def _to_chunk(key: str, value: bytes) -> list[tuple[str, bytes]]:
    if key == "icc":
        return [("iCCP", b"ICC Profile\0\0" + zlib.compress(value, 9))]
    if key == "xmp":
        return [("iTXt", _XMP_KEYWORD + bytes(4) + value)]
    if key == "exif":
        return [("eXIf", value)]
    if key == "comment":
        return [("tEXt", b"Comment\0" + value)] if b"\0" not in value else []
    if key == "resolution":
        return _resolution_chunk(value)
    if key in _CHUNKS:
        return [(_CHUNKS[key], value)]
    return [(key, value)] if _OTHER_CHUNK.fullmatch(key) and key not in _NEVER else []


def _find(metadata: Metadata, key: str) -> bytes:
    return next((value for found, value in metadata if found == key), b"")


def _inflate(data: bytes) -> bytes:
    """A whole zlib stream, or nothing when it is damaged or beyond _MAX_PACKET_BYTES."""
    inflater = zlib.decompressobj()
    try:
        packet = inflater.decompress(data, _MAX_PACKET_BYTES)
    except zlib.error:
        return b""
    return packet if inflater.eof else b""


def icc_profile(metadata: Metadata) -> bytes:
    """The ICC profile, or nothing."""
    chunk = _find(metadata, "iccp")
    name, _, rest = chunk.partition(b"\0")
    return _find(metadata, "icc") or (_inflate(rest[1:]) if rest[:1] == b"\0" and len(name) < 80 else b"")


def exif_packet(metadata: Metadata) -> bytes:
    """The EXIF packet, which begins with a TIFF header, or nothing."""
    return _find(metadata, "exif").removeprefix(_EXIF_PREFIX)


def xmp_packet(metadata: Metadata) -> bytes:
    """The XMP packet, or nothing."""
    for key, value in metadata:
        if key == "xmp":
            return value
        if key == "itxt" and value.startswith(_XMP_KEYWORD):
            flags = value[len(_XMP_KEYWORD) :]
            text = flags[2:].split(b"\0", 2)[-1]
            return _inflate(text) if flags[:1] == b"\1" else text
    return b""


def resolution_entry(x: Fraction, y: Fraction, unit: str) -> tuple[str, bytes]:
    """The entry for so many pixels a unit, "inch", "cm" or "none"."""
    return "resolution", f"{x.numerator}/{x.denominator} {y.numerator}/{y.denominator} {unit}".encode()


def resolution(metadata: Metadata) -> tuple[Fraction, Fraction, str] | None:
    """Pixels a unit across and down, and the unit: "inch", "cm" or, where only the ratio is known, "none"."""
    match = _RESOLUTION.fullmatch(_find(metadata, "resolution"))
    if match and all(int(match[i]) for i in (1, 2, 3, 4)):
        return Fraction(int(match[1]), int(match[2])), Fraction(int(match[3]), int(match[4])), match[5].decode()
    chunk = _find(metadata, "phys")
    if len(chunk) != 9 or chunk[8] > 1 or 0 in struct.unpack(">II", chunk[:8]):
        return None
    x, y = struct.unpack(">II", chunk[:8])
    return (Fraction(x, 100), Fraction(y, 100), "cm") if chunk[8] else (Fraction(x), Fraction(y), "none")


def dots_per_inch(metadata: Metadata) -> tuple[float, float] | None:
    """Resolution as Pillow states it."""
    found = resolution(metadata)
    if found is None or found[2] == "none":
        return None
    inches = _UNITS_METRE["inch"] / _UNITS_METRE[found[2]]
    return float(found[0] * inches), float(found[1] * inches)


def _resolution_chunk(value: bytes) -> list[tuple[str, bytes]]:
    """pHYs nearest to the resolution: whole pixels a metre."""
    found = resolution((("resolution", value),))
    if found is None:
        return []
    metre = _UNITS_METRE.get(found[2], Fraction(1))
    x, y = (round(side / metre) for side in found[:2])
    return [("pHYs", struct.pack(">IIB", x, y, found[2] != "none"))] if 0 < x < 1 << 31 and 0 < y < 1 << 31 else []


def phys_entry(dpi: tuple[float, float]) -> tuple[str, bytes] | None:
    """The entry for Pillow's dots per inch, which it has from whole pixels a metre; None where that makes no sense."""
    try:
        x, y = (round(float(side) / 0.0254) for side in dpi)
    except (TypeError, ValueError, OverflowError):
        return None
    return ("phys", struct.pack(">IIB", x, y, 1)) if 0 < x < 1 << 31 and 0 < y < 1 << 31 else None
