"""`pixzip compress`: image files → .pxz files, each read back and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pixzip.commands.arguments import LOSSY, PACKED, READABLE, STREAM, found_files, read_input, shown_name
from pixzip.commands.each import Part, Work, label_of, on_each, parts_of, room_for
from pixzip.commands.options import (
    EXIT_CODES,
    Settings,
    coding_options,
    files_argument,
    force_option,
    max_memory_option,
    quiet_option,
    tree_options,
)
from pixzip.commands.outputs import Outputs, check_output, target_of
from pixzip.commands.pack import pack_files
from pixzip.commands.progress import Meter, Stop, metered
from pixzip.commands.trees import asked_tree, is_before, prepare, summed_up
from pixzip.commands.written import check_same, delete_source, summary, write_coded
from pixzip.errors import UsageError
from pixzip.tree import Tally

if TYPE_CHECKING:
    from pixzip.batch import Room


@click.command(epilog=EXIT_CODES)
@files_argument
@click.option("-o", "--output", help="File or existing folder; - for standard output. Default: FILE with suffix .pxz.")
@click.option("--model", default="default", show_default=True, help="Name of a shipped model, or a model file.")
@coding_options
@max_memory_option
@click.option("--tile", type=click.IntRange(1, 65535), default=1024, show_default=True, help="Side of a tile, pixels.")
@click.option(
    "--learning",
    type=click.IntRange(0, 255),
    help="Rate at which the model learns from the pixels it has coded, in this file only; 0: it does not. Default: 8.",
)
@click.option("--embed-model", is_flag=True, help="Put the model into the file, where the picture is coded by it.")
@click.option("--allow-jpeg", is_flag=True, help="Take a JPEG's pixels as they decode; the JPEG is usually smaller.")
@click.option("--verify/--no-verify", default=True, help="Decode the written file and compare it with the input.")
@click.option("--keep/--delete", default=True, help="Keep the input, or delete it once the output is verified.")
@click.option("--pack", is_flag=True, help="All pictures, equal in size and mode, into the one file OUTPUT.")
@tree_options
@force_option
@quiet_option
@click.pass_obj
def compress(
    stop: Stop,
    /,
    files: tuple[str, ...],
    output: str | None,
    keep: bool,
    pack: bool,
    recursive: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Compress image files: FILE.png → FILE.pxz; of a folder, the image files in it, by their suffixes.

    With -r, what an earlier command has done is passed over, so that it goes on where that one was interrupted.

    PNG, PNM, WebP, TIFF, BMP, GIF and TGA are read; what cannot be kept without loss is refused. Nothing is overwritten
    without --force, and a failure leaves no output.
    """
    settings = Settings(**options)
    tree = asked_tree(files, output, recursive)
    suffixes = (*READABLE, *(LOSSY if settings.allow_jpeg else ()))
    found = found_files(files, suffixes, quiet=quiet, recursive=recursive)
    if as_json and (output == STREAM or (output is None and STREAM in files)):
        raise UsageError("--json and -o - both write to standard output")
    if not keep and (not settings.verify or output == STREAM or STREAM in files):
        raise UsageError("--delete needs --verify, an input file and an output file")
    if pack and (recursive or dry_run or as_json):
        raise UsageError("--pack excludes -r, --dry-run and --json")
    if pack:
        pack_files(found, output, settings, stop, keep=keep, quiet=quiet)
        return
    if tree is None:
        check_output(found.names, output)
    outputs, room = Outputs(force=settings.force), room_for(settings, found)
    tally = Tally("compress", len(found.names))

    def begin(file: str) -> Work:
        part = parts()
        target = target_of(file, output, PACKED) if tree is None else tree.target(file, PACKED)
        if target is not None and is_before(file, [target], tree, outputs, settings):
            return lambda: _was_done(file, target, settings, room, meter, tally, keep=keep or dry_run)
        if target is not None:
            prepare(file, target, tree, outputs, dry_run=dry_run)

        def work() -> str | None:
            source_bytes, coded_bytes = _compress(file, target, settings, room, meter, part)
            if not keep:
                delete_source(Path(file))
            tally.count(source_bytes, coded_bytes)
            return None if quiet else summary(shown_name(file), target, source_bytes, coded_bytes)

        return (lambda: f"{shown_name(file)} -> {target or 'standard output'}") if dry_run else work

    with metered(label_of(found), stop, quiet=quiet) as meter, summed_up(tally, tree, as_json, quiet or dry_run):
        parts = parts_of(len(found.names))
        on_each(found, begin, room.side_by_side, meter)


def _was_done(
    file: str, target: Path, settings: Settings, room: Room, meter: Meter, tally: Tally, *, keep: bool
) -> None:
    """Count a file that was compressed before; delete it once its .pxz file is verified, where that is asked for."""
    from pixzip.image import read_image

    if not keep:
        source, coded = read_input(file), read_input(str(target))
        with settings.let_in(room, settings.need_to_compress([source]), meter.check) as share:
            picture = read_image(source, max_pixels=settings.max_pixels, allow_jpeg=settings.allow_jpeg)
            check_same(picture, share.decompress(coded, lambda fraction: meter.check()))
        delete_source(Path(file))
    tally.count(before=True)


def _compress(
    file: str, target: Path | None, settings: Settings, room: Room, meter: Meter, part: Part
) -> tuple[int, int]:
    """One file, to its target or standard output: (bytes of the image file, bytes of the .pxz file)."""
    from pixzip.image import read_image

    source = read_input(file)
    with settings.let_in(room, settings.need_to_compress([source]), meter.check) as share:
        picture = read_image(source, max_pixels=settings.max_pixels, allow_jpeg=settings.allow_jpeg)
        half = (part[0] + part[1]) / 2 if settings.verify else part[1]
        coded = share.compress([picture], None, meter.part(part[0], half))
        write_coded(coded, target, share, lambda data: share.decompress_all(data, meter.part(half, part[1])), [picture])
    return len(source), len(coded)
