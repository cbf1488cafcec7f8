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

ARITHMETIC = 2
FORMAT = "pixzip-model"
#: A model file may not be larger.
MAX_BYTES = 64 << 20
#: Largest width of any layer; bounds buffers before they are allocated.
MAX_WIDTH = 1024
MAX_BLOCKS = 64
INPUTS = 88
HALF = 1024
EXP_ENTRIES = 1024
#: Largest |input| of a product: of a hidden layer's values, which are held less 128, and of all others.
_LARGEST_HIDDEN = 128
_LARGEST = 127
_EXACT = 1 << 24
_MOST_SHIFT = 24
#: Both products of a Row LSTM layer stay under 2^24, so shifted by at most 5 their sum and the bias stay under 2^31.
_MOST_LEFT = 5
_CONFIG_KEYS = ("architecture", "channels", "hidden", "lstm", "head", "blocks", "shifts")
_DTYPES: dict[str, np.dtype[Any]] = {"I8": np.dtype(np.int8), "I16": np.dtype("<i2"), "I32": np.dtype("<i4")}

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Network:
    """What a decoder executes: sizes, integer arrays by name, right shifts from the stream to each block's input and to
    the heads' (all other shifts are arrays); checked."""

    channels: int
    hidden: int
    lstm: int
    head: int
    blocks: str
    activation_shifts: tuple[int, ...]
    feature_shift: int
    arrays: Arrays

    @property
    def slope(self) -> int:
        """Steps per row of the wavefront: pixel (y, x) is coded in step x + slope * y."""
        return 2

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
        **_product("input", (t, INPUTS)),
    }
    for i, kind in enumerate(config["blocks"]):
        if kind == "c":
            layers = {"first": (k, 5 * t), "second": (t, k)}
        else:
            layers = {"is": (4 * s, 2 * t), "ss": (4 * s, 3 * s), "up": (t, s)}
        for name, shape in layers.items():
            out |= _product(f"block.{i}.{name}", shape, rounded=name != "ss")
            if name in ("is", "ss"):
                out[f"block.{i}.{name}.left"] = ((shape[0],), "I8")
    for c in range(3):
        out |= _product(f"head.{c}.hidden", (h, t))
        if c:
            out[f"head.{c}.known"] = ((c, 256, h), "I32")
        out |= _product(f"head.{c}.logit", (256, h))
    return out


def _product(name: str, shape: tuple[int, int], rounded: bool = True) -> dict[str, tuple[tuple[int, ...], str]]:
    """The arrays of one product; ss is added to is, whose bias and right shift are those of the sum."""
    out: dict[str, tuple[tuple[int, ...], str]] = {f"{name}.weight": (shape, "I8")}
    if rounded:
        out |= {f"{name}.shift": ((shape[0],), "I8"), f"{name}.bias": ((shape[0],), "I32")}
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
    shifts = _object(config["shifts"], "shifts", ["blocks", "feature"])
    return Network(
        **{key: config[key] for key in ("channels", "hidden", "lstm", "head", "blocks")},
        activation_shifts=tuple(_shift(n) for n in _list(shifts["blocks"], "blocks", len(blocks))),
        feature_shift=_shift(shifts["feature"]),
        arrays=arrays,
    )


def _list(value: object, what: str, length: int) -> list[Any]:
    """The value, if it is a list of this length."""
    if not isinstance(value, list) or len(value) != length:
        raise ModelError(f"shifts {what}: {_shown(value)}, must be a list of {length}")
    return value


def _shift(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_SHIFT:
        raise ModelError(f"shift {_shown(value)}, allowed 0 to {_MOST_SHIFT}")
    return value


def _check_arrays(wanted: Mapping[str, tuple[tuple[int, ...], str]], arrays: Arrays) -> None:
    """Names, shapes and dtypes of all arrays, then ranges of values and the bound of every output."""
    if wrong := sorted(set(wanted) ^ set(arrays)):
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelError(f"arrays missing or unknown: {', '.join(_shown(name) for name in wrong[:3])}{more}")
    for name, (shape, dtype) in wanted.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != _DTYPES[dtype]:
            raise ModelError(f"array {name} is {array.dtype} {array.shape}, expected {dtype} {shape}")
    _check_tables(arrays)
    for name in wanted:
        kind = name.rpartition(".")[2]
        if kind == "weight":
            _check_bound(name.removesuffix(".weight"), arrays)
        elif kind in ("shift", "left"):
            most = _MOST_SHIFT if kind == "shift" else _MOST_LEFT
            for value in (int(arrays[name].min()), int(arrays[name].max())):
                if not 0 <= value <= most:
                    raise ModelError(f"{name} holds {value}, allowed 0 to {most}")


def _check_tables(arrays: Arrays) -> None:
    """Ranges of sigmoid, tanh and exp."""
    for name in ("table.sigmoid", "table.tanh"):
        if np.abs(arrays[name].astype(np.int32)).max() > 4096:
            raise ModelError(f"{name} exceeds 4096")
    exp = arrays["table.exp"].astype(np.int64)
    if exp.min() < 0 or exp.max() > 1 << 24 or exp[0] < 1:
        raise ModelError("table.exp must start above 0 and stay within 0 .. 2^24")


def _check_bound(product: str, arrays: Arrays) -> None:
    """|w| <= 127, and largest input * sum|w| + |b| (+ known) < 2^24 for every output of a product."""
    weight = arrays[f"{product}.weight"].astype(np.int64)
    if weight.min() < -127:
        raise ModelError(f"{product}.weight holds -128")
    from_hidden = product.endswith((".second", ".logit"))
    bound = (_LARGEST_HIDDEN if from_hidden else _LARGEST) * np.abs(weight).sum(axis=1)
    bias = arrays.get(f"{product}.bias")
    if bias is not None:
        bound += np.abs(bias.astype(np.int64))
    known = arrays.get(product.replace(".hidden", ".known")) if product.endswith(".hidden") else None
    if known is not None:
        bound += np.abs(known.astype(np.int64)).max(axis=1).sum(axis=0)
    if bound.max() >= _EXACT:
        worst = int(bound.argmax())
        raise ModelError(f"{product}.weight: output {worst} can reach {int(bound[worst])}, the limit is 2^24")


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
