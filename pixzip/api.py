"""Images ↔ .pxz bytes, memory to memory: the public API.

A picture of 8 bits a sample in mode L, LA, RGB or RGBA is coded by a model, its alpha plane by a classical codec; the
whole picture also by a classical codec, and the shorter file is taken. Of 16 bits a sample, the model codes the high
bytes. Palettes and other depths are only stored, but bilevel pictures are coded where a model for them is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from pixzip.coding.halves import halves
from pixzip.contents import MODEL_PLANES, How, Layout, as_coded, as_stored, from_coded, from_stored, mark
from pixzip.errors import FormatError, ImageError, ModelNotFoundError, PixelChecksumError, UsageError
from pixzip.formats.image import Picture, claimed_shape, from_array, from_pil, read_image
from pixzip.formats.png import check_size
from pixzip.keywords import DEVICES, ENGINES, check_engine, integer, rate_of, threads_of
from pixzip.limits import MAX_PIXELS, MAX_WORK
from pixzip.memory import Extent, Need, and_writing, compressing, decompressing
from pixzip.model.file import (
    Model,
    added_folder,
    added_models,
    find_model,
    load_model,
    models_folder,
    shipped_models,
    unreadable_models,
)
from pixzip.pxz import container
from pixzip.pxz.container import Coding, Container, read_container, write_container
from pixzip.pxz.names import KEY as NAMES
from pixzip.pxz.names import pack_names, unpack_names
from pixzip.pxz.remains import Lost, areas, find_remains
from pixzip.reports import Progress, Report
from pixzip.work import check_tiles, check_work


def _how(
    threads: int | None, engine: str | None, progress: Progress | None, engines: Sequence[str] = (*ENGINES, *DEVICES)
) -> How:
    """These arguments, checked as far as no model is needed. Raises UsageError."""
    check_engine(engine, engines)
    return How(threads_of(threads), engine, None if progress is None else Report(progress))


def _layout(tile: int, lanes: int | None, learning: int | None, model: Model) -> Layout:
    """These arguments, checked. Raises UsageError."""
    streams = None if lanes is None else integer("lanes", lanes, 1, container.MAX_LANES)
    return Layout(integer("tile", tile, 1, container.MAX_TILE), streams, rate_of(model, learning))


def compress(
    image: bytes | NDArray[Any] | Image | Picture,
    *,
    model: str | Path = "default",
    tile: int = 1024,
    lanes: int | None = None,
    learning: int | None = None,
    threads: int | None = None,
    engine: str | None = None,
    embed_model: bool = False,
    allow_jpeg: bool = False,
    strip: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
    max_work: int = MAX_WORK,
    progress: Progress | None = None,
) -> bytes:
    """Return the .pxz file of one image.

    image: the bytes of an image file; an array (h, w) or (h, w, 2 | 3 | 4) of uint8 or uint16, or (h, w) bool; a Pillow
    image; or a Picture. model: the name of a shipped model, or a path. strip: leave the metadata out. learning: the
    rate at which the model learns from the pixels it has coded, 0 to 255, None for the default. The file depends on
    image, model, tile, lanes and learning only, and where something is stored as WebP or PNG on the versions of libwebp
    and zlib; threads, engine and max_memory change nothing but the time. engine: "int8" or "float32" on the CPU, None:
    the faster; "cuda": all tiles side by side on a GPU, and those of calls from other threads with them. max_memory is
    in bytes, of the whole process (docs/performance.md): fewer tiles are in work at once where it asks for that.
    max_work is in multiply-accumulates of the model (pixzip.work). progress is called with the fraction done. Raises
    ImageError for what is not an image or cannot be kept without loss, LimitError for more than max_pixels pixels,
    max_memory bytes or max_work, ModelNotFoundError, ModelError, UsageError.
    """
    return compress_batch(
        [image],
        model=model,
        tile=tile,
        lanes=lanes,
        learning=learning,
        threads=threads,
        engine=engine,
        embed_model=embed_model,
        allow_jpeg=allow_jpeg,
        strip=strip,
        max_pixels=max_pixels,
        max_memory=max_memory,
        max_work=max_work,
        progress=progress,
    )


def compress_batch(
    images: Sequence[bytes | NDArray[Any] | Image | Picture],
    *,
    names: Sequence[str] | None = None,
    model: str | Path = "default",
    tile: int = 1024,
    lanes: int | None = None,
    learning: int | None = None,
    threads: int | None = None,
    engine: str | None = None,
    embed_model: bool = False,
    allow_jpeg: bool = False,
    strip: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
    max_work: int = MAX_WORK,
    progress: Progress | None = None,
) -> bytes:
    """Return one .pxz file of several images that differ in their pixels only: they share one header.

    names: one for each image, of a file without its folder; picture_names gives them back. Other arguments and errors
    as for compress. Raises UsageError where size, mode, depth, palette, transparency or metadata differ, or where
    several are larger than a tile.
    """
    how, network = _how(threads, engine, progress), find_model(model)
    layout = _layout(tile, lanes, learning, network)
    _check_engine_of(network, engine)
    packed = None if names is None else pack_names(names)
    if max_memory is not None:
        need = need_to_compress(images, network, tile=layout.tile, max_pixels=max_pixels)
        how = replace(how, at_once=need.tiles_within(max_memory))
    read = [_picture(image, allow_jpeg, max_pixels) for image in images]
    if strip:
        read = [replace(picture, metadata=()) for picture in read]
    if names is not None and len(names) != len(read):
        raise UsageError(f"{len(names)} names for {len(read)} images")
    pictures = _named(_alike(read, layout.tile), packed)
    first = pictures[0]
    container.check_pixels(len(pictures), first.height, first.width, max_pixels)
    if _codable(first, network):
        extent = Extent(len(pictures), len(first.mode), first.height, first.width, 2 if first.depth > 8 else 1)
        check_work(network.network, extent.blocks(layout.tile), max_work)
    planes = np.stack([p.planes for p in pictures]) if len(pictures) > 1 else first.planes[None]  # (n, c, h, w)
    data = _shortest(first, planes, network, layout, how, embed_model=embed_model)
    how.finish()
    return data


def _shortest(
    picture: Picture, planes: NDArray[Any], model: Model, layout: Layout, how: How, *, embed_model: bool
) -> bytes:
    """The file of planes (n, c, h, w): stored, or coded by the model, if it codes such pictures; without that model."""
    stored = as_stored(picture, planes, how)
    if not _codable(picture, model):
        return write_container(stored)
    coded = as_coded(picture, planes, model, layout, how)
    in_brief, without = write_container(coded), write_container(stored)
    if len(without) < len(in_brief):
        return without
    return write_container(replace(coded, model=model.data)) if embed_model else in_brief


def model_bits(
    image: bytes | NDArray[Any] | Image | Picture,
    *,
    model: str | Path = "default",
    tile: int = 1024,
    learning: int | None = None,
    threads: int | None = None,
    engine: str | None = None,
    allow_jpeg: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_work: int = MAX_WORK,
) -> NDArray[np.float64]:
    """Return the bits that a model says each sub-pixel of an image takes: −log2 of its softmax, (c, h, w) float64.

    c is 3 for RGB and RGBA, 1 for L, LA and bilevel pictures: alpha is not the model's. Of 16 bits a sample these are
    the bits of the high bytes. Where the model learns on the way, by default as in compress, the sum is what a coder
    without headers and rounding would write; learning=0 gives the likelihood by the network as it is. Arguments and
    errors as for compress; engine: "int8" or "float32". Raises UsageError for a picture that the model does not code.
    """
    how, network = _how(threads, engine, None, ENGINES), find_model(model)
    layout = _layout(tile, None, learning, network)
    _check_engine_of(network, engine)
    picture = _picture(image, allow_jpeg, max_pixels)
    if not _codable(picture, network):
        found = f"mode {picture.mode} with {picture.depth} bits a sample"
        raise UsageError(f"model {network.name} codes no pictures of {found}")
    colours = picture.planes[None, : MODEL_PLANES[picture.mode]]
    extent = Extent(1, colours.shape[1], picture.height, picture.width, 2 if picture.depth > 8 else 1)
    check_work(network.network, extent.blocks(layout.tile), max_work)
    from pixzip.evaluate import plane_bits  # loads numba

    high = (colours >> 8).astype(np.uint8) if picture.depth == 16 else colours
    bits = plane_bits(network, high, tile=layout.tile, learning=layout.learning, threads=how.threads, engine=engine)
    return bits.reshape(bits.shape[1:])


def need_to_compress(
    images: Sequence[bytes | NDArray[Any] | Image | Picture], model: Model, *, tile: int, max_pixels: int
) -> Need:
    """The memory that compress_batch takes for these images, by their headers. Raises ImageError, LimitError."""
    shapes, file_bytes = [(1, 1, 1, 8)], 0
    for image in images:
        if isinstance(image, (bytes, bytearray, memoryview)):
            shapes.append(claimed_shape(bytes(image), max_pixels=max_pixels))
            file_bytes += len(image)
        elif isinstance(image, np.ndarray) and image.ndim in (2, 3):
            shapes.append((image.size // max(1, math.prod(image.shape[:2])), *image.shape[:2], 8 * image.itemsize))
        elif isinstance(image, Image):
            shapes.append((len(image.getbands()), image.height, image.width, 16 if image.mode.startswith("I") else 8))
        elif isinstance(image, Picture):
            shapes.append((*image.planes.shape, image.depth))
    planes, height, width, depth = (max(sizes) for sizes in zip(*shapes, strict=True))
    extent = Extent(len(images), planes, height, width, 2 if depth > 8 else 1)
    return compressing(extent, file_bytes + 4 * len(model.data), model.network, tile)


def _codable(picture: Picture, model: Model) -> bool:
    """Whether the model is tried on a picture.

    Models of 8-bit pictures leave other depths and palettes to the classical codecs. Raises UsageError where the model
    is for another kind of pictures: gray or bilevel ones only.
    """
    kind = model.network.pictures
    if kind == "rgb":
        return picture.depth in (8, 16) and picture.mode in MODEL_PLANES
    modes = {"gray": ("L", "LA"), "binary": ("L",)}[kind]
    depths = (1,) if kind == "binary" else (8, 16)
    if picture.mode not in modes or picture.depth not in depths:
        allowed = f"mode {' or '.join(modes)} with {' or '.join(map(str, depths))} bits a sample"
        found = f"mode {picture.mode} with {picture.depth} bits"
        raise UsageError(f"model {model.name} codes pictures of {allowed}; this one has {found}")
    return True


def _check_engine_of(model: Model, engine: str | None) -> None:
    """Raise UsageError where the model, or this machine, has not the engine: also for pictures that are stored only."""
    if engine is not None:
        from pixzip.codec import engine_for  # loads numba

        engine_for(model, engine)


def _picture(image: bytes | NDArray[Any] | Image | Picture, allow_jpeg: bool, max_pixels: int) -> Picture:
    """Any of the accepted kinds of image as a Picture within the limit."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return read_image(bytes(image), max_pixels=max_pixels, allow_jpeg=allow_jpeg)
    if isinstance(image, Picture):
        picture = image
    elif isinstance(image, np.ndarray):
        picture = from_array(image)
    elif isinstance(image, Image):
        check_size(*image.size, max_pixels)  # it may not be loaded yet
        picture = from_pil(image)
    else:
        raise UsageError(f"image of type {type(image).__name__}: must be bytes, an array, a Pillow image or a Picture")
    check_size(picture.width, picture.height, max_pixels)
    return picture


