"""Names on a command line ↔ files: those meant, their bytes, and where the results go."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixzip.errors import PixzipError, UsageError

if TYPE_CHECKING:
    from pixzip.files import Bounds, Source

STREAM = "-"

PACKED = ".pxz"

#: Suffix → format that image.write_image knows.
FORMATS = {
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
}

#: Further suffixes of files that are taken from a folder; those of JPEG on request.
READABLE = (*FORMATS, ".pnm", ".gif", ".tga")

LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")


def complain(where: str, message: str) -> None:
    """One line on stderr."""
    line = " ".join(f"pixzip: {where}{': ' if where else ''}{message}".split())
    click.echo(line, err=True)


def shown_name(file: str) -> str:
    """A file as messages name it."""
    return "standard input" if file == STREAM else click.format_filename(file)


@dataclass(frozen=True)
class Files:
    """What a command works on, folders replaced by their files; faults: why no work is done on a name."""

    names: list[str]
    faults: Mapping[str, PixzipError]


def found_files(
    arguments: Sequence[str], suffixes: Sequence[str], *, quiet: bool = True, recursive: bool = False
) -> Files:
    """The files meant: those named, and of each folder (recursive: and all below) those with these suffixes."""
    names: list[str] = []
    faults: dict[str, PixzipError] = {}
    for argument in arguments:
        if argument == STREAM or not os.path.isdir(argument):
            names.append(argument)
            continue
        try:
            names.extend(_in_folder(argument, suffixes, quiet, recursive))
        except UsageError as error:
            names.append(argument)
            faults[argument] = error
    return Files(names, faults)


def _in_folder(folder: str, suffixes: Sequence[str], quiet: bool, recursive: bool) -> list[str]:
    """The folder's files with these suffixes. Raises UsageError where there are none."""
    from pixzip.files import files_in
    from pixzip.tree import files_below

    inside = files_below(Path(folder)) if recursive else files_in(Path(folder))
    taken = [str(path) for path in inside if path.suffix.lower() in suffixes]
    for path in inside:
        if not quiet and path.suffix.lower() not in (*suffixes, PACKED):
            complain(shown_name(str(path)), "passed over: its suffix is not that of an image")
    if not taken:
        raise UsageError(f"no files {', '.join(suffixes)} in this folder")
    return taken


def read_input(file: str, bounds: Bounds | None = None) -> bytes:
    """All bytes of a file, or of standard input. Raises as read_source."""
    return read_source(file, bounds).data


def read_source(file: str, bounds: Bounds | None = None) -> Source:
    """All bytes of a file, or of standard input. Raises UsageError where it cannot be read, and what bounds raise."""
    from pixzip import files

    return files.read_stdin(bounds) if file == STREAM else files.read_source(Path(file), bounds)


def image_bounds(max_memory: int | None) -> Bounds:
    """What is no image, and what no image file may have with so much memory: ImageError, LimitError."""
    from pixzip.files import Bounds
    from pixzip.formats.foreign import format_of
    from pixzip.formats.png import SIGNATURE
    from pixzip.formats.pnm import is_pnm

    def check(start: bytes) -> None:
        if not (start.startswith(SIGNATURE) or is_pnm(start)):
            format_of(start)

    return Bounds(check, _size_within(max_memory))


def packed_bounds(max_memory: int | None) -> Bounds:
    """What is no .pxz file, and what none may have with so much memory: FormatError, LimitError."""
    from pixzip.files import Bounds
    from pixzip.pxz.container import check_magic

    return Bounds(check_magic, _size_within(max_memory))


def _size_within(max_memory: int | None) -> Callable[[int], None]:
    from pixzip.memory import holding

    def check(file_bytes: int) -> None:
        holding(file_bytes).tiles_within(max_memory)

    return check
