"""Model file bytes ↔ a frozen network's integers; the shipped models and where others are looked for.

A model file is a safetensors file: integer arrays, and one JSON text in its metadata (docs/model-format.md). Nothing
in it is trusted: shapes, shifts, ranges and overflow bounds are checked before a network is run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.errors import ModelError, ModelNotFoundError
from pixzip.files import ON_WINDOWS
from pixzip.model.checks import (
    DTYPES,
    EXACT,
    LARGEST,
    LARGEST_HIDDEN,
    LARGEST_WEIGHT,
    Arrays,
    Shapes,
    check_shapes,
    check_shifts,
    check_tables,
    list_of,
    object_with,
    parsed,
    product_arrays,
    shift_of,
    shown,
    table_arrays,
)
from pixzip.model.multiscale import MULTISCALE, MultiScaleNetwork, multiscale_arrays, read_multiscale
from pixzip.model.stack import ARCHITECTURES as PAPER_ARCHITECTURES
from pixzip.model.stack import StackNetwork, paper_arrays, read_paper

ARITHMETIC = 2
FORMAT = "pixzip-model"
#: A model file may not be larger.
MAX_BYTES = 64 << 20
SUFFIX = ".safetensors"
#: Largest width of any layer; bounds buffers before they are allocated.
MAX_WIDTH = 1024
MAX_BLOCKS = 64
INPUTS = 88
_CONFIG_KEYS = ("architecture", "channels", "hidden", "lstm", "head", "blocks", "shifts")


@dataclass(frozen=True, eq=False)
class TrunkNetwork:
    """What a decoder executes: sizes, integer arrays by name, right shifts from the stream to each block's input and to
    the heads' (all other shifts are arrays); checked. Equal to none but itself."""

    channels: int
    hidden: int
    lstm: int
    head: int
    blocks: str
    activation_shifts: tuple[int, ...]
    feature_shift: int
    arrays: Arrays

    #: Planes that the drivers take; a gray picture is three equal ones.
    planes = 3
    pictures = "rgb"

    @property
    def slope(self) -> int:
        """Steps per row of the wavefront: pixel (y, x) is coded in step x + slope * y."""
        return 2

    def macs_per_pixel(self) -> int:
        """Multiply-accumulates of one pixel."""
        return sum(int(a.size) for name, a in self.arrays.items() if name.endswith(".weight"))

    def slope_at(self, width: int) -> int:
        """As slope: the same for pictures of every width."""
        return self.slope

    @property
    def learns(self) -> bool:
        """Whether the heads can learn from what they have coded: their sums stay exact whatever the weights become."""
        for colour in range(3):
            bound = np.abs(self.arrays[f"head.{colour}.hidden.bias"].astype(np.int64))
            bound += LARGEST * LARGEST_WEIGHT * self.channels
            if colour > 0:
                bound += np.abs(self.arrays[f"head.{colour}.known"].astype(np.int64)).max(axis=1).sum(axis=0)
            last = np.abs(self.arrays[f"head.{colour}.logit.bias"].astype(np.int64))
            last += 3 * LARGEST_HIDDEN * LARGEST_WEIGHT * self.head  # the sum, and how far the bias moves with it
            if max(bound.max(), last.max()) >= EXACT:
                return False
        return True

    def refusal(self, colours: int, depth: int) -> str | None:
        """Why this network codes no pictures of so many colours and bits a sample, 8 at most: it codes them all."""
        return None


Frozen = TrunkNetwork | StackNetwork | MultiScaleNetwork


