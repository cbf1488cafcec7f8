"""Small random models, valid and lively: weights from a seed, tables from numpy, shifts to match."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.model.file import Model, load_model, write_model

SIZES = {"channels": 16, "hidden": 16, "lstm": 8, "head": 16}
INPUTS = 88

Arrays = dict[str, NDArray[Any]]


def tables() -> Arrays:
    """sigmoid, tanh and exp as docs/model-format.md, section 3 describes them."""
    argument = (np.arange(2048) - 1024) / 128
    exp = np.exp(-np.arange(1024) / 64) * 2**22
    return {
        "table.sigmoid": np.round(2**12 / (1 + np.exp(-argument))).astype(np.int16),
        "table.tanh": np.round(2**12 * np.tanh(argument)).astype(np.int16),
        "table.exp": np.round(exp).astype(np.int32),
    }


def layer_shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every weight array, by name."""
    t, k, s, h = (config[key] for key in SIZES)
    shapes = {"input": (t, INPUTS)}
    for i, letter in enumerate(config["blocks"]):
        if letter == "c":
            shapes |= {f"block.{i}.first": (k, 5 * t), f"block.{i}.second": (t, k)}
        else:
            shapes |= {f"block.{i}.is": (4 * s, 2 * t), f"block.{i}.ss": (4 * s, 3 * s), f"block.{i}.up": (t, s)}
    for c in range(3):
        shapes |= {f"head.{c}.hidden": (h, t), f"head.{c}.logit": (256, h)}
    return shapes


#: Middle shifts of products under which weights of -60 .. 60 give activations that neither vanish nor saturate.
LIVELY = {"input": 3, "first": 7, "second": 3, "is": 6, "up": 2, "hidden": 6, "logit": 6}
#: Products that read hidden layers, whose values are held less 128.
FROM_HIDDEN = (".second", ".logit")


def last_part(layer: str) -> str:
    """first, second, is, ss, up, hidden, logit or input."""
    return layer.rpartition(".")[2]


def parts(seed: int = 0, blocks: str = "cl", **sizes: int) -> tuple[dict[str, Any], Arrays]:
    """Configuration and arrays of a lively random model, to be changed by a test."""
    random = np.random.default_rng(seed)
    shifts = {"blocks": [5] * len(blocks), "feature": 5}
    config = SIZES | sizes | {"architecture": "trunk", "blocks": blocks, "shifts": shifts, "info": {}}
    arrays = tables()
    for name, shape in layer_shapes(config).items():
        arrays[name + ".weight"] = random.integers(-60, 61, shape).astype(np.int8)
        if not name.endswith(".ss"):
            middle = random.integers(-2000, 2001, shape[0]).astype(np.int32)
            if name.endswith(FROM_HIDDEN):
                middle += 128 * arrays[name + ".weight"].sum(axis=1, dtype=np.int32)
            arrays[name + ".bias"] = middle
            arrays[name + ".shift"] = (LIVELY[last_part(name)] + random.integers(-1, 2, shape[0])).astype(np.int8)
        if last_part(name) in ("is", "ss"):
            arrays[name + ".left"] = random.integers(0, 3, shape[0]).astype(np.int8)
    for c in (1, 2):
        known = random.integers(-40, 41, (c, 1, config["head"])) * np.arange(-128, 128)[:, None]
        arrays[f"head.{c}.known"] = (known + random.integers(-200, 201, known.shape)).astype(np.int32)
    return config, arrays


def extreme_parts(seed: int = 0, blocks: str = "cl", **sizes: int) -> tuple[dict[str, Any], Arrays]:
    """A model at its limits: weights -127, 0 and 127, a quarter of biases at the bound of 2^24, shifts of 0 to 24.

    A quarter of each product's shifts is 0, a quarter 24; left shifts are 0 to 5.
    """
    random = np.random.default_rng(seed)
    config, arrays = parts(seed, blocks, **sizes)
    config["shifts"] = {"blocks": [0] * len(blocks), "feature": 0}
    middle = {"input": 0, "first": 11, "second": 1, "is": 13, "up": 0, "hidden": 10, "logit": 11}
    for c in (1, 2):
        arrays[f"head.{c}.known"] = random.integers(-1_000_000, 1_000_001, arrays[f"head.{c}.known"].shape, np.int32)
    for name, shape in layer_shapes(config).items():
        arrays[name + ".weight"] = random.choice(np.array([-127, 0, 127], dtype=np.int8), shape)
        if name + ".bias" in arrays:
            at_bound = random.choice([-1, 1, 0, 0, 0, 0, 0, 0], shape[0])
            at_bound *= name not in ("input", "head.0.logit")  # which would drown everything else
            arrays[name + ".bias"] = (at_bound * largest_bias(arrays, name)).astype(np.int32)
            arrays[name + ".shift"] = random.choice(np.array([0, middle[last_part(name)], 24], dtype=np.int8), shape[0])
        if name + ".left" in arrays:
            arrays[name + ".left"] = random.integers(0, 6, shape[0]).astype(np.int8)
    return config, arrays


def largest_bias(arrays: Arrays, layer: str) -> NDArray[np.int64]:
    """The largest |bias| that the bound allows each output of a layer."""
    used = (128 if layer.endswith(FROM_HIDDEN) else 127) * np.abs(arrays[layer + ".weight"].astype(np.int64)).sum(
        axis=1
    )
    known = arrays.get(layer.replace(".hidden", ".known")) if layer.endswith(".hidden") else None
    if known is not None:
        used += np.abs(known.astype(np.int64)).max(axis=1).sum(axis=0)
    return (1 << 24) - 1 - used


@cache
def tiny_bytes(seed: int = 0, blocks: str = "cl", extreme: bool = False, **sizes: int) -> bytes:
    """The model file of parts(), or of extreme_parts()."""
    make = extreme_parts if extreme else parts
    return write_model(*make(seed, blocks, **sizes))


@cache
def tiny_model(seed: int = 0, blocks: str = "cl", extreme: bool = False, **sizes: int) -> Model:
    """A small random model, loaded."""
    return load_model(tiny_bytes(seed, blocks, extreme, **sizes), f"tiny-{blocks}-{seed}")


def photo(seed: int, shape: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Pixels (n, c, h, w) that look a little like a photograph: ramps, an edge, noise; all 256 values are possible."""
    random = np.random.default_rng(seed)
    n, c, h, w = shape
    y, x = np.mgrid[:h, :w]
    slopes = random.uniform(-9, 9, (n, c, 2, 1, 1))
    ramp = 128 + slopes[:, :, 0] * y + slopes[:, :, 1] * x
    edge = np.where(x + y > random.integers(0, h + w), random.uniform(-90, 90), 0)
    return np.clip(ramp + edge + random.normal(0, 6, shape), 0, 255).astype(np.uint8)
