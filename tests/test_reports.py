"""What `progress` hears: fractions that never fall, none over 1, the last exactly 1; what it raises comes out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import calm_parts, model_picture
from hypothesis import given
from hypothesis import strategies as st
from test_refusals import multiscale
from tiny_stack import stack_bytes

import pixzip
from pixzip.errors import FormatError, UsageError
from pixzip.formats.image import Picture
from pixzip.model.file import write_model
from pixzip.reports import Report, Shares, part_of

MODELS: dict[str, Callable[[], bytes]] = {
    "trunk": lambda: write_model(*calm_parts()),
    "pixelcnn": lambda: stack_bytes("pixelcnn"),
    "row_lstm": lambda: stack_bytes("row_lstm"),
    "diagonal_bilstm": lambda: stack_bytes("diagonal_bilstm"),
    "multiscale": multiscale,
}
Heard = list[float]


def is_law(heard: Heard) -> bool:
    """Whether the fractions are those that the document promises."""
    return bool(heard) and heard == sorted(heard) and heard[0] > 0 and heard[-1] == 1


# ------------------------------------------------------------------------ sums


@given(
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=60),
    steps=st.integers(1, 7),
    seed=st.integers(0, 99),
    last=st.booleans(),
)
def test_shares_of_any_sizes_in_any_order_rise_to_one(sizes: list[int], steps: int, seed: int, last: bool) -> None:
    heard: Heard = []
    report = Report(heard.append)
    shares = Shares(sizes, report)
    calls = [i for i in range(len(sizes)) for _ in range(steps)]
    random.Random(seed).shuffle(calls)
    done = [0] * len(sizes)
    for i in calls:
        done[i] += 1
        update = shares.of(i)
        assert update is not None
        if last or done[i] < steps:
            update(done[i] / steps)
    report.finish()
    assert is_law(heard)
    assert heard.count(1.0) == 1 or heard[-2] == 1


def test_sums_of_rounded_shares_are_over_one_without_report() -> None:
    heard: Heard = []
    shares = Shares([1] * 48, heard.append)
    for i in range(48):
        shares.of(i)(1.0)  # type: ignore[misc]
    assert max(heard) > 1


def test_a_piece_takes_no_time_for_each_other_piece() -> None:
    """A file of 13 MB may have a million tiles."""
    heard: Heard = []
    started = time.perf_counter()
    shares = Shares([1] * 100_000, heard.append)
    for i in range(100_000):
        shares.of(i)(1.0)  # type: ignore[misc]
    assert time.perf_counter() - started < 10  # looking at all pieces for each takes a minute
    assert heard[-1] == pytest.approx(1)


def test_part_of_the_whole_goes_from_start_to_stop() -> None:
    heard: Heard = []
    part = part_of(heard.append, 0.25, 0.75)
    assert part is not None and part_of(None, 0.25, 0.75) is None
    for fraction in (0.0, 0.5, 1.0):
        part(fraction)
    assert heard == [0.25, 0.5, 0.75]


# ------------------------------------------------------------------------ all functions


@cache
def model_at(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.safetensors"
    path.write_bytes(MODELS[kind]())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def pictures_for(kind: str, model: Path, shape: tuple[int, int], count: int) -> list[Any]:
    """Those that the model codes shorter than they are stored: it drew them."""
    if kind == "trunk":
        return [model_picture(*shape, seed=i) for i in range(count)]
    return list(pixzip.sample(model, count, shape, threads=1))


def heard_by_all(kind: str, model: Path, how: dict[str, Any], layout: dict[str, Any]) -> dict[str, Heard]:
    """Function → what its `progress` heard, for one picture in tiles, and several in one."""
    heard: dict[str, Heard] = {}

    def call(name: str, *arguments: Any, **more: Any) -> Any:
        told: Heard = []
        result = getattr(pixzip, name)(*arguments, model=model, **how, **more, progress=told.append)
        heard[f"{name} {len(heard)}"] = told
        return result

    one, several = pictures_for(kind, model, (26, 45), 1)[0], pictures_for(kind, model, (9, 10), 5)
    for data in (call("compress", one, **layout), call("compress_batch", several, **layout)):
        info = pixzip.inspect(data)
        assert info.coding == "model" or kind == "multiscale"
        for name in ("decompress_batch", "verify", *(["decompress"] if info.pictures == 1 else [])):
            call(name, data)
        if how.get("engine") not in ("torch", "cuda"):
            call("salvage", data)
            damaged = bytearray(data)
            damaged[-6] ^= 1
            if info.coding == "model" and info.pictures == 1:
                call("salvage", bytes(damaged))
    return heard


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", MODELS)
def test_fractions_rise_to_exactly_one(kind: str, threads: int, folder: Path) -> None:
    heard = heard_by_all(kind, model_at(folder, kind), {"threads": threads}, {"tile": 16})
    assert len(heard) == (9 if kind == "multiscale" else 10)
    assert [name for name, told in heard.items() if not is_law(told)] == []


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_fractions_rise_to_exactly_one_on_a_device(folder: Path) -> None:
    heard = heard_by_all("trunk", model_at(folder, "trunk"), {"engine": "torch"}, {"tile": 20})
    assert len(heard) == 7
    assert all(map(is_law, heard.values()))


@pytest.mark.parametrize("kind", MODELS)
def test_fractions_rise_to_exactly_one_while_drawing(kind: str, folder: Path) -> None:
    model, picture = model_at(folder, kind), model_picture(9, 12)
    known = picture[..., 0] if kind == "multiscale" else picture
    for count, threads in ((1, 1), (7, 3)):
        told: tuple[Heard, Heard] = ([], [])
        pixzip.sample(model, count, (9, 11), threads=threads, progress=told[0].append)
        pixzip.complete(model, known, count, threads=threads, progress=told[1].append)
        assert all(map(is_law, told))
        assert min(map(len, told)) > 1


def test_48_tiles_are_not_over_one(model: Path) -> None:
    heard: Heard = []
    pixzip.compress(model_picture(24, 32), model=model, tile=4, threads=2, progress=heard.append)
    assert is_law(heard)
    assert len(heard) >= 48


@pytest.mark.parametrize("mode", ["P", "L"])
def test_pictures_without_a_model_are_reported_once(mode: str) -> None:
    planes = np.zeros((1, 4, 5), dtype=np.uint8)
    picture = Picture(planes, mode, 4, palette=bytes(48) if mode == "P" else b"")
    heard: list[Heard] = [[] for _ in range(4)]
    data = pixzip.compress(picture, progress=heard[0].append)
    pixzip.decompress(data, progress=heard[1].append)
    pixzip.verify(data, progress=heard[2].append)
    pixzip.salvage(data, progress=heard[3].append)
    assert heard == [[1.0]] * 4


def test_work_that_reports_no_end_fails_the_law(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Report, "finish", lambda self: None)
    heard = heard_by_all("row_lstm", model_at(folder, "row_lstm"), {"threads": 1}, {"tile": 16})
    assert not all(map(is_law, heard.values()))


# ------------------------------------------------------------------------ what the caller's function raises


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("error", [FormatError, UsageError, KeyError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["decompress", "verify", "salvage"])
def test_what_the_callers_function_raises_comes_out(
    name: str, error: type[BaseException], threads: int, model: Path
) -> None:
    data = bytearray(pixzip.compress(model_picture(40, 60), model=model, tile=16))
    assert pixzip.inspect(bytes(data)).coding == "model"
    if name == "salvage":
        data[-6] ^= 1  # damage of its own
    calls: Heard = []
    mine = error("mine")

    def stop(fraction: float) -> None:
        calls.append(fraction)
        if len(calls) == 5:
            raise mine

    with pytest.raises(error) as caught:
        getattr(pixzip, name)(bytes(data), model=model, threads=threads, progress=stop)
    assert caught.value is mine