@dataclass(frozen=True)
class Model:
    """A model file, read: name, file bytes, and the network in it."""

    name: str
    data: bytes
    network: Frozen
    info: Mapping[str, Any]

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the file; the first 8 bytes stand in a .pxz header."""
        return hashlib.sha256(self.data).digest()


@dataclass(frozen=True)
class ModelInfo:
    """One model that ships with pixzip, or that the user added."""

    name: str
    digest: bytes
    size_bytes: int
    path: Path


def expected_arrays(config: Mapping[str, Any]) -> Shapes:
    """Name → (shape, dtype) of every array of a trunk-and-heads model; weights are (outputs, inputs)."""
    t, k, s, h = (config[key] for key in ("channels", "hidden", "lstm", "head"))
    out = table_arrays() | product_arrays("input", (t, INPUTS))
    for i, kind in enumerate(config["blocks"]):
        if kind == "c":
            layers = {"first": (k, 5 * t), "second": (t, k)}
        else:
            layers = {"is": (4 * s, 2 * t), "ss": (4 * s, 3 * s), "up": (t, s)}
        for name, shape in layers.items():
            out |= product_arrays(f"block.{i}.{name}", shape, rounded=name != "ss")
            if name in ("is", "ss"):
                out[f"block.{i}.{name}.left"] = ((shape[0],), "I8")
    for c in range(3):
        out |= product_arrays(f"head.{c}.hidden", (h, t))
        if c:
            out[f"head.{c}.known"] = ((c, 256, h), "I32")
        out |= product_arrays(f"head.{c}.logit", (256, h))
    return out


def write_model(config: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Arrays and configuration → model file bytes; the same input gives the same bytes. Checks as load_model does."""
    names = {"trunk": expected_arrays, MULTISCALE: multiscale_arrays}
    wanted = names.get(config["architecture"], paper_arrays)(config)
    header: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "arithmetic": str(ARITHMETIC),
            "config": json.dumps(config, sort_keys=True, separators=(",", ":")),
        }
    }
    parts, offset = [], 0
    for name, (shape, dtype) in wanted.items():
        raw = np.ascontiguousarray(arrays[name], dtype=DTYPES[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(raw)]}
        parts.append(raw)
        offset += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + b"".join(parts)
    load_model(data, "new model")
    return data


def load_model(data: bytes, name: str) -> Model:
    """Read and check a model file.

    Raises ModelError, naming the field, when the file is damaged, of another version, or breaks a bound under which
    integer and float32 products are exact.
    """
    try:
        metadata, arrays = _read_safetensors(data)
        if metadata["format"] != FORMAT:
            raise ModelError("not a pixzip model")
        if metadata["arithmetic"] != str(ARITHMETIC):
            raise ModelError(f"arithmetic version {shown(metadata['arithmetic'])}, this pixzip knows {ARITHMETIC}")
        config = object_with(parsed(metadata["config"], "config"), "config", ["architecture"])
        if config["architecture"] in PAPER_ARCHITECTURES:
            network: Frozen = read_paper(config, arrays)
        elif config["architecture"] == MULTISCALE:
            network = read_multiscale(config, arrays)
        else:
            network = _network(config, arrays)
    except ModelError as error:
        raise ModelError(f"model {name}: {error}") from None
    except RecursionError:
        raise ModelError(f"model {name}: nested too deeply") from None
    return Model(name, data, network, config.get("info", {}))


def _sizes(value: object, what: str) -> list[int]:
    """The value, if it is a short list of integers from 0 to the bytes of a file."""
    if not isinstance(value, list) or len(value) > 4:
        raise ModelError(f"{what} is {shown(value)}")
    if any(type(n) is not int or not 0 <= n <= MAX_BYTES for n in value):
        raise ModelError(f"{what} is {shown(value)}")
    return value


def _read_safetensors(data: bytes) -> tuple[Mapping[str, Any], Arrays]:
    """Metadata and arrays; every byte of the file belongs to exactly one array."""
    if not 8 < len(data) <= MAX_BYTES:
        raise ModelError(f"file of {len(data)} bytes, allowed 9 to {MAX_BYTES}")
    (length,) = struct.unpack_from("<Q", data)
    if length > min(len(data) - 8, 1 << 20):
        raise ModelError(f"header of {length} bytes in a file of {len(data)}")
    try:
        text = data[8 : 8 + length].decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError("the header is not UTF-8") from None
    header = object_with(parsed(text, "the header"), "the header", ["__metadata__"])
    metadata = object_with(header.pop("__metadata__"), "__metadata__", ["format", "arithmetic", "config"])
    body = memoryview(data)[8 + length :]
    arrays: dict[str, NDArray[Any]] = {}
    end = 0
    for name, entry in header.items():
        arrays[name] = _read_array(f"array {shown(name)}", entry, body, end)
        end += arrays[name].nbytes
    if end != len(body):
        raise ModelError(f"{len(body) - end} bytes after the last array")
    return metadata, arrays


