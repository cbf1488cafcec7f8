"""Configurations: TOML in, TOML out, and every mistake named with what was probably meant."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from tiny_stack import stack_parts

from pixzip.data.settings import DataSettings
from pixzip.errors import ModelError, TrainingError
from pixzip.model import multiscale, stack
from pixzip.model.file import find_model
from pixzip.nets import growth
from pixzip.nets.multiscale import MultiScaleConfig
from pixzip.nets.network import NETWORKS
from pixzip.nets.pixelcnn import PixelCnnConfig
from pixzip.nets.row_lstm import RowLstmConfig
from pixzip.nets.trunk import TrunkConfig
from pixzip.training import config as module
from pixzip.training.config import (
    Config,
    TrainingSettings,
    differences,
    from_tables,
    overridden,
    preset_tables,
    presets,
    read_tables,
    to_tables,
    to_toml,
)
from pixzip.training.schedule import rate_at

ROW_LSTM = {"architecture": "row_lstm", "layers": 1, "h": 8, "head": 8}
MULTISCALE = {"architecture": "multiscale", "small": ROW_LSTM, "large": ROW_LSTM}


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_a_configuration_and_survives_writing(name: str, tmp_path: Path) -> None:
    config = from_tables(preset_tables(name))
    path = tmp_path / "again.toml"
    path.write_text(to_toml(to_tables(config)))
    assert from_tables(read_tables(path)) == config


def test_the_default_preset_makes_a_model_like_the_shipped_one() -> None:
    config, shipped = from_tables(preset_tables("default")), find_model("default").network
    assert config.model == TrunkConfig(*(getattr(shipped, f.name) for f in dataclasses.fields(TrunkConfig)))
    assert (config.data.planes, config.training.quantised_steps > 0) == (3, True)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"modle": {}}, "the configuration has no key modle; the nearest is model"),
        ({"training": {"setps": 5}}, "training has no key setps; the nearest is steps"),
        ({"model": {"chanels": 16}}, "model has no key chanels; the nearest is channels"),
        ({"data": {"corp": 16}}, "data has no key corp; the nearest is crop"),
        ({"model": {"architecture": "trunc"}}, "model.architecture 'trunc' is not known; the nearest is trunk"),
        ({"training": {"steps": 5.0}}, "training.steps is 5.0, must be int"),
        ({"training": {"steps": True}}, "training.steps is True, must be int"),
        ({"data": {"scales": [1, "2"]}}, "data.scales is '2', must be int"),
        ({"data": {"scales": 2}}, "data.scales is 2, must be a list"),
        ({"training": {"seed": 2**63}}, "training.seed 9223372036854775808: must be at most 9223372036854775807"),
        ({"training": 5}, "training is 5, must be a table"),
        ({"model": {"channels": 20}}, r"model\.channels 20: must be a multiple of 8"),
        ({"model": {"architecture": ["trunk"]}}, r"model\.architecture is \['trunk'\], must be str"),
        ({"model": {"architecture": "multiscale"}}, r"model\.small is missing"),
        ({"model": MULTISCALE | {"factor": 3}}, r"model\.factor 3: must be one of 2, 4, 8, 16"),
        (
            {"model": MULTISCALE | {"large": ROW_LSTM | {"layers": 0}}},
            r"model\.large\.layers 0: must be a whole number",
        ),
        ({"model": MULTISCALE | {"large": {"architecture": "trunk"}}}, r"model\.large TrunkConfig: must be a pixelcnn"),
        ({"model": MULTISCALE | {"small": 3}}, r"model\.small 3: must be a pixelcnn"),
    ],
)
def test_mistakes_are_named_with_the_nearest_key(tables: module.Tables, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        from_tables(tables)


def test_settings_reach_the_networks_inside_a_network() -> None:
    tables = {"model": MULTISCALE}
    config = from_tables(overridden(tables, ["model.large.h=16", "model.factor=4"])).model
    assert (config.small.h, config.large.h, config.factor) == (8, 16, 4)
    assert MULTISCALE["large"] == ROW_LSTM  # what was given stays
    other = from_tables(overridden(tables, ["model.small.architecture=pixelcnn", "model.small.layers=3"])).model
    assert isinstance(other.small, PixelCnnConfig) and other.small.h == PixelCnnConfig().h
    with pytest.raises(TrainingError, match="model has no key larg; the nearest is large"):
        from_tables(overridden(tables, ["model.larg.h=16"]))
    with pytest.raises(TrainingError, match=r"model\.factor is 2, must be a table"):
        overridden({"model": MULTISCALE | {"factor": 2}}, ["model.factor.h=16"])


def is_refused(make: Callable[[], object]) -> bool:
    """Whether making it ends in one of our errors."""
    try:
        make()
    except (TrainingError, ModelError):
        return True
    return False


@pytest.mark.parametrize("pictures", stack.PLANES)
@pytest.mark.parametrize("size", ["layers", "h", "head"])
def test_what_can_be_trained_a_model_file_can_hold(pictures: str, size: str) -> None:
    allowed = []
    for value in (0, 1, 2, 3, 64, 65, 1024, 1025, 4096, 4097):
        sizes = {"pictures": pictures, "layers": 1, "h": 8, "head": 8, size: value}
        table = sizes | {"architecture": "row_lstm", "frame": "raw", "residual": True, "skip": False, "shifts": {}}
        refused = is_refused(lambda sizes=sizes: RowLstmConfig(**sizes))
        assert refused == is_refused(lambda table=table: stack.sizes_of(table))
        allowed += [] if refused else [value]
    assert max(allowed) == {"layers": 64, "h": 1024, "head": 4096}[size]


def test_what_can_be_trained_of_multiscale_a_model_file_can_hold() -> None:
    part = RowLstmConfig(layers=1, h=8, head=8)
    table = stack_parts("row_lstm")[0]
    for factor, features in ((2, 0), (2, 1), (2, 1024), (2, 1025), (3, 8), (16, 8), (32, 8)):
        sizes = {"factor": factor, "features": features}
        refused = is_refused(lambda sizes=sizes: MultiScaleConfig(part, part, **sizes))
        assert refused == is_refused(lambda sizes=sizes: multiscale._sizes(sizes | {"small": table, "large": table}))
        assert refused == (factor not in (2, 16) or features not in (1, 8, 1024))


def test_integers_pass_for_floats() -> None:
    assert from_tables({"training": {"clip": 2}}).training.clip == 2.0


def test_settings_on_the_command_line_change_single_values() -> None:
    tables = overridden(preset_tables("small"), ["training.rate=1e-3", "model.blocks=lcl", "data.scales=[1, 2]"])
    config = from_tables(tables)
    assert (config.training.rate, config.model.blocks, config.data.scales) == (1e-3, "lcl", (1, 2))
    for wrong in ("rate=1", "training.rate", ".x=1", "training.=1", "model..h=1"):
        with pytest.raises(TrainingError, match="must be like "):
            overridden({}, [wrong])
    with pytest.raises(TrainingError, match="training has no key rte; the nearest is rate"):
        from_tables(overridden({}, ["training.rte=1"]))


def test_an_architecture_begins_a_table_wherever_it_stands() -> None:
    for settings in (
        ["model.layers=3", "model.architecture=diagonal_bilstm"],
        ["model.architecture=diagonal_bilstm", "model.layers=3"],
    ):
        model = from_tables(overridden(preset_tables("cifar10-row-lstm"), settings)).model
        assert type(model).__name__ == "DiagonalBiLstmConfig" and model.layers == 3
    inner = ["model.small.h=6", "model.small.architecture=pixelcnn", "model.large.architecture=pixelcnn"]
    whole = from_tables(overridden({}, [*inner, "model.architecture=multiscale"])).model
    assert type(whole.small).__name__ == "PixelCnnConfig" and whole.small.h == 6


@pytest.mark.parametrize("setting", ["other_rate=1e-3", "beta1=0.5", "beta2=0.5", "momentum=0.5", "weight_decay=0.5"])
def test_what_rmsprop_has_no_use_for_is_refused(setting: str) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(TrainingError, match=f"training.{name} .*: rmsprop has none"):
        from_tables(overridden(preset_tables("cifar10-row-lstm"), [f"training.{setting}"]))


def test_unknown_presets_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no preset smal; the nearest is small"):
        preset_tables("smal")
    (tmp_path / "a.toml").write_text("[model\n")
    with pytest.raises(TrainingError, match=r"a\.toml: .*line 1"):
        read_tables(tmp_path / "a.toml")
    with pytest.raises(TrainingError, match=r"b\.toml: cannot be read"):
        read_tables(tmp_path / "b.toml")


@dataclasses.dataclass(frozen=True)
class _Outer:
    inner: object = dataclasses.field(default_factory=TrunkConfig)
    size: int = 2
    sizes: tuple[int, ...] = (1,)
    share: float | None = None


def test_a_network_within_a_network_is_a_table_with_an_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "outer", (_Outer, object))
    tables = {"model": {"architecture": "outer", "inner": {"architecture": "trunk", "channels": 16}, "share": 1}}
    config = from_tables(tables)
    assert config.model == _Outer(TrunkConfig(channels=16), share=1.0)
    again = from_tables(module._parse(to_toml(to_tables(config)), "text"))
    assert again == config
    assert to_tables(config)["model"]["inner"]["channels"] == 16


@pytest.mark.parametrize("note", ["\U0001f600 café", 'a\nb\t"c" \\ \x00\x1b\x7f\x85', "\u2028"])
def test_any_text_survives_writing(note: str) -> None:
    assert module._parse(to_toml({"data": {"note": note}}), "text") == {"data": {"note": note}}


def test_a_name_that_is_no_text_does_not_spoil_the_configuration() -> None:
    assert module._parse(to_toml({"data": {"train": "caf\udce9", "crop": 8}}), "text")["data"]["crop"] == 8


def test_the_recipe_of_the_default_model_is_a_chain_of_runs_that_grow() -> None:
    text = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    section = text.split("*The rate falls later.*", 1)[1].split("*Muon*", 1)[0].replace("\\\n", " ")
    made: dict[str, Config] = {}
    for line in re.findall(r"^    pixzip train (.*)$", section, re.M):
        words = shlex.split(line)
        options = [(words[i], words[i + 1]) for i in range(0, len(words), 2)]
        named = dict(options)
        tables = overridden(preset_tables(named["--preset"]), [value for key, value in options if key == "--set"])
        tables["training"]["init"] = named.get("--init", "")
        made[named["--out"]] = config = from_tables(tables)
        if config.training.init:
            growth._check_larger(made[config.training.init.split("/")[0]].model, config.model)
    assert list(made) == ["A", "B", "C", "D", "E"]
    fall = [rate_at(made[run].training, step) for run in "DE" for step in range(made[run].training.quantised_steps)]
    np.testing.assert_allclose(fall, 2.5e-3 * (1 - np.arange(2300) / 2300))
    assert rate_at(made["C"].training, made["C"].training.steps - 1) == 2.5e-3


def test_only_a_run_that_begins_with_weights_may_leave_out_the_float_phase() -> None:
    for settings in ({"steps": 0, "quantised_steps": 5}, {"steps": 0, "init": "c"}):
        with pytest.raises(TrainingError, match=r"training\.steps 0: must be at least 1"):
            from_tables({"training": settings})
    assert from_tables({"training": {"steps": 0, "quantised_steps": 5, "init": "c"}}).training.all_steps == 5


def test_differences_name_both_values() -> None:
    one, two = Config(), Config(training=TrainingSettings(rate=1e-3))
    assert differences(to_tables(one), to_tables(two)) == ["training.rate 0.0025, now 0.001"]


@pytest.mark.parametrize("settings", [TrainingSettings, DataSettings])
def test_every_key_is_explained_where_it_is_defined(settings: type) -> None:
    """As docs/training.md says."""
    named = set(re.findall(r"\w+", " ".join(re.findall(r"``([^`]+)``", settings.__doc__ or ""))))
    assert {field.name for field in dataclasses.fields(settings)} <= named
