"""Bytes ↔ files and standard streams: whole reads, and durable writes that leave nothing behind when they fail."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pixzip.errors import OutputError, UsageError

ON_WINDOWS = os.name == "nt"
#: Of a file, what is shown to Bounds.start; a file up to the second size is read without asking Bounds.size.
_START_BYTES, _SMALL_BYTES = 64, 1 << 20
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


@dataclass(frozen=True)
class Bounds:
    """What may end the reading of a file before it is in memory: each raises where the file is refused."""

    start: Callable[[bytes], object] = bool  # its first bytes, where there are so many at once
    size: Callable[[int], object] = bool  # its bytes, or as many as a pipe has given


class Source(NamedTuple):
    """A file's bytes, and what it was when its reading began; status: None of standard input."""

    data: bytes
    status: os.stat_result | None


def read_source(path: Path, bounds: Bounds | None = None) -> Source:
    """All bytes of a file, and its status. Raises UsageError where it cannot be read, and what bounds raise."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            return Source(_bounded(file, bounds or Bounds()), status)
    except FileNotFoundError:
        raise UsageError("no such file") from None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from None


def read_file(path: Path) -> bytes:
    """All bytes of a file. Raises UsageError where it cannot be read."""
    return read_source(path).data


def read_stdin(bounds: Bounds | None = None) -> Source:
    """All bytes of standard input. Raises UsageError where it cannot be read, and what bounds raise."""
    if sys.stdin is None:
        raise UsageError("is closed")
    try:
        return Source(_bounded(sys.stdin.buffer, bounds or Bounds()), None)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from None


def _bounded(file: BinaryIO, bounds: Bounds) -> bytes:
    """What is left in a file; of what has no size, a pipe or a device, the size is asked about while it is read."""
    peek = getattr(file, "peek", None)  # all but memory
    start = b"" if peek is None else peek(_START_BYTES)[:_START_BYTES]
    if len(start) == _START_BYTES:
        bounds.start(start)
    size = _size_bytes(file)
    if size is not None:
        if size > _SMALL_BYTES:
            bounds.size(size)
        return file.read()
    parts, length = [], 0
    while part := file.read(_SMALL_BYTES):
        parts.append(part)
        length += len(part)
        if length > _SMALL_BYTES:
            bounds.size(length)
    return b"".join(parts)


def _size_bytes(file: BinaryIO) -> int | None:
    """Of a regular file."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def is_still(path: Path, status: os.stat_result) -> bool:
    """Whether a name is that of the same file as when it was read, and nothing has changed it. Raises OSError."""
    return _identity(os.stat(path)) == _identity(status)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    changed = () if ON_WINDOWS else (status.st_ctime_ns,)  # there it is the time of creation
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, *changed


