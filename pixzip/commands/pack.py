"""`pixzip compress --pack`: several alike pictures → one .pxz file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pixzip.commands.arguments import STREAM, Files, read_source, remark, shown_name
from pixzip.commands.each import label_of
from pixzip.commands.options import Settings
from pixzip.commands.outputs import Outputs, is_folder
from pixzip.commands.progress import Stop, metered
from pixzip.commands.written import ForeignModel, delete_source, summary, write_coded
from pixzip.errors import OutputError, PixzipError, UsageError

if TYPE_CHECKING:
    from pixzip.formats.image import Picture


def pack_files(
    files: Files, output: str | None, settings: Settings, stop: Stop, *, keep: bool, quiet: bool, verbose: bool
) -> None:
    """All pictures into one file, which either gets them all or is not written."""
    if output is None or (output != STREAM and is_folder(output)):
        raise UsageError("--pack needs -o and the name of the one file to write")
    for folder, fault in files.faults.items():
        raise UsageError(f"{shown_name(folder)}: {fault}")
    target = None if output == STREAM else Path(output)
    if target is not None:
        outputs = Outputs(force=settings.force)
        outputs.check(STREAM, target)
        for file in files.names:
            if file != STREAM and target.exists() and os.path.exists(file) and target.samefile(file):
                raise UsageError(f"output {target} is the input {shown_name(file)}")
    names = _distinct(files.names)
    pictures, statuses, source_bytes = _read_alike(files.names, settings)
    like = [status for status in statuses if status is not None]
    with metered(label_of(files), stop, quiet=quiet) as meter:
        half = 0.5 if settings.verify else 1.0
        coded = settings.compress(pictures, names, meter.part(0, half))
        decode = partial(settings.decompress_all, progress=meter.part(half, 1))
        write_coded(coded, target, settings, decode, pictures, like=like)
    if not keep:
        for file, status in zip(files.names, statuses, strict=True):
            _delete(file, status)
    if not quiet:
        remark(summary(f"{len(pictures)} pictures", target, source_bytes, coded, verbose=verbose))
        foreign = ForeignModel(settings)
        foreign.note(coded)
        foreign.warn()


def _distinct(files: Sequence[str]) -> list[str]:
    """The files' names without folders. Raises UsageError where two would come out under one name."""
    taken: dict[str, str] = {}
    for file in files:
        stem = Path(file).stem
        if stem in taken:
            raise UsageError(
                f"{shown_name(file)}: has the name of {shown_name(taken[stem])}, but for folder and suffix"
            )
        taken[stem] = file
    return ["stdin" if file == STREAM else Path(file).name for file in files]


def _delete(file: str, status: os.stat_result | None) -> None:
    try:
        delete_source(Path(file), status)
    except OutputError as error:
        raise OutputError(f"{shown_name(file)}: {error}") from None


def _read_alike(files: Sequence[str], settings: Settings) -> tuple[list[Picture], list[os.stat_result | None], int]:
    """The pictures in these files, all like the first, what the files were, and their bytes.

    Raises naming the first that is not like the first.

    What all of them take follows from the first, before the others are read.
    """
    from pixzip.formats.image import read_image
    from pixzip.pxz.container import check_pixels

    pictures: list[Picture] = []
    statuses: list[os.stat_result | None] = []
    source_bytes = 0
    for file in files:
        try:
            source, status = read_source(file, settings.image_bounds)
            if not pictures and settings.max_memory is not None:
                settings.need_to_compress([source] * len(files)).tiles_within(settings.max_memory)
            picture = read_image(source, max_pixels=settings.max_pixels, **settings.reading)
            first = pictures[0] if pictures else picture
            check_pixels(len(files), first.height, first.width, settings.max_pixels)
            for part in ("width", "height", "mode", "depth", "palette", "transparency", "metadata"):
                own, other = getattr(picture, part), getattr(first, part)
                if own != other:
                    values = f": {own}, not {other}" if isinstance(own, (int, str)) else ""
                    raise UsageError(f"differs from {shown_name(files[0])} in {part}{values}")
        except PixzipError as error:
            raise type(error)(f"{shown_name(file)}: {error}") from None
        pictures.append(picture)
        statuses.append(status)
        source_bytes += len(source)
    return pictures, statuses, source_bytes
