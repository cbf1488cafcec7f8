"""Bytes ↔ files and standard streams: whole reads, and durable writes that leave nothing behind when they fail."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixzip.errors import OutputError, UsageError

ON_WINDOWS = os.name == "nt"
#: What no file on Windows can be called, whatever its suffix.
_DEVICES = (
    "con",
    "prn",
    "aux",
    "nul",
    "conin$",
    "conout$",
    *(f"{kind}{i}" for kind in ("com", "lpt") for i in "123456789"),
)


def windows_fault(name: str) -> str | None:
    """Why Windows has no file of this name, or opens something else by it."""
    if name.split(".")[0].rstrip(" ").casefold() in _DEVICES:
        return f"{name} is that of a device"
    if name.endswith((".", " ")):
        return f"{name!r} ends in a dot or a space"
    if any(character < " " or character in '<>:"|?*' for character in name):
        return f"{name!r} has a character that no file's name may have"
    return None


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
    if not os.path.isdir(target.parent):
        raise OutputError(f"cannot write {target}: no folder {target.parent}")
    if ON_WINDOWS and (fault := windows_fault(target.name)) is not None:
        raise OutputError(f"cannot write {target}: the name {fault}")
    try:
        target.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise OutputError(f"cannot write {target}: {error.strerror}") from None
        return
    except ValueError:
        raise UsageError(f"output {target} is not the name of a file") from None
    if target.exists() and not target.is_file():
        raise UsageError(f"output {target} exists and is not a regular file")
    if not force:
        raise UsageError(f"output {target} exists: --force overwrites it")


@contextmanager
def staged(target: Path, data: bytes, *, force: bool, mtime_ns: int | None = None) -> Iterator[Path]:
    """Write data to a temporary file beside target, and give it target's name when the with block ends well.

    The block gets the temporary path, on disk already, to check it. Whatever fails, target stays as it was and no
    file is left. mtime_ns: the file's modification time, nanoseconds since 1970, if not now. Raises OutputError, and
    UsageError where target came to exist meanwhile and not force.
    """
    temporary = target.with_name(f".pixzip-{secrets.token_hex(8)}.tmp")
    try:
        with _output_errors(target):
            _write_durably(temporary, data)
            if mtime_ns is not None:
                os.utime(temporary, ns=(mtime_ns, mtime_ns))
        yield temporary
        with _output_errors(target):
            _rename(temporary, target, force=force)
            _sync_folder(target.parent)
    finally:
        with suppress(OSError):  # it is gone when the renaming went well
            temporary.unlink()


def append_durably(path: Path, line: bytes) -> None:
    """Add a line to a file of lines, or begin one; it is on disk afterwards. Raises OutputError."""
    with _output_errors(path):
        with open(path, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)


def same_file_name(one: Path, other: Path) -> bool:
    """Whether the file system takes two paths for one that differ in the case or the composition of letters only.

    It is asked by a file that is made and removed at once in the nearest folder that is there; true where it cannot be.
    """
    depth = next((i for i, parts in enumerate(zip(one.parts, other.parts, strict=False)) if parts[0] != parts[1]), None)
    if depth is None:
        return one == other
    folder = Path(*one.parts[:depth])
    while not folder.is_dir():
        folder = folder.parent
    stem = f".pixzip-{secrets.token_hex(8)}"
    probe, twin = (folder / f"{stem}-{path.parts[depth]}.tmp" for path in (one, other))
    try:
        probe.touch(exist_ok=False)
        return os.path.lexists(twin)
    except OSError:
        return True
    finally:
        with suppress(OSError):
            probe.unlink()


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
