"""`pixzip decompress`: .pxz files → image files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pixzip.commands.arguments import PACKED, STREAM, found_files, read_source, shown_name
from pixzip.commands.each import Part, Work, label_of, on_each, parts_of, room_for
from pixzip.commands.options import (
    EXIT_CODES,
    Settings,
    coding_options,
    completed_files,
    decoding_model_option,
    files_argument,
    force_option,
    quiet_option,
    room_options,
    times_option,
    tree_options,
    verbose_option,
)
from pixzip.commands.outputs import (
    Outputs,
    check_holds,
    check_output,
    format_of,
    is_folder,
    mtime_ns,
    numbered,
)
from pixzip.commands.progress import Meter, Stop, metered
from pixzip.commands.salvage import Packed, salvage_file
from pixzip.commands.trees import Results, asked_tree, check_results, summed_up
from pixzip.commands.written import how_coded
from pixzip.errors import FormatError, LimitError, UsageError
from pixzip.tree import Tally

if TYPE_CHECKING:
    from pixzip.batch import Room
    from pixzip.memory import Need

#: A small file may say that it holds millions of pictures of a pixel.
_MOST_TARGETS = 100_000


@click.command(epilog=EXIT_CODES)
@files_argument
@click.option(
    "-o",
    "--output",
    shell_complete=completed_files,
    help="File or existing folder; - for standard output. Default: FILE with suffix .png.",
)
@decoding_model_option
@click.option("--salvage", is_flag=True, help="Of damaged files write what is left; say what is lost; exit code 11.")
@times_option
@tree_options
@coding_options
@room_options
@force_option
@quiet_option
@verbose_option
@click.pass_obj
def decompress(
    stop: Stop,
    /,
    files: tuple[str, ...],
    output: str | None,
    salvage: bool,
    recursive: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Decompress .pxz files: FILE.pxz → FILE.png; of a folder, all .pxz files in it.

    The output's suffix names its format: .png, .webp, .tif, .bmp, .ppm. PNG holds every picture with all its metadata;
    the others are refused where they cannot hold the pixels. Lossy formats are refused. The pictures of a file that
    holds several get the names they had, or with -o NAME.png NAME-0001.png and so on.
    """
    tree = asked_tree(files, output, recursive)
    found = found_files(files, (PACKED,), recursive=recursive)
    if tree is None:
        check_output(found.names, output)
    if salvage and dry_run:
        raise UsageError("--salvage excludes --dry-run")
    if as_json and (output == STREAM or (output is None and STREAM in files)):
        raise UsageError("--json and -o - both write to standard output")
    settings = Settings(**options)
    if settings.keep_times and (output == STREAM or STREAM in files):
        raise UsageError("--keep-times needs an input file and an output file")
    results = Results(output, tree, Outputs(force=settings.force), settings.force, dry_run)
    tally = Tally("decompress", len(found.names), passed_over=found.passed_over)
    with metered(label_of(found), stop, quiet=quiet) as meter, summed_up(tally, tree, as_json, quiet or dry_run):
        room, parts = room_for(settings, found), parts_of(len(found.names))
        run = _Run(settings, results, room, meter, tally, parts, verbose)
        on_each(found, run.salvage if salvage else run.begin, 1 if salvage else room.side_by_side, meter)


