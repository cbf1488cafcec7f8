"""Pictures → a trained network: schedule in steps, checkpoints that resume bit for bit."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixzip.data import Batch, RandomCrops, centre_crops, load_pictures, prepare
from pixzip.errors import TrainingError
from pixzip.nets.trunk import TrunkConfig, TrunkModel


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on; lengths in optimiser steps.

    The rate rises over ``warmup`` steps, stays at ``rate`` until ``decay`` steps before the end of the phase and falls
    on a half cosine to ``rate * final``. Until the fall begins a run does not depend on its length, so it can be
    prolonged.
    """

    model: TrunkConfig = field(default_factory=TrunkConfig)
    steps: int = 8000
    decay: int = 2000
    warmup: int = 300
    rate: float = 2.5e-3
    final: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    crop: int = 64
    batch: int = 12
    seed: int = 0
    validate_every: int = 500
    save_every: int = 250
    validation_crop: int = 128

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup)
        into = max(0.0, (step - (self.steps - self.decay)) / max(1, self.decay))
        fall = self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, into))) / 2
        return self.rate * rise * fall


def bits_per_dim(model: TrunkModel, batches: list[Batch], dtype: torch.dtype = torch.float32) -> float:
    """Mean bits per sub-pixel over validation batches."""
    nats, count = 0.0, 0
    with torch.no_grad():
        for b in batches:
            nats += sum(float(part) for part in model.loss(torch.from_numpy(b.inputs), torch.from_numpy(b.errors), dtype))
            count += b.errors.size
    return nats / count / math.log(2)


def save_checkpoint(folder: Path, step: int, model: TrunkModel, optimiser: torch.optim.Optimizer, config: TrainConfig) -> None:
    """Write model, optimiser state and configuration as one safetensors file, atomically; the one before is kept."""
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in model.state_dict().items()}
    names = dict(zip((id(p) for p in model.parameters()), (n for n, _ in model.named_parameters()), strict=True))
    for p, state in optimiser.state.items():
        tensors |= {f"optimiser.{key}.{names[id(p)]}": value for key, value in state.items()}
    meta = {"step": str(step), "config": json.dumps(asdict(config))}
    temporary = folder / "checkpoint.tmp"
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, meta)
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    last = folder / "last.safetensors"
    if last.exists():
        last.replace(folder / "previous.safetensors")
    temporary.replace(last)


def load_checkpoint(path: Path, model: TrunkModel, optimiser: torch.optim.Optimizer) -> int:
    """Restore model and optimiser; returns the number of steps done."""
    from safetensors import safe_open

    with safe_open(path, "pt") as handle:
        meta = handle.metadata()
    stored = json.loads(meta["config"])["model"]
    if stored != asdict(model.config):
        raise TrainingError(f"{path}: checkpoint of another configuration: {stored}")
    tensors = load_file(path)
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    for name, p in model.named_parameters():
        suffix = "." + name
        state: dict[str, Any] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser.") and key.endswith(suffix) and key.count(".") == 1 + suffix.count("."):
                state[key.split(".")[1]] = value
        if state:
            optimiser.state[p] = state
    return int(meta["step"])


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Within the block SIGINT and SIGTERM only set a flag, which the yielded function reads."""
    seen: list[int] = []
    old = {s: signal.signal(s, lambda number, _: seen.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


class Log:
    """Appends one line a report to log.csv and prints it with the time left."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._path = folder / "log.csv"
        self._steps = steps
        self._mark = (time.monotonic(), -1)

    def report(self, step: int, train: float, validation: float | None, rate: float, pixels_per_step: int) -> None:
        """Record a step: bits/dim of training and validation, rate, pixels per second."""
        now = time.monotonic()
        seconds = (now - self._mark[0]) / max(1, step - self._mark[1])
        self._mark = (now, step)
        new = not self._path.exists()
        with self._path.open("a", newline="") as handle:
            out = csv.writer(handle)
            if new:
                out.writerow(["step", "train_bits_per_dim", "validation_bits_per_dim", "rate", "pixels_per_s"])
            shown = "" if validation is None else f"{validation:.4f}"
            out.writerow([step, f"{train:.4f}", shown, f"{rate:.3g}", round(pixels_per_step / seconds)])
        left = (self._steps - step) * seconds / 60
        print(
            f"step {step:6d}/{self._steps}  train {train:.4f}  validation {shown or '-':>6}  rate {rate:.2e}  "
            f"{pixels_per_step / seconds / 1e3:.1f} k pixels/s  {left:.0f} min left",
            flush=True,
        )


def train(config: TrainConfig, photos: Path, validation: Path, folder: Path) -> TrunkModel:
    """Train in float (bfloat16 products) until config.steps, resuming from folder if it holds a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    crops = RandomCrops(load_pictures(photos), config.crop, config.batch, config.seed)
    held_out: NDArray[np.uint8] = centre_crops(load_pictures(validation), config.validation_crop)
    batches = [prepare(held_out[i : i + 5]) for i in range(0, len(held_out), 5)]
    model = TrunkModel(config.model, config.seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.rate, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    start = 0
    if (folder / "last.safetensors").exists():
        start = load_checkpoint(folder / "last.safetensors", model, optimiser)
        print(f"resuming after step {start}", flush=True)
    log = Log(folder, config.steps)
    pixels = config.batch * config.crop**2
    recent: list[float] = []
    with stop_signals() as stopped:
        for step, batch in zip(range(start, config.steps), crops.from_step(start), strict=False):
            for group in optimiser.param_groups:
                group["lr"] = config.rate_at(step)
            nats = model.loss(torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors))
            loss = (nats[0] + nats[1] + nats[2]) / batch.errors.size
            if not math.isfinite(float(loss)):
                raise TrainingError(f"loss is {float(loss)} at step {step}")
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimiser.step()
            recent.append(float(loss) / math.log(2))
            done = step + 1
            if done % 50 == 0 or done == config.steps:
                judged = done % config.validate_every == 0 or done == config.steps
                value = bits_per_dim(model, batches) if judged else None
                log.report(done, float(np.mean(recent)), value, config.rate_at(step), pixels)
                recent.clear()
            if done % config.save_every == 0 or done == config.steps or stopped():
                save_checkpoint(folder, done, model, optimiser, config)
            if stopped():
                print(f"stopped after step {done}; run again to go on", flush=True)
                break
    return model
