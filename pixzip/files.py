"""Bytes ↔ files and standard streams: whole reads, and durable writes that leave nothing behind when they fail."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixzip.errors import OutputError, UsageError


def read_file(path: Path) -> bytes:
    """All bytes of a file. Raises UsageError where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError("no such file") from None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from None


def files_in(folder: Path) -> list[Path]:
    """The files in a folder by name, not those of its subfolders, nor hidden ones. Raises UsageError."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from None


def read_stdin() -> bytes:
    """All bytes of standard input."""
    return sys.stdin.buffer.read()


def write_stdout(data: bytes, *, force: bool = False) -> None:
    """Write to standard output, to a terminal only with force. Raises UsageError, OutputError."""
    if sys.stdout.isatty() and not force:
        raise UsageError("standard output is a terminal: redirect it, or use --force")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        # What is left in the buffer must not fail once more when the interpreter ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"cannot write to standard output: {error.strerror}") from None


def check_target(target: Path, *, force: bool) -> None:
    """Find out before the work what would stop the writing after it.

    Raises UsageError for a target that exists, unless force and a regular file; OutputError without its folder.
    """
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: no folder {target.parent}")
    if not os.path.lexists(target):
        return
    if target.exists() and not target.is_file():
        raise UsageError(f"output {target} exists and is not a regular file")
    if not force:
        raise UsageError(f"output {target} exists: --force overwrites it")


@contextmanager
def staged(target: Path, data: bytes, *, force: bool) -> Iterator[Path]:
    """Write data to a temporary file beside target, and give it target's name when the with block ends well.

    The block gets the temporary path, on disk already, to check it. Whatever fails, target stays as it was and no
    file is left. Raises OutputError, and UsageError where target came to exist meanwhile and not force.
    """
    temporary = target.with_name(f".pixzip-{secrets.token_hex(8)}.tmp")
    try:
        with _output_errors(target):
            _write_durably(temporary, data)
        yield temporary
        with _output_errors(target):
            _rename(temporary, target, force=force)
            _sync_folder(target.parent)
    finally:
        with suppress(OSError):  # it is gone when the renaming went well
            temporary.unlink()


@contextmanager
def _output_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise UsageError(f"output {target} exists: --force overwrites it") from None
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from None


def _write_durably(path: Path, data: bytes) -> None:
    """A new file with the permissions that the user's umask gives, flushed to disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _rename(source: Path, target: Path, *, force: bool) -> None:
    """Atomic; without force an existing target is never replaced, not even one made a moment ago."""
    if force:
        os.replace(source, target)
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError from None
        os.replace(source, target)


def _sync_folder(folder: Path) -> None:
    """Make the new name as durable as the bytes, where folders can be synchronised."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
