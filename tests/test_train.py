"""Training: it learns, resumes bit for bit, survives what befalls a long run, and ends with a model file that codes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint as checkpoint_of_torch  # noqa: E402

import pixzip  # noqa: E402
from pixzip import codec  # noqa: E402
from pixzip.data.cache import load_pictures, pictures_of  # noqa: E402
from pixzip.data.crops import RandomCrops, as_planes  # noqa: E402
from pixzip.data.settings import DataSettings  # noqa: E402
from pixzip.data.sources import rgb  # noqa: E402
from pixzip.data.split import load_split  # noqa: E402
from pixzip.errors import OutputError, TrainingDataError, TrainingError  # noqa: E402
from pixzip.evaluate import bootstrap  # noqa: E402
from pixzip.model.file import find_model  # noqa: E402
from pixzip.nets import stack, trunk  # noqa: E402
from pixzip.nets.diagonal_bilstm import DiagonalBiLstmConfig  # noqa: E402
from pixzip.nets.multiscale import MultiScaleConfig  # noqa: E402
from pixzip.nets.network import build  # noqa: E402
from pixzip.nets.pixelcnn import PixelCnnConfig  # noqa: E402
from pixzip.nets.row_lstm import RowLstmConfig  # noqa: E402
from pixzip.nets.stack import StackConfig  # noqa: E402
from pixzip.nets.trunk import TrunkConfig, TrunkModel  # noqa: E402
from pixzip.training import checkpoint, evaluation, loop  # noqa: E402
from pixzip.training.checkpoint import LAST, Run, load_run  # noqa: E402
from pixzip.training.config import Config, TrainingSettings  # noqa: E402
from pixzip.training.loop import Trainer  # noqa: E402
from pixzip.training.processes import Processes  # noqa: E402
from pixzip.training.report import Entry, Log, read_log, tensorboard  # noqa: E402
from pixzip.training.run import held, stop_signals, train  # noqa: E402
from pixzip.training.start import begin_from  # noqa: E402

SMALL = TrunkConfig(16, 16, 8, 16, "cl")
TRAINING = TrainingSettings(
    steps=24, decay=8, warmup=4, quantised_steps=8, batch=4, report_every=4, validate_every=16, save_every=10
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of smooth noise, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        walk = rng.normal(0, 2, (40, 48, 3)).cumsum(axis=0).cumsum(axis=1) / 3 + 128
        Image.fromarray(np.clip(walk, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def config(photos: Path) -> Config:
    """A run of seconds; the third picture by hash is held out."""
    data = DataSettings(train=str(photos), validation_share=0.5, validation_crop=16, crop=16, planes=3)
    return Config(SMALL, TRAINING, data)


def changed(config: Config, **training: object) -> Config:
    return replace(config, training=replace(config.training, **training))  # type: ignore[arg-type]


def trainer(config: Config, folder: Path, cache: Path) -> Trainer:
    """A run before its first step, its first checkpoint written."""
    pictures, held_out = load_split(config.data, cache)
    run = Run.new(config, {"train": pictures.digest, "validation": held_out.digest})
    folder.mkdir(exist_ok=True)
    made = Trainer(run, RandomCrops(pictures, config.data, 0), np.zeros((1, 16, 16, 3), np.uint8), folder, Processes())
    made.save()
    return made


def test_training_learns_and_its_model_codes(config: Config, photos: Path, tmp_path: Path) -> None:
    assert train(changed(config, average=0.5), tmp_path / "run", tmp_path / "cache") == 0
    rows = read_log(tmp_path / "run" / "log.csv")
    assert [int(r["step"]) for r in rows] == list(range(4, 33, 4))
    assert float(rows[-1]["train_bits_per_dim"]) < float(rows[0]["train_bits_per_dim"])
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    bits = report["validation_bits_per_dim"]
    assert bits["exact"] < 7
    assert bits["quantised"] == pytest.approx(bits["exact"], rel=1e-5)
    assert bits["quantised"] == pytest.approx(bits["float"], rel=0.02)
    assert set(report["saturated"]) >= {"stream", "feature", "block.0.a", "head.0.h"}
    model = find_model(tmp_path / "run" / "model.safetensors")
    pixels = rgb(photos / "0.png").transpose(2, 0, 1)[None]
    coded = codec.encode(model, pixels, engine="float32")
    again = codec.decode(model, coded.tiles, pixels.shape, **coded.layout, engine="float32")
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize("model", [RowLstmConfig(h=6, layers=1, head=8), PixelCnnConfig(h=6, layers=1, head=8)])
def test_the_papers_networks_end_as_models_that_code(
    model: StackConfig, config: Config, photos: Path, tmp_path: Path
) -> None:
    run = replace(changed(config, steps=4, quantised_steps=0, validate_every=4), model=model)
    assert train(run, tmp_path / "run", tmp_path / "cache") == 0
    bits = json.loads((tmp_path / "run" / "report.json").read_text())["validation_bits_per_dim"]
    assert bits["exact"] == pytest.approx(bits["float"], rel=0.01)
    frozen = find_model(tmp_path / "run" / "model.safetensors")
    pixels = rgb(photos / "0.png").transpose(2, 0, 1)[None, :, :9, :11]
    coded = codec.encode(frozen, pixels, engine="float32")
    again = codec.decode(frozen, coded.tiles, pixels.shape, **coded.layout, engine="float32")
    np.testing.assert_array_equal(again, pixels)


def interrupted(config: Config, folder: Path, cache: Path, stops: list[int]) -> list[str]:
    """Train with SIGTERM while each of these steps is reported; the lines that were said."""
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if stops and line.startswith(f"step {stops[0]:6d}/"):
            stops.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)

    numbers = [train(config, folder, cache, say=say) for _ in range(len(stops) + 1)]
    assert numbers == [signal.SIGTERM] * (len(numbers) - 1) + [0]
    return lines


@pytest.mark.parametrize("kind", [{}, {"optimiser": "muon", "average": 0.9}, {"optimiser": "rmsprop", "accumulate": 2}])
def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(
    kind: dict[str, object], config: Config, tmp_path: Path
) -> None:
    config = changed(config, report_every=1, **kind)
    assert train(config, tmp_path / "whole", tmp_path / "cache") == 0
    lines = interrupted(config, tmp_path / "stopped", tmp_path / "cache", [11, 23, 26])
    assert [line for line in lines if line.startswith("resuming")] == [f"resuming after step {n}" for n in (12, 24, 27)]
    for name in ("model.safetensors", "last.safetensors", "best.safetensors", "report.json", "card.md"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    steps = [int(row["step"]) for row in read_log(tmp_path / "stopped" / "log.csv")]
    assert steps == list(range(1, 33))


# ------------------------------------------------------------------------ trouble


def test_one_bad_batch_changes_nothing_and_is_gone_back_from(config: Config, tmp_path: Path) -> None:
    made = trainer(config, tmp_path / "run", tmp_path / "cache")
    before = made.run.to_bytes()
    with torch.no_grad():
        made.run.network.w_in[0, 0] = float("nan")
    assert made.step(made.parts(0)) == "loss is nan"
    drawn = made.crops.batch(0, 0, range(4))
    made.set_back("loss is nan")
    assert (made.parts(0)[0][0].crops != drawn).any()  # other crops than before
    assert [s.back_to for s in made.run.setbacks] == [0]
    assert made.rate(0) == pytest.approx(loop.rate_at(config.training, 0) / 2)
    state, tensors = checkpoint.parsed((tmp_path / "run" / LAST).read_bytes(), "last")
    assert state["setbacks"] == [{"step": 0, "reason": "loss is nan", "back_to": 0}]
    for name, value in checkpoint.parsed(before, "before")[1].items():
        assert torch.equal(tensors[name], value)


class _Sick(TrunkModel):
    """Its loss is poisoned in one step of the first attempt, its gradient in another of the second."""

    trainer: Trainer

    def nats(self, batch, dtype):  # type: ignore[no-untyped-def]
        nats = super().nats(batch, dtype)
        at = (len(self.trainer.run.setbacks), self.trainer.run.done)
        if at == (0, 13):
            return nats * float("nan")
        if at == (1, 11):
            return nats + (self.w_in.sum() * 0).sqrt()  # adds 0, whose gradient is not a number
        return nats


def test_a_run_that_goes_wrong_goes_back_with_a_lower_rate_and_says_so(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Trainer] = []
    monkeypatch.setattr(checkpoint, "build", lambda model, seed: _Sick(model, seed))
    real = Trainer.__post_init__

    def note(self: Trainer) -> None:
        made.append(self)
        self.run.network.trainer = self
        real(self)

    monkeypatch.setattr(Trainer, "__post_init__", note)
    lines: list[str] = []
    assert train(changed(config, save_every=5), tmp_path / "run", tmp_path / "cache", say=lines.append) == 0
    events = [row["event"] for row in read_log(tmp_path / "run" / "log.csv") if row["event"]]
    assert events == [
        "loss is nan in step 13: back to step 10, rate times 0.5",
        "the gradient's norm is nan in step 11: back to step 5, rate times 0.25",
    ]
    assert [line for line in lines if "back to" in line] == events
    assert "gradient's norm" in (tmp_path / "run" / "card.md").read_text()
    assert made[0].run.done == 32


class _Sickly(TrunkModel):
    """Its loss is poisoned in step 17, twice."""

    trainer: Trainer

    def nats(self, batch, dtype):  # type: ignore[no-untyped-def]
        nats = super().nats(batch, dtype)
        return nats * float("nan") if self.trainer.run.done == 17 and len(self.trainer.run.setbacks) < 2 else nats


@pytest.mark.parametrize("stops", [[15], [12, 14], [3, 14]])
def test_a_setback_leads_behind_a_stop(
    stops: list[int], config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop writes a checkpoint that a run has not that is left alone: none goes back to it."""
    monkeypatch.setattr(checkpoint, "build", lambda model, seed: _Sickly(model, seed))
    real = Trainer.__post_init__

    def note(self: Trainer) -> None:
        self.run.network.trainer = self
        real(self)

    monkeypatch.setattr(Trainer, "__post_init__", note)
    config = changed(config, report_every=1, save_every=5, quantised_steps=0)
    assert train(config, tmp_path / "whole", tmp_path / "cache") == 0
    interrupted(config, tmp_path / "stopped", tmp_path / "cache", stops)
    backs = [row["event"].split(": ")[1] for row in read_log(tmp_path / "whole" / "log.csv") if row["event"]]
    assert backs == ["back to step 15, rate times 0.5", "back to step 10, rate times 0.25"]
    names = ("model.safetensors", LAST, "previous.safetensors", "card.md")
    for name in names:
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (tmp_path / "stopped" / checkpoint.EARLIER).exists()


