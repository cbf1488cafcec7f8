"""Planes of pictures ↔ the Container of their file: coded by a model, alpha apart, or stored without one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.halves import halves
from pixzip.coding.stored import restore, store
from pixzip.errors import FormatError
from pixzip.formats.image import Picture
from pixzip.model.file import Model
from pixzip.pxz import container
from pixzip.pxz.container import Coding, Container, Header, write_container
from pixzip.pxz.remains import Lost
from pixzip.reports import Report

#: Mode → planes that a model codes; alpha comes after them.
MODEL_PLANES = {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3}
_WITH_ALPHA = ("LA", "RGBA")
_NO_DIGEST = bytes(container.DIGEST_BYTES)


@dataclass(frozen=True)
class How:
    """What changes the time that coding takes, and nothing else."""

    threads: int | None
    engine: str | None
    report: Report | None
    at_once: int | None = None  # tiles; None: memory is no matter

    def finish(self) -> None:
        """Report the end of the work."""
        if self.report is not None:
            self.report.finish()

    @property
    def for_bands(self) -> int:
        """Threads for what takes memory for each that no limit of tiles counts."""
        return (self.threads or os.cpu_count() or 1) if self.at_once is None else 1

    @property
    def for_tiles(self) -> int:
        """Threads that work on a tile each."""
        threads = self.threads or os.cpu_count() or 1
        return threads if self.at_once is None else min(threads, self.at_once)


class Layout(NamedTuple):
    """What of the arguments shapes a file."""

    tile: int
    lanes: int | None
    learning: int


def container_of(
    picture: Picture,
    planes: NDArray[Any],
    coding: Coding,
    layout: Layout | None = None,
    *,
    model_digest: bytes = _NO_DIGEST,
    alpha: tuple[int, bytes] | None = None,
    stored: tuple[int, bytes] | None = None,
    tiles: Sequence[bytes] = (),
) -> Container:
    """A file of planes (n, c, h, w) with the colours and metadata of a picture; the rest as in Header and Container."""
    layout = layout or Layout(tile=1, lanes=1, learning=0)
    n, _, height, width = planes.shape
    colours = (picture.mode, picture.depth, picture.palette, picture.transparency)
    header = Header(
        width=width,
        height=height,
        pictures=n,
        mode=picture.mode,
        depth=picture.depth,
        coding=coding,
        model_digest=model_digest,
        tile=layout.tile,
        lanes=layout.lanes or 1,
        learning=layout.learning,
        pixels_checksum=container.checksum(planes, *colours),
    )
    return Container(
        header, picture.palette, picture.transparency, picture.metadata, alpha=alpha, stored=stored, tiles=tuple(tiles)
    )


def as_stored(picture: Picture, planes: NDArray[Any], how: How) -> Container:
    """Coding STORED of planes (n, c, h, w): in one piece, or of 16 bits the alpha plane apart, whichever is shorter."""
    mode, depth = picture.mode, picture.depth
    whole = container_of(picture, planes, Coding.STORED, stored=store(_stacked(planes), mode, depth, how.for_bands))
    if depth < 16 or mode not in _WITH_ALPHA:
        return whole
    colours = store(_stacked(planes[:, :-1]), mode.removesuffix("A"), depth, how.for_bands)
    apart = replace(whole, stored=colours, alpha=_store_alpha(planes[:, -1:], depth, how))
    return min(whole, apart, key=lambda c: len(write_container(c)))


def as_coded(picture: Picture, planes: NDArray[Any], model: Model, layout: Layout, how: How) -> Container:
    """Coding MODEL of planes (n, c, h, w) uint8 or uint16: colours by the model, alpha by a classical codec.

    Raises UsageError for an engine or a rate of learning that the model, or this machine, has not.
    """
    from pixzip.codec import encode
    from pixzip.coding.deep import add_low_bytes

    count, deep = MODEL_PLANES[picture.mode], picture.depth == 16
    colours = planes[:, :count]
    coded = encode(
        model,
        (colours >> 8).astype(np.uint8) if deep else colours,
        depth=min(picture.depth, 8),
        tile=layout.tile,
        lanes=layout.lanes,
        learning=layout.learning,
        threads=how.threads,
        at_once=how.at_once,
        engine=how.engine,
        progress=how.report,
    )
    tiles = add_low_bytes(coded.tiles, colours, coded.tile, how.for_tiles) if deep else coded.tiles
    alpha = _store_alpha(planes[:, count:], picture.depth, how) if picture.mode in _WITH_ALPHA else None
    digest, layout = model.digest[: container.DIGEST_BYTES], Layout(**coded.layout)
    return container_of(picture, planes, Coding.MODEL, layout, model_digest=digest, alpha=alpha, tiles=tiles)


def _store_alpha(alpha: NDArray[Any], depth: int, how: How) -> tuple[int, bytes]:
    """Payload of ALPH for alpha planes (n, 1, h, w): one sample where they are constant."""
    if alpha.min() == alpha.max():
        return container.CONSTANT, int(alpha.flat[0]).to_bytes(depth // 8, "little")
    return store(_stacked(alpha), "L", depth, how.for_bands)


def _stacked(planes: NDArray[Any]) -> NDArray[Any]:
    """Pictures (n, c, h, w) under one another: (c, n * h, w)."""
    n, c, h, w = planes.shape
    return np.ascontiguousarray(planes.transpose(1, 0, 2, 3)).reshape(c, n * h, w)


def _restore(kind: int, data: bytes, count: int, header: Header, mode: str, how: How) -> NDArray[Any]:
    """`count` planes of all pictures from one stored picture: (n, count, h, w)."""
    n, h, w = header.pictures, header.height, header.width
    planes = restore(kind, data, (count, n * h, w), mode, header.depth, how.for_bands)
    return planes.reshape(count, n, h, w).transpose(1, 0, 2, 3)


def from_stored(c: Container, how: How) -> NDArray[Any]:
    """Planes (n, c, h, w) of a file of coding STORED. Raises FormatError, LimitError."""
    assert c.stored is not None
    mode = c.header.mode if c.alpha is None else c.header.mode.removesuffix("A")
    planes = _restore(*c.stored, len(mode), c.header, mode, how)
    return planes if c.alpha is None else _with_alpha(c, planes, how)


def _with_alpha(c: Container, planes: NDArray[Any], how: How) -> NDArray[Any]:
    """Colour planes (n, c - 1, h, w) and the alpha of the file."""
    assert c.alpha is not None
    kind, data = c.alpha
    if kind == container.CONSTANT:
        shape = (len(planes), 1, *planes.shape[2:])
        alpha = np.full(shape, int.from_bytes(data, "little"), dtype=planes.dtype)
    else:
        alpha = _restore(kind, data, 1, c.header, "L", how)
    return np.concatenate([planes, alpha], axis=1)


def from_coded(c: Container, model: Model, how: How, faults: dict[int, str] | None = None) -> NDArray[Any]:
    """Planes (n, c, h, w) of a file of coding MODEL; faults as for codec.decode. Raises FormatError, UsageError."""
    deep = c.header.depth == 16
    planes = _decode_deep(c, model, how, faults) if deep else _decode_tiles(c, c.tiles, model, how, faults)
    return planes if c.alpha is None else _with_alpha(c, planes, how)


def _decode_deep(c: Container, model: Model, how: How, faults: dict[int, str] | None) -> NDArray[np.uint16]:
    """Colour planes of 16 bits: high bytes by the model, then the low ones."""
    from pixzip.coding.deep import decode_low_bytes

    high, low = halves(c.tiles, faults)
    without = dict(faults or {})  # tiles whose parts are not even found: their reasons stay
    of_high = _decode_tiles(c, high, model, how, faults)
    if faults is not None:
        faults |= without
    return decode_low_bytes(low, of_high, c.header.tile, how.for_tiles, faults)


def _decode_tiles(
    c: Container, tiles: Sequence[bytes], model: Model, how: How, faults: dict[int, str] | None
) -> NDArray[np.uint8]:
    """What the model codes of all colour planes: samples, or their high bytes."""
    from pixzip.codec import decode

    h = c.header
    shape = (h.pictures, 3 if h.mode in ("RGB", "RGBA") else 1, h.height, h.width)
    planes = decode(
        model,
        tiles,
        shape,
        depth=min(h.depth, 8),
        tile=h.tile,
        lanes=h.lanes,
        learning=h.learning,
        threads=how.threads,
        at_once=how.at_once,
        engine=how.engine,
        progress=how.report,
        faults=faults,
    )
    if h.depth < 8 and planes.max() >= 2**h.depth:
        raise FormatError(f"sample {planes.max()} in a picture of depth {h.depth}")
    return planes


def mark(planes: NDArray[Any], header: Header, area: Lost) -> None:
    """Colour lost pixels of planes (n, c, h, w), in place; alpha is coded apart from them."""
    most = 2**header.depth - 1
    colours = (most, 0, most) if header.mode in ("RGB", "RGBA") else (most,)
    for plane, value in enumerate(colours):
        planes[area.first : area.last, plane, area.y : area.y + area.h, area.x : area.x + area.w] = value
