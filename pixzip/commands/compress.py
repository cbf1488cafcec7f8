"""`pixzip compress`: image files → .pxz files, each read back and compared."""

from __future__ import annotations

import time
from collections.abc import Callable
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
from pixzip.commands.outputs import Outputs, check_output, mtime_ns
from pixzip.commands.pack import pack_files
from pixzip.commands.progress import Meter, Stop, metered
from pixzip.commands.trees import Results, asked_tree, summed_up
from pixzip.commands.written import ForeignModel, check_same, delete_source, summary, write_coded
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
    roots = None if tree is None else tree.output
    found = found_files(files, suffixes, quiet=quiet, recursive=recursive, results=roots)
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
    results = Results(output, tree, Outputs(force=settings.force), settings.force, dry_run)
    tally, foreign = Tally("compress", len(found.names), passed_over=found.passed_over), ForeignModel(settings)
    with (
        kept_manifest(None if dry_run else manifest, tree, results.outputs) as kept,
        metered(label_of(found), stop, quiet=quiet) as meter,
        summed_up(tally, tree, as_json, quiet or dry_run),
    ):
        room, parts = room_for(settings, found), parts_of(len(found.names))
        run = _Run(settings, results, room, meter, tally, kept, foreign, parts, keep, quiet, verbose)
        try:
            on_each(found, run.begin, room.side_by_side, meter)
        finally:
            if not quiet:
                foreign.warn()


@dataclass(frozen=True)
class _Run:
    """What the files of one command share, and what becomes of each."""

    settings: Settings
    results: Results
    room: Room
    meter: Meter
    tally: Tally
    manifest: Manifest | None
    foreign: ForeignModel
    parts: Callable[[], Part]
    keep: bool
    quiet: bool
    verbose: bool

    def begin(self, file: str) -> Work:
        """In a file's turn: where its result goes, and what there is to do."""
        part, target = self.parts(), self.results.target(file, PACKED)
        if target is not None and self.results.are_there(file, [target]):
            return partial(self._pass_over, file, target)
        if target is not None:
            self.results.prepare(file, target)
        return (
            partial(self._show, file, target) if self.results.dry_run else partial(self._compress, file, target, part)
        )

    def _show(self, file: str, target: Path | None) -> str:
        """What would be done with a file, if its header says that it can be."""
        self.settings.need_to_compress([read_source(file, self.settings.image_bounds).data])
        return f"{shown_name(file)} -> {target or 'standard output'}"

    def _pass_over(self, file: str, target: Path) -> str | None:
        """Count a file that was compressed before, and see to its line in the manifest.

        Its .pxz file must hold its pixels, by the checksum there; nothing is decoded, unless the source is to be
        deleted. Where the manifest has a line for both files as they are, that is enough.
        """
        settings, keep = self.settings, self.keep or self.results.dry_run
        source, coded = read_source(file, settings.image_bounds), read_input(str(target), settings.packed_bounds)
        known = self.manifest is not None and self.manifest.has(file, target, source.data, coded)
        if not (keep and known):
            with settings.let_in(self.room, settings.need_to_compress([source.data]), self.meter.check) as share:
                picture = self._picture(source.data)
                check_checksum(picture, coded)
                if not keep:
                    decoded = share.decompress(coded, lambda fraction: self.meter.check())
                    check_same(picture, decoded, "the .pxz file of an earlier command", "both files are kept")
            if self.manifest is not None:
                self.manifest.add(file, target, source.data, picture, coded)
        if not keep:
            delete_source(Path(file), source.status)
        self.tally.count(before=True)
        return f"{shown_name(file)}: done before" if self.verbose else None

    def _compress(self, file: str, target: Path | None, part: Part) -> str | None:
        """Code a file, write the result, see to the source and count both; the line that says so."""
        from_s = time.monotonic()
        source, coded = self._written(file, target, part)
        if not self.keep:
            delete_source(Path(file), source.status)
        self.tally.count(len(source.data), len(coded))
        self.foreign.note(coded)
        if self.quiet:
            return None
        line = summary(shown_name(file), target, len(source.data), coded, verbose=self.verbose)
        return f"{line}, {time.monotonic() - from_s:.2f} s" if self.verbose else line

    def _written(self, file: str, target: Path | None, part: Part) -> tuple[Source, bytes]:
        """One file, to its target or standard output, and to the manifest: (the image file, the .pxz file)."""
        settings, meter = self.settings, self.meter
        times = mtime_ns(file) if settings.keep_times else None  # before reading: what changes later is not passed over
        source = read_source(file, settings.image_bounds)
        with settings.let_in(self.room, settings.need_to_compress([source.data]), meter.check) as share:
            picture = self._picture(source.data)
            half = (part[0] + part[1]) / 2 if settings.verify else part[1]
            coded = share.compress([picture], None, meter.part(part[0], half))
            decode = partial(share.decompress_all, progress=meter.part(half, part[1]))
            like = [source.status] if source.status is not None else []
            write_coded(coded, target, share, decode, [picture], times, like)
            if self.manifest is not None and target is not None:
                self.manifest.add(file, target, source.data, picture, coded)
        return source, coded

    def _picture(self, source: bytes) -> Picture:
        """The picture in an image file."""
        from pixzip.formats.image import read_image

        return read_image(source, max_pixels=self.settings.max_pixels, **self.settings.reading)
