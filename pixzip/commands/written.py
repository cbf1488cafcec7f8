"""Coded pictures ↔ a .pxz file, read back and compared before the command goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pixzip.commands.arguments import complain
from pixzip.commands.options import Settings
from pixzip.errors import OutputError, PixelChecksumError

if TYPE_CHECKING:
    from pixzip.formats.image import Picture


def write_coded(
    coded: bytes,
    target: Path | None,
    settings: Settings,
    decompress: Callable[[bytes], list[Picture]],
    pictures: Sequence[Picture],
    mtime_ns: int | None = None,
    like: Sequence[os.stat_result] = (),
) -> None:
    """A .pxz file to its target or standard output, after reading it back and comparing; like: see staged."""
    from pixzip.files import read_file, staged, write_stdout

    def check(data: bytes) -> None:
        if settings.verify:
            for picture, decoded in zip(pictures, decompress(data), strict=True):
                check_same(picture, decoded, "the written file", "no output is left")

    if target is None:
        check(coded)
        write_stdout(coded, force=settings.force)
        return
    with staged(target, coded, force=settings.force, mtime_ns=mtime_ns, like=like) as written:
        check(read_file(written) if settings.verify else coded)


def check_same(picture: Picture, decoded: Picture, what: str, then: str) -> None:
    """Raise PixelChecksumError where what was read back is not what went in; then: what becomes of the files."""
    if not decoded.same_pixels(picture):
        raise PixelChecksumError(f"verification failed: {what} decodes to other pixels; {then}")
    if decoded.metadata != picture.metadata:
        raise PixelChecksumError(f"verification failed: {what} has other metadata; {then}")


def delete_source(source: Path, status: os.stat_result | None) -> None:
    """Delete an input whose output is verified, if it is still what was read. Raises OutputError."""
    from pixzip.files import is_still

    try:
        if status is None or not is_still(source, status):
            raise OutputError("compressed as it was; not deleted, for it has changed since it was read")
        source.unlink()
    except OSError as error:
        raise OutputError(f"compressed, but cannot be deleted: {error.strerror}") from None


def summary(name: str, target: Path | None, source_bytes: int, coded: bytes, *, verbose: bool) -> str:
    """A line on one written .pxz file; where no model codes it, that it is stored; verbose: all of how it is coded."""
    from pixzip.api import inspect
    from pixzip.pxz.container import Coding, read_header

    to = "standard output" if target is None else target
    line = f"{name} -> {to}: {source_bytes} -> {len(coded)} bytes, {100 * len(coded) / source_bytes:.1f} %"
    if verbose:
        return f"{line}, {how_coded(coded)}"
    if read_header(coded).coding == Coding.MODEL:  # nothing else is looked at, the models' digests neither
        return line
    return f"{line}, stored as {inspect(coded).coding}"


def how_coded(coded: bytes) -> str:
    """What --verbose says of a .pxz file."""
    from pixzip.api import inspect

    found = inspect(coded)
    by = f"model {found.model_name or found.model_digest}" if found.coding == "model" else f"stored as {found.coding}"
    return f"{by}, {found.bits_per_dim:.4f} bits/dim"


class ForeignModel:
    """Whether a command wrote files that a model decodes which is neither in them nor comes with pixzip."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._digest = b""

    def note(self, coded: bytes) -> None:
        """A file that is written."""
        from pixzip.pxz.container import Coding, read_header

        header = read_header(coded)
        if header.coding == Coding.MODEL and not self._settings.embed_model:
            self._digest = header.model_digest

    def warn(self) -> None:
        """Say once that the model must be kept, where it is so."""
        if not self._digest:
            return
        from pixzip.model.file import shipped_models

        if not any(info.digest.startswith(self._digest) for info in shipped_models()):
            what = f"only the model {self._settings.model} with digest {self._digest.hex()} decodes what is written"
            complain("", f"warning: {what}, and it does not come with pixzip: keep it, or use --embed-model")
