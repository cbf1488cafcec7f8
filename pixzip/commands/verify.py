"""`pixzip verify`: .pxz files → whether they decode to the pixels they were made of."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from pixzip.commands.arguments import PACKED, STREAM, found_files, read_input, shown_name
from pixzip.commands.each import Work, label_of, on_each, parts_of, room_for
from pixzip.commands.manifest import Expected, check_pictures, checking_option, compared
from pixzip.commands.options import (
    EXIT_CODES,
    Settings,
    coding_options,
    decoding_model_option,
    files_argument,
    json_option,
    quiet_option,
    room_options,
    verbose_option,
)
from pixzip.commands.outputs import check_output
from pixzip.commands.progress import Stop, metered
from pixzip.commands.trees import summed_up
from pixzip.commands.written import how_coded
from pixzip.errors import UsageError
from pixzip.tree import Tally, tree_of


@click.command(epilog=EXIT_CODES)
@files_argument
@click.option("-r", "--recursive", is_flag=True, help="Of folders all .pxz files below them.")
@decoding_model_option
@coding_options
@room_options
@checking_option
@json_option
@quiet_option
@verbose_option
@click.pass_obj
def verify(
    stop: Stop,
    /,
    files: tuple[str, ...],
    recursive: bool,
    manifest: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Decode .pxz files and compare the pixels with the checksum in each; of a folder, of all .pxz files in it.

    With --manifest, compare files and pixels with it, too. -r then takes one folder, that of the manifest.
    """
    settings = Settings(**options)
    found = found_files(files, (PACKED,), recursive=recursive)
    expected = None
    if manifest is not None:
        if STREAM in files:
            raise UsageError("--manifest needs input files")
        expected = Expected(Path(manifest), tree_of(files, None).root if recursive else None)
        found = expected.with_missing(found)
    check_output(found.names, None)
    room, tally = room_for(settings, found), Tally("verify", len(found.names), passed_over=found.passed_over)

    def begin(file: str) -> Work:
        part = parts()
        record = None if expected is None else expected.record(file)
        data = read_input(file, settings.packed_bounds)
        with compared(record, data):
            need = settings.need_to_decompress(data, "PNG")

        def work() -> str | None:
            from_s = time.monotonic()
            with compared(record, data), settings.let_in(room, need, meter.check) as share:
                pictures = share.decompress_all(data, meter.part(*part))
                if record is not None:
                    check_pictures(record, data, pictures)
            tally.count(len(data))
            line = f"{shown_name(file)}: pixels are as they were encoded"
            line += ", file and pixels as the manifest says" if record is not None else ""
            line += f", {how_coded(data)}, {time.monotonic() - from_s:.2f} s" if verbose else ""
            return None if quiet else line

        return work

    with metered(label_of(found), stop, quiet=quiet) as meter, summed_up(tally, None, as_json, quiet):
        parts = parts_of(len(found.names))
        on_each(found, begin, room.side_by_side, meter, err=as_json)
