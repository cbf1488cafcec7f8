"""`--manifest`: what a command codes → a manifest, whole after interruptions too; a manifest → what of it is not so.

While a command is at work its lines go to FILE.part; an end without interruption puts them into FILE, atomically. The
next command reads both: lines of sources that are deleted are in no other place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from pixzip.commands.arguments import Files
from pixzip.commands.options import completed_files
from pixzip.commands.outputs import Outputs
from pixzip.errors import FormatError, ManifestError, ModelNotFoundError, OutputError, PixelChecksumError, UsageError
from pixzip.manifest import Record, pixels_sha256, read_manifest, sha256, write_manifest
from pixzip.tree import Tree

if TYPE_CHECKING:
    from pixzip.formats.image import Picture

writing_option = click.option(
    "--manifest",
    metavar="FILE",
    shell_complete=completed_files,
    help="Write SHA-256 of every source, its pixels and its .pxz file: a JSON object a line; an old FILE is kept up.",
)
checking_option = click.option(
    "--manifest",
    metavar="FILE",
    shell_complete=completed_files,
    help="Compare with this manifest: files that are missing, changed or not in it, and their pixels; exit code 12.",
)


class Manifest:
    """The manifest of a command that compresses; threads may add to it side by side."""

    def __init__(self, path: Path, tree: Tree | None) -> None:
        self._path, self._part, self._tree = path, path.with_name(f"{path.name}.part"), tree
        self._lock = threading.Lock()
        self._records = _read_both(self._path, self._part)

    def _record(self, file: str, target: Path, source: bytes, pixels: str, coded: bytes) -> Record:
        places = (Path(file), target)
        if self._tree is not None:
            places = (places[0].relative_to(self._tree.root), places[1].relative_to(self._tree.output))
        source_path, pxz = (place.as_posix() for place in places)
        return Record(source_path, sha256(source), pixels, pxz, sha256(coded))

    def add(self, file: str, target: Path, source: bytes, picture: Picture, coded: bytes) -> None:
        """A line for a file whose .pxz file has its place; on disk at once, for the source may be deleted next."""
        from pixzip.files import append_durably

        record = self._record(file, target, source, pixels_sha256(picture), coded)
        with self._lock:
            if self._records.get(record.pxz) != record:
                self._records[record.pxz] = record
                append_durably(self._part, record.line())

    def has(self, file: str, target: Path, source: bytes, coded: bytes) -> bool:
        """Whether there is a line already for these bytes."""
        known = self._records.get(self._record(file, target, source, "0" * 64, coded).pxz)
        return known is not None and known == self._record(file, target, source, known.pixels_sha256, coded)

    def write(self) -> None:
        """Give the manifest its place, if it has a line. Raises OutputError."""
        from pixzip.files import staged

        if not self._records:
            return
        with staged(self._path, write_manifest(self._records.values()), force=True):
            pass
        try:
            self._part.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot delete {self._part}: {error.strerror}") from None


def _read_both(path: Path, part: Path) -> dict[str, Record]:
    """Records of an earlier manifest, and of one that an interrupted command began. Raises UsageError."""
    from pixzip.files import staged

    records = {record.pxz: record for record in read_expected(path)} if os.path.exists(path) else {}
    if os.path.exists(part):
        lines = _bytes(part)
        whole = lines[: lines.rfind(b"\n") + 1]  # killed while writing, a command leaves half a line
        for line in whole.splitlines(keepends=True):
            with _named(part):
                records |= {record.pxz: record for record in read_manifest(line)}
        if whole != lines:
            with staged(part, whole, force=True):
                pass
    return records


@contextmanager
def kept_manifest(file: str | None, tree: Tree | None, outputs: Outputs) -> Iterator[Manifest | None]:
    """The manifest that is asked for, given its place after the block unless that is interrupted.

    Raises UsageError where FILE is something else than a manifest, or a result; OutputError where it cannot be written.
    """
    from pixzip.files import check_target

    if file is None:
        yield None
        return
    path = Path(file)
    check_target(path, force=True)
    outputs.claim("the manifest", path)
    manifest = Manifest(path, tree)
    try:
        yield manifest
    except SystemExit:  # some files failed; the lines of the others are whole
        manifest.write()
        raise
    manifest.write()


def check_checksum(picture: Picture, coded: bytes) -> None:
    """Compare a picture with the checksum in its .pxz file: PixelChecksumError, FormatError. Nothing is decoded."""
    from pixzip.pxz.container import checksum, read_container

    own = checksum(picture.planes, picture.mode, picture.depth, picture.palette, picture.transparency)
    said = read_container(coded, max_pixels=2**93).header.pixels_checksum  # whole, every chunk intact
    if own != said:
        raise PixelChecksumError(f"its .pxz file holds other pixels: checksum {said.hex()}, the image has {own.hex()}")


# ------------------------------------------------------------------------ the inverse


def read_expected(path: Path) -> list[Record]:
    """The records of a manifest. Raises UsageError naming file and line."""
    with _named(path):
        return read_manifest(_bytes(path))


def _bytes(path: Path) -> bytes:
    from pixzip.files import read_file

    return read_file(path)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"manifest {path}: {error}") from None


class Expected:
    """What a manifest says of the files that are verified; root: the folder that they are below, if any."""

    def __init__(self, path: Path, root: Path | None) -> None:
        self._root = root
        self._records = {record.pxz: record for record in read_expected(path)}
        for name in self._records if root is not None else ():
            parts = PurePosixPath(name)
            if parts.is_absolute() or ".." in parts.parts:
                raise UsageError(f"manifest {path}: {name} is not below a folder, as -r has it")

    def with_missing(self, files: Files) -> Files:
        """The files, and those of the manifest that are not there, with the reason."""
        places = {name: Path(name) if self._root is None else self._root / name for name in self._records}
        missing = [str(place) for place in places.values() if not os.path.isfile(place)]
        fault = ManifestError("missing: it is in the manifest and not there")
        names = [*files.names, *(name for name in missing if name not in files.names)]
        return Files(names, {**files.faults, **dict.fromkeys(missing, fault)}, files.passed_over)

    def record(self, file: str) -> Record:
        """What the manifest says of a file. Raises ManifestError where that is nothing."""
        place = Path(file) if self._root is None else Path(file).relative_to(self._root)
        record = self._records.get(place.as_posix())
        if record is None:
            raise ManifestError("extra: it is not in the manifest")
        return record


@contextmanager
def compared(record: Record | None, data: bytes) -> Iterator[None]:
    """Say of a fault in the block that the file has changed since the manifest, if it has."""
    try:
        yield
    except (FormatError, ModelNotFoundError) as error:
        if record is not None and (change := _change(record, data)):
            raise ManifestError(f"{change}; {error}") from None
        raise


def check_pictures(record: Record, data: bytes, pictures: Sequence[Picture]) -> None:
    """Compare a file and its decoded pictures with a manifest. Raises ManifestError."""
    change = _change(record, data)
    found = pixels_sha256(pictures[0]) if len(pictures) == 1 else f"that of {len(pictures)} pictures"
    if found == record.pixels_sha256:
        if change:
            raise ManifestError(f"{change}; its pixels are those of the manifest")
        return
    pixels = f"pixels: SHA-256 {found}, in the manifest {record.pixels_sha256}"
    raise ManifestError(f"{change}; {pixels}" if change else pixels)


def _change(record: Record, data: bytes) -> str:
    found = sha256(data)
    return "" if found == record.pxz_sha256 else f"changed: SHA-256 {found}, in the manifest {record.pxz_sha256}"
