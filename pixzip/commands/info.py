"""`pixzip info`: .pxz files → what stands before their pixels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pixzip.commands.arguments import PACKED, found_files, packed_bounds, read_input, shown_name
from pixzip.commands.each import Work, on_each
from pixzip.commands.options import EXIT_CODES, files_argument

if TYPE_CHECKING:
    from pixzip.api import Info


@click.command(epilog=EXIT_CODES)
@files_argument
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line for each file.")
def info(files: tuple[str, ...], as_json: bool) -> None:
    """Say what .pxz files hold; nothing is decoded."""

    def begin(file: str) -> Work:
        from pixzip.api import inspect

        found = inspect(read_input(file, packed_bounds(None)))
        if as_json:
            return lambda: json.dumps({"file": file, "bits_per_dim": found.bits_per_dim} | asdict(found))
        return lambda: "\n".join([shown_name(file), *(f"  {key:<12}{value}" for key, value in _described(found))])

    on_each(found_files(files, (PACKED,)), begin, 1, err=False)


def _described(found: Info) -> Iterator[tuple[str, str]]:
    """Lines of `pixzip info`."""
    several = f"{found.pictures} pictures of " if found.pictures > 1 else ""
    yield "picture", f"{several}{found.width} x {found.height}, {found.mode}, {found.depth} bits a sample"
    yield "file", f"{found.file_bytes} bytes, {found.bits_per_dim:.4f} bits/dim"
    if found.coding == "model":
        name = found.model_name or ("embedded" if found.model_embedded_bytes else "not one of the shipped models")
        yield "model", f"{found.model_digest} ({name})"
        yield (
            "payload",
            f"{found.payload_bytes} bytes, tiles of {found.tile}, {found.lanes} lanes, learning {found.learning}",
        )
        if found.low_bytes:
            yield "low bytes", f"{found.low_bytes} bytes of the payload"
    else:
        yield "stored", f"{found.coding}, {found.payload_bytes} bytes"
    if found.model_embedded_bytes:
        yield "embedded", f"model of {found.model_embedded_bytes} bytes"
    if found.alpha_bytes is not None:
        yield "alpha", f"{found.alpha_bytes} bytes"
    if found.palette_entries:
        yield "palette", f"{found.palette_entries} entries"
    if found.transparency_bytes:
        yield "transparency", f" {found.transparency_bytes} bytes"
    for key, size in found.metadata_bytes:
        yield "metadata", f"{key}, {size} bytes"
    yield "checksum", found.pixels_checksum
