"""What readers of model files share: single values checked, with messages; names, types and ranges of arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.errors import ModelError

HALF = 1024
EXP_ENTRIES = 1024
#: Largest |input| of a product: of a hidden layer's values, which are held less 128, and of all others.
LARGEST_HIDDEN = 128
LARGEST = 127
LARGEST_WEIGHT = 127
EXACT = 1 << 24
MOST_SHIFT = 24
#: Both products of an LSTM layer stay so far under 2^31 that, shifted by at most 5, their sum and the bias do too.
MOST_LEFT = 5
DTYPES: dict[str, np.dtype[Any]] = {"I8": np.dtype(np.int8), "I16": np.dtype("<i2"), "I32": np.dtype("<i4")}

Arrays = Mapping[str, NDArray[Any]]
#: Name → (shape, dtype) of every array of a file.
Shapes = dict[str, tuple[tuple[int, ...], str]]


def shown(value: object) -> str:
    """A value of the file for a message: one line, not long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def parsed(text: object, what: str) -> object:
    """JSON text → value; text that is no text, or no JSON, or names a key twice is refused."""
    if not isinstance(text, str):
        raise ModelError(f"{what} is {shown(text)}, must be JSON text")
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


def object_with(value: object, what: str, keys: Iterable[str]) -> dict[str, Any]:
    """The value, if it is a JSON object with these keys."""
    if not isinstance(value, dict):
        raise ModelError(f"{what} is {shown(value)}, must be an object")
    for key in keys:
        if key not in value:
            raise ModelError(f"{what} has no {key}")
    return value


def list_of(value: object, what: str, length: int) -> list[Any]:
    """The value, if it is a list of this length."""
    if not isinstance(value, list) or len(value) != length:
        raise ModelError(f"shifts {what}: {shown(value)}, must be a list of {length}")
    return value


def shift_of(value: Any) -> int:
    """The value, if it is a right shift."""
    if type(value) is not int or not 0 <= value <= MOST_SHIFT:
        raise ModelError(f"shift {shown(value)}, allowed 0 to {MOST_SHIFT}")
    return value


def product_arrays(name: str, shape: tuple[int, int], rounded: bool = True) -> dict[str, tuple[tuple[int, ...], str]]:
    """The arrays of one product; ss is added to is, whose bias and right shift are those of the sum."""
    out: dict[str, tuple[tuple[int, ...], str]] = {f"{name}.weight": (shape, "I8")}
    if rounded:
        out |= {f"{name}.shift": ((shape[0],), "I8"), f"{name}.bias": ((shape[0],), "I32")}
    return out


def table_arrays() -> Shapes:
    """The tables that every network has."""
    return {
        "table.sigmoid": ((2 * HALF,), "I16"),
        "table.tanh": ((2 * HALF,), "I16"),
        "table.exp": ((EXP_ENTRIES,), "I32"),
    }


def check_shapes(wanted: Shapes, arrays: Arrays) -> None:
    """Names, shapes and dtypes of all arrays."""
    if wrong := sorted(set(wanted) ^ set(arrays)):
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelError(f"arrays missing or unknown: {', '.join(shown(name) for name in wrong[:3])}{more}")
    for name, (shape, dtype) in wanted.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != DTYPES[dtype]:
            raise ModelError(f"array {name} is {array.dtype} {array.shape}, expected {dtype} {shape}")


def check_tables(arrays: Arrays) -> None:
    """Ranges of sigmoid, tanh and exp."""
    for name in ("table.sigmoid", "table.tanh"):
        if np.abs(arrays[name].astype(np.int32)).max() > 4096:
            raise ModelError(f"{name} exceeds 4096")
    exp = arrays["table.exp"].astype(np.int64)
    if exp.min() < 0 or exp.max() > 1 << 24 or exp[0] < 1:
        raise ModelError("table.exp must start above 0 and stay within 0 .. 2^24")


def check_shifts(name: str, arrays: Arrays) -> None:
    """Range of an array ``.shift`` or ``.left``; others are passed over."""
    most = {"shift": MOST_SHIFT, "left": MOST_LEFT}.get(name.rpartition(".")[2])
    if most is None:
        return
    for value in (int(arrays[name].min()), int(arrays[name].max())):
        if not 0 <= value <= most:
            raise ModelError(f"{name} holds {value}, allowed 0 to {most}")
