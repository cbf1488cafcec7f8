"""`pixzip verify`: .pxz files → whether they decode to the pixels they were made of."""

from __future__ import annotations

from typing import Any

import click

from pixzip.commands.arguments import PACKED, found_files, read_input, shown_name
from pixzip.commands.each import Work, label_of, on_each, parts_of, room_for
from pixzip.commands.options import (
    EXIT_CODES,
    Settings,
    coding_options,
    decoding_model_option,
    files_argument,
    max_memory_option,
    quiet_option,
)
from pixzip.commands.outputs import check_output
from pixzip.commands.progress import Stop, metered


@click.command(epilog=EXIT_CODES)
@files_argument
@click.option("-r", "--recursive", is_flag=True, help="Of folders all .pxz files below them.")
@decoding_model_option
@coding_options
@max_memory_option
@quiet_option
@click.pass_obj
def verify(stop: Stop, /, files: tuple[str, ...], recursive: bool, quiet: bool, **options: Any) -> None:
    """Decode .pxz files and compare the pixels with the checksum in each; of a folder, of all .pxz files in it."""
    found = found_files(files, (PACKED,), recursive=recursive)
    check_output(found.names, None)
    settings = Settings(**options)
    room = room_for(settings, found)

    def begin(file: str) -> Work:
        data, part = read_input(file), parts()
        need = settings.need_to_decompress(data, "PNG")

        def work() -> str | None:
            with settings.let_in(room, need, meter.check) as share:
                share.decompress_all(data, meter.part(*part))
            return None if quiet else f"{shown_name(file)}: pixels are as they were encoded"

        return work

    with metered(label_of(found), stop, quiet=quiet) as meter:
        parts = parts_of(len(found.names))
        on_each(found, begin, room.side_by_side, meter, err=False)
