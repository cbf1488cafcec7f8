"""Processes that share a step's batch: what they compute is what one computes, whatever befalls them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pixzip.data.cache import pictures_of  # noqa: E402
from pixzip.data.crops import RandomCrops  # noqa: E402
from pixzip.data.settings import DataSettings  # noqa: E402
from pixzip.errors import TrainingError  # noqa: E402
from pixzip.nets.network import build  # noqa: E402
from pixzip.nets.pixelcnn import PixelCnnConfig  # noqa: E402
from pixzip.nets.trunk import TrunkConfig  # noqa: E402
from pixzip.training import loop  # noqa: E402
from pixzip.training.checkpoint import Run  # noqa: E402
from pixzip.training.config import Config, TrainingSettings  # noqa: E402
from pixzip.training.loop import Trainer  # noqa: E402
from pixzip.training.processes import Processes  # noqa: E402
from pixzip.training.report import Log  # noqa: E402
from pixzip.training.workers import Task, Workers, _Worker, computed, shares, torch_threads  # noqa: E402

TRUNK = TrunkConfig(16, 16, 8, 16, "cl")
#: Tests that stop and kill processes, and look for what is left of them.
needs_signals = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc and POSIX signals")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Of torch, as in the workers."""
    with torch_threads(1):
        yield


def trainer(folder: Path, model: object = TRUNK) -> Trainer:
    """A run of 4 crops a step, before its first."""
    rng = np.random.default_rng(0)
    walk = rng.normal(0, 2, (40, 48, 3)).cumsum(axis=0).cumsum(axis=1) / 3 + 128
    data = DataSettings(crop=16, validation_crop=16, planes=3)
    config = Config(model, TrainingSettings(steps=24, batch=4, warmup=4, precision="float32"), data)  # type: ignore
    crops = RandomCrops(pictures_of(np.clip(walk, 0, 255).astype(np.uint8)), data, 0)
    return Trainer(Run.new(config, {}), crops, np.zeros((1, 16, 16, 3), np.uint8), folder, Processes())


def gradients_by(made: Trainer, workers: Workers) -> tuple[float, torch.Tensor]:
    """Bits/dim and gradients of step 3, by workers."""
    made.workers = workers
    parts = made.parts(3)
    assert [len(part) for part in parts] == [min(workers.count, made.run.config.training.batch)] * len(parts)
    bits = made.gradients(parts)
    return bits, torch.cat([p.grad.reshape(-1) for p in made.run.network.parameters()])


def started(made: Trainer, workers: Workers) -> Workers:
    """Workers that have started all of theirs."""
    made.workers = workers
    made.gradients(made.parts(0))
    assert len(workers._others) == workers.count - 1
    workers.wait()
    assert all(worker.ready() for worker in workers._others)
    return workers


@pytest.mark.parametrize("which", ["float", "integer", "pixelcnn"])
def test_workers_share_a_batch_and_give_its_gradients(which: str, tmp_path: Path) -> None:
    """Of 4 crops by 2 and 3 processes; whichever process computes a part, the bits are the same."""
    made = trainer(tmp_path, PixelCnnConfig(h=6, layers=1, head=8) if which == "pixelcnn" else TRUNK)
    if which == "integer":
        made.begin_integers()
    whole = gradients_by(made, Workers())
    for count in (2, 3):
        here = gradients_by(made, Workers(count, 1))
        with started(made, Workers(count, 1, patience_s=0)) as workers:
            found = [gradients_by(made, workers) for _ in range(2)]
            assert not workers.lost
        assert here[0] == found[0][0] == found[1][0] == pytest.approx(whole[0], rel=1e-6)
        assert torch.equal(here[1], found[0][1])
        assert torch.equal(here[1], found[1][1])
        # integers' gradients may be bfloat16, summed over fewer crops at a time
        close = {"rtol": 2e-2, "atol": 1e-4} if which == "integer" else {"rtol": 1e-4, "atol": 1e-6}
        torch.testing.assert_close(here[1], whole[1], **close)


