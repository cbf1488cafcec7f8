"""pixzip train and evaluate as commands: whole runs, SIGKILL, several processes, one clear line for every mistake."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from pixzip.cli import main  # noqa: E402
from pixzip.errors import OutputError, TrainingDataError, TrainingError, UsageError  # noqa: E402
from pixzip.model.file import find_model  # noqa: E402
from pixzip.training import evaluation  # noqa: E402

ROOT = Path(__file__).parent.parent
#: A network and run that take seconds.
TINY = ["--preset", "small", "--threads", "1"]
SETTINGS = {
    **{"steps": 24, "quantised_steps": 8, "decay": 8, "warmup": 4, "batch": 4},
    **{"report_every": 1, "validate_every": 16, "save_every": 3},
}
TINY += [word for name, value in SETTINGS.items() for word in ("--set", f"training.{name}={value}")]
TINY += ["--set", "data.crop=16", "--set", "data.validation_crop=32"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten cuts of the sample photograph."""
    folder = tmp_path_factory.mktemp("pictures")
    with Image.open(ROOT / "examples" / "photo.png") as photo:
        for i in range(10):
            x, y = 53 * i % (photo.width - 128), 97 * i % (photo.height - 128)
            photo.crop((x, y, x + 128, y + 128)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(pictures: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(["train", *TINY, "--data", str(pictures), "--cache", str(cache), "--out", str(folder)]) == 0
    return folder


def command(*arguments: str | Path, torchrun: int = 0) -> list[str]:
    start = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={torchrun}", "-m"] if torchrun else ["-m"]
    )
    return [sys.executable, *start, "pixzip", *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread; pixzip of this checkout unless it is installed."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    installed = "site-packages" in str(Path(sys.modules["pixzip"].__file__ or ""))
    more = {} if installed else {"PYTHONPATH": os.pathsep.join(paths)}
    return os.environ | {"OMP_NUM_THREADS": "1"} | more


def log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


# ------------------------------------------------------------------------ whole runs


def test_a_run_leaves_all_its_documents(whole: Path) -> None:
    names = {p.name for p in whole.iterdir()}
    wanted = {"model.safetensors", "last.safetensors", "previous.safetensors", "best.safetensors"}
    assert names == wanted | {"log.csv", "config.toml", "report.json", "card.md", "curves.png", "samples.png"}
    card = (whole / "card.md").read_text()
    bits = json.loads((whole / "report.json").read_text())["validation_bits_per_dim"]
    assert set(bits) == {"float", "quantised", "exact"}
    assert all(f"{value:.4f}" in card for value in bits.values())
    assert "quantised_steps = 8" in card and str(whole.parent) not in card
    assert len(log(whole)) == 32
    with Image.open(whole / "curves.png") as image:
        assert len(image.getcolors(1 << 20) or []) >= 4
    with Image.open(whole / "samples.png") as image:
        assert image.size == (4 * 16 + 3 * 2,) * 2 and len(image.getcolors(1 << 20) or []) > 1000
    assert "16 samples of 16×16 pixels, seed 0, temperature 0.9" in card and "![samples](samples.png)" in card


def test_the_samples_are_those_that_the_command_draws(whole: Path, tmp_path: Path) -> None:
    drawn = ["--rows", "4", "--columns", "4", "--size", "16x16", "--temperature", "0.9", "-o", str(tmp_path / "s.png")]
    assert main(["sample", str(whole / "model.safetensors"), *drawn]) == 0
    with Image.open(tmp_path / "s.png") as ours, Image.open(whole / "samples.png") as theirs:
        assert ours.tobytes() == theirs.tobytes()


def test_the_configuration_of_a_run_makes_the_same_model_again(whole: Path, cache: Path, tmp_path: Path) -> None:
    again = ["train", "--config", str(whole / "config.toml"), "--threads", "1", "--cache", str(cache)]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def kills(folder: Path, arguments: list[str], count: int, seed: int) -> int:
    """SIGKILL a training at random moments after each start; returns how many kills hit it."""
    chance, hit = random.Random(seed), 0
    for _ in range(count):
        before = len((folder / "log.csv").read_text().splitlines()) if (folder / "log.csv").exists() else 0
        process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None:
            time.sleep(0.01)
            if (folder / "log.csv").exists() and len((folder / "log.csv").read_text().splitlines()) != before:
                break
        time.sleep(chance.random() * 0.3)
        process.kill()
        process.communicate()
        hit += process.returncode == -signal.SIGKILL
    return hit


def test_killed_at_random_moments_a_run_ends_with_the_same_model(
    whole: Path, pictures: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = ["train", *TINY, "--data", str(pictures), "--cache", str(cache), "--out", str(folder)]
    assert kills(folder, command(*arguments), 2, seed=5) >= 1
    assert main(arguments) == 0
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("sent", ["SIGINT", "SIGHUP"])
def test_a_signal_saves_and_the_exit_code_says_so(
    sent: str, whole: Path, pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    arguments = ["train", *TINY, "--data", str(pictures), "--cache", str(cache), "--out", str(folder)]
    process = subprocess.Popen(
        command(*arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may be run by nohup
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step      5/"):
            process.send_signal(getattr(signal, sent))
            break
    rest, errors = process.communicate()
    assert process.returncode == 128 + getattr(signal, sent) and errors == "pixzip: interrupted\n"
    stopped = re.search(r"stopped after step (\d+), saved; the same command goes on", rest)
    assert stopped
    assert main(arguments) == 0
    assert f"resuming after step {stopped[1]}\n" in capsys.readouterr().out
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("to", ["> /dev/full", ">&-", "| true"])
def test_a_run_goes_on_where_nobody_reads_its_lines(
    to: str, whole: Path, pictures: Path, cache: Path, tmp_path: Path
) -> None:
    run = command("train", *TINY, "--data", pictures, "--cache", cache, "--out", tmp_path / "run")
    script = f"set -o pipefail; {shlex.join(run)} {to}"
    done = subprocess.run(["bash", "-c", script], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_two_processes_take_the_steps_of_one(whole: Path, pictures: Path, cache: Path, tmp_path: Path) -> None:
    folder, settings = tmp_path / "two", ["--set", "training.precision=float32"]
    one = tmp_path / "one"
    shared = [*TINY, *settings, "--data", str(pictures), "--cache", str(cache)]
    assert main(["train", *shared, "--out", str(one)]) == 0
    done = subprocess.run(
        command("train", *shared, "--out", folder, torchrun=2), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for column, places in (("train_bits_per_dim", 5e-3), ("validation_bits_per_dim", 5e-3)):
        a, b = ([float(row[column]) for row in log(f) if row[column]] for f in (one, folder))
        assert len(a) == len(b) > 1
        np.testing.assert_allclose(a, b, atol=places)


def gradients(pictures: str, cache: str, out: str, world: int, rank: int, port: int) -> None:
    """Put the loss and the gradients of the first step into a file; run in a process of its own where world > 1."""
    from pixzip.data.crops import RandomCrops
    from pixzip.data.split import load_split
    from pixzip.training.checkpoint import Run
    from pixzip.training.config import from_tables, overridden, preset_tables
    from pixzip.training.loop import Trainer
    from pixzip.training.processes import joined

    torch.set_num_threads(1)
    names = {"WORLD_SIZE": world, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in names.items()}
    settings = ["training.precision=float32", "training.batch=8", f"data.train={pictures}"]
    config = from_tables(overridden(preset_tables("small"), settings))
    with joined("cpu") as processes:
        train, _ = load_split(config.data, Path(cache))
        crops = RandomCrops(train, config.data, 0)
        trainer = Trainer(Run.new(config, {}), crops, np.zeros((1, 8, 8, 3), np.uint8), Path(out), processes)
        bits = trainer.gradients(trainer.parts(0))
        flat = torch.cat([p.grad.reshape(-1) for p in trainer.run.network.parameters()])
        torch.save({"bits": torch.tensor(bits), "gradients": flat}, f"{out}/{world}-{rank}.pt")
    del processes, trainer
    left = [name for name in native_threads() if "gloo" in name]
    assert not left, f"threads that outlive the group: {left}"


def native_threads() -> list[str]:
    """Names of this process's threads, as Linux knows them; elsewhere none."""
    return [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]


def test_what_the_first_process_finds_wrong_ends_both(pictures: Path, cache: Path, tmp_path: Path) -> None:
    """Nobody waits for it, or dies of its absence: no traceback but torchrun's own."""
    empty, damaged = tmp_path / "empty", tmp_path / "damaged"
    empty.mkdir()
    damaged.mkdir()
    (damaged / "last.safetensors").write_bytes(b"no checkpoint")
    for data, folder, line in (
        (empty, tmp_path / "run", f"pixzip: no readable picture in {empty}"),
        (pictures, damaged, f"pixzip: {damaged / 'last.safetensors'}: damaged checkpoint"),
    ):
        arguments = [*TINY, "--data", str(data), "--cache", str(cache), "--out", folder]
        done = subprocess.run(
            command("train", *arguments, torchrun=2), env=environment(), capture_output=True, text=True, timeout=300
        )
        assert done.returncode != 0 and line in done.stderr
        assert done.stderr.count("pixzip: ") == 2 and done.stderr.count("Traceback") == 1


def test_machines_with_other_pictures_or_settings_are_refused(pictures: Path, cache: Path, tmp_path: Path) -> None:
    """Two machines, each with a process of its own: the second has a picture less, and a seed of its own."""
    fewer = tmp_path / "fewer"
    shutil.copytree(pictures, fewer)
    (fewer / "1.png").unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = []
    for rank, data in enumerate((pictures, fewer)):
        names = {"WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        own = ["--data", data, "--cache", cache, "--out", tmp_path / "run", "--set", f"training.seed={rank}"]
        machines.append(
            subprocess.Popen(
                command("train", *TINY, *own),
                env=environment() | {name: str(value) for name, value in names.items()},
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
        )
    for errors in [machine.communicate(timeout=300)[1] for machine in machines]:
        assert errors == "pixzip: not the same in all processes: training.seed, train pictures\n"
    assert [machine.returncode for machine in machines] == [TrainingError.exit_code] * 2
    assert not (tmp_path / "run").exists()


def test_half_of_torchrun_s_environment_gets_one_line(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    code, line = complaint(["train", "--data", pictures, "--out", tmp_path / "run"], capsys)
    missing = "LOCAL_RANK, MASTER_ADDR, MASTER_PORT"
    assert (code, line) == (TrainingError.exit_code, f"WORLD_SIZE is set as by torchrun, but not {missing}")


def test_two_processes_give_the_gradients_of_one_with_the_joint_batch(
    pictures: Path, cache: Path, tmp_path: Path
) -> None:
    gradients(str(pictures), str(cache), str(tmp_path), 1, 0, 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    shared = (str(pictures), str(cache), str(tmp_path), 2)
    both = [context.Process(target=gradients, args=(*shared, rank, port)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    one, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert torch.equal(first["gradients"], second["gradients"])
    assert float(first["bits"]) == pytest.approx(float(one["bits"]), rel=1e-6)
    largest = float(one["gradients"].abs().max())
    assert largest > 0.01
    assert float((first["gradients"] - one["gradients"]).abs().max()) < 1e-5 * largest


_DIGEST = """
import hashlib
import numpy as np
import torch
from pixzip.nets.trunk import TrunkConfig, TrunkModel

torch.set_num_threads(1)
network = TrunkModel(TrunkConfig(16, 16, 8, 16, "cl"))
crops = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
network.nats(network.prepare(crops), torch.bfloat16).backward()
print(hashlib.sha256(b"".join(p.grad.numpy().tobytes() for p in network.parameters())).hexdigest())
"""


def test_a_process_that_compiles_the_kernels_takes_the_steps_of_those_that_find_them(tmp_path: Path) -> None:
    shared = {"NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", _DIGEST], env=environment() | shared, capture_output=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout


# ------------------------------------------------------------------------ mistakes


def complaint(arguments: list[str | Path], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(exit code, the one line on stderr)."""
    code = main([str(a) for a in arguments])
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and errors.startswith("pixzip: ")
    return code, errors[len("pixzip: ") :].strip()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["--set", "training.stesp=4"], TrainingError, "training has no key stesp; the nearest is steps"),
        (["--preset", "defualt"], TrainingError, "no preset defualt; the nearest is default"),
        (["--config", "x.toml", "--preset", "small"], UsageError, "--preset and --config exclude each other"),
        (["--set", "data.crop=500"], TrainingDataError, "no training picture of at least 500 x 500"),
        (["--set", "model.blocks=cx"], TrainingError, "model.blocks 'cx': must be 1 to 64 letters c and l"),
        (["--set", "model.head=2048"], TrainingError, "model.head 2048: must be a multiple of 8"),
        (
            ["--data", "cifar10/tests:x"],
            TrainingDataError,
            "unknown data set cifar10/tests, the nearest is cifar10/test",
        ),
        (["--device", "cuda"], TrainingError, "--device cuda: "),
    ],
)
def test_mistakes_get_one_line_and_leave_no_folder(
    more: list[str],
    error: type[TrainingError],
    message: str,
    pictures: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = [] if "--config" in more else ["--preset", "small"]
    arguments = ["train", *base, "--data", pictures, "--cache", cache, "--out", tmp_path / "run", *more]
    code, line = complaint(arguments, capsys)
    assert code == error.exit_code and line.startswith(message)
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_and_a_missing_package_get_one_line(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    run = ["--out", tmp_path / "run", "--cache", cache]
    code, line = complaint(["train", "--data", tmp_path / "empty", *run], capsys)
    assert (code, line) == (TrainingError.exit_code, f"no readable picture in {tmp_path / 'empty'}")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, line = complaint(["train", "--data", pictures, "--tensorboard", *run], capsys)
    assert (code, line) == (UsageError.exit_code, "--tensorboard needs tensorboard: install pixzip[tensorboard]")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "pixzip.training.run")
    code, line = complaint(["train", "--data", pictures, *run], capsys)
    assert (code, line) == (UsageError.exit_code, "training needs torch: install pixzip[train]")


@pytest.mark.usefixtures("whole")  # which fills the cache
def test_a_disk_that_fills_up_stops_the_run_and_spares_its_checkpoint(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on file sizes stands for the disk: the first checkpoint fits, one with the optimiser's state does not."""
    folder = tmp_path / "run"
    arguments = ["train", *TINY, "--data", str(pictures), "--cache", str(cache), "--out", str(folder)]
    done = subprocess.run(
        command(*arguments),
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)),
    )
    assert done.returncode == OutputError.exit_code
    assert done.stderr == f"pixzip: cannot write {folder / 'last.safetensors'}: File too large\n"
    assert not list(folder.glob(".*"))
    assert main(arguments) == 0
    assert "resuming after step 0\n" in capsys.readouterr().out


# ------------------------------------------------------------------------ evaluate


def evaluated(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_evaluate_says_float_quantised_and_exact_bits(
    whole: Path, pictures: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = [pictures, "--cache", cache, "--limit", "3"]
    exact = evaluated(whole / "model.safetensors", *shared, capsys=capsys)
    both = evaluated(whole / "last.safetensors", *shared, capsys=capsys)
    pattern = r"^(\w+) +([\d.]+) bits/dim, mean over pictures \(95 % ([\d.]+) to ([\d.]+)\); ([\d.]+) over all"
    found = {m[1]: [float(v) for v in m.groups()[1:]] for m in re.finditer(pattern, exact + both, re.M)}
    assert list(found) == ["exact", "float", "quantised"]
    assert exact.startswith("model: 3 pictures, 147456 sub-pixels\n")
    for mean, low, high, pooled in found.values():
        assert low <= mean <= high and pooled == pytest.approx(mean, abs=1e-4)
    assert found["quantised"][0] == pytest.approx(found["exact"][0], abs=2e-4)
    assert found["float"][0] == pytest.approx(found["exact"][0], rel=0.02)


def test_evaluate_refuses_what_is_no_model(
    whole: Path, pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = complaint(["evaluate", "no-such", pictures, "--cache", cache], capsys)
    assert code == 6 and line.startswith("no model named no-such")
    data = (whole / "last.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-9])
    code, line = complaint(["evaluate", tmp_path / "cut.safetensors", pictures, "--cache", cache], capsys)
    assert code == TrainingError.exit_code and "damaged checkpoint" in line


def test_evaluate_says_what_a_device_is_not_for(
    whole: Path, pictures: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = [pictures, "--cache", cache, "--device", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("last.safetensors", "model.safetensors"):
        code, line = complaint(["evaluate", whole / name, *rest], capsys)
        assert (code, line) == (TrainingError.exit_code, "--device cuda: torch finds no such device")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    code, line = complaint(["evaluate", whole / "model.safetensors", *rest], capsys)
    assert code == UsageError.exit_code and line.startswith("--device cuda: exact bits are computed on the CPU")


def test_evaluate_computes_the_float_network_of_a_model_on_the_device(
    whole: Path, pictures: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is torch's meta, whose tensors have no values."""
    placed = []
    monkeypatch.setattr(evaluation, "_float_measure", lambda network, planes: placed.append(network))
    for device in ("cpu", "meta"):
        evaluation._subject(str(whole / "model.safetensors"), device, 3, in_float=True)
    assert [{p.device.type for p in network.parameters()} for network in placed] == [{"cpu"}, {"meta"}]


# ------------------------------------------------------------------------ freeze


def test_freeze_gives_the_model_of_the_run_and_says_what_exactness_costs(
    whole: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m.safetensors"
    arguments = ["freeze", str(whole / "last.safetensors"), "-o", str(model), "--cache", str(cache), "--threads", "1"]
    assert main(arguments) == 0
    assert model.read_bytes() == (whole / "model.safetensors").read_bytes()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{whole / 'last.safetensors'} (step 32): 4 pictures, 196608 sub-pixels")
    found = {line.split()[0]: float(line.split()[1]) for line in lines[1:4]}
    assert list(found) == ["float", "quantised", "exact"]
    assert found["quantised"] == pytest.approx(found["exact"], abs=2e-4)
    assert lines[4].startswith("clipped    ") and lines[4].endswith(", of 4 crops of 32×32")
    assert lines[5] == f"{model}: {model.stat().st_size} bytes"
    code, line = complaint(arguments, capsys)
    assert (code, line) == (UsageError.exit_code, f"output {model} exists: --force overwrites it")


def test_freeze_chooses_the_scales_that_a_float_run_would(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, model = tmp_path / "run", tmp_path / "m.safetensors"
    float_only = [*TINY, "--set", "training.quantised_steps=0", "--data", str(pictures), "--cache", str(cache)]
    assert main(["train", *float_only, "--out", str(run)]) == 0
    frozen = ["freeze", str(run / "last.safetensors"), "-o", str(model), "--cache", str(cache)]
    assert main([*frozen, "--validation", str(pictures), "--limit", "2"]) == 0
    assert model.read_bytes() == (run / "model.safetensors").read_bytes()
    assert "2 pictures, 98304 sub-pixels" in capsys.readouterr().out


def test_freeze_says_where_a_run_s_folder_holds_other_pictures_now(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pictures, folder := tmp_path / "pictures")
    short = [*TINY, "--set", "training.steps=1", "--set", "training.quantised_steps=0", "--cache", str(cache)]
    assert main(["train", *short, "--data", str(folder), "--out", str(tmp_path / "run")]) == 0
    frozen = ["freeze", str(tmp_path / "run" / "last.safetensors"), "--cache", str(cache), "--limit", "1", "-o"]
    assert main([*frozen, str(tmp_path / "a")]) == 0
    assert capsys.readouterr().err == ""
    with Image.open(folder / "0.png") as image:
        for i, side in enumerate(range(40, 120, 4)):  # enough for some on both sides of the split
            image.crop((0, 0, side, side)).save(folder / f"more-{i}.png")
    assert main([*frozen, str(tmp_path / "b")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "not those that the run had" in line] == [
        "train pictures: not those that the run had",
        "validation pictures: not those that the run had",
    ]
    assert main([*frozen, str(tmp_path / "c"), "--data", str(folder)]) == 0
    assert "not those" not in capsys.readouterr().err


def test_freeze_refuses_what_has_no_exact_model(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["-o", tmp_path / "m", "--cache", cache]
    code, line = complaint(["freeze", tmp_path / "gone", *shared], capsys)
    assert (code, line) == (TrainingError.exit_code, f"{tmp_path / 'gone'}: cannot be read: No such file or directory")
    code, line = complaint(["freeze", pictures / "0.png", *shared], capsys)
    assert code == TrainingError.exit_code and "damaged checkpoint" in line
    assert not (tmp_path / "m").exists()


def test_a_multiscale_run_ends_with_its_exact_model_and_samples(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, part = tmp_path / "run", 'architecture = "row_lstm"\nh = 6\nlayers = 1\nhead = 8\n'
    parts = f"[model.small]\n{part}[model.large]\n{part}"
    training = "[training]\nsteps = 2\nbatch = 2\n[data]\ncrop = 8\nvalidation_crop = 8\n"
    (tmp_path / "c.toml").write_text(f'[model]\narchitecture = "multiscale"\nfeatures = 3\n{parts}{training}')
    config = ["--config", str(tmp_path / "c.toml"), "--threads", "1", "--cache", str(cache)]
    assert main(["train", *config, "--data", str(pictures), "--out", str(run)]) == 0
    assert "![samples](samples.png)" in (run / "card.md").read_text()
    with Image.open(run / "samples.png") as drawn:
        assert drawn.size[0] > 4 * 8
    frozen = ["freeze", str(run / "last.safetensors"), "-o", str(tmp_path / "m"), "--cache", str(cache)]
    assert main([*frozen, "--threads", "1"]) == 0
    assert (tmp_path / "m").read_bytes() == (run / "model.safetensors").read_bytes()


# ------------------------------------------------------------------------ the presets


def test_the_default_preset_runs_to_its_end_from_a_smaller_networks_weights(
    whole: Path, pictures: Path, cache: Path, tmp_path: Path
) -> None:
    """The whole recipe and the network in its full size, with few steps and small crops."""
    short = {"training.steps": 2, "training.quantised_steps": 2, "training.batch": 2, "training.report_every": 1}
    short |= {"data.crop": 16, "data.validation_crop": 16}
    settings = [word for key, value in short.items() for word in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    shared = ["--data", str(pictures), "--cache", str(cache), "--threads", "1"]
    start = ["--init", str(whole / "last.safetensors")]
    assert main(["train", "--preset", "default", *settings, *start, *shared, "--out", str(run)]) == 0
    assert "--init CHECKPOINT\n" in (run / "card.md").read_text()
    assert float(log(run)[0]["train_bits_per_dim"]) < float(log(whole)[0]["train_bits_per_dim"])
    assert [row["step"] for row in log(run)] == ["1", "2", "3", "4"]
    made, shipped = find_model(run / "model.safetensors").network, find_model("default").network
    assert made.macs_per_pixel() == shipped.macs_per_pixel() and made.blocks == shipped.blocks


# ------------------------------------------------------------------------ the document


def test_the_newcomers_commands_work(pictures: Path, cache: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    section = text.split("## A first model", 1)[1].split("\n## ", 1)[0]
    commands = re.findall(r"^    (pixzip .*)$", section, re.M)
    assert [c.split()[1] for c in commands] == ["train", "evaluate", "compress", "decompress"]
    (tmp_path / "pictures").symlink_to(pictures)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    more = {"PIXZIP_CACHE": str(cache)}
    for line in commands:
        words = [word.replace("pictures/one.png", "pictures/0.png") for word in shlex.split(line)[1:]]
        done = subprocess.run(
            command(*words), cwd=tmp_path, env=environment() | more, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        if words[0] == "train":
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 120, "core-seconds of training"
    with Image.open(tmp_path / "again.png") as a, Image.open(pictures / "0.png") as b:
        assert a.tobytes() == b.tobytes()
    assert (tmp_path / "one.pxz").stat().st_size < (pictures / "0.png").stat().st_size