def names_in(folder: Path) -> list[Path]:
    """All that is in a folder, by name, but for what is hidden. Raises UsageError."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from None


def files_in(folder: Path) -> list[Path]:
    """The files in a folder by name, not those of its subfolders, nor hidden ones. Raises UsageError."""
    return [path for path in names_in(folder) if os.path.isfile(path)]


def write_stdout(data: bytes, *, force: bool = False) -> None:
    """Write to standard output, to a terminal only with force. Raises UsageError, OutputError."""
    if sys.stdout is not None and sys.stdout.isatty() and not force:
        raise UsageError("standard output is a terminal: redirect it, or use --force")
    with stdout_errors():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@contextmanager
def stdout_errors() -> Iterator[None]:
    """What fails in the block on writing to standard output as OutputError; likewise where it is closed."""
    if sys.stdout is None:
        raise OutputError("cannot write to standard output: it is closed")
    try:
        yield
    except OSError as error:
        # What is left in the buffer must not fail once more when the interpreter ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


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
def staged(
    target: Path, data: bytes, *, force: bool, mtime_ns: int | None = None, like: Sequence[os.stat_result] = ()
) -> Iterator[Path]:
    """Write data to a temporary file beside target, and give it target's name when the with block ends well.

    The block gets the temporary path, on disk already, to check it. Whatever fails, target stays as it was and no
    file is left. mtime_ns: the file's modification time, nanoseconds since 1970, if not now. like: of the files that it
    is made of; it may be read and written by whom all of them may be, by default by whom the umask says. Raises
    OutputError, and UsageError where target came to exist meanwhile and not force.
    """
    with _temporary(target, data, mtime_ns, like) as temporary:
        yield temporary
        _give_name(temporary, target, force=force)


def write_all(
    files: Iterable[tuple[Path, bytes]],
    *,
    force: bool,
    mtime_ns: int | None = None,
    like: Sequence[os.stat_result] = (),
) -> int:
    """Write (target, data) of all files as staged does, all or none; bytes written. Raises as staged.

    Names are given when all bytes are on disk. Where one cannot be, those given before are taken back; with force
    they stay, for what they replaced is gone.
    """
    named: list[tuple[Path, os.stat_result]] = []
    with ExitStack() as written:
        found = [
            (target, written.enter_context(_temporary(target, data, mtime_ns, like)), len(data))
            for target, data in files
        ]
        try:
            for target, temporary, _ in found:
                status = os.lstat(temporary)
                _give_name(temporary, target, force=force)
                named.append((target, status))
        except BaseException:
            for target, status in () if force else named:
                with suppress(OSError):
                    if os.path.samestat(os.lstat(target), status):
                        target.unlink()
            raise
    return sum(size for _, _, size in found)


@contextmanager
def _temporary(target: Path, data: bytes, mtime_ns: int | None, like: Sequence[os.stat_result]) -> Iterator[Path]:
    """The bytes on disk, beside target, until the block ends. Raises OutputError."""
    temporary = target.with_name(f".pixzip-{secrets.token_hex(8)}.tmp")
    try:
        with _output_errors(target):
            _write_durably(temporary, data, like)
            if mtime_ns is not None:
                os.utime(temporary, ns=(mtime_ns, mtime_ns))
        yield temporary
    finally:
        with suppress(OSError):  # it is gone when the renaming went well
            temporary.unlink()


def _give_name(temporary: Path, target: Path, *, force: bool) -> None:
    with _output_errors(target):
        _rename(temporary, target, force=force)
        _sync_folder(target.parent)


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


def _write_durably(path: Path, data: bytes, like: Sequence[os.stat_result]) -> None:
    """A new file, flushed to disk; nobody may read it whom one of those like it keeps out."""
    mode = 0o666
    for status in like:
        mode &= stat.S_IMODE(status.st_mode) | 0o600
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        if like and not ON_WINDOWS:
            _set_permissions(file.fileno(), like)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _set_permissions(handle: int, like: Sequence[os.stat_result]) -> None:
    """Those that all files have, and their group; where it cannot have that, a group gets what all others have."""
    mode = 0o777
    for status in like:
        mode &= stat.S_IMODE(status.st_mode)
    group = like[0].st_gid
    own = os.fstat(handle).st_gid
    with suppress(OSError):
        if own != group:
            os.fchown(handle, -1, group)
            own = group
    if any(status.st_gid != own for status in like):
        mode &= 0o707 | (mode & 0o007) << 3
    with suppress(OSError):  # a file system without permissions
        os.fchmod(handle, mode | 0o400)  # it is read back


def _rename(source: Path, target: Path, *, force: bool) -> None:
    """Atomic; without force an existing target is never replaced, not even one made a moment ago.

    Where there are no hard links an empty file keeps the name for it, which may be left by what cannot be caught.
    """
    if force:
        os.replace(source, target)
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            os.replace(source, target)
        except BaseException:
            os.unlink(target)
            raise


def _sync_folder(folder: Path) -> None:
    """Make the new name as durable as the bytes, where folders can be synchronised."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
