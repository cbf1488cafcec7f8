"""`pixzip models`: the models that ship with pixzip and those that the user added; one more, checked first."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pixzip.commands.arguments import remark, say
from pixzip.commands.options import EXIT_CODES, completed_files
from pixzip.errors import UsageError


@click.command(epilog=EXIT_CODES)
@click.option(
    "--add",
    "file",
    metavar="FILE",
    shell_complete=completed_files,
    help="Check a model file and put it where files that name it find it: $PIXZIP_MODELS, or the user's data folder.",
)
@click.option("--name", help="The name of the model that is added. Default: that of its file.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line for each model.")
def models(file: str | None, name: str | None, as_json: bool) -> None:
    """List the models that ship with pixzip and those that were added, or add one.

    A line has name, digest as .pxz files name it, bytes, file; of a file that cannot be read, the reason.
    """
    from pixzip.model.file import (
        ModelInfo,
        UnreadableModel,
        added_folder,
        added_models,
        models_folder,
        shipped_models,
        unreadable_models,
    )
    from pixzip.pxz.container import DIGEST_BYTES

    def line(model: ModelInfo, ships: bool) -> str:
        digest = model.digest[:DIGEST_BYTES].hex()
        if not as_json:
            return f"{model.name:<11} {digest}  {model.size_bytes:>9}  {model.path}"
        named = {"name": model.name, "digest": digest, "sha256": model.digest.hex()}
        return json.dumps(named | {"bytes": model.size_bytes, "file": str(model.path), "ships": ships})

    def unreadable(model: UnreadableModel) -> str:
        if not as_json:
            return f"{model.name:<11} {'unreadable':<16}  {'':>9}  {model.path}: {model.reason}"
        ships = model.path.parent == models_folder()
        return json.dumps({"name": model.name, "file": str(model.path), "ships": ships, "unreadable": model.reason})

    if file is None:
        if name is not None:
            raise UsageError("--name is that of a model to --add")
        shipped, added, others = shipped_models(), added_models(), unreadable_models()
        if not (shipped or added or others):
            raise UsageError(f"no models in {models_folder()} and {added_folder()}")
        for model in [*shipped, *added]:
            say(line(model, model in shipped))
        for other in others:
            say(unreadable(other))
        return
    from pixzip.model.store import add_model

    model, new = add_model(Path(file), name)
    say(line(model, model in shipped_models()))
    if not new:
        remark(f"{file} is the model {model.name}, which was there before")
