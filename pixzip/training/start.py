"""Another run's checkpoint → the weights that a run begins with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from pixzip.errors import TrainingError
from pixzip.nets.growth import grown
from pixzip.nets.trunk import TrunkConfig
from pixzip.training.checkpoint import Run, load_run, read_checkpoint
from pixzip.training.config import differences, to_tables
from pixzip.training.optimisers import Average


def begin_from(run: Run, name: str) -> None:
    """Give a run that has taken no step the float weights of the checkpoint of this name, averaged where it has such.

    A trunk may be larger than the checkpoint's: it begins with the same function (pixzip.nets.growth). Raises
    TrainingError for what is no checkpoint, and for one of another network, naming what differs.
    """
    data = read_checkpoint(Path(name))
    source = load_run(data, name)
    if run.config.model == source.config.model:
        network = source.network
    elif isinstance(run.config.model, TrunkConfig) and isinstance(source.config.model, TrunkConfig):
        try:
            network = grown(source.network, run.config.model, run.config.training.seed)
        except TrainingError as error:
            raise TrainingError(f"{name}: weights of another network: model.{error}") from None
    else:
        raise TrainingError(f"{name}: weights of another network: {_differing(source, run)}")
    with torch.no_grad():
        weights = dict(network.named_parameters())
        for key, p in run.network.named_parameters():
            p.copy_(weights[key])
    if run.average is not None:
        run.average = Average(run.network, run.average.decay)
    run.start = hashlib.sha256(data).hexdigest()[:32]


def _differing(source: Run, run: Run) -> str:
    """What differs between the networks of two runs."""
    was, now = source.config, run.config
    if was.architecture != now.architecture:
        return f"model.architecture {was.architecture}, now {now.architecture}"
    return "; ".join(d for d in differences(to_tables(was), to_tables(now)) if d.startswith("model."))