def _read_array(what: str, entry: object, body: memoryview, at: int) -> NDArray[Any]:
    """The array that an entry of the header describes; it must lie at offset ``at``."""
    entry = object_with(entry, what, ["dtype", "shape", "data_offsets"])
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise ModelError(f"{what} has dtype {shown(entry['dtype'])}")
    shape, offsets = (_sizes(entry[key], f"{key} of {what}") for key in ("shape", "data_offsets"))
    end = at + math.prod(shape) * dtype.itemsize
    if offsets != [at, end] or end > len(body):
        raise ModelError(f"{what} of shape {shown(shape)} lies at {shown(offsets)}, expected {at} to {shown(end)}")
    return np.frombuffer(body[at:end], dtype=dtype).reshape(shape)


def _network(config: Mapping[str, Any], arrays: Arrays) -> TrunkNetwork:
    """Check sizes, shapes, shifts and bounds, in this order."""
    if config["architecture"] != "trunk":
        raise ModelError(f"architecture {shown(config['architecture'])} is not known")
    object_with(config, "config", _CONFIG_KEYS)
    for key in ("channels", "hidden", "lstm", "head"):
        value = config[key]
        if type(value) is not int or not 8 <= value <= MAX_WIDTH or value % 8:
            raise ModelError(f"{key} is {shown(value)}, allowed are multiples of 8 from 8 to {MAX_WIDTH}")
    blocks = config["blocks"]
    if not isinstance(blocks, str) or not 1 <= len(blocks) <= MAX_BLOCKS or set(blocks) - {"c", "l"}:
        raise ModelError(f"blocks is {shown(blocks)}")
    _check_arrays(expected_arrays(config), arrays)
    shifts = object_with(config["shifts"], "shifts", ["blocks", "feature"])
    return TrunkNetwork(
        **{key: config[key] for key in ("channels", "hidden", "lstm", "head", "blocks")},
        activation_shifts=tuple(shift_of(n) for n in list_of(shifts["blocks"], "blocks", len(blocks))),
        feature_shift=shift_of(shifts["feature"]),
        arrays=arrays,
    )


def _check_arrays(wanted: Shapes, arrays: Arrays) -> None:
    """Names, shapes and dtypes of all arrays, then ranges of values and the bound of every output."""
    check_shapes(wanted, arrays)
    check_tables(arrays)
    for name in wanted:
        if name.endswith(".weight"):
            _check_bound(name.removesuffix(".weight"), arrays)
        check_shifts(name, arrays)


def _check_bound(product: str, arrays: Arrays) -> None:
    """|w| <= 127, and largest input * sum|w| + |b| (+ known) < 2^24 for every output of a product."""
    weight = arrays[f"{product}.weight"].astype(np.int64)
    if weight.min() < -127:
        raise ModelError(f"{product}.weight holds -128")
    from_hidden = product.endswith((".second", ".logit"))
    bound = (LARGEST_HIDDEN if from_hidden else LARGEST) * np.abs(weight).sum(axis=1)
    bias = arrays.get(f"{product}.bias")
    if bias is not None:
        bound += np.abs(bias.astype(np.int64))
    known = arrays.get(product.replace(".hidden", ".known")) if product.endswith(".hidden") else None
    if known is not None:
        bound += np.abs(known.astype(np.int64)).max(axis=1).sum(axis=0)
    if bound.max() >= EXACT:
        worst = int(bound.argmax())
        raise ModelError(f"{product}.weight: output {worst} can reach {int(bound[worst])}, the limit is 2^24")


_READING = Lock()


