"""Names on a command line ↔ files: those meant, their bytes, and where the results go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pixzip.errors import PixzipError, UsageError

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


def read_input(file: str) -> bytes:
    """All bytes of a file, or of standard input. Raises UsageError where it cannot be read."""
    from pixzip.files import read_file, read_stdin

    return read_stdin() if file == STREAM else read_file(Path(file))
