"""`pixzip decompress --salvage`: what is left of a damaged .pxz file → image files, what is lost → lines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixzip.commands.arguments import complain, shown_name
from pixzip.commands.each import Part
from pixzip.commands.options import Settings
from pixzip.commands.outputs import numbered
from pixzip.commands.progress import Meter
from pixzip.commands.trees import Results
from pixzip.errors import SalvageError, UsageError
from pixzip.tree import Tally

#: Lines about one file's lost tiles.
_MOST_LINES = 100


@dataclass(frozen=True)
class Packed:
    """A .pxz file as it is, and what its pictures are written with."""

    file: str
    data: bytes
    mtime_ns: int | None  # if not now
    like: Sequence[os.stat_result]  # see staged
    part: Part  # of the progress


def salvage_file(
    packed: Packed,
    target: Path | None,
    image_format: str,
    settings: Settings,
    results: Results,
    meter: Meter,
    tally: Tally,
) -> None:
    """What is left of a file to its targets. Raises SalvageError, after writing, where that is not all."""
    from pixzip.files import write_all, write_stdout
    from pixzip.formats.image import write_image

    found = settings.salvage(packed.data, meter.part(*packed.part))
    many = len(found.pictures) > 1
    if many and target is None:
        raise UsageError(f"the file holds {len(found.pictures)} pictures: standard output takes one")
    targets = [] if target is None else numbered(target, len(found.pictures)) if many else [target]
    for each in targets:
        results.prepare(packed.file, each)
    images = ((each, write_image(one, image_format)) for each, one in zip(targets, found.pictures, strict=False))
    write_all(images, force=settings.force, mtime_ns=packed.mtime_ns, like=packed.like)
    if target is None:
        write_stdout(write_image(found.pictures[0], image_format), force=settings.force)
    if found.whole:
        tally.count(len(packed.data))
        return
    meter.clear()
    damage = [*found.faults, *(f"lost {area}" for area in found.lost)]
    for line in damage[:_MOST_LINES]:
        complain(shown_name(packed.file), line)
    raise SalvageError(f"what is left is written; {len(found.lost)} tiles are lost, other faults: {len(found.faults)}")
