"""`pixzip compress`: image files → .pxz files, each read back and compared."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pixzip.commands.arguments import LOSSY, PACKED, READABLE, STREAM, found_files, read_input, read_source, shown_name
from pixzip.commands.each import Part, Work, label_of, on_each, parts_of, room_for
from pixzip.commands.manifest import Manifest, check_checksum, kept_manifest, writing_option
from pixzip.commands.options import (
    EXIT_CODES,
    Settings,
    coding_options,
    completed_files,
    files_argument,
    force_option,
    quiet_option,
    room_options,
    times_option,
    tree_options,
    verbose_option,
)
from pixzip.commands.outputs import Outputs, check_output, makes_folder, mtime_ns, target_of
from pixzip.commands.pack import pack_files
from pixzip.commands.progress import Meter, Stop, metered
from pixzip.commands.trees import asked_tree, is_before, prepare, summed_up
from pixzip.commands.written import ForeignModel, check_same, delete_source, how_coded, summary, write_coded
from pixzip.errors import UsageError
from pixzip.tree import Tally

if TYPE_CHECKING:
    from pixzip.batch import Room
    from pixzip.files import Source
    from pixzip.formats.image import Picture


@click.command(epilog=EXIT_CODES)
@files_argument
@click.option(
    "-o",
    "--output",
    shell_complete=completed_files,
    help="File or existing folder; - for standard output. Default: FILE with suffix .pxz.",
)
@click.option(
    "--model",
    default="default",
    show_default=True,
    shell_complete=completed_files,
    help="Name of a shipped or added model, or a model file.",
)
@coding_options
@room_options
@click.option("--tile", type=click.IntRange(1, 65535), default=1024, show_default=True, help="Side of a tile, pixels.")
@click.option(
    "--learning",
    type=click.IntRange(0, 255),
    help="Rate at which the model learns from the pixels it has coded, in this file only; 0: it does not. Default: 8.",
)
@click.option("--embed-model", is_flag=True, help="Put the model into the file, where the picture is coded by it.")
@click.option("--allow-jpeg", is_flag=True, help="Take a JPEG's pixels as they decode; the JPEG is usually smaller.")
@click.option("--strip", is_flag=True, help="Leave the metadata out; pixels, palette and transparency are kept.")
@click.option("--verify/--no-verify", default=True, help="Decode the written file and compare it with the input.")
@click.option("--keep/--delete", default=True, help="Keep the input, or delete it once the output is verified.")
@click.option("--pack", is_flag=True, help="All pictures, equal in size and mode, into the one file OUTPUT.")
@times_option
@writing_option
@tree_options
@force_option
@quiet_option
@verbose_option
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
    manifest: str | None,
    quiet: bool,
    verbose: bool,
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
    results = None if tree is None else tree.output
    found = found_files(files, suffixes, quiet=quiet, recursive=recursive, results=results)
    streams = output == STREAM or STREAM in files
    if as_json and (output == STREAM or (output is None and STREAM in files)):
        raise UsageError("--json and -o - both write to standard output")
    if not keep and (not settings.verify or streams):
        raise UsageError("--delete needs --verify, an input file and an output file")
    if streams and (settings.keep_times or manifest is not None):
        raise UsageError("--keep-times and --manifest need an input file and an output file")
    if pack and (recursive or dry_run or as_json or settings.keep_times or manifest is not None):
        raise UsageError("--pack excludes -r, --dry-run, --json, --keep-times and --manifest")
    if pack:
        pack_files(found, output, settings, stop, keep=keep, quiet=quiet, verbose=verbose)
        return
    if tree is None:
        check_output(found.names, output)
    outputs, room = Outputs(force=settings.force), room_for(settings, found)
    tally, foreign = Tally("compress", len(found.names), passed_over=found.passed_over), ForeignModel(settings)

    def begin(file: str) -> Work:
        part = parts()
        target = target_of(file, output, PACKED) if tree is None else tree.target(file, PACKED)
        if target is not None and is_before(file, [target], tree, outputs, settings):
            done = partial(_was_done, file, target, run, keep=keep or dry_run)
            return lambda: done() or (f"{shown_name(file)}: done before" if verbose else None)
        if target is not None:
            prepare(file, target, outputs, dry_run=dry_run, make=makes_folder(output, tree))

        def work() -> str | None:
            from_s = time.monotonic()
            source, coded = _compress(file, target, run, part)
            if not keep:
                delete_source(Path(file), source.status)
            tally.count(len(source.data), len(coded))
            foreign.note(coded)
            line = None if quiet else summary(shown_name(file), target, len(source.data), len(coded))
            return f"{line}, {how_coded(coded)}, {time.monotonic() - from_s:.2f} s" if verbose else line

        def shown() -> str:
            settings.need_to_compress([read_source(file, settings.image_bounds).data])  # what its header says
            return f"{shown_name(file)} -> {target or 'standard output'}"

        return shown if dry_run else work

    with (
        kept_manifest(None if dry_run else manifest, tree, outputs) as kept,
        metered(label_of(found), stop, quiet=quiet) as meter,
        summed_up(tally, tree, as_json, quiet or dry_run),
    ):
        run, parts = _Run(settings, room, meter, tally, kept), parts_of(len(found.names))
        try:
            on_each(found, begin, room.side_by_side, meter)
        finally:
            if not quiet:
                foreign.warn()


@dataclass(frozen=True)
class _Run:
    """What the files of one command share."""

    settings: Settings
    room: Room
    meter: Meter
    tally: Tally
    manifest: Manifest | None

    def picture(self, source: bytes) -> Picture:
        """The picture in an image file."""
        from pixzip.formats.image import read_image

        return read_image(source, max_pixels=self.settings.max_pixels, **self.settings.reading)


def _was_done(file: str, target: Path, run: _Run, *, keep: bool) -> None:
    """Count a file that was compressed before, and see to its line in the manifest.

    Its .pxz file must hold its pixels, by the checksum there; nothing is decoded, unless the source is to be deleted.
    Where the manifest has a line for both files as they are, that is enough.
    """
    settings = run.settings
    source, coded = read_source(file, settings.image_bounds), read_input(str(target), settings.packed_bounds)
    known = run.manifest is not None and run.manifest.has(file, target, source.data, coded)
    if not (keep and known):
        with settings.let_in(run.room, settings.need_to_compress([source.data]), run.meter.check) as share:
            picture = run.picture(source.data)
            check_checksum(picture, coded)
            if not keep:
                decoded = share.decompress(coded, lambda fraction: run.meter.check())
                check_same(picture, decoded, "the .pxz file of an earlier command", "both files are kept")
        if run.manifest is not None:
            run.manifest.add(file, target, source.data, picture, coded)
    if not keep:
        delete_source(Path(file), source.status)
    run.tally.count(before=True)


def _compress(file: str, target: Path | None, run: _Run, part: Part) -> tuple[Source, bytes]:
    """One file, to its target or standard output, and to the manifest: (the image file, the .pxz file)."""
    settings, meter = run.settings, run.meter
    times = mtime_ns(file) if settings.keep_times else None  # before reading: what changes later is not passed over
    source = read_source(file, settings.image_bounds)
    with settings.let_in(run.room, settings.need_to_compress([source.data]), meter.check) as share:
        picture = run.picture(source.data)
        half = (part[0] + part[1]) / 2 if settings.verify else part[1]
        coded = share.compress([picture], None, meter.part(part[0], half))
        decode = partial(share.decompress_all, progress=meter.part(half, part[1]))
        like = [source.status] if source.status is not None else []
        write_coded(coded, target, share, decode, [picture], times, like)
        if run.manifest is not None and target is not None:
            run.manifest.add(file, target, source.data, picture, coded)
    return source, coded