def _alike(pictures: list[Picture], tile: int) -> list[Picture]:
    """The same pictures, if one file can hold them."""
    if not pictures:
        raise UsageError("a batch of no images")
    first = pictures[0]
    for i, picture in enumerate(pictures[1:], 1):
        for name in ("height", "width", "mode", "depth", "palette", "transparency", "metadata"):
            if getattr(picture, name) != getattr(first, name):
                raise UsageError(f"image {i} of the batch differs from image 0 in {name}")
    if len(pictures) > 1 and max(first.height, first.width) > tile:
        raise UsageError(f"batch of {first.width} x {first.height} pixels: each must fit in one tile of {tile}")
    return pictures


def _named(pictures: list[Picture], names: bytes | None) -> list[Picture]:
    """The same pictures; where there are several, the first has their names, packed, among its metadata."""
    if len(pictures) == 1:
        return pictures
    if any(key == NAMES for key, _ in pictures[0].metadata):
        raise UsageError(f"metadata with the key {NAMES}, which a file of several pictures has for their names")
    if names is None:
        return pictures
    return [replace(pictures[0], metadata=(*pictures[0].metadata, (NAMES, names))), *pictures[1:]]


def decompress(
    data: bytes,
    *,
    model: str | Path | None = None,
    threads: int | None = None,
    engine: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
    max_work: int = MAX_WORK,
    progress: Progress | None = None,
) -> Picture:
    """Return the picture in a .pxz file; to_array and to_pil convert it, write_image makes an image file of it.

    model: the name of a shipped model or a path, tried before the model in the file and the shipped ones. Raises
    FormatError for a damaged file, PixelChecksumError where the decoded pixels are not the encoded ones,
    ModelNotFoundError, ModelError, LimitError for more than max_pixels, max_memory or max_work (as in compress),
    UsageError for several pictures.
    """
    count = container.read_header(data).pictures
    if count > 1:
        raise UsageError(f"the file holds {count} pictures: decompress_batch gives them")
    return decompress_batch(
        data,
        model=model,
        threads=threads,
        engine=engine,
        max_pixels=max_pixels,
        max_memory=max_memory,
        max_work=max_work,
        progress=progress,
    )[0]


