"""A preset → pixels per second of both phases of its training, and their share of the machine's matmul rate.

    python bench/training_speed.py [--preset default] [--steps 6] [--profile]

One thread, whole steps of the training loop: crops, passes, clipping, optimiser. Seconds are the process's own CPU
time, so that other work on the machine counts less; both phases take turns, so that it counts for both alike. Numbers
are medians; the loss is the mean of the last steps, ten at most. bench/first_loop.py compares with the first loop.

float       the float phase
quantised   the phase on integers, from exponents by squared error (what they are changes no time)
products    the products of such a step alone, with the same shapes and strides: the machine's rate on them
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from pixzip.data.cache import pictures_of
from pixzip.data.crops import RandomCrops
from pixzip.freezing.calibration import observe
from pixzip.freezing.exponents import calibrate
from pixzip.training.checkpoint import Run
from pixzip.training.config import Config, from_tables, preset_tables
from pixzip.training.loop import Trainer
from pixzip.training.memory import keep_memory
from pixzip.training.processes import Processes

_PHOTO = Path(__file__).parent.parent / "examples" / "photo.png"
#: A product: shape and strides of both operands, and their type.
_Product = tuple[tuple[Any, Any], tuple[Any, Any], torch.dtype]


def trainer(config: Config) -> Trainer:
    """A run of the preset's network on the sample photograph."""
    photo = pictures_of(np.asarray(Image.open(_PHOTO).convert("RGB")))
    crops = RandomCrops(photo, config.data, config.training.seed)
    return Trainer(Run.new(config, {}), crops, np.zeros((1, 8, 8, 3), np.uint8), Path(), Processes())


def begin_integers(made: Trainer) -> None:
    """As Trainer.begin_integers, without the search that takes a minute."""
    batch = made.run.network.prepare(made.crops.batch(0, 0, range(4)))
    seen = observe(made.run.network, torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors))
    made.run.exponents = calibrate(made.run.config.model.blocks, seen)


def step(made: Trainer) -> float:
    """One step; its CPU seconds."""
    start = time.process_time()
    trouble = made.step(made.parts(made.run.done))
    assert trouble is None, trouble
    return time.process_time() - start


class _Products(TorchDispatchMode):
    """Notes every matrix product that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[_Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in ("aten::mm", "aten::addmm", "aten::addmm_", "aten::_int_mm"):
            a, b = args[1:3] if "addmm" in name else args[:2]
            self.seen[(tuple(a.shape), a.stride()), (tuple(b.shape), b.stride()), a.dtype] += 1
        return func(*args, **(kwargs or {}))


def products(made: Trainer) -> Counter[_Product]:
    """The products of one step, with their numbers."""
    found = _Products()
    with found:
        step(made)
    return found.seen


def products_s(found: Counter[_Product]) -> float:
    """CPU seconds of so many products and nothing else: the median of three times each."""
    total = 0.0
    for ((shape_a, stride_a), (shape_b, stride_b), dtype), count in found.items():
        a, b = (
            torch.empty_strided(s, st, dtype=dtype).fill_(1) for s, st in ((shape_a, stride_a), (shape_b, stride_b))
        )
        multiply: Callable[[Tensor, Tensor], Tensor] = torch._int_mm if dtype == torch.int8 else torch.mm
        multiply(a, b)
        times = []
        for _ in range(3):
            repeats = max(1, min(count, 50))
            start = time.process_time()
            for _ in range(repeats):
                multiply(a, b)
            times.append((time.process_time() - start) / repeats)
        total += count * sorted(times)[1]
    return total


def macs(found: Counter[_Product]) -> int:
    """Multiply-accumulates of products."""
    return sum(a[0][0] * a[0][1] * b[0][1] * count for (a, b, _), count in found.items())


@click.command()
@click.option("--preset", default="default", show_default=True)
@click.option("--steps", default=6, show_default=True, help="Of each loop.")
@click.option("--profile", "profiled", is_flag=True, help="Show where the time of both phases goes, instead.")
def main(preset: str, steps: int, profiled: bool) -> None:
    """Measure the training of a preset on this machine."""
    keep_memory()
    torch.set_num_threads(1)
    config = from_tables(preset_tables(preset))
    config = replace(config, training=replace(config.training, spike=0.0))
    loops = {name: trainer(config) for name in ("float", "quantised")}
    begin_integers(loops["quantised"])
    if profiled:
        for name in ("float", "quantised"):
            _show_profile(loops[name])
        return
    pixels = config.training.batch * config.data.crop**2
    times: dict[str, list[float]] = {name: [] for name in loops}
    for i in range(steps + 1):
        for name, made in loops.items():
            took = step(made)
            if i:  # the first warms up
                times[name].append(took)
    for name, made in loops.items():
        each_s = sorted(times[name])[steps // 2]
        loss = float(np.mean(made.recent[steps + 1 - min(steps, 10) : steps + 1]))
        found = products(made)
        product_s = products_s(found)
        print(
            f"{name:<10}{pixels / each_s:>10,.0f} pixels/s  loss {loss:.4f}  products alone "
            f"{macs(found) / product_s / 1e9:.0f} G MAC/s, of which the step reaches {100 * product_s / each_s:.0f} %"
        )


def _show_profile(made: Trainer) -> None:
    """The operations that take most of a step's time."""
    for _ in range(4):  # until no memory is taken from the system
        step(made)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(3):
            step(made)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40))


if __name__ == "__main__":
    main()
