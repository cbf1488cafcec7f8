"""Pictures → those to train on and those held out, so that no picture is in both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixzip.data.cache import Pictures, load_pictures
from pixzip.data.settings import DataSettings
from pixzip.errors import TrainingDataError

if TYPE_CHECKING:
    from collections.abc import Callable


def held_out(pictures: Pictures, share: float) -> tuple[Pictures, Pictures]:
    """(train, validation): a picture is held out by its content hash alone, whatever else is in the set.

    Only of a set so small that the share holds out none, the picture of the least hash is.
    """
    limit = int(share * 2**32)
    out = np.array([int(h[:8], 16) < limit for h in pictures.hashes], dtype=bool)
    if share and len(pictures) and not out.any():
        out = pictures.hashes == min(pictures.hashes)
    return pictures.select(np.flatnonzero(~out)), pictures.select(np.flatnonzero(out))


def without(pictures: Pictures, others: Pictures) -> Pictures:
    """The pictures whose pixels are not among the others."""
    return pictures.select(np.flatnonzero(~np.isin(pictures.hashes, others.hashes)))


def ordered(pictures: Pictures) -> Pictures:
    """Pictures by their content hashes, so that the crops of a run do not depend on names of files."""
    return pictures.select(np.argsort(pictures.hashes, kind="stable"))


def load_split(
    settings: DataSettings, cache: Path, say: Callable[[str], None] = lambda line: None
) -> tuple[Pictures, Pictures]:
    """(train, validation) of a configuration, each in the order of content hashes.

    Raises TrainingDataError where either is empty.
    """
    if not settings.train:
        raise TrainingDataError("no training pictures named: --data FOLDER, or train in the configuration's [data]")
    everything = load_pictures(settings.train, cache, say)
    if settings.validation:
        validation = load_pictures(settings.validation, cache, say)
        train = without(everything, validation)
        if shared := len(everything) - len(train):
            say(f"{shared} training pictures are validation pictures too: left out of training")
    else:
        train, validation = held_out(everything, settings.validation_share)
    train, validation = ordered(train), ordered(validation)
    for name, part in (("train", train), ("validation", validation)):
        if not len(part):
            raise TrainingDataError(
                f"no {name} picture: {len(everything)} pictures in {settings.train}, "
                + (
                    f"{settings.validation} for validation"
                    if settings.validation
                    else f"validation_share {settings.validation_share}; more pictures, or --validation FOLDER"
                )
            )
    return train, validation
