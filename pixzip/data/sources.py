"""Folders of images and known data sets → pictures, one after another, as (h, w, planes) uint8.

A source is named by one text: a folder of images, or ``DATASET/PART:PLACE``::

    photographs/                     every image file in it, subfolders included; three planes
    cifar10/train:FOLDER             python release, binary release, or strips of pictures (train-000.webp ...)
    mnist/train:FOLDER               idx files, gzipped or not; one plane, 256 levels
    binary-mnist/test:FILE.npz       arrays train, valid and test of bits, packed eight to a byte or not; two levels
    imagenet/valid:FOLDER            small ImageNet: npz files with planar rows, or a folder of images
"""

from __future__ import annotations

import difflib
import gzip
import os
import pickle
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray
from numpy.typing import NDArray
from PIL import Image

from pixzip.errors import TrainingDataError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """An opened source: its files, in order, and how one file becomes named pictures.

    ``read`` raises anything for a file that it cannot read: the caller counts it and goes on.
    """

    kind: str
    files: tuple[Path, ...]
    root: Path
    planes: int
    levels: int
    read: Callable[[Path], Iterator[tuple[str, Pixels]]]


def open_source(text: str) -> Source:
    """The source of a text. Raises TrainingDataError for unknown data sets and places without the files."""
    if Path(text).is_dir():
        return _folder(Path(text))
    name, colon, place = text.partition(":")
    if not colon:
        raise TrainingDataError(f"{text}: no such folder, and not of the form DATASET/PART:PLACE")
    if name not in _DATASETS:
        near = difflib.get_close_matches(name, _DATASETS, 1, 0.0)[0]
        raise TrainingDataError(f"unknown data set {name}, the nearest is {near}; known: {', '.join(_DATASETS)}")
    root = Path(place)
    if not root.exists():
        raise TrainingDataError(f"{name}: no such folder or file {place}")
    make, part = _DATASETS[name]
    return make(root, part, name)


# ------------------------------------------------------------------------ folders of images


def _folder(root: Path, kind: str = "folder") -> Source:
    """Image files; those of a data set are of colours whatever their mode, as in the papers that use it."""
    files = sorted(_below(root), key=lambda p: p.relative_to(root).as_posix())
    read = samples if kind == "folder" else rgb

    def read_one(path: Path) -> Iterator[tuple[str, Pixels]]:
        yield path.relative_to(root).as_posix(), read(path)

    return Source(kind, tuple(files), root, 3, 256, read_one)


