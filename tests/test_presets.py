"""Every experiment of the paper has a preset that names its sizes, and all of them are valid."""

from __future__ import annotations

import dataclasses
from importlib.resources import files
from typing import Any

import pytest

pytest.importorskip("torch")
tomllib = pytest.importorskip("tomllib")  # Python 3.11

from pixzip.nets.network import NETWORKS  # noqa: E402
from pixzip.train import TrainConfig  # noqa: E402

PRESETS = {
    path.name.removesuffix(".toml"): tomllib.loads(path.read_text(encoding="utf-8"))
    for path in files("pixzip").joinpath("presets").iterdir()
    if path.name.endswith(".toml")
}


def config_of(table: dict[str, Any]) -> Any:
    """The configuration of a [model] table."""
    parts = {key: config_of(value) if isinstance(value, dict) else value for key, value in table.items()}
    return NETWORKS[parts.pop("architecture")][0](**parts)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_a_valid_configuration(name: str) -> None:
    preset = PRESETS[name]
    assert set(preset) == {"model", "training"}
    config = config_of(preset["model"])
    assert config.__class__ is NETWORKS[preset["model"]["architecture"]][0]
    fields = {f.name for f in dataclasses.fields(TrainConfig)} | {"optimiser"}
    assert set(preset["training"]) <= fields
    assert preset["training"]["optimiser"] == "rmsprop"
    training = {key: value for key, value in preset["training"].items() if key != "optimiser"}
    assert 0 < TrainConfig(**training).rate_at(0) < training["rate"]


def test_presets_have_the_sizes_of_the_paper() -> None:
    sizes = {
        name: (p["model"]["architecture"], p["model"].get("layers"), p["model"].get("h"), p["training"]["batch"])
        for name, p in PRESETS.items()
    }
    expected = {
        "mnist-diagonal-7x16": ("diagonal_bilstm", 7, 16, 16),
        "mnist-diagonal-1x32": ("diagonal_bilstm", 1, 32, 16),
        "cifar10-pixelcnn": ("pixelcnn", 15, 128, 16),
        "cifar10-row-lstm": ("row_lstm", 12, 128, 16),
        "cifar10-diagonal-bilstm": ("diagonal_bilstm", 12, 128, 16),
        "imagenet32-row-lstm": ("row_lstm", 12, 384, 64),
        "imagenet64-row-lstm": ("row_lstm", 4, 512, 32),
        "imagenet64-multiscale": ("multiscale", None, None, 32),
        **{f"table2-{name}": ("row_lstm", 12, 128, 16) for name in ("plain", "skip", "residual", "residual-skip")},
        **{f"table3-{layers:02d}-layers": ("row_lstm", layers, 128, 16) for layers in (1, 2, 3, 6, 9, 12)},
    }
    assert sizes == expected
    for name in ("mnist-diagonal-7x16", "mnist-diagonal-1x32"):
        assert PRESETS[name]["model"]["head"] == 32 and PRESETS[name]["model"]["pictures"] == "binary"
    assert not PRESETS["imagenet64-row-lstm"]["model"]["residual"]
