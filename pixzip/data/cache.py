"""A source's pictures → one memory-mapped file of pixels and an index, made once and found again by content.

    CACHE/<key>/pixels.bin     (h, w, planes) uint8 of every picture, one after another
    CACHE/<key>/index.npz      offset, h, w and content hash of each, and whether its file was gray
    CACHE/<key>/about.json     planes, levels, names, files that could not be read, hashes of the two other files

The key is a hash of the contents of all the source's files: a moved or renamed data set is found again, a changed one
is read anew. The folder appears under its name only when it is whole and on disk; what was damaged since is made again,
and so is one without a picture that the system failed to read at the time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.data.sources import UNREADABLE, Pixels, Source, open_source
from pixzip.errors import OutputError, TrainingDataError

#: Goes into the key, so that a change of layout or of decoding makes new caches.
VERSION = 2
_HASH_BYTES = 16
_CHUNK_BYTES = 1 << 20
_HEX = "[0-9a-f]"
_HASHED = ("pixels.bin", "index.npz")
#: Folders that a killed process left half made are deleted when they are so old.
_LEFT_S = 24 * 3600
#: Numbers of an OSError that says what is wrong with a file's contents: Pillow's, and seeking to a place that is none.
_OF_CONTENTS = (None, errno.EINVAL)
#: What opening a damaged cache may raise.
_DAMAGE = (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile)


def default_cache() -> Path:
    """$PIXZIP_CACHE, or pixzip in the user's cache folder."""
    if chosen := os.environ.get("PIXZIP_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixzip"


@dataclass(frozen=True)
class Pictures:
    """Pictures in memory-mapped storage, or a selection of them: [i] is (h, w, planes) uint8, not to be written.

    heights, widths (n,) int64; hashes (n,): content hashes as hexadecimal text; names (n,); gray (n,): whether the file
    had one plane where these have three. unreadable: files that could not be read, and why; failed: the numbers, among
    all files, of those that are no pictures for a reason of the system's.
    """

    pixels: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    hashes: NDArray[np.str_]
    names: NDArray[np.str_]
    gray: NDArray[np.bool_]
    planes: int
    levels: int
    unreadable: tuple[str, ...] = ()
    failed: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, i: int) -> Pixels:
        h, w = int(self.heights[i]), int(self.widths[i])
        start = int(self.offsets[i])
        return self.pixels[start : start + h * w * self.planes].reshape(h, w, self.planes)

    def select(self, chosen: NDArray[np.intp]) -> Pictures:
        """Those at these indices, in their order."""
        parts = {key: getattr(self, key)[chosen] for key in ("offsets", "heights", "widths", "hashes", "names", "gray")}
        return replace(self, **parts)

    @property
    def digest(self) -> str:
        """Names the set of pictures, whatever their order, files and places."""
        return hashlib.blake2b("".join(sorted(self.hashes)).encode(), digest_size=_HASH_BYTES).hexdigest()


def content_hash(picture: Pixels) -> str:
    """Hash of shape and pixels: the same for a picture in any file format."""
    head = np.array(picture.shape, dtype="<u4").tobytes()
    return hashlib.blake2b(head + np.ascontiguousarray(picture).tobytes(), digest_size=_HASH_BYTES).hexdigest()


def pictures_of(*arrays: NDArray[np.uint8], levels: int = 256) -> Pictures:
    """Pictures that are in memory already, (h, w, planes) each."""
    sizes = [a.size for a in arrays]
    return Pictures(
        pixels=np.concatenate([np.ascontiguousarray(a).reshape(-1) for a in arrays]),
        offsets=np.cumsum([0, *sizes[:-1]]),
        heights=np.array([a.shape[0] for a in arrays]),
        widths=np.array([a.shape[1] for a in arrays]),
        hashes=np.array([content_hash(a) for a in arrays]),
        names=np.array([str(i) for i in range(len(arrays))]),
        gray=np.zeros(len(arrays), dtype=np.bool_),
        planes=arrays[0].shape[2],
        levels=levels,
    )


def check_apart(what: str, place: Path, text: str) -> None:
    """Raise TrainingDataError for a place in a source's folder: what is written there would be a file of the source."""
    if os.path.isdir(text) and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(text)):
        raise TrainingDataError(f"{what} {place} lies among the pictures of {text}: choose another folder")


def load_pictures(text: str, cache: Path, say: Callable[[str], None] = lambda line: None) -> Pictures:
    """All readable pictures of a source (pixzip.data.sources), decoded into the cache unless they are there.

    ``say`` is told what a person should know: that decoding begins, and which files could not be read. Raises
    TrainingDataError where no picture can be read, and where the cache lies among them, OutputError where it cannot be
    written.
    """
    check_apart("the cache", cache, text)
    source = open_source(text)
    key, closed = _key(source)
    folder = cache / key
    pictures = _kept(folder, closed, say)
    if pictures is None:
        say(f"decoding {text} into {folder}")
        _build(source, folder)
        try:
            pictures = _open(folder)
        except _DAMAGE as error:
            raise OutputError(f"the cache {folder} is damaged and cannot be replaced: {error}") from None
    if bad := pictures.unreadable:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        say(f"{text}: {len(bad)} of {len(source.files)} files could not be read: {'; '.join(bad[:3])}{more}")
    if not len(pictures):
        raise TrainingDataError(f"no readable picture in {text}")
    return pictures


