"""bench/fuzz.py without atheris: its checks pass on some mutated files, and find planted faults."""

from __future__ import annotations

import importlib.util
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pixzip import api
from pixzip.container import read_container, write_container


def _bench() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


fuzz = _bench()


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(api, "find_model", api.find_model)  # the checker sets another
    return fuzz.Checker()


def other_bytes(data: bytes, most: int) -> bytes:
    """In place of libFuzzer's mutations."""
    chance = random.Random(data)
    changed = bytearray(data or b"\0")
    for _ in range(chance.randrange(1, 4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed[:most])


def test_mutated_files_pass_all_checks(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "atheris", SimpleNamespace(Mutate=other_bytes))
    fuzz.outcomes.clear()
    seeds = list(fuzz.seeds().values())
    for data in seeds:
        check(data)
    assert fuzz.outcomes["decoded"] == len(seeds) - 2 and fuzz.outcomes["model: loaded"] == 2
    for seed in range(600):
        check(fuzz.mutate(seeds[seed % len(seeds)], 1 << 17, seed))
    for outcome in ("FormatError", "PixelChecksumError", "ModelNotFoundError", "LimitError", "model: ModelError"):
        assert fuzz.outcomes[outcome], outcome


def test_planted_faults_are_found(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fuzz.seeds()["coded-RGB-tiles-8"]
    c = read_container(data)
    damaged = write_container(replace(c, tiles=(c.tiles[0][:-1] + b"\xee", *c.tiles[1:])))
    check(damaged)
    with monkeypatch.context() as planted:
        planted.setattr(api, "salvage", lambda data, **how: api.Salvaged([], (), ()))
        with pytest.raises(fuzz.Fault, match="calls whole"):
            check(damaged)
    with monkeypatch.context() as planted:
        planted.setattr(api.pxz, "checksum", lambda *_: c.header.pixels_checksum)
        planted.setattr("pixzip.entropy.Lanes.check_finished", lambda self: None)
        with pytest.raises(fuzz.Fault, match="other pixels under a seed's checksum"):
            check(damaged)
    with monkeypatch.context() as planted:
        planted.setattr(api, "read_container", lambda *_, **__: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            check(damaged)
    with monkeypatch.context() as planted:
        planted.setattr(fuzz, "_REFERENCE_ONE_IN", 1)
        small = fuzz.seeds()["coded-L-small-8"]
        check(small)
        planted.setattr(fuzz.reference_decoder, "decode", lambda *_: (0, 0, []))
        with pytest.raises(fuzz.Fault, match="reference decoder gives other pixels"):
            check(small)
