"""Fixtures: a small valid model that codes the test pictures well, as bytes and as a file; pictures that it wins on."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

# Small products gain nothing from BLAS threads, and where cores are busy they wait for each other. Before numpy loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores already
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# No models but those that ship and those of the tests.
os.environ["PIXZIP_MODELS"] = os.devnull

import numpy as np
import pytest
import refusals
from numpy.typing import NDArray
from tiny_model import parts

from pixzip.model.file import write_model

refusals.note()

#: Mean size of the coding errors of R, G and B in `model_picture`, and in the calm model's expectation.
SPREADS = (4.0, 1.5, 1.5)


def calm_parts(seed: int = 0) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """tiny_model's random network, its weights still at work, but its predictions near the prior of SPREADS."""
    config, arrays = parts(seed)
    error = np.abs((np.arange(256) + 128) % 256 - 128)
    for c, spread in enumerate(SPREADS):
        prior = -64 * np.minimum(error / spread, 14)  # logits are in 1/64 nat
        logit = f"head.{c}.logit"
        weight = np.trunc(arrays[f"{logit}.weight"] / 30).astype(np.int8)
        arrays[f"{logit}.weight"] = weight
        bias = prior * 2.0 ** arrays[f"{logit}.shift"] + 128 * weight.sum(axis=1, dtype=np.int32)
        arrays[f"{logit}.bias"] = bias.astype(np.int32)
    return config, arrays


@cache
def model_picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture (h, w, 3) that is smaller by the calm model than as WebP or PNG: prediction plus random errors."""
    random = np.random.default_rng(seed)
    errors = np.rint(random.laplace(0, SPREADS, (height, width, 3))).astype(int)
    pixels = np.zeros((height, width, 3), dtype=int)
    levels = np.zeros((height, width, 3), dtype=int)  # R, G - R, B - G
    for y, x, c in np.ndindex(pixels.shape):
        start = 128 if c == 0 else 0
        west = levels[y, x - 1, c] if x else (levels[y - 1, 0, c] if y else start)
        north = levels[y - 1, x, c] if y else west
        corner = levels[y - 1, x - 1, c] if x and y else north
        base = pixels[y, x, c - 1] if c else 0
        predicted = min(max(base + sorted((west, north, west + north - corner))[1], 0), 255)
        inside = 0 <= predicted + errors[y, x, c] <= 255
        pixels[y, x, c] = predicted + errors[y, x, c] * (1 if inside else -1)
        levels[y, x, c] = pixels[y, x, c] - base
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def model_bytes() -> bytes:
    """A small model file."""
    return write_model(*calm_parts())


@pytest.fixture(scope="session")
def other_model_bytes() -> bytes:
    """Another small model file."""
    return write_model(*calm_parts(seed=1))


@pytest.fixture(scope="session")
def model(model_bytes: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, as a file."""
    path = tmp_path_factory.mktemp("models") / "calm.safetensors"
    path.write_bytes(model_bytes)
    return path


@pytest.fixture(scope="session")
def other_model(other_model_bytes: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The other small model, as a file."""
    path = tmp_path_factory.mktemp("models") / "other.safetensors"
    path.write_bytes(other_model_bytes)
    return path


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(refusals.Law(Path(__file__).parent))
