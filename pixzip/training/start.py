"""Another run's checkpoint, or a model → the weights that a run begins with."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pixzip.errors import ModelError, ModelNotFoundError, TrainingError
from pixzip.freezing.thaw import thawed
from pixzip.model.file import find_model
from pixzip.nets.growth import grown
from pixzip.nets.trunk import TrunkConfig
from pixzip.training.checkpoint import Run, is_checkpoint, load_run, read_checkpoint
from pixzip.training.config import Config, differences, to_tables
from pixzip.training.optimisers import Average


def begin_from(run: Run, name: str) -> None:
    """Give a run that has taken no step the float weights of the checkpoint of this name, averaged where it has such.

    Or those that the integers of a model stand for, by its name or file (pixzip.freezing.thaw). A trunk may be larger
    than it: it begins with the same function (pixzip.nets.growth). Raises TrainingError for what is neither, and for
    another network, naming what differs.
    """
    source = _source(name)
    network, wanted = source.network, run.config
    if isinstance(wanted.model, TrunkConfig) and isinstance(source.config.model, TrunkConfig):
        try:
            network = grown(network, wanted.model, wanted.training.seed)
        except TrainingError as error:
            raise TrainingError(f"{name}: weights of another network: model.{error}") from None
    elif wanted.model != source.config.model:
        raise TrainingError(f"{name}: weights of another network: {_differing(source.config, wanted)}")
    with torch.no_grad():
        weights = dict(network.named_parameters())
        for key, p in run.network.named_parameters():
            p.copy_(weights[key])
    if run.average is not None:
        run.average = Average(run.network, run.average.decay)
    run.start = hashlib.sha256(source.data).hexdigest()[:32]


class _Source(NamedTuple):
    """The bytes of a checkpoint or model, its network in float, and a configuration with it."""

    data: bytes
    network: Any
    config: Config


def _source(name: str) -> _Source:
    """The checkpoint, where the file is one, or the model of this name."""
    if is_checkpoint(Path(name)):
        data = read_checkpoint(Path(name))
        run = load_run(data, name)
        return _Source(data, run.network, run.config)
    try:
        model = find_model(name)
    except (ModelError, ModelNotFoundError) as error:
        raise TrainingError(f"training.init: {error}") from None
    network = thawed(model)
    return _Source(model.data, network, Config(network.config))


def _differing(was: Config, now: Config) -> str:
    """What differs between the networks of two configurations."""
    if was.architecture != now.architecture:
        return f"model.architecture {was.architecture}, now {now.architecture}"
    return "; ".join(d for d in differences(to_tables(was), to_tables(now)) if d.startswith("model."))
