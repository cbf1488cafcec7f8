"""A manifest ↔ what it says of every picture: one JSON object a line, with the digests of source, pixels and .pxz file.

    {"source": "x/a.png", "source_sha256": "…", "pixels_sha256": "…", "pxz": "x/a.pxz", "pxz_sha256": "…"}

JSON lines, because five fields of every name a file can have fit in no columns that sha256sum would take; it gets its
own from them by one line of jq (docs/manifest.md). Lines are sorted by the .pxz file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from pixzip.errors import UsageError

if TYPE_CHECKING:
    from pixzip.formats.image import Picture

#: Picture.mode → TUPLTYPE of a PAM; indices of a palette are samples of one channel.
_TUPLE_TYPES = {"L": "GRAYSCALE", "LA": "GRAYSCALE_ALPHA", "RGB": "RGB", "RGBA": "RGB_ALPHA", "P": "GRAYSCALE"}
#: Rows that are put together at a time hold no more samples.
_SAMPLES_AT_ONCE = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Record:
    """One picture: paths with / between folders, SHA-256 in hexadecimal. Raises UsageError for what is no digest."""

    source: str  # below the folder of -r, otherwise as on the command line
    source_sha256: str  # of the image file's bytes
    pixels_sha256: str  # see pixels_sha256()
    pxz: str  # below the output folder of -r, otherwise as it was written
    pxz_sha256: str  # of the .pxz file's bytes

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) or not value:
                raise UsageError(f"{field.name} is {value!r}: must be text")
            if field.name.endswith("sha256") and not _SHA256.fullmatch(value):
                raise UsageError(f"{field.name} is {value!r}: must be 64 hexadecimal digits")

    def line(self) -> bytes:
        """The line of a manifest."""
        return json.dumps(asdict(self)).encode("ascii") + b"\n"


def read_line(line: bytes) -> Record:
    """The inverse of Record.line. Raises UsageError."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("not a JSON object") from None
    names = [field.name for field in fields(Record)]
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        raise UsageError(f"must be an object with {', '.join(names)}")
    return Record(**found)


def read_manifest(data: bytes) -> list[Record]:
    """All records, of which no two have the same .pxz file. Raises UsageError naming the line."""
    records: dict[str, Record] = {}
    if data and not data.endswith(b"\n"):
        raise UsageError("the last line is cut off")
    for i, line in enumerate(data.splitlines(), 1):
        try:
            record = read_line(line)
        except UsageError as error:
            raise UsageError(f"line {i}: {error}") from None
        if record.pxz in records:
            raise UsageError(f"line {i}: a second line for {record.pxz}")
        records[record.pxz] = record
    return list(records.values())


def write_manifest(records: Iterable[Record]) -> bytes:
    """The manifest of these records, whatever their order."""
    return b"".join(record.line() for record in sorted(records, key=lambda record: record.pxz))


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    import hashlib  # OpenSSL: --help does without

    return hashlib.sha256(data).hexdigest()


def pixels_sha256(picture: Picture) -> str:
    """SHA-256 of the picture as a PAM file (netpbm), its palette and its transparency bytes after that.

    The header is "P7", WIDTH, HEIGHT, DEPTH, MAXVAL 2^depth - 1, TUPLTYPE and ENDHDR, a line each; then the samples row
    by row, pixel by pixel, a byte each, or two with the higher first for 16 bits. For a palette samples are indices;
    where transparency follows it, a comment before ENDHDR says where the one ends and the other begins.
    """
    import hashlib

    c, h, w = picture.planes.shape
    head = f"P7\nWIDTH {w}\nHEIGHT {h}\nDEPTH {c}\nMAXVAL {2**picture.depth - 1}\n"
    parted = f"# PALETTE {len(picture.palette)}\n" if picture.palette and picture.transparency else ""
    digest = hashlib.sha256(f"{head}TUPLTYPE {_TUPLE_TYPES[picture.mode]}\n{parted}ENDHDR\n".encode("ascii"))
    rows = max(1, _SAMPLES_AT_ONCE // (c * w))
    for y in range(0, h, rows):
        block = picture.planes[:, y : y + rows].transpose(1, 2, 0)  # (rows, w, c)
        digest.update(block.astype(">u2" if picture.depth == 16 else "u1", order="C").tobytes())
    digest.update(picture.palette + picture.transparency)
    return digest.hexdigest()
