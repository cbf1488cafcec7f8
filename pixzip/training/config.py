"""TOML ↔ the configuration of a run: what network, how it is trained, on which pictures.

[model]       architecture = "trunk", and the fields of that network's configuration
[training]    TrainingSettings
[data]        DataSettings
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from pixzip.data.settings import DataSettings
from pixzip.errors import TrainingError
from pixzip.nets.network import NETWORKS
from pixzip.nets.trunk import TrunkConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # Python 3.10 reads no TOML by itself

OPTIMISERS = ("adamw", "rmsprop", "muon")
#: Settings that RMSProp has no use for.
_NOT_OF_RMSPROP = ("other_rate", "beta1", "beta2", "momentum", "weight_decay")
DECAYS = ("cosine", "linear")
PRECISIONS = ("auto", "bfloat16", "float32")
#: What TOML promises to hold; torch takes twice as many.
_LARGEST_SEED = 2**63 - 1

Tables = dict[str, Any]


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained; lengths are optimiser steps, rates are per step.

    Phase one, float, of ``steps``: the rate rises over ``warmup`` steps, stays at ``rate`` until ``decay`` steps before
    the end and falls (``decay_shape``) to ``rate * final``. Until the fall begins a run does not depend on its length,
    so it can be prolonged. Phase two (``quantised_steps``; the default network): the same on the network's integers,
    from ``quantised_rate`` down to ``quantised_rate * quantised_final``.

    ``init`` is the checkpoint of another run, or a model, whose weights this one begins with, the network being the
    same or, a trunk, larger. Only such a run may do without a float phase.

    ``batch`` crops make a step, whatever number of processes they are spread over and in however many parts
    (``accumulate``) each process takes its share. ``average`` is the decay of a moving average of the weights, which
    is then what is validated and shipped; 0 turns it off. ``other_rate`` is that of the parameters that Muon leaves to
    AdamW; 0: as ``rate``. A loss ``spike`` times its smoothed level brings the run back to a good checkpoint, as a
    loss that is not finite does, at most ``setbacks`` times; 0 turns spikes off. ``precision`` is that of the float
    phase's products; auto: bfloat16 where the device has instructions for it, float32 elsewhere; a run keeps what it
    was.

    ``optimiser`` is adamw, rmsprop, or muon, which leaves what is no matrix between layers to AdamW. ``beta1`` and
    ``beta2`` are AdamW's, ``momentum`` is Muon's, ``weight_decay`` of both; RMSProp has none of them. ``clip`` is the
    largest norm of all gradients together; larger ones are scaled down to it. ``recompute`` keeps only the inputs of
    each block for the backward pass: less memory, same gradients. ``compile`` gives the float phase to torch.compile.
    ``seed`` is that of the first weights and of the crops. ``report_every``, ``validate_every`` and ``save_every`` are
    steps between rows of the log, between validations, and between checkpoints.
    """

    steps: int = 6500
    warmup: int = 300
    decay: int = 1100
    decay_shape: str = "cosine"
    rate: float = 2.5e-3
    final: float = 0.3
    quantised_steps: int = 0
    quantised_rate: float = 7e-4
    quantised_final: float = 0.0
    init: str = ""
    optimiser: str = "adamw"
    other_rate: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    momentum: float = 0.95
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.0
    batch: int = 12
    accumulate: int = 1
    precision: str = "auto"
    recompute: bool = False
    compile: bool = False
    seed: int = 0
    spike: float = 1.5
    setbacks: int = 5
    report_every: int = 50
    validate_every: int = 500
    save_every: int = 250

    def __post_init__(self) -> None:
        """Refuse settings that cannot be followed."""
        least = {"steps": 0 if self.init and self.quantised_steps else 1, "quantised_steps": 0, "warmup": 0, "decay": 0}
        least |= {"batch": 1, "accumulate": 1, "seed": 0, "setbacks": 0}
        least |= {"report_every": 1, "validate_every": 1, "save_every": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise TrainingError(f"training.{name} {getattr(self, name)}: must be at least {low}")
        shares = ("final", "quantised_final", "average", "beta1", "beta2", "momentum", "weight_decay")
        for name in (*shares, "other_rate", "spike"):
            high = {"other_rate": 10.0, "spike": 1e9}.get(name, 1.0)
            if not 0 <= getattr(self, name) <= high:
                raise TrainingError(f"training.{name} {getattr(self, name)}: must be from 0 to {high:g}")
        if self.seed > _LARGEST_SEED:
            raise TrainingError(f"training.seed {self.seed}: must be at most {_LARGEST_SEED}")
        for name in ("rate", "quantised_rate", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise TrainingError(f"training.{name} {getattr(self, name)}: must be above 0")
        for name, allowed in (("optimiser", OPTIMISERS), ("decay_shape", DECAYS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise TrainingError(f"training.{name} {getattr(self, name)!r}: must be one of {', '.join(allowed)}")
        for name in _NOT_OF_RMSPROP if self.optimiser == "rmsprop" else ():
            if getattr(self, name) not in (0.0, getattr(TrainingSettings, name)):
                raise TrainingError(f"training.{name} {getattr(self, name)}: rmsprop has none")
        if self.average == 1:
            raise TrainingError("training.average 1: the average would never change")

    @property
    def all_steps(self) -> int:
        """Steps of both phases."""
        return self.steps + self.quantised_steps


@dataclass(frozen=True)
class Config:
    """Everything a run depends on; ``model`` is the configuration of a network in NETWORKS."""

    model: Any = field(default_factory=TrunkConfig)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    data: DataSettings = field(default_factory=DataSettings)

    @property
    def architecture(self) -> str:
        """The network's name."""
        return architecture_of(self.model)


def architecture_of(model: Any) -> str:
    """The name in NETWORKS of a network's configuration."""
    for name, (config_class, _) in NETWORKS.items():
        if type(model) is config_class:
            return name
    raise TrainingError(f"{type(model).__name__}: no network has this configuration")


def _is_network(kind: type) -> bool:
    """Whether it is the class of a network's configuration."""
    return any(kind is config_class for config_class, _ in NETWORKS.values())


# ------------------------------------------------------------------------ tables → configuration


def from_tables(tables: Mapping[str, Any]) -> Config:
    """Raises TrainingError for unknown keys, naming the nearest, wrong types, and values that cannot be followed."""
    _check_keys(tables, ("model", "training", "data"), "the configuration")
    model = _network(_table(tables.get("model", {}), "model"), "model")
    training = _made(TrainingSettings, _table(tables.get("training", {}), "training"), "training")
    data: DataSettings = _made(DataSettings, _table(tables.get("data", {}), "data"), "data")
    return Config(model, training, dataclasses.replace(data, planes=data.planes or planes_of(model)))


def planes_of(model: Any) -> int:
    """Planes of the pictures that a network reads: one of gray and binary pictures, else three."""
    inner = getattr(model, "large", model)  # of a Multi-Scale network
    return 1 if getattr(inner, "pictures", "rgb") in ("gray", "binary") else 3


def levels_of(model: Any) -> int:
    """Values of a sub-pixel that a network tells apart: 2 of binary pictures, else 256."""
    return 2 if getattr(getattr(model, "large", model), "pictures", "rgb") == "binary" else 256


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TrainingError(f"{where} is {value!r}, must be a table")
    return value


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, 1, 0.0)[0]
            raise TrainingError(f"{where} has no key {key}; the nearest is {nearest}")


def _network(table: Mapping[str, Any], where: str) -> Any:
    """The configuration of the network that the table names by ``architecture``."""
    name = _value(str, table.get("architecture", "trunk"), f"{where}.architecture")
    if name not in NETWORKS:
        nearest = difflib.get_close_matches(name, NETWORKS, 1, 0.0)[0]
        raise TrainingError(f"{where}.architecture {name!r} is not known; the nearest is {nearest}")
    fields = {key: value for key, value in table.items() if key != "architecture"}
    return _made(NETWORKS[name][0], fields, where)


def _made(kind: type, table: Mapping[str, Any], where: str) -> Any:
    """A frozen dataclass from a table."""
    types_ = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    _check_keys(table, names, where)
    for f in dataclasses.fields(kind):
        if f.name not in table and f.default is f.default_factory is dataclasses.MISSING:
            raise TrainingError(f"{where}.{f.name} is missing")
    values = {key: _value(types_[key], value, f"{where}.{key}") for key, value in table.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{where}: {error}") from None
    except TrainingError as error:  # a network's sizes; settings name their table themselves
        raise (TrainingError(f"{where}.{error}") if _is_network(kind) else error) from None


def _value(kind: Any, value: Any, where: str) -> Any:
    """A TOML value as the type of a field; integers pass for floats, lists for tuples, tables for networks."""
    if isinstance(value, Mapping):
        return (
            _network(value, where)
            if "architecture" in value or not dataclasses.is_dataclass(kind)
            else _made(typing.cast(type, kind), value, where)
        )
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        choices = [c for c in typing.get_args(kind) if c is not type(None)]
        return _value(choices[0], value, where) if len(choices) == 1 and value is not None else value
    if kind is float and type(value) is int:
        return float(value)
    if origin is tuple:
        if not isinstance(value, list):
            raise TrainingError(f"{where} is {value!r}, must be a list")
        return tuple(_value(typing.get_args(kind)[0], item, where) for item in value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise TrainingError(f"{where} is {value!r}, must be {kind.__name__}")
    return value


# ------------------------------------------------------------------------ configuration → tables, text


def to_tables(config: Config) -> Tables:
    """The whole configuration, defaults included: inverse of from_tables."""
    return {
        "model": _network_table(config.model),
        "training": _plain(config.training),
        "data": _plain(config.data),
    }


def _network_table(model: Any) -> Tables:
    return {"architecture": architecture_of(model)} | _plain(model)


def _plain(made: Any) -> Tables:
    table: Tables = {}
    for f in dataclasses.fields(made):
        value = getattr(made, f.name)
        if _is_network(type(value)):
            value = _network_table(value)
        elif dataclasses.is_dataclass(value):
            value = _plain(value)
        elif isinstance(value, tuple):
            value = list(value)
        if value is not None:  # TOML has no such value: a key that is absent has its default
            table[f.name] = value
    return table


def to_toml(tables: Tables) -> str:
    """Tables as the text of a file."""
    return "\n".join(_toml_table(name, table) for name, table in tables.items())


def without_places(tables: Tables) -> Tables:
    """Tables as they go into a model file and its card: not where the pictures and another run's checkpoint lay."""
    places = {"data": ("train", "validation"), "training": ("init",)}
    return {
        section: {key: value for key, value in table.items() if key not in places.get(section, ())}
        for section, table in tables.items()
    }


def _toml_table(name: str, table: Tables) -> str:
    plain = [f"{key} = {_toml(value)}\n" for key, value in table.items() if not isinstance(value, dict)]
    inner = ["\n" + _toml_table(f"{name}.{key}", value) for key, value in table.items() if isinstance(value, dict)]
    return f"[{name}]\n{''.join(plain)}{''.join(inner)}"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    text = json.dumps(value, ensure_ascii=False)  # strings, integers, floats and booleans are written alike, but DEL is
    return text.replace("\x7f", "\\u007f").encode("utf-8", "replace").decode()  # escaped; a name may be no UTF-8


# ------------------------------------------------------------------------ files, presets, the command line


def _parse(text: str, where: str) -> Tables:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"{where}: {error}") from None


def read_tables(path: Path) -> Tables:
    """Tables of a TOML file."""
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: cannot be read: {error}") from None


def presets() -> list[str]:
    """Names of the presets that come with pixzip."""
    folder = resources.files("pixzip") / "presets"
    return sorted(entry.name[: -len(".toml")] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def preset_tables(name: str) -> Tables:
    """Tables of a preset. Raises TrainingError for an unknown one, naming the nearest."""
    known = presets()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, 1, 0.0)[0]
        raise TrainingError(f"no preset {name}; the nearest is {nearest}; known: {', '.join(known)}")
    return _parse((resources.files("pixzip") / "presets" / f"{name}.toml").read_text(encoding="utf-8"), name)


def overridden(tables: Tables, settings: Sequence[str]) -> Tables:
    """Tables with settings like ``training.rate=1e-3`` and ``model.large.h=64`` put in; values are TOML, or text
    without quotes.

    A network's architecture is put in before its sizes and begins a table of its own: sizes that no setting gives are
    the defaults.
    """
    tables = _copied(tables)
    for setting in sorted(settings, key=_architectures_first):
        key, equals, text = setting.partition("=")
        *sections, name = key.strip().split(".")
        if not (equals and sections and name and all(sections)):
            raise TrainingError(f"setting {setting!r}: must be like training.rate=1e-3")
        table: Any = tables
        for depth, section in enumerate(sections, 1):
            table = table.setdefault(section, {})
            _table(table, ".".join(sections[:depth]))
        if sections[0] == "model" and name == "architecture":
            table.clear()  # the fields of another network's configuration mean nothing here
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        table[name] = value
    return tables


def _architectures_first(setting: str) -> tuple[bool, int]:
    """Sorts settings: networks before those inside them, then all others as they are given."""
    key = setting.partition("=")[0].strip()
    is_architecture = key.rpartition(".")[2] == "architecture"
    return not is_architecture, key.count(".") if is_architecture else 0


def _copied(tables: Mapping[str, Any]) -> Tables:
    """Tables and those in them, none of them twice."""
    return {name: _copied(value) if isinstance(value, Mapping) else value for name, value in tables.items()}


def differences(stored: Tables, wanted: Tables) -> list[str]:
    """What differs between two configurations' tables, as ``training.rate 0.002, now 0.003``."""
    found = []
    for section in wanted:
        old, new = stored.get(section, {}), wanted[section]
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                found.append(f"{section}.{key} {old.get(key)}, now {new.get(key)}")
    return found
