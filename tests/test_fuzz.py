"""bench/fuzz.py without atheris: its checks pass on some mutated files, and find planted faults."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pixzip import api, contents
from pixzip.formats.image import from_array, write_image
from pixzip.pxz.container import read_container, write_container


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


def test_mutated_files_pass_all_checks_and_most_are_decoded(check: Any) -> None:
    fuzz.outcomes.clear()
    seeds = list(fuzz.seeds().values())
    for data in seeds:
        check(data)
    assert fuzz.outcomes["decoded"] == len(seeds) - 2 and fuzz.outcomes["model: loaded"] == 2
    fuzz.outcomes.clear()
    table = fuzz.run_seeded(700, check)
    assert fuzz.outcomes["decoded"] > 350  # 180 of 20,000 before files were made and not only damaged
    assert fuzz.outcomes["decoded, coded"] > 150 and fuzz.outcomes["decoded, stored"] > 100
    for outcome in ("FormatError", "PixelChecksumError", "ModelNotFoundError", "LimitError", "model: ModelError"):
        assert fuzz.outcomes[outcome], outcome
    names = {change.__name__.strip("_") for change in fuzz.mutations.FINE} | {"rough", "model"}
    assert table.keys() == names
    assert all(found["decoded, coded"] + found["decoded, stored"] for name, found in table.items() if name != "model")
    assert fuzz.outcomes["asked the other engine"] or not fuzz.HAS_INT8
    assert fuzz.outcomes["asked the reference decoder"]


def test_the_same_seed_makes_the_same_file() -> None:
    data = fuzz.seeds()["coded-RGB-tiles-8"]
    made = [fuzz.mutations.mutate(data, 1 << 17, seed, fuzz.means()) for seed in range(20)]
    assert made == [fuzz.mutations.mutate(data, 1 << 17, seed, fuzz.means()) for seed in range(20)]
    assert len({file for _, file in made}) > 15


def test_a_codec_that_does_not_decode_what_it_codes_is_found(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = contents.from_coded
    monkeypatch.setattr(contents, "from_coded", lambda *given, **how: decode(*given, **how) ^ 1)
    with pytest.raises(AssertionError, match="what was coded is not decoded"):
        for seed in range(200):
            fuzz.mutations.mutate(fuzz.seeds()["coded-RGB-tiles-8"], 1 << 17, seed, fuzz.means())


def test_a_seeded_run_names_the_seed_of_a_fault(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "inspect", lambda data: 1 // 0)
    with pytest.raises(fuzz.Fault, match=r"^seed \d+, mutation \w+: ZeroDivisionError"):
        fuzz.run_seeded(100, check)


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
        planted.setattr(api.container, "checksum", lambda *_: c.header.pixels_checksum)
        planted.setattr("pixzip.coding.entropy.Lanes.check_finished", lambda self: None)
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
    with monkeypatch.context() as planted:
        planted.setattr(
            fuzz, "write_image", lambda picture, format: write_image(from_array(np.zeros((2, 2), np.uint8)), format)
        )
        with pytest.raises(fuzz.Fault, match="another picture in the PNG"):
            check(small)
    with monkeypatch.context() as planted:
        planted.setattr(fuzz, "_ENGINE_ONE_IN", 1)
        batch = api.decompress_batch
        planted.setattr(
            api, "decompress_batch", lambda data, **how: [] if how["engine"] == "int8" else batch(data, **how)
        )
        if fuzz.HAS_INT8:
            with pytest.raises(fuzz.Fault, match="int8 comes to another outcome"):
                check(small)
