"""TILE chunks of 16-bit samples ↔ payload of the high bytes, stream of the low ones; without numba."""

from __future__ import annotations

from collections.abc import Sequence

from pixzip.coding.numbers import number_bytes, read_number
from pixzip.errors import FormatError


def joined(high: bytes, low: bytes) -> bytes:
    """Payload of a TILE chunk of depth 16, from that of its high bytes and the stream of its low ones."""
    return number_bytes(len(high)) + high + low


def halves(tiles: Sequence[bytes], faults: dict[int, str] | None = None) -> tuple[list[bytes], list[bytes]]:
    """(payloads of the high bytes, streams of the low ones) of all TILE chunks; faults as for decode_low_bytes."""
    high, low = [b""] * len(tiles), [b""] * len(tiles)
    for i, payload in enumerate(tiles):
        try:
            high[i], low[i] = parts_of(payload)
        except FormatError as error:
            if faults is None:
                raise
            faults[i] = str(error)
    return high, low


def parts_of(payload: bytes) -> tuple[bytes, bytes]:
    """(payload of the high bytes, stream of the low ones) of a TILE chunk of depth 16. Raises FormatError."""
    length, at = read_number(payload, 0, "tile of 16 bits: length of the high bytes")
    if length > len(payload) - at:
        raise FormatError(f"tile of 16 bits: {length} high bytes, the payload has {len(payload) - at} more")
    return payload[at : at + length], payload[at + length :]
