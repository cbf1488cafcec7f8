"""A model's name → pictures drawn from it: samples, and completions of a picture whose upper part is known.

Sub-pixels are drawn in the decoder's order from the exact integer rows that code a picture, each with a random number
of its own (coding/quantiles.py). Samples and completions as in figures 1, 7, 8 and 9 of van den Oord et al. 2016.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.quantiles import quantiles
from pixzip.coding.schedule import pictures_together
from pixzip.errors import LimitError, UsageError
from pixzip.formats.image import Picture, from_array
from pixzip.keywords import integer, threads_of
from pixzip.limits import MAX_PIXELS, MAX_WORK
from pixzip.model.file import Model, find_model
from pixzip.reports import Progress, Report, Shares
from pixzip.runtime.draw import draw_block
from pixzip.runtime.engines import choose_engine, one_thread
from pixzip.work import check_work

#: Pictures are drawn whole, not in tiles: what a traversal keeps grows with their height.
MAX_SIDE_PX = 4096
LEAST_TEMPERATURE, LARGEST_TEMPERATURE = Fraction(1, 1000), Fraction(100)
#: White pixels between the pictures of a grid.
GAP_PX = 2
#: Sub-pixels whose random numbers are made at once: a bound of memory.
_AT_ONCE = 1 << 16
#: Numbers that a temperature is made of: 2, 0.7 or 7/10.
_RATIONAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?|[0-9]{1,20}/[0-9]{1,20}")


def sample(
    model: str | Path = "default",
    count: int = 1,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    temperature: float | Fraction | str = 1,
    *,
    threads: int | None = None,
    engine: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_work: int = MAX_WORK,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """Draw ``count`` pictures: (count, h, w, 3) uint8, of a model of gray ones (count, h, w), of binary ones bool.

    model: the name of a shipped model, or a path. size: (h, w) in pixels, default that of the pictures it was trained
    on. Picture k depends on the model, size, seed (0 to 2^64 - 1), temperature and k only. temperature: logits are
    divided by it, 1/1000 to 100; a float stands for its decimal digits. threads and engine change nothing but the
    time. progress is called with the fraction done. Raises UsageError, LimitError for more than max_pixels pixels in
    all, more than max_work (as in compress) or a side over 4096, ModelNotFoundError, ModelError.
    """
    how = _how(count, seed, temperature, threads, engine, max_work, progress)
    sides = None if size is None else _sides(size)
    found = find_model(model)
    height, width = sides or trained_size(found)
    _check_sizes(how.count, height, width, max_pixels)
    nothing = np.zeros((found.network.planes, 0, width), dtype=np.uint8)
    return _draw(found, nothing, height, how)


def complete(
    model: str | Path,
    picture: NDArray[Any] | Picture,
    count: int = 1,
    from_row: int | None = None,
    seed: int = 0,
    temperature: float | Fraction | str = 1,
    *,
    threads: int | None = None,
    engine: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_work: int = MAX_WORK,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """Keep a picture above row ``from_row`` (default: half of it) and draw the rest, ``count`` times.

    picture: an array (h, w, 3) or (h, w) of uint8, (h, w) bool for a model of binary pictures, or a Picture; the result
    is (count, h, w, 3) or (count, h, w) of the same type. A model of colour pictures completes gray ones too. Other
    arguments and errors as for sample; UsageError for a cut outside the picture and for pictures of another kind than
    the model codes. A Multi-Scale model draws the small picture first, from those of its own pixels that are known, and
    then the others from it and from what is known before them: not from the whole of what is known at once.
    """
    how = _how(count, seed, temperature, threads, engine, max_work, progress)
    found = find_model(model)
    known = picture if isinstance(picture, Picture) else from_array(picture)
    _check_kind(found, known)
    cut = first_drawn(known.height, from_row)
    _check_sizes(how.count, known.height, known.width, max_pixels)
    return _draw(found, known.planes[:, :cut], known.height, how)


def first_drawn(height: int, from_row: int | None) -> int:
    """The first row that complete draws of a picture of so many. Raises UsageError for one outside the picture."""
    return height // 2 if from_row is None else integer("from_row", from_row, 0, height - 1)


def occluded(picture: NDArray[Any], cut: int) -> NDArray[Any]:
    """A picture (h, w) or (h, w, 3), black from row ``cut`` on: what complete is told."""
    out = picture.copy()
    out[cut:] = 0
    return out


def trained_size(model: Model) -> tuple[int, int]:
    """(h, w) of the pictures that a model was trained on, as its file says. Raises UsageError where it does not."""
    info: Any = model.info
    data = info.get("data") if isinstance(info, dict) else None
    crop = data.get("crop") if isinstance(data, dict) else None
    if type(crop) is not int or not 1 <= crop <= MAX_SIDE_PX:
        raise UsageError(f"model {model.name} does not say how large its pictures are: give a size")
    return crop, crop


def _check_kind(model: Model, picture: Picture) -> None:
    """Raise UsageError for a picture that the model does not code."""
    kind = model.network.pictures
    modes = ("RGB", "L") if kind == "rgb" else ("L",)
    depth = 1 if kind == "binary" else 8
    if picture.mode not in modes or picture.depth != depth:
        allowed = f"mode {' or '.join(modes)} with {depth} bits a sample"
        found = f"mode {picture.mode} with {picture.depth} bits"
        raise UsageError(f"model {model.name} completes pictures of {allowed}; this one has {found}")


def _rational(temperature: float | Fraction | str) -> Fraction:
    """A temperature, exactly as it is written. Raises UsageError."""
    text = str(temperature)
    value = Fraction(text) if _RATIONAL.fullmatch(text) and not re.search("/0+$", text) else None
    if value is None or not LEAST_TEMPERATURE <= value <= LARGEST_TEMPERATURE:
        limits = f"a number from {LEAST_TEMPERATURE} to {LARGEST_TEMPERATURE}"
        raise UsageError(f"temperature {text[:40]}: must be {limits}, as 0.9 or 9/10")
    return value


def _sides(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w), if it is that. Raises UsageError."""
    if not isinstance(size, Sequence) or len(size) != 2:
        raise UsageError(f"size {size!r:.40}: must be two integers, height and width")
    return integer("size", size[0], 1), integer("size", size[1], 1)


