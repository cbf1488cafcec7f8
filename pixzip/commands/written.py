"""Coded pictures ↔ a .pxz file, read back and compared before the command goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pixzip.commands.options import Settings
from pixzip.errors import OutputError, PixelChecksumError

if TYPE_CHECKING:
    from pixzip.image import Picture


def write_coded(
    coded: bytes,
    target: Path | None,
    settings: Settings,
    decompress: Callable[[bytes], list[Picture]],
    pictures: Sequence[Picture],
) -> None:
    """A .pxz file to its target or standard output, after reading it back and comparing."""
    from pixzip.files import read_file, staged, write_stdout

    def check(data: bytes) -> None:
        if settings.verify:
            for picture, decoded in zip(pictures, decompress(data), strict=True):
                check_same(picture, decoded)

    if target is None:
        check(coded)
        write_stdout(coded, force=settings.force)
        return
    with staged(target, coded, force=settings.force) as written:
        check(read_file(written) if settings.verify else coded)


def check_same(picture: Picture, decoded: Picture) -> None:
    """Raise PixelChecksumError where what was read back is not what went in."""
    if not decoded.same_pixels(picture):
        raise PixelChecksumError("verification failed: the written file decodes to other pixels; no output is left")
    if decoded.metadata != picture.metadata:
        raise PixelChecksumError("verification failed: the written file has other metadata; no output is left")


def delete_source(source: Path) -> None:
    """Delete an input whose output is verified. Raises OutputError."""
    try:
        source.unlink()
    except OSError as error:
        raise OutputError(f"compressed, but cannot be deleted: {error.strerror}") from None


def summary(name: str, target: Path | None, source_bytes: int, coded_bytes: int) -> str:
    """A line on one written file."""
    to = "standard output" if target is None else target
    return f"{name} -> {to}: {source_bytes} -> {coded_bytes} bytes, {100 * coded_bytes / source_bytes:.1f} %"
