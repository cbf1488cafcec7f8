"""A model or checkpoint and pictures → lines of bits/dim with an interval, and nats where pictures are binary."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pixzip.codec import DEFAULT_TILE
from pixzip.coding.schedule import tiles_of
from pixzip.data.cache import Pictures
from pixzip.data.crops import Pixels, as_planes
from pixzip.errors import TrainingDataError, TrainingError, UsageError
from pixzip.evaluate import bootstrap, plane_bits
from pixzip.freezing.thaw import thawed
from pixzip.model.file import Model, find_model
from pixzip.nets.stack import Stack
from pixzip.nets.trunk import TrunkModel
from pixzip.training import integers
from pixzip.training.checkpoint import Run, check_device, is_checkpoint, load_run, read_checkpoint
from pixzip.training.config import levels_of, planes_of

#: Pictures of one size go through a network together, up to so many pixels.
_BATCH_PX = 81920
#: (n, h, w, planes) → bits of each of the n pictures.
Measure = Callable[[Pixels], NDArray[np.float64]]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: its name, the planes it codes and the values of a sub-pixel, and its ways of counting bits."""

    name: str
    planes: int
    levels: int
    measures: dict[str, Measure]


def check_where(model: str, device: str, *, in_float: bool) -> None:
    """Raise TrainingError where there is no such device, UsageError for exact bits alone on one."""
    check_device(device)
    if device != "cpu" and not in_float and not is_checkpoint(Path(model)):
        raise UsageError(f"--device {device}: exact bits are computed on the CPU; --float has others")


def evaluations(
    model: str,
    pictures: Pictures,
    *,
    limit: int | None,
    device: str,
    progress: Callable[[float], None],
    in_float: bool = False,
) -> Iterator[str]:
    """Lines for a person, of a checkpoint or a model; everything is measured before the first comes.

    in_float: of a model also the float network that its integers stand for. device: where float networks are computed;
    integers are on the CPU. Raises as check_where.
    """
    check_where(model, device, in_float=in_float)
    subject = _subject(model, device, pictures.planes, in_float=in_float)
    return measured(subject, pictures, limit=limit, progress=progress)


def measured(
    subject: Subject, pictures: Pictures, *, limit: int | None, progress: Callable[[float], None]
) -> Iterator[str]:
    """As ``evaluations``, of a subject. Gray image files count as the codec codes them, as one plane.

    Raises TrainingDataError for pictures of other levels than the subject's.
    """
    if pictures.levels != subject.levels:
        raise TrainingDataError(f"pictures of {pictures.levels} levels for {subject.name} of {subject.levels}")
    order = np.argsort(pictures.hashes, kind="stable")[:limit] if limit else np.arange(len(pictures))
    chosen = pictures.select(order)
    dims = chosen.heights * chosen.widths
    bits = {name: np.empty(len(chosen)) for name in subject.measures}
    done = 0
    for group in _groups(chosen):
        planes = 1 if chosen.gray[group[0]] else subject.planes
        pixels = np.stack([as_planes(chosen[int(i)], planes) for i in group])
        dims[group] *= planes
        for name, measure in subject.measures.items():
            bits[name][group] = measure(pixels)
        done += len(group)
        progress(done / len(chosen))
    return iter(_lines(subject, chosen, bits, dims))