def decompress_batch(
    data: bytes,
    *,
    model: str | Path | None = None,
    threads: int | None = None,
    engine: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
    max_work: int = MAX_WORK,
    progress: Progress | None = None,
) -> list[Picture]:
    """Return all pictures of a .pxz file. Arguments, errors: as for decompress; max_pixels is of all together."""
    how = _how(threads, engine, progress)
    c = read_container(data, max_pixels=max_pixels)
    h = c.header
    network = None if h.coding == Coding.STORED else _model_of(c, model)
    how = replace(how, at_once=_need_of(c, network, len(data)).tiles_within(max_memory))
    _check_work(c, network, max_work)
    planes = from_stored(c, how) if network is None else from_coded(c, network, how)
    found = container.checksum(planes, h.mode, h.depth, c.palette, c.transparency)
    if found != h.pixels_checksum:
        raise PixelChecksumError(f"pixels checksum {h.pixels_checksum.hex()}, decoded pixels have {found.hex()}")
    pictures = _pictures(c, planes)
    how.finish()
    return pictures


def _pictures(c: Container, planes: NDArray[Any]) -> list[Picture]:
    """All pictures of planes (n, c, h, w), without the entry of their names."""
    h = c.header
    own = c.metadata if h.pictures == 1 else tuple(entry for entry in c.metadata if entry[0] != NAMES)
    try:
        return [Picture(each, h.mode, h.depth, c.palette, c.transparency, own) for each in planes]
    except ImageError as error:
        raise FormatError(str(error)) from None


