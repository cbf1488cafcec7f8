"""`pixzip train`, `pixzip evaluate`: pictures ↔ a model and its bits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

import click

from pixzip.commands.arguments import remark, say
from pixzip.commands.options import EXIT_CODES, completed_files
from pixzip.commands.progress import Interrupted, Stop, metered
from pixzip.errors import OutputError, UsageError


@contextmanager
def learning_half() -> Iterator[None]:
    """The learning half needs packages that coding does not."""
    try:
        yield
    except ImportError as error:
        raise UsageError(f"training needs {error.name}: install pixzip[train]") from None


cache_option = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of decoded pictures. Default: $PIXZIP_CACHE, or pixzip in the user's cache folder.",
)

device_option = click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)


def _tell(line: str) -> None:
    """Say a line of a run, which goes on where nobody can read it."""
    with suppress(OutputError, SystemExit):
        say(line)


def _presets() -> str:
    """Their names, without the configuration's own reader, which imports torch."""
    found = (resources.files("pixzip") / "presets").iterdir()
    return ", ".join(sorted(path.name.removesuffix(".toml") for path in found if path.name.endswith(".toml")))


@click.command(epilog=EXIT_CODES)
@click.option("--preset", help=f"A configuration that comes with pixzip (default: default): {_presets()}.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="A configuration of your own, TOML.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one value: training.rate=1e-3")
@click.option("--data", help="Training pictures: a folder, or DATASET/PART:PLACE such as cifar10/train:FOLDER.")
@click.option("--validation", help="Pictures to judge by, likewise. Default: a fixed share of --data.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option(
    "--init",
    help="Begin with the weights of another run's checkpoint, or of a model by name or file; a trunk may be larger.",
)
@cache_option
@device_option
@click.option("--threads", type=click.IntRange(1), help="Default: as many as there are cores.")
@click.option("--tensorboard", is_flag=True, help="Write OUT/tensorboard too.")
@click.option("--allow-changes", is_flag=True, help="Go on from a checkpoint of other settings or pictures.")
@click.pass_obj
def train(
    stop: Stop,
    /,
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    data: str | None,
    validation: str | None,
    out: Path,
    init: str | None,
    cache: Path | None,
    device: str,
    threads: int | None,
    tensorboard: bool,
    allow_changes: bool,
) -> None:
    """Train a network on pictures and write OUT/model.safetensors, with a card that says what it is.

    The same command goes on where an earlier one stopped. docs/training.md says more.
    """
    with learning_half():
        import torch

        from pixzip.data.cache import default_cache
        from pixzip.training import config, report, run
        from pixzip.training.memory import keep_memory
        from pixzip.training.processes import joined
    keep_memory()
    if preset and config_file:
        raise UsageError("--preset and --config exclude each other")
    tables = config.read_tables(config_file) if config_file else config.preset_tables(preset or "default")
    tables = config.overridden(tables, settings)
    places = {"train": data, "validation": validation}
    tables["data"] = dict(tables.get("data", {})) | {key: place for key, place in places.items() if place is not None}
    if init is not None:
        tables = config.overridden(tables, [f"training.init={json.dumps(init)}"])
    wanted = config.from_tables(tables)
    if threads is not None:
        torch.set_num_threads(threads)
    with joined(device) as processes:
        number = run.train(
            wanted,
            out,
            cache or default_cache(),
            processes=processes,
            device=device,
            allow_changes=allow_changes,
            board=report.tensorboard(out) if tensorboard and processes.leads else None,
            say=_tell,
        )
    if number:
        raise Interrupted(number)


@click.command(epilog=EXIT_CODES)
@click.argument("model", shell_complete=completed_files)
@click.argument("source", shell_complete=completed_files)
@click.option("--limit", type=click.IntRange(1), help="Only so many pictures, the first by content hash.")
@click.option(
    "--float", "in_float", is_flag=True, help="Of a model also the float network that its integers stand for."
)
@cache_option
@device_option
@click.option("--threads", type=click.IntRange(1), help="Default: as many as there are cores.")
@click.pass_obj
def evaluate(
    stop: Stop,
    /,
    model: str,
    source: str,
    limit: int | None,
    in_float: bool,
    cache: Path | None,
    device: str,
    threads: int | None,
) -> None:
    """Say how many bits a MODEL needs for the pictures of a SOURCE: a folder, or DATASET/PART:PLACE.

    MODEL is a shipped model's name, a model file, or a checkpoint of `pixzip train`, whose float network (and integers,
    where it has them) is measured. The interval is a bootstrap over pictures, 95 %. Float networks are computed on
    the --device, integers on the CPU.
    """
    with learning_half():
        import torch

        from pixzip.data.cache import default_cache, load_pictures
        from pixzip.training.evaluation import check_where, evaluations
    check_where(model, device, in_float=in_float)
    if threads is not None:
        torch.set_num_threads(threads)
    pictures = load_pictures(source, cache or default_cache(), remark)
    with metered("evaluating", stop, quiet=False) as meter:
        progress = meter.part(0, 1)
        found = evaluations(model, pictures, limit=limit, device=device, progress=progress, in_float=in_float)
    for line in found:
        say(line)