def _groups(pictures: Pictures) -> Iterator[NDArray[np.intp]]:
    """Indices of pictures of one size, gray or not, few enough to be measured together."""
    kinds = np.stack([pictures.gray, pictures.heights, pictures.widths])
    order = np.lexsort(kinds[::-1])
    start = 0
    while start < len(order):
        h, w = pictures.heights[order[start]], pictures.widths[order[start]]
        most = max(1, _BATCH_PX // int(h * w))
        same = 1
        while same < most and start + same < len(order):
            i = order[start + same]
            if (kinds[:, i] != kinds[:, order[start]]).any():
                break
            same += 1
        yield order[start : start + same]
        start += same


def _lines(
    subject: Subject, pictures: Pictures, bits: dict[str, NDArray[np.float64]], dims: NDArray[np.int64]
) -> Iterator[str]:
    yield f"{subject.name}: {len(pictures)} pictures, {int(dims.sum())} sub-pixels"
    for name, each in bits.items():
        low, high = bootstrap(each / dims)
        pooled = each.sum() / dims.sum()
        yield (
            f"{name:<10}{(each / dims).mean():.4f} bits/dim, mean over pictures (95 % {low:.4f} to {high:.4f}); "
            f"{pooled:.4f} over all sub-pixels"
        )
        if pictures.levels == 2:
            low, high = bootstrap(each * math.log(2))
            yield f"{'':<10}{each.mean() * math.log(2):.3f} nats a picture (95 % {low:.3f} to {high:.3f})"


def _subject(model: str, device: str, planes: int, *, in_float: bool) -> Subject:
    """A checkpoint where the file is one, else a model."""
    path = Path(model)
    if is_checkpoint(path):
        return subject_of_run(load_run(read_checkpoint(path), model, device), model)
    found = find_model(model)
    subject = subject_of_model(found, planes if found.network.pictures == "rgb" else 1)
    if not in_float:
        return subject
    network = thawed(found).to(device)
    return replace(subject, measures={"float": _float_measure(network, planes_of(network.config))} | subject.measures)


def subject_of_model(model: Model, planes: int) -> Subject:
    """A frozen model's exact bits; pictures of one plane count as the codec codes them, by the first colour alone."""

    def exact(pixels: Pixels) -> NDArray[np.float64]:
        planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        bits = plane_bits(model, planes, learning=0, threads=torch.get_num_threads())
        return np.asarray(bits.sum(axis=(1, 2, 3)))

    return Subject(model.name, planes, 2 if model.network.pictures == "binary" else 256, {"exact": exact})


def subject_of_run(run: Run, name: str) -> Subject:
    """A run's bits by its float network, and by its integers as trained where it has them."""
    planes = run.config.data.planes or planes_of(run.config.model)
    measures = {"float": _float_measure(run.network, planes)}
    if run.exponents is not None:
        exponents, network = run.exponents, copy.deepcopy(run.network).cpu()
        nats = partial(integers.integer_colour_nats, network, exponents=exponents)
        measures["quantised"] = partial(_one_by_one, network, nats, planes)
    return Subject(f"{name} (step {run.done})", planes, levels_of(run.config.model), measures)


def _float_measure(network: Any, planes: int) -> Measure:
    """Bits of pictures by a float network, for which they are made of so many planes.

    Those of one plane count by the first colour alone, as they are coded, but with Multi-Scale networks.
    """
    if isinstance(network, Stack):
        return partial(_together, network, planes)
    return partial(_one_by_one, network, partial(_colour_nats, network), planes)


def _colour_nats(network: Any, batch: Any) -> Sequence[torch.Tensor]:
    """Nats of each colour of a trunk, of all together where a network does not tell them apart."""
    if isinstance(network, TrunkModel):
        return network.loss(torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors), torch.float32)
    return (network.nats(batch, torch.float32),)


def _one_by_one(
    network: Any, nats: Callable[[Any], Sequence[torch.Tensor]], planes: int, pixels: Pixels
) -> NDArray[np.float64]:
    """Bits of pictures, each cut into tiles as a coder cuts it; nats: of the colours of a batch."""
    colours, whole = pixels.shape[3], (as_planes(picture, planes) for picture in pixels)
    return np.array([_tiled_nats(network, nats, picture, colours) / math.log(2) for picture in whole])


def _together(network: Stack, planes: int, pixels: Pixels) -> NDArray[np.float64]:
    """Bits of pictures by a network of the paper for so many planes; they are too small to take one at a time."""
    colours, total = pixels.shape[3], np.zeros(len(pixels))
    pixels = np.stack([as_planes(picture, planes) for picture in pixels])
    with torch.no_grad():
        for t in tiles_of(1, pixels.shape[1], pixels.shape[2], DEFAULT_TILE):
            batch = network.prepare(pixels[:, t.y : t.y + t.h, t.x : t.x + t.w])
            nats = network.sub_pixel_nats(batch, torch.float32)
            total += nats[..., :colours].sum((1, 2, 3), dtype=torch.float64).cpu().numpy()
    if not np.isfinite(total).all():
        raise TrainingError(f"the network gives {total[~np.isfinite(total)][0]} nats for a picture")
    return total / math.log(2)


def _tiled_nats(network: Any, nats: Callable[[Any], Sequence[torch.Tensor]], picture: Pixels, colours: int) -> float:
    """Of the first colours of one picture, cut into tiles as a coder cuts it."""
    total = 0.0
    with torch.no_grad():
        for t in tiles_of(1, picture.shape[0], picture.shape[1], DEFAULT_TILE):
            crop = picture[None, t.y : t.y + t.h, t.x : t.x + t.w]
            total += math.fsum(each.item() for each in nats(network.prepare(crop))[:colours])
    if not math.isfinite(total):
        raise TrainingError(f"the network gives {total} nats for a picture")
    return total
