"""`pixzip models`: the models that ship with pixzip."""

from __future__ import annotations

import click

from pixzip.commands.options import EXIT_CODES
from pixzip.errors import UsageError


@click.command(epilog=EXIT_CODES)
def models() -> None:
    """List the models that ship with pixzip: name, digest as .pxz files name it, bytes, file."""
    from pixzip.container import DIGEST_BYTES
    from pixzip.model_file import models_folder, shipped_models

    found = shipped_models()
    if not found:
        raise UsageError(f"no models in {models_folder()}")
    for model in found:
        click.echo(f"{model.name:<12}{model.digest[:DIGEST_BYTES].hex()}  {model.size_bytes:>9}  {model.path}")