def test_that_test_finds_a_setback_to_a_stop(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(folder: Path, setbacks: list[checkpoint.Setback]) -> tuple[str, bytes] | None:
        return LAST, (folder / LAST).read_bytes()

    monkeypatch.setattr(loop, "read_good", everything)
    with pytest.raises(AssertionError):
        test_a_setback_leads_behind_a_stop([16], config, tmp_path, monkeypatch)


def spoiled(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def not_finite(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-8] + struct.pack("<2f", math.nan, math.nan))


def flipped(path: Path) -> None:
    """The least bit of a weight."""
    data = path.read_bytes()
    path.write_bytes(data[:-4] + bytes([data[-4] ^ 1]) + data[-3:])


@pytest.mark.parametrize("fault", [spoiled, not_finite, flipped, Path.unlink])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    fault: Callable[[Path], None], config: Config, tmp_path: Path
) -> None:
    config = changed(config, report_every=1, quantised_steps=0)
    assert train(config, tmp_path / "whole", tmp_path / "cache") == 0
    folder = tmp_path / "again"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Trainer, "validate", lambda *_, **__: 1 / 0)  # dies at step 16
        with pytest.raises(ZeroDivisionError):
            train(config, folder, tmp_path / "cache")
    assert checkpoint.parsed((folder / LAST).read_bytes(), LAST)[0]["step"] == 10
    fault(folder / LAST)
    said: list[str] = []
    assert train(config, folder, tmp_path / "cache", say=said.append) == 0
    assert any(line.endswith(": going on from previous.safetensors") for line in said)
    assert "resuming after step 0" in said
    for name in ("model.safetensors", LAST, "previous.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_folder_with_nothing_to_go_on_from_is_refused(config: Config, tmp_path: Path) -> None:
    config = changed(config, quantised_steps=0)
    assert train(config, tmp_path / "run", tmp_path / "cache") == 0
    for name in (LAST, checkpoint.PREVIOUS):
        spoiled(tmp_path / "run" / name)
    with pytest.raises(TrainingError, match=r"last\.safetensors: damaged .*; .*previous\.safetensors: damaged"):
        train(config, tmp_path / "run", tmp_path / "cache")
    for name in (LAST, checkpoint.PREVIOUS):
        (tmp_path / "run" / name).unlink()
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(TrainingError, match=r"holds best\.safetensors, model\.safetensors, .*, but neither last"):
        train(config, tmp_path / "run", tmp_path / "cache")
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_the_best_checkpoint_is_that_of_the_pictures_it_is_judged_by(
    config: Config, photos: Path, tmp_path: Path
) -> None:
    """Validation pictures that are harder than those before would never have one."""
    config = changed(config, quantised_steps=0, validate_every=4)
    folder, best = tmp_path / "run", tmp_path / "run" / checkpoint.BEST
    assert train(config, folder, tmp_path / "cache") == 0
    (tmp_path / "noise").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise" / "0.png")
    longer = changed(config, steps=28)
    harder = replace(longer, data=replace(config.data, validation=str(tmp_path / "noise")))
    assert train(harder, folder, tmp_path / "cache", allow_changes=True) == 0
    assert checkpoint.parsed(best.read_bytes(), "best")[0]["step"] == 28


def test_a_folder_among_the_pictures_is_refused(config: Config, photos: Path, tmp_path: Path) -> None:
    """Its samples would be training pictures of the next start."""
    before = sorted(photos.iterdir())
    for given in (config, replace(config, data=replace(config.data, train="", validation=str(photos)))):
        with pytest.raises(TrainingDataError, match=r"the folder of the run .*run lies among the pictures of .*photos"):
            train(given, photos / "run", tmp_path / "cache")
    assert sorted(photos.iterdir()) == before


@pytest.mark.parametrize("name", checkpoint.RESULTS)
def test_what_is_no_run_s_is_not_written_over(name: str, config: Config, tmp_path: Path) -> None:
    """A configuration with comments, the model of a run whose checkpoints were deleted."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("of great value")
    with pytest.raises(TrainingError, match=f"holds {name}, but neither last.*: choose another folder$"):
        train(config, tmp_path / "run", tmp_path / "cache")
    assert [p.read_text() for p in (tmp_path / "run").iterdir()] == ["of great value"]


def test_all_that_a_run_writes_has_its_name_in_the_list(config: Config, tmp_path: Path) -> None:
    assert train(config, tmp_path / "run", tmp_path / "cache") == 0
    checkpoints = {LAST, checkpoint.PREVIOUS, checkpoint.BEST}
    assert {p.name for p in (tmp_path / "run").iterdir()} == {*checkpoint.RESULTS, *checkpoints}


def test_a_run_on_its_integers_gets_no_more_float_steps(config: Config, tmp_path: Path) -> None:
    assert train(config, tmp_path / "run", tmp_path / "cache") == 0
    with pytest.raises(TrainingError, match=r"training\.steps 40: this run is at step 32, on its integers already"):
        train(changed(config, steps=40), tmp_path / "run", tmp_path / "cache", allow_changes=True)
    longer = changed(config, quantised_steps=10)
    assert train(longer, tmp_path / "run", tmp_path / "cache", allow_changes=True) == 0


@pytest.mark.parametrize("where", ["calibrate", "frozen", "saturation"])
def test_a_signal_ends_a_run_at_once_where_nothing_is_under_way(
    where: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While exponents are chosen, and while the results are written."""
    assert train(config, tmp_path / "whole", tmp_path / "cache") == 0
    with monkeypatch.context() as patch:

        def signalled(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("went on")

        patch.setattr(loop.integers, where, signalled)
        said: list[str] = []
        assert train(config, tmp_path / "run", tmp_path / "cache", say=said.append) == signal.SIGTERM
    step = 24 if where == "calibrate" else 32
    assert said[-1] == f"stopped after step {step}, saved; the same command goes on"
    assert train(config, tmp_path / "run", tmp_path / "cache") == 0
    for name in ("model.safetensors", LAST, "report.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP")
def test_hangup_that_is_ignored_stays_so_while_a_run_trains() -> None:
    """As nohup asks for."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_are_mentioned(config: Config, tmp_path: Path) -> None:
    config = changed(config, report_every=1, quantised_steps=0)
    said = []
    for stops, threads in (([3], 1), ([], 2)):
        with loop.torch_threads(threads):
            said += interrupted(config, tmp_path / "run", tmp_path / "cache", stops)
    assert "2 threads where there were 1: other bits than without an interruption" in said


def test_threads_of_other_processes_count(config: Config, tmp_path: Path) -> None:
    made = trainer(config, tmp_path / "run", tmp_path / "cache")
    one = made.run.threads
    Trainer(made.run, made.crops, made.held_out, made.folder, Processes(0, 2))
    said: list[str] = []
    made.resume(allow_changes=False, say=said.append)
    assert said == [f"{2 * one} threads where there were {one}: other bits than without an interruption"]


def test_two_processes_do_not_train_into_one_folder(config: Config, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with held(tmp_path / "run"):
        with pytest.raises(TrainingError, match="another process trains into"):
            train(config, tmp_path / "run", tmp_path / "cache")
        assert list((tmp_path / "run").iterdir()) == []
    assert train(changed(config, steps=1, quantised_steps=0), tmp_path / "run", tmp_path / "cache") == 0


def test_weights_that_are_not_finite_are_gone_back_from(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation finds them where no other step would, before the exponents are chosen; they are never saved."""
    step, spoilt = Trainer.step, []

    def spoils(self: Trainer, parts: Any) -> str | None:
        trouble = step(self, parts)
        if self.run.done == TRAINING.steps and not spoilt:
            spoilt.append(self.run.done)
            with torch.no_grad():
                self.run.network.b_in[3] = math.nan
        return trouble

    monkeypatch.setattr(Trainer, "step", spoils)
    said: list[str] = []
    assert train(config, tmp_path / "run", tmp_path / "cache", say=said.append) == 0
    assert "validation is nan in step 24: back to step 20, rate times 0.5" in said
    assert spoilt and all(
        math.isfinite(float(row["train_bits_per_dim"] or 0)) for row in read_log(tmp_path / "run/log.csv")
    )


def test_a_run_that_keeps_going_wrong_gives_up_and_leaves_its_checkpoint(config: Config, tmp_path: Path) -> None:
    made = trainer(changed(config, setbacks=2), tmp_path / "run", tmp_path / "cache")
    for _ in range(2):
        made.set_back("loss is inf")
    last = (tmp_path / "run" / LAST).read_bytes()
    with pytest.raises(TrainingError, match=r"loss is inf in step 0, after 2 setbacks; good until then: .*last.safe"):
        made.set_back("loss is inf")
    assert (tmp_path / "run" / LAST).read_bytes() == last


def test_a_climbing_loss_is_noticed_and_one_bad_batch_is_not() -> None:
    watch = loop.Watch()
    for i in range(300):
        assert watch.trouble(3 + (i % 3) / 10, 1.5) is None
    assert watch.trouble(9.0, 1.5) is None
    for _ in range(20):
        assert watch.trouble(3.0, 1.5) is None
    assert watch.calm(1.5)
    climbing = [watch.trouble(3 + i / 2, 1.5) for i in range(20)]
    first = next(text for text in climbing if text)
    assert first.startswith("loss climbed to ") and not watch.calm(1.5)
    assert loop.Watch(3, 3, 100).trouble(1e6, 0) is None


def test_a_checkpoint_of_another_network_or_recipe_or_pictures_is_refused(config: Config, tmp_path: Path) -> None:
    folder, cache = tmp_path / "run", tmp_path / "cache"
    assert train(changed(config, steps=4, quantised_steps=0, decay=0), folder, cache) == 0
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(TrainingError, match=r"another network: model.head 16, now 24$"):
        train(replace(config, model=TrunkConfig(16, 16, 8, 24, "cl")), folder, cache)
    with pytest.raises(TrainingError, match=r"another run: training.decay 0, now 8; .*--allow-changes goes on so"):
        train(config, folder, cache)
    Image.new("RGB", (40, 40), (9, 9, 9)).save(Path(config.data.train) / "new.png")
    with pytest.raises(TrainingError, match=r"another run: (train|validation) pictures"):
        train(changed(config, steps=4, quantised_steps=0, decay=0), folder, cache)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    for steps, more in ((5, {}), (6, {"optimiser": "muon", "average": 0.5}), (7, {"optimiser": "rmsprop"})):
        wanted = changed(config, steps=steps, quantised_steps=0, decay=0, **more)
        assert train(wanted, folder, cache, allow_changes=True) == 0


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_damaged_checkpoint_is_named(cut: int, config: Config, tmp_path: Path) -> None:
    data = trainer(config, tmp_path / "run", tmp_path / "cache").run.to_bytes()
    with pytest.raises(TrainingError, match="damaged checkpoint"):
        load_run(data[:cut], "c.safetensors")


def test_one_bit_of_a_checkpoint_is_noticed(config: Config, tmp_path: Path) -> None:
    data = trainer(config, tmp_path / "run", tmp_path / "cache").run.to_bytes()
    rng = np.random.default_rng(0)
    length = 8 + int.from_bytes(data[:8], "little")
    for place in [*rng.integers(8, length, 40), *rng.integers(length, len(data), 40)]:
        if 0 <= place - data.index(b"digest") < len("digest"):
            continue  # the name: a checkpoint of an earlier version
        other = bytearray(data)
        other[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(TrainingError):
            checkpoint.parsed(bytes(other), "c.safetensors")


def test_a_checkpoint_that_is_not_finite_is_refused(config: Config, tmp_path: Path) -> None:
    run = trainer(config, tmp_path / "run", tmp_path / "cache").run
    with torch.no_grad():
        run.network.b_in[3] = float("inf")
    with pytest.raises(TrainingError, match=r"model\.b_in is not finite"):
        load_run(run.to_bytes(), "c.safetensors")


def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_half_written(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(config, tmp_path / "run", tmp_path / "cache")
    assert made.step(made.parts(0)) is None
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        made.save()
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_settings_that_this_run_cannot_follow_are_refused(config: Config, tmp_path: Path) -> None:
    cases = {
        "batch 4 cannot be shared by 1 processes in 3 parts": {"accumulate": 3},
        "steps 0: must be at least 1": {"steps": 0},
        "optimiser 'adam': must be one of adamw": {"optimiser": "adam"},
        "rate -1: must be above 0": {"rate": -1},
        "average 1: the average": {"average": 1},
        "final 2: must be from 0 to 1": {"final": 2},
    }
    for message, change in cases.items():
        with pytest.raises(TrainingError, match=message):
            train(changed(config, **change), tmp_path / "run", tmp_path / "cache")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------ another run's weights


@pytest.fixture
def begun(config: Config, tmp_path: Path) -> Path:
    """The checkpoint of a short run at a constant rate, float only."""
    steady = changed(config, steps=4, decay=0, quantised_steps=0, optimiser="muon", average=0.5)
    assert train(steady, tmp_path / "begun", tmp_path / "cache") == 0
    return tmp_path / "begun" / LAST


def test_a_run_begins_with_the_averaged_weights_of_another_grown_to_its_size(
    begun: Path, config: Config, tmp_path: Path
) -> None:
    source = load_run(begun.read_bytes(), "begun")
    wanted = replace(changed(config, init=str(begun), average=0.9), model=TrunkConfig(24, 24, 16, 24, "clc"))
    run = Run.new(wanted, {})
    begin_from(run, str(begun))
    crops = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3)).astype(np.uint8)
    nats = [r.network.nats(r.network.prepare(crops), torch.float32).item() for r in (source, run)]
    assert nats[1] == pytest.approx(nats[0], rel=1e-6)
    assert run.average is not None and run.done == 0
    assert all(torch.equal(run.average.weights[name], p) for name, p in run.network.named_parameters())
    assert run.start == hashlib.sha256(begun.read_bytes()).hexdigest()[:32]


def test_the_rate_may_fall_later_from_a_checkpoint_on_the_integers_alone(
    begun: Path, config: Config, tmp_path: Path
) -> None:
    fall = {"steps": 0, "decay": 0, "warmup": 0, "quantised_steps": 8, "decay_shape": "linear", "quantised_rate": 1e-3}
    wanted = changed(config, init=str(begun), quantised_final=0.5, optimiser="muon", report_every=1, **fall)
    assert train(wanted, tmp_path / "whole", tmp_path / "cache") == 0
    rates = [float(row["rate"]) for row in read_log(tmp_path / "whole" / "log.csv")]
    np.testing.assert_allclose(rates, 1e-3 * (1 - np.arange(8) / 16), rtol=1e-2)
    card = (tmp_path / "whole" / "card.md").read_text()
    assert f"SHA-256 begins with `{hashlib.sha256(begun.read_bytes()).hexdigest()[:32]}`" in card
    assert str(begun) not in card and str(begun).encode() not in (tmp_path / "whole" / "model.safetensors").read_bytes()
    interrupted(wanted, tmp_path / "stopped", tmp_path / "cache", [3])
    for name in ("model.safetensors", "last.safetensors", "card.md", "samples.png"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    begun.write_bytes((tmp_path / "whole" / LAST).read_bytes())
    with pytest.raises(TrainingError, match=r"begun with other weights than those of training\.init; --allow-changes"):
        train(wanted, tmp_path / "stopped", tmp_path / "cache")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (TrunkConfig(24, 8, 8, 16, "cl"), "weights of another network: model.hidden 8: must be at least 16"),
        (TrunkConfig(16, 16, 8, 16, "lc"), "model.blocks 'lc': must begin with 'cl'"),
        (RowLstmConfig(h=6, layers=1, head=8), "weights of another network: model.architecture trunk, now row_lstm"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    model: TrunkConfig | RowLstmConfig, message: str, begun: Path, config: Config, tmp_path: Path
) -> None:
    wanted = replace(changed(config, init=str(begun)), model=model)
    with pytest.raises(TrainingError, match=message):
        train(wanted, tmp_path / "run", tmp_path / "cache")
    with pytest.raises(TrainingError, match=r"no model named .*gone .* and no such file"):
        train(changed(config, init=str(tmp_path / "gone")), tmp_path / "run", tmp_path / "cache")
    assert not (tmp_path / "run").exists()


def test_networks_of_the_paper_begin_with_weights_of_their_own_sizes_only(config: Config, tmp_path: Path) -> None:
    small = RowLstmConfig(h=6, layers=1, head=8)
    source = Run.new(replace(config, model=small), {})
    (tmp_path / "c").write_bytes(source.to_bytes())
    run = Run.new(replace(changed(config, seed=1), model=small), {})
    begin_from(run, str(tmp_path / "c"))
    ours, theirs = dict(run.network.named_parameters()), dict(source.network.named_parameters())
    assert all(torch.equal(p, theirs[name]) for name, p in ours.items())
    larger = Run.new(replace(config, model=replace(small, layers=2)), {})
    with pytest.raises(TrainingError, match=r"weights of another network: model\.layers 1, now 2"):
        begin_from(larger, str(tmp_path / "c"))


def test_checkpoints_from_before_a_setting_was_known_go_on(config: Config, tmp_path: Path) -> None:
    made = trainer(config, tmp_path / "run", tmp_path / "cache")
    state, tensors = checkpoint.parsed(made.run.to_bytes(), "c")
    for key in ("init", "quantised_final"):
        del state["config"]["training"][key]
    del state["start"], state["counts"]
    data = checkpoint.save_tensors(tensors, {checkpoint.FORMAT: json.dumps(state)})
    made.run.check_same(data, "c", allow_changes=False)
    made.run.restore(data, "c")
    assert made.run.start == "" and load_run(data, "c").counts == {}


# ------------------------------------------------------------------------ schedule, optimisers, averages


def test_a_run_may_be_prolonged_before_its_decay_begins() -> None:
    longer = replace(TRAINING, steps=200)
    assert [loop.rate_at(TRAINING, s) for s in range(16)] == [loop.rate_at(longer, s) for s in range(16)]
    assert loop.rate_at(TRAINING, 23) < loop.rate_at(TRAINING, 17) < loop.rate_at(TRAINING, 15) == TRAINING.rate


def test_linear_decay_is_a_straight_line_to_the_final_rate() -> None:
    settings = replace(TRAINING, decay_shape="linear", final=0.0, steps=20, decay=10, warmup=0)
    rates = [loop.rate_at(settings, step) for step in range(10, 20)]
    np.testing.assert_allclose(rates, settings.rate * (1 - np.arange(10) / 10))


def test_muon_turns_each_gate_on_its_own_and_leaves_the_rest_to_adamw() -> None:
    from pixzip.training.optimisers import make_optimisers, orthogonalised

    network = TrunkModel(SMALL)
    muon, rest = make_optimisers(network, replace(TRAINING, optimiser="muon", other_rate=1e-3))
    names = {id(p): name for name, p in network.named_parameters()}
    own = {names[id(p)]: group["blocks"] for group in muon.param_groups for p in group["params"]}
    assert own == {
        **{f"blocks.{i}": 1 for i in ("0.w1", "0.w2", "1.w_up")},
        **{"blocks.1.w_is": 4, "blocks.1.w_ss": 4},
        **{f"heads.{i}.w": 1 for i in range(3)},
    }
    assert rest.param_groups[0]["share"] == pytest.approx(0.4)
    p = network.blocks[1]["w_ss"]
    before = p.detach().clone()
    for q in network.parameters():
        q.grad = torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
    p.grad[:, :8] *= 1e-3  # beside the others this gate would count for nothing
    muon.step()
    moved = (before - p.detach()) / muon.param_groups[0]["lr"] - muon.param_groups[0]["weight_decay"] * before
    gates = moved.chunk(4, dim=1)
    for gate in gates:
        singular = torch.linalg.svdvals(gate) / (0.2 * max(gate.shape) ** 0.5)
        assert float(singular.min()) > 0.5 and float(singular.max()) < 1.3
    matrix = torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
    assert torch.linalg.svdvals(orthogonalised(matrix)).sub(1).abs().max() < 0.4


PAPER = StackConfig(h=6, layers=2, head=9, skip=True)


@pytest.mark.parametrize("kind", [PixelCnnConfig, RowLstmConfig, DiagonalBiLstmConfig, MultiScaleConfig])
def test_muon_trains_the_papers_networks(kind: type) -> None:
    """Each tap's matrix as rows of one, each gate on its own; the first layer and the logits are AdamW's."""
    from pixzip.training.optimisers import make_optimisers

    small, large = (made(**vars(PAPER)) for made in (RowLstmConfig, DiagonalBiLstmConfig))
    network = build(MultiScaleConfig(small, large, 2, 4) if kind is MultiScaleConfig else kind(**vars(PAPER)))
    blocks = network.hidden_matrices()
    named = dict(network.named_parameters())
    assert not [name for name in blocks if "first" in name or "last" in name or named[name].ndim < 2]
    gates = [name for name, count in blocks.items() if count == 4]
    assert bool(gates) == (kind is not PixelCnnConfig)
    assert all(name.endswith(("input_to_state.weight", "state_to_state", "condition.weight")) for name in gates)
    muon, _ = make_optimisers(network, replace(TRAINING, optimiser="muon"))
    for q in network.parameters():
        q.grad = torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
    before = {name: named[name].detach().clone() for name in blocks}
    for name in gates:
        gate = named[name].grad if named[name].ndim == 2 else named[name].grad.flatten(1).t()
        gate[:, : gate.shape[1] // 4] *= 1e-3  # beside the others this gate would count for nothing
    muon.step()
    for name, count in blocks.items():
        rate, decay = muon.param_groups[0]["lr"], muon.param_groups[0]["weight_decay"]
        moved = (before[name] - named[name].detach()) / rate - decay * before[name]
        for part in (moved if moved.ndim == 2 else moved.flatten(1).t()).chunk(count, dim=1):
            singular = torch.linalg.svdvals(part) / (0.2 * max(part.shape) ** 0.5)
            assert float(singular.min()) > 0.3 and float(singular.max()) < 1.3, name


def test_muon_needs_a_network_that_names_its_matrices() -> None:
    from pixzip.training.optimisers import make_optimisers

    with pytest.raises(TrainingError, match="Linear does not say which"):
        make_optimisers(torch.nn.Linear(2, 2), replace(TRAINING, optimiser="muon"))


def test_the_average_follows_and_is_what_is_validated(config: Config, tmp_path: Path) -> None:
    made = trainer(changed(config, average=0.9), tmp_path / "run", tmp_path / "cache")
    start = made.run.network.w_in.detach().clone()
    assert made.step(made.parts(0)) is None
    assert made.run.average is not None
    own, average = made.run.network.w_in.detach().clone(), made.run.average.weights["w_in"]
    torch.testing.assert_close(average, 0.1 * start + 0.9 * own)  # (1 + 0) / (10 + 0) of the old in step 0
    crops = made.crops.batch(0, 7, range(2))
    with torch.no_grad():
        made.run.network.w_in.copy_(average)
        wanted = made.run.network.nats(made.run.network.prepare(crops), torch.float32).item()
        made.run.network.w_in.copy_(own)
        for name, p in made.run.network.named_parameters():
            made.run.average.weights[name] = p.clone() if name != "w_in" else average
    assert made.validate(crops, integer=False) == pytest.approx(wanted / crops.size / np.log(2), rel=1e-9)
    assert torch.equal(made.run.network.w_in, own)


def test_accumulated_parts_give_the_gradients_of_the_whole_batch(config: Config, tmp_path: Path) -> None:
    gradients = []
    for accumulate in (1, 2, 4):
        wanted = changed(config, accumulate=accumulate, precision="float32")
        made = trainer(wanted, tmp_path / f"run{accumulate}", tmp_path / "cache")
        parts = made.parts(3)
        assert len(parts) == accumulate
        made.gradients(parts)
        gradients.append(torch.cat([p.grad.reshape(-1) for p in made.run.network.parameters()]))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-5, atol=1e-6)


SMALL_STACK = {"layers": 2, "h": 6, "head": 8, "skip": True}
DEEP = [
    SMALL,
    PixelCnnConfig(**SMALL_STACK),
    RowLstmConfig(**SMALL_STACK),
    DiagonalBiLstmConfig(**SMALL_STACK),
    MultiScaleConfig(RowLstmConfig(**SMALL_STACK), RowLstmConfig(**SMALL_STACK), features=4),
]


@pytest.mark.parametrize("model", DEEP, ids=lambda model: type(model).__name__)
def test_recomputed_layers_give_the_same_gradients(
    model: Any, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, gradients = [], []
    for module in (stack, trunk):
        monkeypatch.setattr(module, "checkpoint", lambda *a, **k: calls.append(a) or checkpoint_of_torch(*a, **k))
    for on in (False, True):
        wanted = replace(changed(config, precision="float32", recompute=on, quantised_steps=0), model=model)
        made = trainer(wanted, tmp_path / str(on), tmp_path / "cache")
        made.gradients(made.parts(0))
        gradients.append(torch.cat([p.grad.reshape(-1) for p in made.run.network.parameters()]))
        assert bool(calls) == on
    assert torch.equal(gradients[0], gradients[1])


def step_by_plain_adamw(made: Trainer, changed: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters after a first step by torch's backward pass, clipping and AdamW without its fused kernel."""
    settings, network = made.run.config.training, build(made.run.config.model, made.run.config.training.seed)
    (part,) = made.parts(0)
    crops = np.concatenate([share.crops for share in part])
    (network.nats(network.prepare(crops), torch.float32) / crops.size).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
    for p in network.parameters():
        p.grad = changed(p.grad)
    betas = (settings.beta1, settings.beta2)
    plain = torch.optim.AdamW(
        network.parameters(), made.rate(0), betas, weight_decay=settings.weight_decay, foreach=False, fused=False
    )
    plain.step()
    return {name: p.detach() for name, p in network.named_parameters()}


@pytest.mark.parametrize("model", DEEP, ids=lambda model: type(model).__name__)
def test_a_step_is_that_of_plain_adamw(model: Any, config: Config, tmp_path: Path) -> None:
    """Of every weight: fused kernels pair a gradient with its parameter by their order in memory."""
    wanted = replace(changed(config, precision="float32", quantised_steps=0), model=model)
    made = trainer(wanted, tmp_path / "run", tmp_path / "cache")
    expected = step_by_plain_adamw(made, lambda gradient: gradient)
    assert made.step(made.parts(0)) is None
    for name, p in made.run.network.named_parameters():
        assert p.grad.stride() == p.stride(), name
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-5, atol=2e-6, msg=name)


def test_that_test_finds_gradients_in_another_order(config: Config, tmp_path: Path) -> None:
    wanted = replace(changed(config, precision="float32", quantised_steps=0), model=DEEP[1])
    made = trainer(wanted, tmp_path / "run", tmp_path / "cache")

    def paired_wrongly(gradient: torch.Tensor) -> torch.Tensor:
        return gradient.permute(0, 2, 3, 1).reshape(gradient.shape) if gradient.ndim == 4 else gradient

    expected = step_by_plain_adamw(made, paired_wrongly)
    assert made.step(made.parts(0)) is None
    weight = dict(made.run.network.named_parameters())["first.weight"]
    assert float((weight.detach() - expected["first.weight"]).abs().max()) > made.rate(0) / 2


def test_compile_is_handed_the_float_network(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = []
    monkeypatch.setattr(torch, "compile", lambda function: handed.append(function) or function)
    made = trainer(changed(config, compile=True), tmp_path / "run", tmp_path / "cache")
    assert handed == [made.run.network.nats]


# ------------------------------------------------------------------------ what a person sees, and what is on disk


def test_a_process_that_dies_while_it_writes_leaves_the_checkpoint_before(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(config, tmp_path / "run", tmp_path / "cache")
    last = tmp_path / "run" / LAST
    first = last.read_bytes()
    for stage in ("fsync", "link", "replace"):
        assert made.step(made.parts(made.run.done)) is None

        def die(*arguments: object) -> None:
            raise SystemExit(9)

        with monkeypatch.context() as patch:
            patch.setattr(os, stage, die)
            with pytest.raises(SystemExit):
                made.save()
        assert last.read_bytes() == first, stage
    made.save()
    assert last.read_bytes() == made.run.to_bytes() != first
    assert (tmp_path / "run" / checkpoint.PREVIOUS).read_bytes() == first


@pytest.mark.parametrize(
    "torn", [b"\0" * 40, b"\0\0\n", b"2", b"21,3.1\n", b"x,1,1,1,1,\n", b"22,1,1,1,1,,,\n", b"\xff\n"]
)
def test_torn_rows_of_the_log_are_passed_over(torn: bytes, tmp_path: Path) -> None:
    log = Log(tmp_path, 100, 0, 1000, lambda line: None, None)
    log.report(Entry(10, 3.5, None, 1e-3))
    log.event(12, "something, with a comma")
    with (tmp_path / "log.csv").open("ab") as file:
        file.write(torn)
    again = Log(tmp_path, 100, 30, 1000, lambda line: None, None)
    again.report(Entry(40, 3.0, None, 1e-3))
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == ["10", "12", "40"]


def test_the_log_says_what_is_left_and_tensorboard_gets_the_same(tmp_path: Path) -> None:
    class Board:
        def __init__(self) -> None:
            self.scalars: list[tuple[str, float, int]] = []
            self.closed = False

        def close(self) -> None:
            self.closed = True

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.scalars.append((name, value, step))

    said: list[str] = []
    board = Board()
    log = Log(tmp_path, 100, 0, 1000, said.append, lambda done: board)
    log.report(Entry(10, 3.5, None, 1e-3))
    log.report(Entry(20, 3.25, 3.125, 1e-3))
    assert said[0].startswith("step     10/100  train 3.5000  validation      -  rate 1.00e-03  ")
    assert said[1].endswith(" s left") and "validation 3.1250" in said[1]
    assert ("bits_per_dim/validation", 3.125, 20) in board.scalars and len(board.scalars) == 5
    log.close()
    assert board.closed
    Log(tmp_path, 100, 10, 1000, said.append, None).event(10, "something")
    assert [(row["step"], row["event"]) for row in read_log(tmp_path / "log.csv")] == [("10", ""), ("10", "something")]


def test_tensorboard_drops_the_steps_that_are_taken_again(tmp_path: Path) -> None:
    """After a setback, and where a run was killed before its first checkpoint but that of its beginning."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for done, value in ((0, 1.0), (0, 2.0), (10, 3.0)):
        log = Log(tmp_path, 100, done, 1000, lambda line: None, tensorboard(tmp_path))
        for step in range(done + 10, 31, 10):
            log.report(Entry(step, value, None, 1e-3))
        log.go_back(20)
        log.report(Entry(30, 4.0, None, 1e-3))
        log.close()
    seen = events.EventAccumulator(str(tmp_path / "tensorboard"))
    seen.Reload()
    assert [(s.step, s.value) for s in seen.Scalars("bits_per_dim/train")] == [(10, 2.0), (20, 3.0), (30, 4.0)]


def test_a_rate_that_is_never_reached_is_said(config: Config, tmp_path: Path) -> None:
    lines: list[str] = []
    short = changed(config, steps=6, quantised_steps=0, warmup=4, decay=3, rate=2e-3)
    assert train(short, tmp_path / "run", tmp_path / "cache", say=lines.append) == 0
    assert "the rate rises over 4 steps and falls over 3, of 6: it never reaches 0.002" in lines
    assert train(changed(short, decay=2), tmp_path / "other", tmp_path / "cache", say=(others := []).append) == 0
    assert not any("never reaches" in line for line in others)


def test_a_model_of_one_plane_is_evaluated_on_colour_pictures_as_the_network_is() -> None:
    research = Path(__file__).parent.parent / "bench" / "research"
    for name, planes in (("mnist-row-lstm", 1), ("cifar10-small-pixelcnn", 3)):
        subject = evaluation._subject(str(research / f"{name}.safetensors"), "cpu", 3, in_float=True)
        assert subject.planes == planes


def test_evaluation_counts_nats_of_binary_pictures_and_groups_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(4, 4), (4, 4), (2, 8), (4, 4)]
    pictures = pictures_of(*(np.full((*shape, 1), i & 1, np.uint8) for i, shape in enumerate(shapes)), levels=2)
    seen: list[tuple[int, ...]] = []

    def measure(pixels: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        seen.append(pixels.shape)
        return 2.0 + pixels[:, 0, 0, 0]

    subject = evaluation.Subject("net", 1, 2, {"float": measure})
    monkeypatch.setattr(evaluation, "_subject", lambda *_, **__: subject)
    progress: list[float] = []
    lines = list(evaluation.evaluations("m", pictures, limit=None, device="cpu", progress=progress.append))
    assert sorted(seen) == [(1, 2, 8, 1), (3, 4, 4, 1)] and progress[-1] == 1
    assert lines[0] == "net: 4 pictures, 64 sub-pixels"
    assert lines[1].startswith("float     0.1562 bits/dim, mean over pictures (95 % ")
    assert lines[2].strip().startswith(f"{2.5 * np.log(2):.3f} nats a picture (95 % ")


def test_float_bits_of_a_model_stand_beside_the_exact_ones(config: Config, tmp_path: Path) -> None:
    pictures = load_pictures(config.data.train, tmp_path / "cache")
    how: dict[str, Any] = {"limit": None, "device": "cpu", "progress": lambda done: None}
    lines = list(evaluation.evaluations("fast", pictures, in_float=True, **how))
    (_, exact) = evaluation.evaluations("fast", pictures, **how)
    assert [line.split()[0] for line in lines[1:]] == ["float", "exact"] and lines[2] == exact
    found, wanted = (float(line.split()[1]) for line in lines[1:])
    assert found != wanted and found == pytest.approx(wanted, rel=0.02)


def test_gray_files_count_as_they_are_coded(config: Config, tmp_path: Path) -> None:
    """One plane of them, by model and file alike; colours beside them count three."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in Path(config.data.train).glob("*.png"):
        with Image.open(path) as image:
            image.convert("L").save(folder / f"gray-{path.name}")
            image.save(folder / path.name)
    pictures = load_pictures(str(folder), tmp_path / "cache")
    lines = list(evaluation.evaluations("fast", pictures, limit=None, device="cpu", progress=lambda done: None))
    assert lines[0] == f"fast: 6 pictures, {3 * 40 * 48 + 9 * 40 * 48} sub-pixels"
    gray = pictures.select(np.flatnonzero(pictures.gray))
    assert sorted(gray.names) == ["gray-0.png", "gray-1.png", "gray-2.png"]
    (_, line) = evaluation.evaluations("fast", gray, limit=None, device="cpu", progress=lambda done: None)
    sizes = [len(pixzip.compress((folder / str(name)).read_bytes(), model="fast", learning=0)) for name in gray.names]
    found = float(line.split()[1])
    assert found == pytest.approx(8 * (np.mean(sizes) - 82) / (40 * 48), rel=0.02)  # without headers
    with pytest.raises(TrainingDataError, match="pictures of 2 levels for fast of 256"):
        binary = pictures_of(np.zeros((8, 8, 1), np.uint8), levels=2)
        list(evaluation.evaluations("fast", binary, limit=None, device="cpu", progress=lambda done: None))


@pytest.mark.parametrize("model", [SMALL, RowLstmConfig(h=6, layers=1, head=8)])
def test_gray_files_count_alike_in_float_and_in_integers(model: Any, config: Config, tmp_path: Path) -> None:
    """By the first colour alone, though the float network reads three planes: an untrained one has bits for all."""
    short, folder = replace(changed(config, steps=1, quantised_steps=0), model=model), tmp_path / "run"
    assert train(short, folder, tmp_path / "cache") == 0
    gray = as_planes(rgb(Path(config.data.train) / "0.png"), 1)[None, :24, :24]
    subject = evaluation.subject_of_run(load_run((folder / LAST).read_bytes(), LAST), LAST)
    exact = evaluation.subject_of_model(find_model(folder / "model.safetensors"), 3).measures["exact"]
    assert subject.measures["float"](gray)[0] == pytest.approx(exact(gray)[0], rel=0.02)


def test_bits_of_a_checkpoint_of_the_papers_are_those_of_each_picture_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "DEFAULT_TILE", 4)
    run = Run.new(Config(RowLstmConfig(pictures="binary", layers=1, h=2, head=4)), {})
    pixels = np.random.default_rng(0).integers(0, 2, (3, 6, 5, 1)).astype(np.uint8)
    found = evaluation.subject_of_run(run, "run").measures["float"](pixels)
    for picture, bits in zip(pixels, found, strict=True):
        tiles = [picture[None, y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4)]
        nats = sum(run.network.nats(run.network.prepare(tile), torch.float64).item() for tile in tiles)
        assert bits == pytest.approx(nats / np.log(2), rel=1e-5)


def test_the_bootstrap_covers_the_mean_as_the_normal_interval_does() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    low, high = bootstrap(values)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.01)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)


def test_saturation_counts_what_lies_beyond_the_grid(config: Config, tmp_path: Path) -> None:
    from pixzip.training import integers

    made = trainer(config, tmp_path / "run", tmp_path / "cache")
    made.begin_integers()
    assert made.run.exponents is not None
    batch = made.run.network.prepare(made.crops.batch(0, 0, range(2)))
    found = []
    for by in (-8, 0, 8):
        moved = replace(made.run.exponents, feature=made.run.exponents.feature + by)
        found.append(integers.saturation(made.run.network, batch, moved))
    shares = [each.pop("feature") for each in found]
    assert shares[0] == 0 and shares[1] < 0.5 and shares[2] > 0.9
    assert found[0] == found[1] == found[2]


def test_pictures_of_other_levels_than_the_networks_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "bits.npz", train=np.eye(40, 784, dtype=np.uint8))
    data = DataSettings(train=f"binary-mnist/train:{tmp_path / 'bits.npz'}", validation_share=0.3, crop=16, planes=3)
    with pytest.raises(TrainingError, match="pictures of 2 levels for a trunk of 256"):
        train(Config(SMALL, TRAINING, data), tmp_path / "run", tmp_path / "cache")
