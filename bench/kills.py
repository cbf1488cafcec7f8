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


def run(words: list[str], kill_after_s: float | None = None) -> tuple[int, float, str]:
    """(exit code, seconds, last line said) of a command, killed after some time unless it ends before."""
    start = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = process.communicate(timeout=kill_after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    finally:
        process.kill()
    lines = said.strip().splitlines()
    return process.returncode, time.monotonic() - start, lines[-1] if lines else ""


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--kills", default=10, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(pictures: Path, kills: int, seed: int) -> None:
    """Train undisturbed, then killed again and again, and compare."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code, whole_s, _ = run(command(pictures, folder / "whole", folder / "cache"))
        if code:
            raise SystemExit("the undisturbed training failed")
        print(f"undisturbed: {whole_s:.1f} s")
        words = command(pictures, folder / "killed", folder / "cache-of-the-killed")
        hit = 0
        while hit < kills:
            code, ran_s, last = run(words, chance.uniform(0.05, 0.2) * whole_s)
            if code != -signal.SIGKILL:
                print(f"ended by itself with exit code {code} before kill {hit + 1}: {last}")
                break
            hit += 1
            print(f"kill {hit:2d} after {ran_s:5.1f} s: {last}")
        code, ran_s, last = run(words)
        print(f"left alone: {ran_s:.1f} s, exit code {code}: {last}")
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