def test_workers_follow_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some steps as after none; a planted fault: they keep those that they were given first."""
    made = trainer(tmp_path)
    with started(made, Workers(2, 1, patience_s=0)) as workers:
        for step in range(2):
            assert made.step(made.parts(step)) is None
        found = gradients_by(made, workers)
        assert torch.equal(found[1], gradients_by(made, Workers(2, 1))[1])
        give, first = _Worker.give, [p.detach().numpy() * 0.5 for p in made.run.network.parameters()]
        monkeypatch.setattr(_Worker, "give", lambda self, weights, task: give(self, first, task))
        assert not torch.equal(found[1], gradients_by(made, workers)[1])


@needs_signals
def test_a_worker_that_is_killed_costs_nothing_but_time(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.log = Log(tmp_path, 8, 0, 1, lambda line: None, None)
    with started(made, Workers(2, 1, patience_s=0)) as workers:
        wanted = gradients_by(made, workers)
        for moment in ("before", "within"):
            if moment == "before":
                workers._others[0]._process.kill()
                workers._others[0]._process.wait()
            else:
                os.kill(started(made, workers)._others[0]._process.pid, signal.SIGSTOP)
                threading.Timer(1.0, workers._others[0]._process.kill).start()
            found = gradients_by(made, workers)
            assert found[0] == wanted[0]
            assert torch.equal(found[1], wanted[1])
            assert workers._others == workers.lost == []
            lines = (tmp_path / "log.csv").read_text().splitlines()
            said = "a process that shares the batch was killed by signal 9; for now this one does its part"
            assert lines[-1].endswith(said)
        assert len(lines) == 3


@needs_signals
def test_what_a_worker_raises_is_raised_here(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    gray = np.zeros((1, 16, 16, 1), np.uint8)
    with started(made, Workers(2, 1, patience_s=0)) as workers:
        tasks = [Task(crops, torch.float32) for crops in (np.zeros((1, 16, 16, 3), np.uint8), gray)]
        processes = [worker._process for worker in workers._others]
        with pytest.raises(TrainingError, match="the trunk codes three planes"):
            workers.map(partial(computed, made.run.network), made.run.network, tasks)
        assert workers._others == workers.lost == []
        assert [process.returncode for process in processes] == [-signal.SIGKILL]


@needs_signals
def test_workers_end_with_the_process_that_started_them() -> None:
    """However that ends."""
    code = """
import time, torch
from pixzip.nets.network import build
from pixzip.nets.trunk import TrunkConfig
from pixzip.training.workers import _Worker
made = _Worker(build(TrunkConfig(8, 8, 8, 8, "c")), 1)
while not made.ready():
    time.sleep(0.05)
print(made._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        worker = int(first.stdout.readline())
        assert _is_running(worker)
        first.kill()
    until = time.monotonic() + 30
    while _is_running(worker):
        assert time.monotonic() < until
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    """Whether there is such a process, and not one that waits for a parent to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("fault", [BlockingIOError(11, "Resource temporarily unavailable"), RuntimeError("no thread")])
def test_workers_that_cannot_be_started_are_done_without(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three: the first is ended, too."""
    made, first = trainer(tmp_path), []
    wanted = gradients_by(made, Workers(3, 1))

    class Failing(_Worker):
        def __init__(self, network: object, inside: int) -> None:
            if first:
                raise fault
            super().__init__(network, inside)
            first.append(self._process)

    monkeypatch.setattr("pixzip.training.workers._Worker", Failing)
    with Workers(3, 1, patience_s=0) as failing:
        for _ in range(2):
            found = gradients_by(made, failing)
            assert torch.equal(found[1], wanted[1])
            assert failing._others == failing.lost == []
        assert [process.poll() is None for process in first] == [False]


def test_a_worker_that_dies_as_it_starts_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(tmp_path)
    monkeypatch.setattr(sys, "path", [])  # nothing to import
    said: list[str] = []
    made.log = Log(tmp_path, 8, 0, 1, said.append, None)
    with Workers(2, 1, patience_s=0) as alone:
        until = time.monotonic() + 60
        while not said:
            gradients_by(made, alone)
            assert time.monotonic() < until
    assert said == ["a process that shares the batch ended with code 1; for now this one does its part"]


def test_a_worker_whose_first_task_is_cut_off_ends_in_silence() -> None:
    code = "from pixzip.training.workers import work; work()"
    network = pickle.dumps((build(TRUNK), 1))
    done = subprocess.run([sys.executable, "-c", code], input=network[: len(network) // 2], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_worker_that_computes_another_s_crops_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: the second range begins a crop too early."""
    made = trainer(tmp_path)
    whole = gradients_by(made, Workers())
    monkeypatch.setattr(loop, "shares", lambda count, parts: [range(2), range(1, 3)])
    found = gradients_by(made, Workers(2, 1))
    assert abs(found[0] - whole[0]) > 1e-4
    assert (found[1] - whole[1]).abs().max() > 1e-4


def test_shares_are_all_there_is_and_differ_by_one() -> None:
    for count in range(1, 20):
        for parts in range(1, 8):
            found = shares(count, parts)
            assert [i for own in found for i in own] == list(range(count))
            assert {len(own) for own in found} <= {count // len(found), count // len(found) + 1}
            assert len(found) == min(count, parts)


@pytest.mark.parametrize(
    ("cores", "crops", "count", "inside"), [(1, 12, 1, 1), (2, 12, 2, 1), (8, 12, 4, 2), (16, 64, 16, 1), (4, 2, 1, 4)]
)
def test_crops_are_shared_by_as_many_processes_as_have_three(
    cores: int, crops: int, count: int, inside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    made = Workers.sharing(crops)
    assert (made.count, made.inside) == (count, inside)


def test_workers_validate_as_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_VALIDATION_PX", 512)
    made = trainer(tmp_path)
    crops = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3)).astype(np.uint8)
    alone = made.validate(crops, integer=False)
    with started(made, Workers(2, 1, patience_s=0)):
        for p in made.run.network.parameters():
            p.grad = None
        assert made.validate(crops, integer=False) == alone
    assert all(p.grad is None for p in made.run.network.parameters())
