"""The first training loop and today's → pixels per second on all cores, taking turns on one machine.

    git worktree add FOLDER 0cea265                 # the loop whose speed was recorded first
    python bench/first_loop.py FOLDER [--sizes ...] [--precision float32]

Both train the same network from the same seed with AdamW, the same rates and crops of the same photograph (not the same
crops: they are drawn otherwise today), each in a process of its own with the settings of docs/training.md for the
memory. One runs some steps while the other waits. Wall clock, so nothing else may run; medians over the turns.

The first loop multiplies in bfloat16 on every processor, and so does today's here; where there are no instructions for
that, both are better compared in float32.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

_PHOTO = Path(__file__).parent.parent / "examples" / "photo.png"
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
#: What today's loop is within until its process ends.
_TO_THE_END = ExitStack()
_BATCH, _CROP, _RATE, _WARMUP = 12, 64, 2.5e-3, 300


def first_loop(sizes: dict[str, Any], threads: int, precision: str) -> Any:
    """A function of a number of steps that runs so many; returns the bits/dim of each."""
    import pixzip.train as train  # type: ignore[import-not-found]
    import torch
    from PIL import Image

    from pixzip.data import RandomCrops  # type: ignore[attr-defined]
    from pixzip.nets.trunk import TrunkConfig

    torch.set_num_threads(threads)
    nats, dtype = train.batch_nats, getattr(torch, precision)
    train.batch_nats = lambda model, batch, exponents, _: nats(model, batch, exponents, dtype)
    config = train.TrainConfig(model=TrunkConfig(**sizes), rate=_RATE, warmup=_WARMUP, batch=_BATCH, crop=_CROP)
    run = train.Run.new(config)
    photo = [np.asarray(Image.open(_PHOTO).convert("RGB"))]
    batches = RandomCrops(photo, _CROP, _BATCH, 0, 0.06).from_step(0)
    return lambda steps: [run.step(batch) for batch in islice(batches, steps)]


def todays_loop(sizes: dict[str, Any], threads: int, precision: str) -> Any:
    """As first_loop."""
    import torch
    from PIL import Image

    from pixzip.data.cache import pictures_of
    from pixzip.data.crops import RandomCrops, ahead
    from pixzip.data.settings import DataSettings
    from pixzip.nets.trunk import TrunkConfig
    from pixzip.training.checkpoint import Run
    from pixzip.training.config import Config, TrainingSettings
    from pixzip.training.loop import Trainer
    from pixzip.training.memory import keep_memory, settled_objects
    from pixzip.training.processes import Processes
    from pixzip.training.workers import Workers

    keep_memory()
    torch.set_num_threads(1)
    settings = TrainingSettings(rate=_RATE, warmup=_WARMUP, batch=_BATCH, steps=10**6, precision=precision)
    config = Config(TrunkConfig(**sizes), settings, DataSettings(crop=_CROP, gray_share=0.06, planes=3))
    crops = RandomCrops(pictures_of(np.asarray(Image.open(_PHOTO).convert("RGB"))), config.data, 0)
    nothing = np.zeros((1, 8, 8, 3), np.uint8)
    made = Trainer(Run.new(config, {}), crops, nothing, Path(), Processes(), Workers(threads, patience_s=0))
    feed = ahead(made.parts, 0)
    assert made.step(next(feed)) is None
    made.workers.wait()
    _TO_THE_END.enter_context(settled_objects())

    def run(steps: int) -> list[float]:
        made.recent.clear()
        for parts in islice(feed, steps):
            assert made.step(parts) is None
        return list(made.recent)

    return run


class Loop:
    """One of them in a process of its own."""

    def __init__(self, which: str, package: Path, sizes: dict[str, Any], threads: int, precision: str) -> None:
        words = [sys.executable, __file__, "--worker", which, "--threads", str(threads), "--sizes", json.dumps(sizes)]
        words += ["--precision", precision]
        environment = os.environ | _MEMORY | {"PYTHONPATH": str(package)}
        self._process = subprocess.Popen(
            [*words, str(package)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, steps: int) -> tuple[float, list[float]]:
        """Seconds of so many steps, and the bits/dim of each."""
        assert self._process.stdin and self._process.stdout
        print(steps, file=self._process.stdin, flush=True)
        seconds, bits = json.loads(self._process.stdout.readline())
        return seconds, bits

    def end(self) -> None:
        """No more steps."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def work(which: str, sizes: dict[str, Any], threads: int, precision: str) -> None:
    """Run the steps that are asked for on standard input."""
    run = {"first": first_loop, "today": todays_loop}[which](sizes, threads, precision)
    for line in sys.stdin:
        start = time.perf_counter()
        bits = run(int(line))
        print(json.dumps([time.perf_counter() - start, bits]), flush=True)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--sizes", default='{"channels": 128, "hidden": 160, "lstm": 80, "head": 128, "blocks": "clclclc"}')
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
@click.option("--turns", default=20, show_default=True)
@click.option("--steps", default=5, show_default=True, help="Of a turn.")
@click.option("--precision", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True)
@click.option("--worker", hidden=True)
def main(folder: Path, sizes: str, threads: int, turns: int, steps: int, precision: str, worker: str | None) -> None:
    """Train with the loop in FOLDER and with today's, by turns."""
    network = json.loads(sizes)
    if worker:
        work(worker, network, threads, precision)
        return
    own = Path(__file__).resolve().parent.parent
    both = {"first": folder, "today": own}
    loops = {name: Loop(name, package, network, threads, precision) for name, package in both.items()}
    pixels = _BATCH * _CROP**2 * steps
    times: dict[str, list[float]] = {name: [] for name in loops}
    bits: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(turns + 1):
        for name, loop in loops.items():
            seconds, found = loop.run(steps)
            bits[name] += found
            if turn:  # the first warms up
                times[name].append(seconds)
    for loop in loops.values():
        loop.end()
    ratios = sorted(a / b for a, b in zip(times["first"], times["today"], strict=True))
    for name in loops:
        curve = "  ".join(f"{np.mean(part):.3f}" for part in np.array_split(bits[name], 5))
        print(f"{name:<6}{pixels / np.median(times[name]):>10,.0f} pixels/s   bits/dim by fifths of the run  {curve}")
    print(f"today / first {ratios[len(ratios) // 2]:.2f}  (turns from {ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
