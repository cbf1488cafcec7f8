"""A training killed by SIGKILL at random moments → whether it ends with the same bytes as an undisturbed one.

    python bench/kills.py PICTURES [--kills 10] [--seed 0]

A small network on the CPU, one thread. Each kill comes at a random moment of the whole command: while it starts, reads
pictures, steps, validates, or writes. Prints one line a kill and the digests of both models; exits 1 where they differ.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

_SETTINGS = {
    "training.steps": 400,
    "training.decay": 150,
    "training.quantised_steps": 150,
    "training.save_every": 3,
    "training.report_every": 5,
    "training.validate_every": 20,
    "training.average": 0.9,
    "training.optimiser": "muon",
    "data.crop": 24,
    "data.validation_crop": 32,
}


def command(pictures: Path, out: Path, cache: Path) -> list[str]:
    """The training to be killed."""
    words = [sys.executable, "-m", "pixzip", "train", "--preset", "small", "--threads", "1", "--data", str(pictures)]
    words += [word for key, value in _SETTINGS.items() for word in ("--set", f"{key}={value}")]
    return [*words, "--cache", str(cache), "--out", str(out)]


def run(words: list[str], log: Path, kill_after_s: float | None = None, *, once_going: bool = False) -> tuple[int, str]:
    """(exit code, last line said) of a command, killed some time after its start, or after its first step."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        while once_going and process.poll() is None and "\nstep " not in log.read_text():
            time.sleep(0.02)
        process.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()
    lines = log.read_text().strip().splitlines()
    return process.returncode, lines[-1] if lines else "(nothing said yet)"


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--kills", default=10, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(pictures: Path, kills: int, seed: int) -> None:
    """Train undisturbed, then killed again and again, and compare."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.monotonic()
        code, _ = run(command(pictures, folder / "whole", folder / "cache"), folder / "log")
        whole_s = time.monotonic() - start
        if code:
            raise SystemExit("the undisturbed training failed")
        print(f"undisturbed: {whole_s:.1f} s", flush=True)
        words = command(pictures, folder / "killed", folder / "cache-of-the-killed")
        hit = 0
        while hit < kills:
            starting = hit % 4 == 3  # one in four comes while the command starts
            wait_s = chance.uniform(0, 0.1) * whole_s
            code, last = run(words, folder / "log", wait_s, once_going=not starting)
            if code != -signal.SIGKILL:
                print(f"ended by itself with exit code {code} before kill {hit + 1}: {last}")
                break
            hit += 1
            print(f"kill {hit:2d}, {wait_s:.2f} s after {'the start' if starting else 'a step'}: {last}", flush=True)
        code, last = run(words, folder / "log")
        print(f"left alone: exit code {code}: {last}")
        digests = {}
        for run_name in ("whole", "killed"):
            for file in ("model.safetensors", "last.safetensors", "best.safetensors", "report.json"):
                digests[run_name, file] = hashlib.sha256((folder / run_name / file).read_bytes()).hexdigest()
        same = all(digests["whole", file] == digests["killed", file] for _, file in digests)
        for (run_name, file), digest in digests.items():
            print(f"{run_name:<8}{file:<20}{digest[:32]}")
        print(f"{hit} kills: {'the same bytes' if same else 'DIFFERENT'}")
        raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