def _below(root: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, links to folders left out.

    Among them what the system does not let look into, a link or a folder: reading it gives the reason.
    """
    unread: list[Path] = []
    for folder, _, names in os.walk(root, onerror=lambda error: unread.append(Path(error.filename))):
        for path in (Path(folder, name) for name in names):
            try:
                is_file = stat.S_ISREG(path.stat().st_mode)
            except OSError:
                is_file = True
            if is_file:
                yield path
    yield from unread


def samples(path: Path) -> Pixels:
    """An image file as (h, w, 3), of gray ones (h, w, 1); alpha is dropped, of 16 bits a sample the high byte is kept.

    Raises ValueError for numbers that are no samples of 8 or 16 bits, which Pillow would clip.
    """
    with Image.open(path) as image:
        if image.mode == "I" or image.mode.startswith("I;16"):
            deep = np.asarray(image.convert("I"))
            if deep.min() < 0 or deep.max() > 65535:
                raise ValueError("samples of more than 16 bits")
            return (deep >> 8).astype(np.uint8)[:, :, None]
        if image.mode == "F":
            raise ValueError("samples are floating-point numbers")
        if image.mode in ("1", "L", "LA"):
            return np.asarray(image.convert("L"))[:, :, None]
        return np.asarray(image.convert("RGB"))


def rgb(path: Path) -> Pixels:
    """As samples, (h, w, 3)."""
    found = samples(path)
    return found if found.shape[2] == 3 else np.repeat(found, 3, axis=2)


def _existing(root: Path, pattern: str, kind: str) -> tuple[Path, ...]:
    """Files of a folder that match, in order of name. Raises TrainingDataError where there is none."""
    found = tuple(sorted(p for p in root.glob(pattern) if p.is_file()))
    if not found:
        raise TrainingDataError(f"{kind}: no {pattern} in {root}")
    return found


# ------------------------------------------------------------------------ CIFAR-10


def _cifar10(root: Path, part: str, kind: str) -> Source:
    """Whichever release the folder holds."""
    batches = "data_batch_*" if part == "train" else "test_batch"
    releases = [
        (root, f"{part}-[0-9]*.webp", _read_strip),
        (root, f"{batches}.bin", _read_cifar_binary),
        (root / "cifar-10-batches-bin", f"{batches}.bin", _read_cifar_binary),
        (root, batches, _read_cifar_python),
        (root / "cifar-10-batches-py", batches, _read_cifar_python),
    ]
    for folder, pattern, read in releases:
        files = tuple(sorted(p for p in folder.glob(pattern) if p.is_file()))
        if files:
            return Source(kind, files, folder, 3, 256, read)
    raise TrainingDataError(f"{kind}: {root} holds neither strips nor the python nor the binary release")


def _numbered(path: Path, pictures: NDArray[Any]) -> Iterator[tuple[str, Pixels]]:
    for i, picture in enumerate(pictures):
        yield f"{path.name}#{i}", picture


def _planar(rows: NDArray[Any], side: int) -> Pixels:
    """(n, 3 * side * side) bytes, plane after plane → (n, side, side, 3)."""
    return np.asarray(rows, dtype=np.uint8).reshape(-1, 3, side, side).transpose(0, 2, 3, 1)


def _read_strip(path: Path) -> Iterator[tuple[str, Pixels]]:
    """Pictures of 32 × 32 under one another in one image."""
    strip = rgb(path)
    if strip.shape[1] != 32 or strip.shape[0] % 32:
        raise ValueError(f"{strip.shape[1]} x {strip.shape[0]} pixels are no strip of 32 x 32 pictures")
    return _numbered(path, strip.reshape(-1, 32, 32, 3))


def _read_cifar_binary(path: Path) -> Iterator[tuple[str, Pixels]]:
    """Records of a label byte and 3,072 bytes of planes."""
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if not len(data) or len(data) % 3073:
        raise ValueError(f"{len(data)} bytes are not records of 3073")
    return _numbered(path, _planar(data.reshape(-1, 3073)[:, 1:], 32))


class _ArrayUnpickler(pickle.Unpickler):
    """Loads numpy arrays, and nothing that runs code: the python release is a pickle."""

    _ALLOWED = ("_reconstruct", "ndarray", "dtype", "encode")

    def find_class(self, module: str, name: str) -> Any:
        """Only what a pickled array of numbers is made of."""
        if module.split(".")[0] not in ("numpy", "_codecs") or name not in self._ALLOWED:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which is no array")
        if name == "_reconstruct":
            return multiarray._reconstruct  # its module has moved since the release was made
        return super().find_class(module, name)


def _read_cifar_python(path: Path) -> Iterator[tuple[str, Pixels]]:
    with path.open("rb") as file:
        batch = _ArrayUnpickler(file, encoding="bytes").load()
    return _numbered(path, _planar(batch[b"data"], 32))


# ------------------------------------------------------------------------ MNIST


def _mnist(root: Path, part: str, kind: str) -> Source:
    stem = {"train": "train", "test": "t10k"}[part]
    return Source(kind, _existing(root, f"{stem}-images?idx3-ubyte*", kind)[:1], root, 1, 256, _read_idx)


def _read_idx(path: Path) -> Iterator[tuple[str, Pixels]]:
    """An idx file of bytes: 0, 0, type 8, three dimensions, big-endian sizes, values."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    magic, n, h, w = struct.unpack_from(">4I", data)
    if magic != 0x803 or len(data) != 16 + n * h * w:
        raise ValueError(f"magic {magic:#x}, {len(data)} bytes for {n} pictures of {h} x {w}")
    return _numbered(path, np.frombuffer(data, dtype=np.uint8, offset=16).reshape(n, h, w, 1))


def _binary_mnist(root: Path, part: str, kind: str) -> Source:
    files = (root,) if root.is_file() else _existing(root, "*.npz", kind)

    def read(path: Path) -> Iterator[tuple[str, Pixels]]:
        with np.load(path, allow_pickle=False) as arrays:
            bits = arrays[part]
        bits = np.unpackbits(bits, axis=1)[:, :784] if bits.shape[1] == 98 else bits.astype(np.uint8)
        if bits.max() > 1:
            raise ValueError(f"array {part} holds {bits.max()}, not only 0 and 1")
        return _numbered(path, bits.reshape(-1, 28, 28, 1))

    return Source(kind, files, root, 1, 2, read)


# ------------------------------------------------------------------------ small ImageNet


def _imagenet(root: Path, part: str, kind: str) -> Source:
    stem = {"train": "train", "valid": "val"}[part]
    files = tuple(sorted(p for p in root.rglob(f"*{stem}*.npz") if p.is_file()))
    if files:
        return Source(kind, files, root, 3, 256, _read_npz)
    folders = sorted(p for p in root.glob(f"{stem}*") if p.is_dir())
    return _folder(folders[0] if folders else root, kind)


def _read_npz(path: Path) -> Iterator[tuple[str, Pixels]]:
    """Array data (n, 3 * side * side), plane after plane, or (n, side, side, 3)."""
    with np.load(path, allow_pickle=False) as arrays:
        data = arrays["data"]
    if data.ndim == 4:
        return _numbered(path, np.asarray(data, dtype=np.uint8))
    side = round((data.shape[1] / 3) ** 0.5)
    if 3 * side * side != data.shape[1]:
        raise ValueError(f"rows of {data.shape[1]} bytes are no square pictures of three planes")
    return _numbered(path, _planar(data, side))


_Make = Callable[[Path, str, str], Source]
_DATASETS: dict[str, tuple[_Make, str]] = {
    "cifar10/train": (_cifar10, "train"),
    "cifar10/test": (_cifar10, "test"),
    "mnist/train": (_mnist, "train"),
    "mnist/test": (_mnist, "test"),
    "binary-mnist/train": (_binary_mnist, "train"),
    "binary-mnist/valid": (_binary_mnist, "valid"),
    "binary-mnist/test": (_binary_mnist, "test"),
    "imagenet/train": (_imagenet, "train"),
    "imagenet/valid": (_imagenet, "valid"),
}
#: What a damaged, hostile or foreign file makes the readers above raise.
UNREADABLE = (
    OSError,  # Pillow's UnidentifiedImageError among them
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    SyntaxError,  # Pillow, on damaged PNG
    EOFError,
    MemoryError,
    OverflowError,
    struct.error,
    zlib.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