@dataclass(frozen=True)
class _Run:
    """What the files of one command share, and what becomes of each."""

    settings: Settings
    results: Results
    room: Room
    meter: Meter
    tally: Tally
    parts: Callable[[], Part]
    verbose: bool

    def begin(self, file: str) -> Work:
        """In a file's turn: where its pictures go, and what there is to do."""
        packed, target = self._read(file)
        named = self.results.tree is not None or self.results.output is None or is_folder(self.results.output)
        targets = _targets(packed.data, target, self.settings.max_pixels, named=named)
        if targets is not None and self.results.are_there(file, targets):
            return partial(self._pass_over, packed, targets)
        image_format = _format_of(target)
        need = self.settings.need_to_decompress(packed.data, image_format)
        for each in targets or ():
            self.results.prepare(file, each)
        if self.results.dry_run:
            shown = ["standard output"] if targets is None else list(map(str, targets))
            return lambda: "\n".join(f"{shown_name(file)} -> {each}" for each in shown)
        return partial(self._decompress, packed, targets, image_format, need)

    def salvage(self, file: str) -> Work:
        """As begin, for what is left of a file."""
        packed, target = self._read(file)
        if target is not None and self.results.are_there(file, [target]):
            return partial(self._pass_over, packed, [target])
        return partial(
            salvage_file, packed, target, _format_of(target), self.settings, self.results, self.meter, self.tally
        )

    def _read(self, file: str) -> tuple[Packed, Path | None]:
        """A file in its turn, and where its picture goes, or by whose name its pictures do."""
        part, target = self.parts(), self.results.target(file, ".png")
        _format_of(target)  # refuses others before anything is read
        times = mtime_ns(file) if self.settings.keep_times else None
        data, status = read_source(file, self.settings.packed_bounds)
        if target is not None:
            check_holds(target, data)
        return Packed(file, data, times, [] if status is None else [status], part), target

    def _pass_over(self, packed: Packed, targets: Sequence[Path]) -> str | None:
        """Count a file that was decompressed before, if the results hold its pictures."""
        check_results(targets, packed.data, self.settings, self.room, self.meter.check)
        self.tally.count(before=True)
        return f"{shown_name(packed.file)}: done before" if self.verbose else None

    def _decompress(self, packed: Packed, targets: Sequence[Path] | None, image_format: str, need: Need) -> str | None:
        """Decode a file, write its pictures and count it; the line that says so."""
        from_s, data = time.monotonic(), packed.data
        with self.settings.let_in(self.room, need, self.meter.check) as share:
            written_bytes = _write(packed, targets, image_format, share, self.meter.part(*packed.part))
        self.tally.count(len(data), written_bytes)
        if not self.verbose:
            return None
        to = "standard output" if targets is None else ", ".join(map(str, targets))
        sizes = f"{len(data)} -> {written_bytes} bytes"
        return f"{shown_name(packed.file)} -> {to}: {sizes}, {how_coded(data)}, {time.monotonic() - from_s:.2f} s"


def _format_of(target: Path | None) -> str:
    """The format that a target's suffix names; PNG on standard output. Raises UsageError as format_of."""
    return "PNG" if target is None else format_of(target)


def _targets(data: bytes, target: Path | None, max_pixels: int, *, named: bool) -> list[Path] | None:
    """Where the pictures in a file within the limit of pixels go; None: to standard output.

    named: under the names in the file, if there are any, and otherwise numbers.
    """
    from pixzip.api import picture_names
    from pixzip.pxz.container import check_pixels, read_header

    header = read_header(data)
    count = header.pictures
    check_pixels(count, header.height, header.width, max_pixels)
    if count == 1:
        return None if target is None else [target]
    if target is None:
        raise UsageError(f"the file holds {count} pictures: standard output takes one, -o a folder or NAME.png")
    if count > _MOST_TARGETS:
        raise LimitError(f"the file holds {count} pictures: no more than {_MOST_TARGETS} are written as files")
    names = picture_names(data, max_pixels=max_pixels) if named else ()
    if names:
        try:
            return [target.with_name(name).with_suffix(target.suffix) for name in names]
        except ValueError as error:  # a drive, on Windows
            raise FormatError(f"names of the pictures: {error}") from None
    return numbered(target, count)


def _write(
    packed: Packed,
    targets: Sequence[Path] | None,
    image_format: str,
    settings: Settings,
    progress: Callable[[float], None],
) -> int:
    """The pictures of one file, to their targets as write_all has it, or the only one to standard output: bytes."""
    from pixzip.files import write_all, write_stdout
    from pixzip.formats.image import write_image

    if targets is None:
        image = write_image(settings.decompress(packed.data, progress), image_format)
        write_stdout(image, force=settings.force)
        return len(image)
    pictures = settings.decompress_all(packed.data, progress)
    images = ((target, write_image(each, image_format)) for target, each in zip(targets, pictures, strict=True))
    return write_all(images, force=settings.force, mtime_ns=packed.mtime_ns, like=packed.like)