@dataclass(frozen=True)
class UnreadableModel:
    """A file in a folder of models that cannot be read, and why."""

    name: str
    path: Path
    reason: str


def models_folder() -> Path:
    """Where the shipped models are: in the installed package, or models/ of a source checkout."""
    packed = Path(str(resources.files("pixzip"))) / "models"
    return packed if packed.is_dir() else Path(str(resources.files("pixzip"))).parent / "models"


def added_folder() -> Path:
    """Where `pixzip models --add` puts models: $PIXZIP_MODELS, or pixzip/models in the user's data folder."""
    if chosen := os.environ.get("PIXZIP_MODELS"):
        return Path(chosen)
    windows = os.environ.get("LOCALAPPDATA") if ON_WINDOWS else None
    data = os.environ.get("XDG_DATA_HOME") or windows or os.path.expanduser("~/.local/share")
    return Path(data) / "pixzip" / "models"


def shipped_models() -> list[ModelInfo]:
    """All models that came with pixzip, by name."""
    return [model for model in _models_in(models_folder()) if isinstance(model, ModelInfo)]


def added_models() -> list[ModelInfo]:
    """All models that the user added, by name, but those that cannot be read."""
    return [model for model in _models_in(added_folder()) if isinstance(model, ModelInfo)]


def unreadable_models() -> list[UnreadableModel]:
    """What is called a model in either folder and cannot be read."""
    found = [*_models_in(models_folder()), *_models_in(added_folder())]
    return [model for model in found if isinstance(model, UnreadableModel)]


def _paths_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def _models_in(folder: Path) -> list[ModelInfo | UnreadableModel]:
    found: list[ModelInfo | UnreadableModel] = []
    for path in _paths_in(folder):
        try:
            found.append(_info(path, _stamp(path)))
        except OSError as error:
            found.append(UnreadableModel(path.stem, path, str(error.strerror)))
    return found


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does: a file with the same stamp is not read again.

    Raises OSError also for what is no file, or larger than a model: a search reads all files in its folders.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if found.st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"file of {found.st_size} bytes, allowed {MAX_BYTES}")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=64)
def _info(path: Path, stamp: tuple[int, ...]) -> ModelInfo:
    data = path.read_bytes()
    return ModelInfo(path.stem, hashlib.sha256(data).digest(), len(data), path)


def _read_once(path: Path) -> Model:
    """A model file, read and checked once a process: many small pictures, on several threads, pay for it once.

    Raises ModelError.
    """
    try:
        with _READING:
            return _read(path, _stamp(path))
    except OSError as error:
        raise ModelError(f"model {path}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4)
def _read(path: Path, stamp: tuple[int, ...]) -> Model:
    return load_model(path.read_bytes(), path.stem)


def find_model(wanted: str | bytes | Path) -> Model:
    """A model by its name, by path, or by (the first bytes of) its digest; the same object until its file changes.

    A str is first a name, a Path never is. Shipped models come before those that the user added, and both before files.

    Raises ModelNotFoundError, naming what was wanted and where it was looked for; ModelError, also where the file of
    this name or path cannot be read.
    """
    if isinstance(wanted, bytes):
        return _model_with(wanted)
    if isinstance(wanted, str):
        for folder in (models_folder(), added_folder()):
            for path in _paths_in(folder):
                if path.stem == wanted:
                    return _read_once(path)
    if not os.path.isfile(wanted):
        if isinstance(wanted, Path):
            raise ModelNotFoundError(f"no such model file: {wanted}")
        names = ", ".join(info.name for info in [*shipped_models(), *added_models()]) or "none"
        raise ModelNotFoundError(f"no model named {wanted} (there are: {names}) and no such file")
    return _read_once(Path(wanted))


def _model_with(digest: bytes) -> Model:
    """A model by the first bytes of its digest."""
    for models in (shipped_models, added_models):  # one after the other: mostly, the shipped ones are enough
        for info in models():
            if info.digest.startswith(digest):
                return _read_once(info.path)
    raise ModelNotFoundError(f"no model with digest {digest.hex()} in {models_folder()} and {added_folder()}")