def _kept(folder: Path, closed: set[int], say: Callable[[str], None]) -> Pictures | None:
    """What the cache has, unless it is damaged or lacks a file that the system failed to read, but for those closed."""
    if not os.path.isdir(folder):
        return None
    try:
        pictures = _open(folder)
        why = "lacks files that could not be read then" if set(pictures.failed) - closed else ""
    except _DAMAGE as error:
        why = f"is damaged ({type(error).__name__}: {error})"
    if not why:
        return pictures
    say(f"{folder} {why}: made again")
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _key(source: Source) -> tuple[str, set[int]]:
    """Hash of the kind and of every file's content, in order; the numbers of the files that cannot be read."""
    whole = hashlib.blake2b(f"{VERSION} {source.kind}".encode(), digest_size=_HASH_BYTES)
    closed = set()
    for i, path in enumerate(source.files):
        try:
            whole.update(_file_hash(path))
        except OSError as error:  # it will be counted as unreadable
            whole.update(str(error.errno).encode())
            closed.add(i)
    return whole.hexdigest(), closed


def _file_hash(path: Path) -> bytes:
    """Hash of a file's content."""
    found = hashlib.blake2b(digest_size=_HASH_BYTES)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.digest()


def _sweep(cache: Path) -> None:
    """Delete what processes that were killed left half made, a day ago or earlier."""
    for left in cache.glob(f".{_HEX * 2 * _HASH_BYTES}-{_HEX * 8}.tmp"):
        with suppress(OSError):
            if time.time() - max(path.stat().st_mtime for path in (left, *left.iterdir())) > _LEFT_S:
                shutil.rmtree(left)


def _build(source: Source, folder: Path) -> None:
    """Decode every picture; the folder is there whole afterwards, or not at all."""
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.tmp")
    _sweep(folder.parent)
    try:
        temporary.mkdir(parents=True)
        _write(source, temporary)
        try:
            temporary.rename(folder)
        except OSError:  # another process was faster: its folder holds the same
            if not folder.is_dir():
                raise
    except OSError as error:
        raise OutputError(f"cannot write the cache {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(source: Source, folder: Path) -> None:
    offset = 0
    rows: list[tuple[int, int, int]] = []
    gray: list[bool] = []
    hashes: list[str] = []
    names: list[str] = []
    unreadable: list[str] = []
    failed: list[int] = []
    with (folder / "pixels.bin").open("wb") as out:
        for name, found in _read_all(source, unreadable, failed):
            gray.append(found.shape[2] < source.planes)
            picture = np.repeat(found, source.planes, axis=2) if gray[-1] else found
            out.write(np.ascontiguousarray(picture).tobytes())
            rows.append((offset, picture.shape[0], picture.shape[1]))
            hashes.append(content_hash(picture))
            names.append(name)
            offset += picture.size
        out.flush()
        os.fsync(out.fileno())
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    with (folder / "index.npz").open("wb") as file:
        np.savez(
            file,
            offsets=table[:, 0],
            heights=table[:, 1],
            widths=table[:, 2],
            hashes=np.array(hashes, dtype="U32"),
            gray=np.array(gray, dtype=np.bool_),
        )
        file.flush()
        os.fsync(file.fileno())
    about: dict[str, Any] = {"planes": source.planes, "levels": source.levels, "names": names, "unreadable": unreadable}
    about["failed"] = failed
    about["files"] = {name: _file_hash(folder / name).hex() for name in _HASHED}
    about["digest"] = _digest(about)
    with (folder / "about.json").open("w", encoding="utf-8") as text:
        json.dump(about, text)
        text.flush()
        os.fsync(text.fileno())


def _digest(about: dict[str, Any]) -> str:
    """Hash of a table, whatever the order of its keys."""
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=_HASH_BYTES).hexdigest()


def _read_all(source: Source, unreadable: list[str], failed: list[int]) -> Iterator[tuple[str, Pixels]]:
    """Every picture of every file that can be read.

    The others are added to ``unreadable`` with the reason, and to ``failed`` where it is not in what they hold.
    """
    for i, path in enumerate(source.files):
        try:
            found = list(source.read(path))
        except UNREADABLE as error:
            reason = " ".join(str(error).replace(str(path), "").split())[:80]
            unreadable.append(f"{path.name} ({reason or type(error).__name__})")
            if isinstance(error, OSError) and error.errno not in _OF_CONTENTS:
                failed.append(i)
            continue
        yield from found


def _open(folder: Path) -> Pictures:
    """What a folder holds. Raises one of _DAMAGE."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    if about.pop("digest") != _digest(about):
        raise ValueError("about.json is not what was written")
    for name in _HASHED:
        if _file_hash(folder / name).hex() != about["files"][name]:
            raise ValueError(f"{name} is not what was written")
    with np.load(folder / "index.npz", allow_pickle=False) as index:
        arrays = {key: index[key] for key in ("offsets", "heights", "widths", "hashes", "gray")}
    size = (folder / "pixels.bin").stat().st_size
    pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r") if size else np.empty(0, dtype=np.uint8)
    names = np.array(about["names"], dtype=np.str_)
    return Pictures(
        pixels=pixels,
        names=names,
        planes=about["planes"],
        levels=about["levels"],
        unreadable=tuple(about["unreadable"]),
        failed=tuple(about.get("failed", ())),  # none in caches of earlier versions
        **arrays,
    )
