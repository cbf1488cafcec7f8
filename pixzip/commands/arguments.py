"""Names on a command line ↔ files: those meant, their bytes, and where the results go."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixzip.errors import OutputError, PixzipError, UsageError

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
READABLE = (*FORMATS, ".gif", ".tga")

LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")


def complain(where: str, message: str) -> None:
    """One line on stderr."""
    remark(" ".join(f"pixzip: {where}{': ' if where else ''}{message}".split()))


def remark(line: str, *, newline: bool = True) -> None:
    """Text on stderr; where that is full or gone the work goes on without."""
    with suppress(OSError):
        click.echo(line, nl=newline, err=True)


def say(text: str, *, newline: bool = True) -> None:
    """An answer on standard output, in its encoding whatever the text. Raises OutputError.

    Where a reader goes away, as head does, the command ends without a word.
    """
    from pixzip.files import stdout_errors

    try:
        with stdout_errors():
            encoding = sys.stdout.encoding or "utf-8"
            click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=newline)
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise SystemExit(error.exit_code) from None
        raise


def shown_name(file: str) -> str:
    """A file as messages name it."""
    return "standard input" if file == STREAM else click.format_filename(file)


@dataclass(frozen=True)
class Files:
    """What a command works on, folders replaced by their files; faults: why no work is done on a name."""

    names: list[str]
    faults: Mapping[str, PixzipError]
    passed_over: int = 0  # in folders, beside these


def found_files(
    arguments: Sequence[str],
    suffixes: Sequence[str],
    *,
    quiet: bool = True,
    recursive: bool = False,
    results: Path | None = None,
) -> Files:
    """The files meant: those named, and of each folder (recursive: and all below) those with these suffixes.

    A name of a folder that cannot be read is among them with the reason. results: a folder; where it has .pxz files a
    folder without files to work on is no mistake, for an earlier command may have deleted them.
    """
    names: list[str] = []
    faults: dict[str, PixzipError] = {}
    passed_over = 0
    for argument in arguments:
        if argument == STREAM or not os.path.isdir(argument):
            names.append(argument)
            continue
        try:
            inside = _in_folder(argument, suffixes, quiet, recursive)
            if not inside.names:
                _check_done(argument, suffixes, results, quiet)
        except UsageError as error:
            inside = Files([argument], {argument: error})
        names += inside.names
        faults |= inside.faults
        passed_over += inside.passed_over
    return Files(names, faults, passed_over)


def _in_folder(folder: str, suffixes: Sequence[str], quiet: bool, recursive: bool) -> Files:
    """The folder's files with these suffixes, and with the reason what cannot be read. Raises UsageError."""
    from pixzip.files import names_in
    from pixzip.tree import names_below

    inside, unread = names_below(Path(folder)) if recursive else (names_in(Path(folder)), {})
    names = [str(path) for path in unread]
    faults: dict[str, PixzipError] = {str(path): UsageError(reason) for path, reason in unread.items()}
    passed_over = 0
    for path in inside:
        named, suffix = str(path), path.suffix.lower()
        why = "" if suffix in suffixes else "its suffix is not that of an image"
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            mode = stat.S_IFREG  # what it is, or leads to, is not known
            if not why:
                faults[named] = UsageError(f"cannot be read: {error.strerror}")
        if stat.S_ISDIR(mode) or suffix == PACKED not in suffixes:
            continue
        if not stat.S_ISREG(mode):
            why = why or "it is neither a file nor a folder"
        if not why:
            names.append(named)
            continue
        passed_over += 1
        if not quiet or suffix in suffixes:
            complain(shown_name(named), f"passed over: {why}")
    return Files(names, faults, passed_over)


def _check_done(folder: str, suffixes: Sequence[str], results: Path | None, quiet: bool) -> None:
    """Raise UsageError for a folder without files to work on, unless there are results."""
    from pixzip.tree import names_below

    done = [] if results is None or not results.is_dir() else names_below(results)[0]
    if not any(path.suffix.lower() == PACKED for path in done):
        raise UsageError(f"no files {', '.join(suffixes)} in this folder")
    if not quiet:
        complain(shown_name(folder), f"nothing to do: no files to compress, and .pxz files in {results}")


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
