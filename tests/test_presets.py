"""Every experiment of the paper has a preset that names its sizes, and all of them are valid."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest

pytest.importorskip("torch")
tomllib = pytest.importorskip("tomllib")  # Python 3.11

from pixzip.nets.network import NETWORKS  # noqa: E402

SIZES = {  # architecture, layers, h, pictures of a batch
    "mnist-diagonal-7x16": ("diagonal_bilstm", 7, 16, 16),
    "mnist-diagonal-1x32": ("diagonal_bilstm", 1, 32, 16),
    "mnist-pixelcnn": ("pixelcnn", 15, 32, 16),
    "mnist-row-lstm": ("row_lstm", 7, 16, 16),
    "cifar10-pixelcnn": ("pixelcnn", 15, 128, 16),
    "cifar10-row-lstm": ("row_lstm", 12, 128, 16),
    "cifar10-diagonal-bilstm": ("diagonal_bilstm", 12, 128, 16),
    "imagenet32-row-lstm": ("row_lstm", 12, 384, 64),
    "imagenet64-row-lstm": ("row_lstm", 4, 512, 32),
    "imagenet64-multiscale": ("multiscale", None, None, 32),
    **{f"table2-{name}": ("row_lstm", 12, 128, 16) for name in ("plain", "skip", "residual", "residual-skip")},
    **{f"table3-{layers:02d}-layers": ("row_lstm", layers, 128, 16) for layers in (1, 2, 3, 6, 9, 12)},
}


def preset(name: str) -> dict[str, Any]:
    """Tables of a preset."""
    text = files("pixzip").joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")
    tables: dict[str, Any] = tomllib.loads(text)
    return tables


def config_of(table: dict[str, Any]) -> Any:
    """The configuration of a [model] table."""
    parts = {key: config_of(value) if isinstance(value, dict) else value for key, value in table.items()}
    return NETWORKS[parts.pop("architecture")][0](**parts)


@pytest.mark.parametrize("name", SIZES)
def test_preset_is_a_valid_configuration_of_the_papers_sizes(name: str) -> None:
    tables = preset(name)
    assert set(tables) == {"model", "training", "data"}
    config, model, training = config_of(tables["model"]), tables["model"], tables["training"]
    assert type(config) is NETWORKS[model["architecture"]][0]
    assert (model["architecture"], model.get("layers"), model.get("h"), training["batch"]) == SIZES[name]
    assert training["optimiser"] == "rmsprop" and tables["data"]["orientations"] == "none"


def networks(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of a network, or those of the two in a Multi-Scale one."""
    return [table["small"], table["large"]] if table["architecture"] == "multiscale" else [table]


def test_connections_are_those_of_section_4() -> None:
    """Residual and skip connections in all networks, but for ImageNet 64×64 no residual ones."""
    for name in SIZES:
        if name.startswith("table2"):
            continue
        for model in networks(preset(name)["model"]):
            assert model["skip"] and model["residual"] == (model["h"] != 512)


def test_presets_differ_where_the_experiments_do() -> None:
    for name in ("mnist-diagonal-7x16", "mnist-diagonal-1x32", "mnist-pixelcnn", "mnist-row-lstm"):
        model = preset(name)["model"]
        assert model["head"] == 32 and model["pictures"] == "binary"
    assert not preset("imagenet64-row-lstm")["model"]["residual"]
    chosen = [preset(f"table2-{name}")["model"] for name in ("plain", "skip", "residual", "residual-skip")]
    assert [(m["residual"], m["skip"]) for m in chosen] == [(False, False), (False, True), (True, False), (True, True)]