def picture_names(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[str, ...]:
    """Names of the pictures in a .pxz file of several; () where it has none. Raises FormatError, LimitError."""
    c = read_container(data, max_pixels=max_pixels)
    value = next((value for key, value in c.metadata if key == NAMES), None)
    return unpack_names(value, c.header.pictures) if value is not None and c.header.pictures > 1 else ()


def need_to_decompress(
    data: bytes, *, model: str | Path | None = None, max_pixels: int = MAX_PIXELS, webp: bool = False
) -> Need:
    """The memory that decompress_batch and write_image take for a .pxz file. Errors as for decompress.

    webp: whether images are written as WebP, which takes more than other formats.
    """
    c = read_container(data, max_pixels=max_pixels)
    need = _need_of(c, None if c.header.coding == Coding.STORED else _model_of(c, model), len(data))
    return and_writing(need, _extent(c), len(data), webp=webp)


def _extent(c: Container) -> Extent:
    h = c.header
    return Extent(h.pictures, len(h.mode), h.height, h.width, 2 if h.depth > 8 else 1)


def _need_of(c: Container, model: Model | None, file_bytes: int) -> Need:
    if model is None:
        return decompressing(_extent(c), file_bytes, None, c.header.tile)
    return decompressing(_extent(c), file_bytes + 2 * len(model.data), model.network, c.header.tile)


def _check_work(c: Container, model: Model | None, max_work: int) -> None:
    if model is not None:
        check_work(model.network, _extent(c).blocks(c.header.tile), max_work)


def _model_of(c: Container, wanted: str | Path | None) -> Model:
    """The model that the header names: the caller's, the embedded one, or a shipped one."""
    digest = c.header.model_digest
    looked = []
    if wanted is not None:
        given = find_model(wanted)
        if given.digest.startswith(digest):
            return given
        looked.append(f"{wanted} (which has digest {given.digest[: len(digest)].hex()})")
    if c.model is not None:
        return load_model(c.model, "embedded in the file")
    try:
        return find_model(digest)
    except ModelNotFoundError:
        looked += [str(models_folder()), str(added_folder())]
        looked += [f"{each.path} (cannot be read: {each.reason})" for each in unreadable_models()]
    where = ", ".join(["the file itself", *looked])
    raise ModelNotFoundError(f"no model with digest {digest.hex()}; looked in {where}; a file can be given (model)")


def verify(
    data: bytes,
    *,
    model: str | Path | None = None,
    threads: int | None = None,
    engine: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
    max_work: int = MAX_WORK,
    progress: Progress | None = None,
) -> None:
    """Decode a .pxz file and compare the pixels with the file's own checksum. Arguments, errors: as for decompress."""
    decompress_batch(
        data,
        model=model,
        threads=threads,
        engine=engine,
        max_pixels=max_pixels,
        max_memory=max_memory,
        max_work=max_work,
        progress=progress,
    )


@dataclass(frozen=True)
class Salvaged:
    """What a damaged file still gives: all pictures, their lost pixels marked in magenta, in gray in white."""

    pictures: list[Picture]
    lost: tuple[Lost, ...]  # pixels that are not known
    faults: tuple[str, ...]  # what else is damaged or doubtful, a line each

    @property
    def whole(self) -> bool:
        """Whether nothing was damaged."""
        return not self.lost and not self.faults


def salvage(
    data: bytes,
    *,
    model: str | Path | None = None,
    threads: int | None = None,
    engine: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
    max_work: int = MAX_WORK,
    progress: Progress | None = None,
) -> Salvaged:
    """Return what the undamaged chunks of a damaged .pxz file give, and what is lost.

    Arguments as for decompress_batch. Raises FormatError where the header is damaged, no tile is left, or a picture
    stored in one piece is damaged; ModelNotFoundError, ModelError, LimitError, UsageError.
    """
    how = _how(threads, engine, progress, ENGINES)
    h = container.read_header(data)
    container.check_pixels(h.pictures, h.height, h.width, max_pixels)
    check_tiles(container.tile_count(h), max_work)
    remains = find_remains(data, max_pixels=max_pixels)
    c, missing = remains.container, dict(remains.missing)
    h = c.header
    network = None if h.coding == Coding.STORED else _model_of(c, model)
    how = replace(how, at_once=_need_of(c, network, len(data)).tiles_within(max_memory))
    _check_work(c, network, max_work)
    undecoded: dict[int, str] = {}
    planes = from_stored(c, how) if network is None else from_coded(c, network, how, undecoded)
    lost = areas(h, undecoded | missing)
    if network is not None and len(lost) == len(c.tiles):
        raise FormatError("nothing to salvage: no tile can be decoded")
    for area in lost:
        mark(planes, h, area)
    faults = list(remains.faults)
    found = container.checksum(planes, h.mode, h.depth, c.palette, c.transparency)
    if not lost and found != h.pixels_checksum:
        faults.append(f"pixels checksum {h.pixels_checksum.hex()}, decoded pixels have {found.hex()}")
    pictures = _pictures(c, planes)
    how.finish()
    return Salvaged(pictures, lost, tuple(faults))


@dataclass(frozen=True)
class Info:
    """What a .pxz file says of itself, without decoding."""

    file_bytes: int
    width: int
    height: int
    pictures: int
    mode: str
    depth: int  # bits a sample
    planes: int  # of a picture, alpha too
    coding: str  # "model", "PNG", "WebP" or "deep": pixzip's own of 16 bits
    model_digest: str  # hexadecimal; empty where no model is needed
    model_name: str | None  # the shipped or added model with this digest
    model_embedded_bytes: int
    tile: int
    lanes: int
    learning: int
    payload_bytes: int  # of all tiles, or of the stored file
    low_bytes: int  # of these, the low bytes of 16-bit samples beside a model's high ones
    alpha_bytes: int | None  # None: no alpha plane, or stored with the others
    palette_entries: int
    transparency_bytes: int
    metadata_bytes: tuple[tuple[str, int], ...]  # (key, bytes of the value) in order
    pixels_checksum: str  # hexadecimal

    @property
    def bits_per_dim(self) -> float:
        """File bits per sub-pixel."""
        return 8 * self.file_bytes / (self.width * self.height * self.pictures * self.planes)


_STORED_AS = {container.PNG: "PNG", container.WEBP: "WebP", container.DEEP: "deep"}


def inspect(data: bytes) -> Info:
    """Describe a .pxz file whose chunks are intact; no pixel is decoded. Raises FormatError."""
    c = read_container(data, max_pixels=2**93)
    h = c.header
    coded = h.coding == Coding.MODEL
    return Info(
        file_bytes=len(data),
        width=h.width,
        height=h.height,
        pictures=h.pictures,
        mode=h.mode,
        depth=h.depth,
        planes=len(h.mode),
        coding="model" if c.stored is None else _STORED_AS[c.stored[0]],
        model_digest=h.model_digest.hex() if coded else "",
        model_name=_known_name(h.model_digest) if coded else None,
        model_embedded_bytes=len(c.model or b""),
        tile=h.tile,
        lanes=h.lanes,
        learning=h.learning,
        payload_bytes=sum(map(len, c.tiles)) if c.stored is None else len(c.stored[1]),
        low_bytes=_low_bytes(c) if coded and h.depth == 16 else 0,
        alpha_bytes=len(c.alpha[1]) if c.alpha is not None else None,
        palette_entries=len(c.palette) // 3,
        transparency_bytes=len(c.transparency),
        metadata_bytes=tuple((key, len(value)) for key, value in c.metadata),
        pixels_checksum=h.pixels_checksum.hex(),
    )


def _low_bytes(c: Container) -> int:
    return sum(map(len, halves(c.tiles)[1]))


def _known_name(digest: bytes) -> str | None:
    return next((info.name for info in [*shipped_models(), *added_models()] if info.digest.startswith(digest)), None)
