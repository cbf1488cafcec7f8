"""Small random frozen networks of the paper, valid and lively, or at their limits."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_model import tables

from pixzip.model.file import Model, load_model, write_model
from pixzip.model.stack import Product, paper_arrays, sizes_of

Arrays = dict[str, NDArray[Any]]
ARCHITECTURES = ("pixelcnn", "row_lstm", "diagonal_bilstm")
#: Widths whose colours are uneven: 16 is 6, 5, 5; 8 is 3, 3, 2; 11 is 4, 4, 3.
SIZES = {"pictures": "rgb", "frame": "raw", "layers": 2, "h": 8, "head": 11, "residual": True, "skip": False}


def reads_hidden(name: str, architecture: str) -> bool:
    """Whether a product reads values held less 128."""
    last = name.rpartition(".")[2]
    return name.startswith("head.") or (architecture == "pixelcnn" and last in ("down", "middle", "up"))


def sizes_wanted(name: str) -> float:
    """Root mean square of a product's rounded output under which the network is lively."""
    last = name.rpartition(".")[2]
    return {"is": 150.0, "ss": 150.0, "last": 100.0, "first": 1500.0, "up": 700.0, "skip": 700.0}.get(last, 100.0)


def stack_parts(architecture: str, seed: int = 0, extreme: bool = False, **sizes: Any) -> tuple[dict[str, Any], Arrays]:
    """Configuration and arrays, to be changed by a test.

    extreme: weights -127, 0 and 127; shifts of 0, 24 and lively ones; biases at the bound.
    """
    random = np.random.default_rng(seed)
    wider = {"h": 11, "head": 14} if extreme else {}  # a feature at its limits is often constant
    config: dict[str, Any] = SIZES | wider | sizes | {"architecture": architecture, "info": {}, "shifts": {}}
    layers = config["layers"]
    low, high = (0, 7) if extreme else (4, 5)
    config["shifts"] = {
        "layers": random.integers(low, high + 1, layers).tolist(),
        "skips": random.integers(low, high + 1, layers).tolist() if config["skip"] else [],
        "head": int(random.integers(low, high + 1)),
    }
    network = sizes_of(config)
    arrays: Arrays = {name: np.zeros(shape, np.int32) for name, (shape, _) in paper_arrays(config).items()}
    arrays |= tables()
    for product in network.products.values():
        _fill(product, arrays, config, random, extreme)
    for name in network.recurrences:
        arrays[f"{name}.h0"] = random.integers(-127, 128, config["h"])
        arrays[f"{name}.c0"] = random.integers(-65535 if extreme else -9000, 65536 if extreme else 9001, config["h"])
    _limit_gates(network.recurrences, arrays, network.products, extreme, random)
    return config, {name: arrays[name].astype(_dtype(kind)) for name, (_, kind) in paper_arrays(config).items()}


def _dtype(kind: str) -> Any:
    return {"I8": np.int8, "I16": np.int16, "I32": np.int32}[kind]


def _fill(product: Product, arrays: Arrays, config: dict[str, Any], random: np.random.Generator, extreme: bool) -> None:
    name, count = product.name, product.shape[0]
    groups = 3 if config["pictures"] == "rgb" else 1
    weight = (
        random.choice(np.array([-127, 0, 127]), product.shape) if extreme else random.integers(-60, 61, product.shape)
    )
    weight[product.hidden_weights(groups)] = 0
    arrays[f"{name}.weight"] = weight
    if f"{name}.left" in arrays:
        arrays[f"{name}.left"] = random.integers(0, 6 if extreme else 3, count)
    if product.mask == "none":
        return
    hidden = reads_hidden(name, config["architecture"])
    spread = (100 if hidden else 50) * np.sqrt((weight.astype(float) ** 2).sum(axis=1) + 1)
    middle = np.maximum(0, np.rint(np.log2(spread / sizes_wanted(name)))).astype(int)
    shift = middle + random.integers(-1, 2, count).clip(-middle)
    if extreme:
        shift = np.where(random.integers(0, 8, count) == 0, random.choice([0, 24], count), shift)
    bias = random.integers(0, 3, count) * spread.astype(int) // 3 + (128 * weight.sum(axis=1) if hidden else 0)
    if extreme:
        reach = product.largest * np.abs(weight).sum(axis=1)
        at_bound = random.choice([-1, 1, *[0] * 18], count) * (name not in ("first", "head.last"))
        bias = np.where(at_bound != 0, at_bound * ((1 << 30) - 1 - reach), bias)
    arrays[f"{name}.shift"], arrays[f"{name}.bias"] = shift, bias


def _limit_gates(names: list[str], arrays: Arrays, products: Any, extreme: bool, random: np.random.Generator) -> None:
    """Biases of gates that keep, and where extreme reach, the bound of 2^31."""
    for name in names:
        reach = 1 << arrays[f"{name}.is.shift"].astype(np.int64)
        for part in ("is", "ss"):
            weight, left = arrays[f"{name}.{part}.weight"], arrays[f"{name}.{part}.left"].astype(np.int64)
            reach = reach + (products[f"{name}.{part}"].largest * np.abs(weight).sum(axis=1) << left)
        most = np.minimum((1 << 31) - 1 - reach, (1 << 30) - 1 - 127 * np.abs(arrays[f"{name}.is.weight"]).sum(axis=1))
        bias = arrays[f"{name}.is.bias"].astype(np.int64)
        if extreme:
            bias = np.where(random.integers(0, 10, len(bias)) == 0, most, bias)
        arrays[f"{name}.is.bias"] = bias.clip(-most, most)


@cache
def stack_bytes(architecture: str, seed: int = 0, extreme: bool = False, **sizes: Any) -> bytes:
    """The model file of stack_parts."""
    return write_model(*stack_parts(architecture, seed, extreme, **sizes))


@cache
def stack_model(architecture: str, seed: int = 0, extreme: bool = False, **sizes: Any) -> Model:
    """A small random model, loaded."""
    return load_model(stack_bytes(architecture, seed, extreme, **sizes), f"tiny-{architecture}-{seed}")
