"""Model file bytes ↔ a frozen network's integers; the shipped models and where others are looked for.

A model file is a safetensors file: integer arrays, and one JSON text in its metadata (docs/model-format.md). Nothing
in it is trusted: shapes, shifts, ranges and overflow bounds are checked before a network is run.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.errors import ModelError, ModelNotFoundError

ARITHMETIC = 1
FORMAT = "pixzip-model"
#: A model file may not be larger.
MAX_BYTES = 64 << 20
#: Largest width of any layer; bounds buffers before they are allocated.
MAX_WIDTH = 1024
MAX_BLOCKS = 64
INPUTS = 88
HALF = 1024
EXP_ENTRIES = 1024
_EXACT = 1 << 24
_CONFIG_KEYS = ("architecture", "channels", "hidden", "lstm", "head", "blocks", "shifts")
_DTYPES: dict[str, np.dtype[Any]] = {"I8": np.dtype(np.int8), "I16": np.dtype("<i2"), "I32": np.dtype("<i4")}

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ConvShifts:
    """Right shifts of a convolution block: stream → a, first product → hidden, second product → stream."""

    a: int
    hidden: int
    out: int


@dataclass(frozen=True)
class LstmShifts:
    """Shifts of a Row LSTM layer: stream → a (right), both products (left), their sum → table index, up → stream."""

    a: int
    is_left: int
    ss_left: int
    index: int
    out: int


@dataclass(frozen=True)
class HeadShifts:
    """Right shifts of a colour head: first product → hidden, second product → logit."""

    hidden: int
    logit: int


@dataclass(frozen=True)
class Network:
    """What a decoder executes: sizes, shifts and integer arrays by name, checked."""

    channels: int
    hidden: int
    lstm: int
    head: int
    blocks: str
    input_shift: int
    feature_shift: int
    block_shifts: tuple[ConvShifts | LstmShifts, ...]
    head_shifts: tuple[HeadShifts, ...]
    arrays: Arrays

    @property
    def slope(self) -> int:
        """Steps per row of the wavefront: pixel (y, x) is coded in step x + slope * y."""
        return 2

    def logit_row(self, colour: int) -> tuple[NDArray[np.int32], int, NDArray[np.int32]]:
        """What turns a head's last product into a row: bias (256,), shift, exp table."""
        shift = self.head_shifts[colour].logit
        return self.arrays[f"head.{colour}.logit.bias"], shift, self.arrays["table.exp"]

    def macs_per_pixel(self) -> int:
        """Multiply-accumulates of one pixel."""
        return sum(int(a.size) for name, a in self.arrays.items() if name.endswith(".weight"))


@dataclass(frozen=True)
class Model:
    """A model file, read: name, file bytes, and the network in it."""

    name: str
    data: bytes
    network: Network
    info: Mapping[str, Any]

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the file; the first 8 bytes stand in a .pxz header."""
        return hashlib.sha256(self.data).digest()


@dataclass(frozen=True)
class ModelInfo:
    """One model that ships with pixzip."""

    name: str
    digest: bytes
    size_bytes: int
    path: Path


def expected_arrays(config: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name → (shape, dtype) of every array of a trunk-and-heads model; weights are (outputs, inputs)."""
    t, k, s, h = (config[key] for key in ("channels", "hidden", "lstm", "head"))
    out: dict[str, tuple[tuple[int, ...], str]] = {
        "table.sigmoid": ((2 * HALF,), "I16"),
        "table.tanh": ((2 * HALF,), "I16"),
        "table.exp": ((EXP_ENTRIES,), "I32"),
        "input.weight": ((t, INPUTS), "I8"),
        "input.bias": ((t,), "I32"),
    }
    for i, kind in enumerate(config["blocks"]):
        if kind == "c":
            layers = {"first": (k, 5 * t), "second": (t, k)}
        else:
            layers = {"is": (4 * s, 2 * t), "ss": (4 * s, 3 * s), "up": (t, s)}
        for name, shape in layers.items():
            out[f"block.{i}.{name}.weight"] = (shape, "I8")
            if name != "ss":
                out[f"block.{i}.{name}.bias"] = ((shape[0],), "I32")
    for c in range(3):
        out[f"head.{c}.hidden.weight"] = ((h, t), "I8")
        out[f"head.{c}.hidden.bias"] = ((h,), "I32")
        if c:
            out[f"head.{c}.known"] = ((c, 256, h), "I32")
        out[f"head.{c}.logit.weight"] = ((256, h), "I8")
        out[f"head.{c}.logit.bias"] = ((256,), "I32")
    return out


