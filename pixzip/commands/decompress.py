"""`pixzip decompress`: .pxz files → image files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from pixzip.commands.arguments import PACKED, STREAM, found_files, read_source, shown_name
from pixzip.commands.each import Work, label_of, on_each, parts_of, room_for
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
    makes_folder,
    mtime_ns,
    numbered,
    target_of,
)
from pixzip.commands.progress import Stop, metered
from pixzip.commands.salvage import Damaged, salvage_file
from pixzip.commands.trees import asked_tree, check_results, is_before, prepare, summed_up
from pixzip.commands.written import how_coded
from pixzip.errors import FormatError, LimitError, UsageError
from pixzip.tree import Tally, make_folder

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
    outputs, room = Outputs(force=settings.force), room_for(settings, found)
    tally = Tally("decompress", len(found.names), passed_over=found.passed_over)

    def passed_over(file: str, targets: Sequence[Path], data: bytes) -> str | None:
        check_results(targets, data, settings, room, meter.check)
        tally.count(before=True)
        return f"{shown_name(file)}: done before" if verbose else None

    def begin(file: str) -> Work:
        part = parts()
        target = target_of(file, output, ".png") if tree is None else tree.target(file, ".png")
        image_format = "PNG" if target is None else format_of(target)
        times = mtime_ns(file) if settings.keep_times else None
        data, status = read_source(file, settings.packed_bounds)
        like = [] if status is None else [status]
        if target is not None:
            check_holds(target, data)
        if salvage:
            if target is not None and is_before(file, [target], tree, outputs, settings):
                return partial(passed_over, file, [target], data)
            if makes_folder(output, tree) and target is not None:
                make_folder(target.parent)
            found = Damaged(file, data, times, like, part)
            return lambda: salvage_file(found, target, image_format, settings, outputs, meter, tally)
        named = tree is not None or output is None or is_folder(output)
        targets = _targets(data, target, settings.max_pixels, named=named)
        if targets is not None and is_before(file, targets, tree, outputs, settings):
            return partial(passed_over, file, targets, data)
        need = settings.need_to_decompress(data, image_format)
        for target in targets or ():
            prepare(file, target, outputs, dry_run=dry_run, make=makes_folder(output, tree))
        if dry_run:
            shown = ["standard output"] if targets is None else list(map(str, targets))
            return lambda: "\n".join(f"{shown_name(file)} -> {each}" for each in shown)

        def work() -> str | None:
            from_s = time.monotonic()
            with settings.let_in(room, need, meter.check) as share:
                written_bytes = _decompress(data, targets, image_format, share, meter.part(*part), times, like)
            tally.count(len(data), written_bytes)
            if not verbose:
                return None
            to = "standard output" if targets is None else ", ".join(map(str, targets))
            sizes = f"{len(data)} -> {written_bytes} bytes"
            return f"{shown_name(file)} -> {to}: {sizes}, {how_coded(data)}, {time.monotonic() - from_s:.2f} s"

        return work

    with metered(label_of(found), stop, quiet=quiet) as meter, summed_up(tally, tree, as_json, quiet or dry_run):
        parts = parts_of(len(found.names))
        on_each(found, begin, 1 if salvage else room.side_by_side, meter)


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


def _decompress(
    data: bytes,
    targets: Sequence[Path] | None,
    image_format: str,
    settings: Settings,
    progress: Callable[[float], None],
    mtime_ns: int | None,
    like: Sequence[os.stat_result],
) -> int:
    """The pictures of one file, to their targets as write_all has it, or the only one to standard output: bytes."""
    from pixzip.files import write_all, write_stdout
    from pixzip.formats.image import write_image

    if targets is None:
        image = write_image(settings.decompress(data, progress), image_format)
        write_stdout(image, force=settings.force)
        return len(image)
    pictures = settings.decompress_all(data, progress)
    images = ((target, write_image(each, image_format)) for target, each in zip(targets, pictures, strict=True))
    return write_all(images, force=settings.force, mtime_ns=mtime_ns, like=like)