def _check_sizes(count: int, height: int, width: int, max_pixels: int) -> None:
    """Raise LimitError for too much to draw."""
    if max(height, width) > MAX_SIDE_PX:
        raise LimitError(f"pictures of {height}x{width} pixels: a side can be {MAX_SIDE_PX} at most")
    if count * height * width > max_pixels:
        pixels = f"{count} pictures of {height}x{width} = {count * height * width} pixels"
        raise LimitError(f"{pixels}, over the limit of {max_pixels} (max_pixels)")


@dataclass(frozen=True)
class _How:
    """What sample and complete are told alike, checked."""

    count: int
    seed: int
    temperature: Fraction
    threads: int | None
    engine: str
    max_work: int
    report: Report | None


def _how(
    count: int,
    seed: int,
    temperature: float | Fraction | str,
    threads: int | None,
    engine: str | None,
    max_work: int,
    progress: Progress | None,
) -> _How:
    """These arguments. Raises UsageError."""
    report = None if progress is None else Report(progress)
    count, seed = integer("count", count, 1), integer("seed", seed, 0, (1 << 64) - 1)
    return _How(count, seed, _rational(temperature), threads_of(threads), choose_engine(engine), max_work, report)


def _draw(model: Model, above: NDArray[np.uint8], height: int, how: _How) -> NDArray[Any]:
    """Pictures 0 .. count - 1, in the form that callers get; above (1 or 3, rows, w): what is known."""
    count = how.count
    threads = min(how.threads or os.cpu_count() or 1, count)
    group = pictures_together(-(-count // threads), height)
    groups = [range(i, min(i + group, count)) for i in range(0, count, group)]
    check_work(model.network, [(len(numbers), height, above.shape[2]) for numbers in groups], how.max_work)
    share = Shares([len(numbers) for numbers in groups], how.report)
    out = np.empty((count, len(above), height, above.shape[2]), dtype=np.uint8)

    def work(index: int) -> None:
        numbers = groups[index]
        out[numbers.start : numbers.stop] = draw_numbers(
            model, numbers, above, height, how.seed, how.temperature, how.engine, share.of(index)
        )

    with one_thread(), ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(len(groups))))
    if how.report is not None:
        how.report.finish()
    if model.network.pictures == "binary":
        return out[:, 0].astype(bool)
    return out[:, 0] if len(above) == 1 else np.ascontiguousarray(out.transpose(0, 2, 3, 1))


def draw_numbers(
    model: Model,
    numbers: Sequence[int],
    above: NDArray[np.uint8],
    height: int,
    seed: int,
    temperature: Fraction,
    engine: str,
    progress: Progress | None = None,
) -> NDArray[np.uint8]:
    """The pictures of these numbers, as one batch: (n, colours, h, w); above (colours, rows, w) is known of each."""
    colours, rows, width = above.shape
    network = model.network
    planes = np.ascontiguousarray(np.broadcast_to(above, (network.planes, rows, width)))
    places = np.empty((len(numbers), colours, height, width), dtype=np.int32)
    picture = np.asarray(numbers, dtype=np.uint64)[:, None, None, None]
    colour, columns = np.arange(colours)[:, None, None], np.arange(width)
    band = max(1, _AT_ONCE // (len(numbers) * colours * width))
    for top in range(0, height, band):
        y = np.arange(top, min(top + band, height))[:, None]
        places[:, :, top : top + band] = quantiles(seed, picture, y, columns, colour)
    return draw_block(network, engine, places, planes, temperature, progress)[:, :colours]


def grid(pictures: Sequence[NDArray[Any]] | NDArray[Any], columns: int) -> NDArray[Any]:
    """Pictures, each (h, w) or (h, w, 3), uint8 or bool, in rows of ``columns``, white between and after them."""
    h, w, *rest = pictures[0].shape
    rows = -(-len(pictures) // columns)
    white: Any = True if pictures[0].dtype == bool else 255
    shape = (rows * (h + GAP_PX) - GAP_PX, columns * (w + GAP_PX) - GAP_PX, *rest)
    out = np.full(shape, white, dtype=pictures[0].dtype)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (h + GAP_PX), i % columns * (w + GAP_PX)
        out[y : y + h, x : x + w] = picture
    return out
