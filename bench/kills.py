"""A training killed by SIGKILL at random moments → whether it ends with the same bytes as an undisturbed one.

    python bench/kills.py PICTURES [--kills 10] [--seed 0]

A small network on two cores, so that two processes share its batches (--threads 2). A kill waits for a random step of
the run, half of them in the float phase and half in the quantised phase, and then for a random part of a second: it
falls into a step, a validation or the writing of a checkpoint. One in four comes while the command starts or reads
pictures. Prints one line a kill and the digests of both runs' files; exits 1 where they differ, or where a phase had no
kill.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click

_STEPS, _QUANTISED_STEPS = 200, 200
_SETTINGS = {
    "training.steps": _STEPS,
    "training.decay": 80,
    "training.quantised_steps": _QUANTISED_STEPS,
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
    words = [sys.executable, "-m", "pixzip", "train", "--preset", "small", "--threads", "2", "--data", str(pictures)]
    words += [word for key, value in _SETTINGS.items() for word in ("--set", f"{key}={value}")]
    return [*words, "--cache", str(cache), "--out", str(out)]


@dataclass(frozen=True)
class Moment:
    """When a kill comes: once the log shows a step at least this far (0: from the start), and so many seconds later."""

    step: int
    wait_s: float

    @property
    def phase(self) -> str:
        """Where the run is then."""
        return "start" if not self.step else "float" if self.step < _STEPS else "quantised"


def moments(kills: int, seed: int) -> list[Moment]:
    """In the order of the run: one in four at a start, the others half and half in the two phases."""
    chance = random.Random(seed)
    at_start = kills // 4
    in_float = (kills - at_start) // 2
    # A resumed run takes up to ten steps again and shows every fifth: kills any closer would come to the same.
    early = sorted(chance.sample(range(10, _STEPS - 10, 10), in_float))
    late = sorted(chance.sample(range(_STEPS + 10, _STEPS + _QUANTISED_STEPS - 30, 10), kills - at_start - in_float))
    chosen = [Moment(step, chance.uniform(0, 0.2)) for step in early + late]
    for _ in range(at_start):
        chosen.insert(chance.randrange(len(chosen) + 1), Moment(0, chance.uniform(0, 4)))
    return chosen


def shown_step(log: Path) -> int:
    """The last step that a command has said it has done; 0: none."""
    found = re.findall(r"^step +(\d+)/", log.read_text(), re.M)
    return int(found[-1]) if found else 0


def run(words: list[str], log: Path, kill: Moment | None = None) -> tuple[int, str]:
    """(exit code, last line said) of a command, killed at a moment or left alone."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        while kill is not None and process.poll() is None and shown_step(log) < kill.step:
            time.sleep(0.01)
        process.wait(None if kill is None else kill.wait_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()
    lines = log.read_text().strip().splitlines()
    return process.returncode, lines[-1] if lines else "(nothing said yet)"


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--kills", default=10, show_default=True, type=click.IntRange(4, 24))
@click.option("--seed", default=0, show_default=True)
def main(pictures: Path, kills: int, seed: int) -> None:
    """Train undisturbed, then killed again and again, and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if run(command(pictures, folder / "whole", folder / "cache"), folder / "log")[0]:
            raise SystemExit("the undisturbed training failed")
        words = command(pictures, folder / "killed", folder / "cache-of-the-killed")
        hit: Counter[str] = Counter()
        for moment in moments(kills, seed):
            code, last = run(words, folder / "log", moment)
            if code != -signal.SIGKILL:
                raise SystemExit(f"ended by itself with exit code {code} before a kill: {last}")
            hit[moment.phase] += 1
            print(
                f"kill {hit.total():2d}, {moment.phase}, step {moment.step} + {moment.wait_s:.2f} s: {last}", flush=True
            )
        code, last = run(words, folder / "log")
        print(f"left alone: exit code {code}: {last}")
        same = compared(folder / "whole", folder / "killed")
        fell = ", ".join(f"{count} in the {phase}" for phase, count in hit.items())
        print(f"{hit.total()} kills, {fell}: {'the same bytes' if same else 'DIFFERENT'}")
        raise SystemExit(0 if same and {"float", "quantised"} <= hit.keys() else 1)


def compared(whole: Path, killed: Path) -> bool:
    """Print the digests of two runs' files; whether they are the same."""
    same = True
    for file in ("model.safetensors", "last.safetensors", "best.safetensors", "report.json", "samples.png"):
        digests = [hashlib.sha256((run / file).read_bytes()).hexdigest()[:32] for run in (whole, killed)]
        same &= digests[0] == digests[1]
        print(f"{file:<20}{'  '.join(digests)}")
    return same


if __name__ == "__main__":
    main()