def write_model(config: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Arrays and configuration → model file bytes; the same input gives the same bytes. Checks as load_model does."""
    wanted = expected_arrays(config)
    header: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "arithmetic": str(ARITHMETIC),
            "config": json.dumps(config, sort_keys=True, separators=(",", ":")),
        }
    }
    parts, offset = [], 0
    for name, (shape, dtype) in wanted.items():
        raw = np.ascontiguousarray(arrays[name], dtype=_DTYPES[dtype]).tobytes()
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
            raise ModelError(f"arithmetic version {_shown(metadata['arithmetic'])}, this pixzip knows {ARITHMETIC}")
        config = _object(_json(metadata["config"], "config"), "config", _CONFIG_KEYS)
        network = _network(config, arrays)
    except ModelError as error:
        raise ModelError(f"model {name}: {error}") from None
    except RecursionError:
        raise ModelError(f"model {name}: nested too deeply") from None
    return Model(name, data, network, config.get("info", {}))


def _shown(value: object) -> str:
    """A value of the file for a message: one line, not long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _json(text: object, what: str) -> object:
    """JSON text → value; text that is no text, or no JSON, or names a key twice is refused."""
    if not isinstance(text, str):
        raise ModelError(f"{what} is {_shown(text)}, must be JSON text")
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except ModelError as error:
        raise ModelError(f"{what} {error}") from None
    except ValueError as error:
        raise ModelError(f"{what} is not JSON ({type(error).__name__})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's pairs → dict; readers differ on which of two equal keys counts."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ModelError("names a key twice")
    return made


def _object(value: object, what: str, keys: Iterable[str]) -> dict[str, Any]:
    """The value, if it is a JSON object with these keys."""
    if not isinstance(value, dict):
        raise ModelError(f"{what} is {_shown(value)}, must be an object")
    for key in keys:
        if key not in value:
            raise ModelError(f"{what} has no {key}")
    return value


def _sizes(value: object, what: str) -> list[int]:
    """The value, if it is a short list of integers from 0."""
    if not isinstance(value, list) or len(value) > 4 or any(type(n) is not int or n < 0 for n in value):
        raise ModelError(f"{what} is {_shown(value)}")
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
    header = _object(_json(text, "the header"), "the header", ["__metadata__"])
    metadata = _object(header.pop("__metadata__"), "__metadata__", ["format", "arithmetic", "config"])
    body = memoryview(data)[8 + length :]
    arrays: dict[str, NDArray[Any]] = {}
    end = 0
    for name, entry in header.items():
        arrays[name] = _read_array(f"array {_shown(name)}", entry, body, end)
        end += arrays[name].nbytes
    if end != len(body):
        raise ModelError(f"{len(body) - end} bytes after the last array")
    return metadata, arrays


def _read_array(what: str, entry: object, body: memoryview, at: int) -> NDArray[Any]:
    """The array that an entry of the header describes; it must lie at offset ``at``."""
    entry = _object(entry, what, ["dtype", "shape", "data_offsets"])
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise ModelError(f"{what} has dtype {_shown(entry['dtype'])}")
    shape, offsets = (_sizes(entry[key], f"{key} of {what}") for key in ("shape", "data_offsets"))
    end = at + math.prod(shape) * dtype.itemsize
    if offsets != [at, end] or end > len(body):
        raise ModelError(f"{what} of shape {_shown(shape)} lies at {_shown(offsets)}, expected {at} to {_shown(end)}")
    return np.frombuffer(body[at:end], dtype=dtype).reshape(shape)


def _network(config: Mapping[str, Any], arrays: Arrays) -> Network:
    """Check sizes, shapes, shifts and bounds, in this order."""
    if config["architecture"] != "trunk":
        raise ModelError(f"architecture {_shown(config['architecture'])} is not known")
    for key in ("channels", "hidden", "lstm", "head"):
        value = config[key]
        if type(value) is not int or not 8 <= value <= MAX_WIDTH or value % 8:
            raise ModelError(f"{key} is {_shown(value)}, allowed are multiples of 8 from 8 to {MAX_WIDTH}")
    blocks = config["blocks"]
    if not isinstance(blocks, str) or not 1 <= len(blocks) <= MAX_BLOCKS or set(blocks) - {"c", "l"}:
        raise ModelError(f"blocks is {_shown(blocks)}")
    _check_arrays(expected_arrays(config), arrays)
    shifts = _object(config["shifts"], "shifts", ["input", "feature", "blocks", "heads"])
    block_lists, head_lists = _list(shifts["blocks"], "blocks", len(blocks)), _list(shifts["heads"], "heads", 3)
    return Network(
        **{key: config[key] for key in ("channels", "hidden", "lstm", "head", "blocks")},
        input_shift=_shift(shifts["input"]),
        feature_shift=_shift(shifts["feature"]),
        block_shifts=tuple(_block_shifts(kind, s) for kind, s in zip(blocks, block_lists, strict=True)),
        head_shifts=tuple(HeadShifts(*(_shift(n) for n in _list(s, "of a head", 2))) for s in head_lists),
        arrays=arrays,
    )


def _list(value: object, what: str, length: int) -> list[Any]:
    """The value, if it is a list of this length."""
    if not isinstance(value, list) or len(value) != length:
        raise ModelError(f"shifts {what}: {_shown(value)}, must be a list of {length}")
    return value


def _shift(value: Any, most: int = 24) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ModelError(f"shift {_shown(value)}, allowed 0 to {most}")
    return value


def _block_shifts(kind: str, values: object) -> ConvShifts | LstmShifts:
    if kind == "c":
        return ConvShifts(*(_shift(n) for n in _list(values, "of a c block", 3)))
    a, is_left, ss_left, index, out = _list(values, "of an l block", 5)
    # Both products stay under 2^24 and are shifted by at most 5: their sum and the bias stay under 2^31.
    return LstmShifts(_shift(a), _shift(is_left, 5), _shift(ss_left, 5), _shift(index), _shift(out))


def _check_arrays(wanted: Mapping[str, tuple[tuple[int, ...], str]], arrays: Arrays) -> None:
    """Names, shapes, dtypes, |w| <= 127, and 127 * sum|w| + |b| (+ known) < 2^24 for every output."""
    if wrong := sorted(set(wanted) ^ set(arrays)):
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelError(f"arrays missing or unknown: {', '.join(_shown(name) for name in wrong[:3])}{more}")
    for name, (shape, dtype) in wanted.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != _DTYPES[dtype]:
            raise ModelError(f"array {name} is {array.dtype} {array.shape}, expected {dtype} {shape}")
    for name in ("table.sigmoid", "table.tanh"):
        if np.abs(arrays[name].astype(np.int32)).max() > 4096:
            raise ModelError(f"{name} exceeds 4096")
    exp = arrays["table.exp"].astype(np.int64)
    if exp.min() < 0 or exp.max() > 1 << 24 or exp[0] < 1:
        raise ModelError("table.exp must start above 0 and stay within 0 .. 2^24")
    for name in (n for n in wanted if n.endswith(".weight")):
        weight = arrays[name].astype(np.int64)
        if weight.min() < -127:
            raise ModelError(f"{name} holds -128")
        bound = 127 * np.abs(weight).sum(axis=1)
        bias = arrays.get(name.replace(".weight", ".bias"))
        if bias is not None:
            bound += np.abs(bias.astype(np.int64))
        known = arrays.get(name.replace(".hidden.weight", ".known")) if ".hidden." in name else None
        if known is not None:
            bound += np.abs(known.astype(np.int64)).max(axis=1).sum(axis=0)
        if bound.max() >= _EXACT:
            raise ModelError(f"{name}: output {int(bound.argmax())} can reach {int(bound.max())}, the limit is 2^24")


def models_folder() -> Path:
    """Where the shipped models are: in the installed package, or models/ of a source checkout."""
    packed = Path(str(resources.files("pixzip"))) / "models"
    return packed if packed.is_dir() else Path(str(resources.files("pixzip"))).parent / "models"


def shipped_models() -> list[ModelInfo]:
    """All models that came with pixzip, by name."""
    found = []
    for path in sorted(models_folder().glob("*.safetensors")):
        data = path.read_bytes()
        found.append(ModelInfo(path.stem, hashlib.sha256(data).digest(), len(data), path))
    return found


def find_model(wanted: str | bytes | Path) -> Model:
    """A model by shipped name, by path, or by (the first bytes of) its digest.

    Raises ModelNotFoundError, naming what was wanted and where it was looked for.
    """
    shipped = shipped_models()
    if isinstance(wanted, bytes):
        for info in shipped:
            if info.digest.startswith(wanted):
                return load_model(info.path.read_bytes(), info.name)
        raise ModelNotFoundError(
            f"no model with digest {wanted.hex()} in {models_folder()}; give the model file with --model"
        )
    for info in shipped:
        if info.name == str(wanted):
            return load_model(info.path.read_bytes(), info.name)
    path = Path(wanted)
    if not path.is_file():
        names = ", ".join(info.name for info in shipped) or "none"
        raise ModelNotFoundError(f"no model named {wanted} (shipped: {names}) and no such file")
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"model {path}: file of {path.stat().st_size} bytes, allowed {MAX_BYTES}")
    return load_model(path.read_bytes(), path.stem)
