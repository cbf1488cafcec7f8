"""Pictures → a trained network and its model file: schedule in steps, checkpoints that resume bit for bit."""

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
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixzip.data import Batch, RandomCrops, centre_crops, load_pictures, prepare
from pixzip.errors import TrainingError
from pixzip.freeze import freeze
from pixzip.nets.calibration import calibrated
from pixzip.nets.exponents import Exponents
from pixzip.nets.quantised import quantised_loss
from pixzip.nets.tables import make_tables
from pixzip.nets.trunk import TrunkConfig, TrunkModel

#: Batches that calibration looks at, drawn from a seed of their own.
_CALIBRATION_CROPS = 24


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on; lengths in optimiser steps.

    Phase one (float, bfloat16 products): the rate rises over ``warmup`` steps, stays at ``rate`` until ``decay`` steps
    before the end and falls on a half cosine to ``rate * final``. Until the fall begins a run does not depend on its
    length, so it can be prolonged. Phase two (``quantised_steps``): the same on the network's integers, from
    ``quantised_rate`` down to nothing on another half cosine. The defaults are the default model's.
    """

    model: TrunkConfig = field(default_factory=TrunkConfig)
    steps: int = 6500
    decay: int = 1100
    warmup: int = 300
    rate: float = 2.5e-3
    final: float = 0.3
    quantised_steps: int = 1900
    quantised_rate: float = 7e-4
    weight_decay: float = 0.01
    clip: float = 1.0
    crop: int = 64
    batch: int = 12
    gray_share: float = 0.06
    seed: int = 0
    validate_every: int = 500
    save_every: int = 250
    validation_crop: int = 128

    @property
    def all_steps(self) -> int:
        """Steps of both phases."""
        return self.steps + self.quantised_steps

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over both phases."""
        if step >= self.steps:
            return self.quantised_rate * (1 + math.cos(math.pi * (step - self.steps) / self.quantised_steps)) / 2
        rise = min(1.0, (step + 1) / self.warmup)
        into = max(0.0, (step - (self.steps - self.decay)) / max(1, self.decay))
        fall = self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, into))) / 2
        return self.rate * rise * fall


TABLES = make_tables()


def batch_nats(model: TrunkModel, batch: Batch, exponents: Exponents | None, dtype: torch.dtype) -> Tensor:
    """Nats of a batch: of the float network, or of its integers where exponents are given."""
    inputs, errors = torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors)
    if exponents is None:
        parts = model.loss(inputs, errors, dtype)
    else:
        parts = quantised_loss(model, inputs, errors, exponents, TABLES)
    return parts[0] + parts[1] + parts[2]


def bits_per_dim(
    model: TrunkModel, batches: list[Batch], exponents: Exponents | None = None, dtype: torch.dtype = torch.float32
) -> float:
    """Mean bits per sub-pixel over validation batches, float or quantised as in batch_nats."""
    with torch.no_grad():
        nats = sum(batch_nats(model, b, exponents, dtype).item() for b in batches)
    return nats / sum(b.errors.size for b in batches) / math.log(2)


@dataclass
class Run:
    """The state that a checkpoint holds: steps done, network, optimiser, exponents of phase two."""

    config: TrainConfig
    model: TrunkModel
    optimiser: torch.optim.Optimizer
    exponents: Exponents | None = None
    done: int = 0

    @staticmethod
    def new(config: TrainConfig) -> Run:
        """A run before its first step."""
        model = TrunkModel(config.model, config.seed)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.rate, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
        )
        return Run(config, model, optimiser)

    def save(self, folder: Path) -> None:
        """Write the state as one safetensors file, atomically; the one before is kept."""
        tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        names = {id(p): name for name, p in self.model.named_parameters()}
        for p, state in self.optimiser.state.items():
            tensors |= {f"optimiser.{key}.{names[id(p)]}": value for key, value in state.items()}
        meta = {"step": str(self.done), "config": json.dumps(asdict(self.config))}
        if self.exponents is not None:
            meta["exponents"] = json.dumps(self.exponents.to_json())
        temporary, last = folder / "checkpoint.tmp", folder / "last.safetensors"
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, meta)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        if last.exists():
            last.replace(folder / "previous.safetensors")
        temporary.replace(last)

    def load(self, path: Path) -> None:
        """Restore the state. Raises TrainingError for a checkpoint of another network.

        Exponents of an earlier arithmetic version are left out: phase two goes on with exponents calibrated anew.
        """
        with safe_open(path, "pt") as handle:
            meta = handle.metadata()
        stored = json.loads(meta["config"])["model"]
        if stored != asdict(self.config.model):
            raise TrainingError(f"{path}: checkpoint of another network: {stored}, wanted {asdict(self.config.model)}")
        tensors = load_file(path)
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for name, p in self.model.named_parameters():
            state: dict[str, Any] = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"optimiser.{key}.{name}" in tensors:
                    state[key] = tensors[f"optimiser.{key}.{name}"]
            if state:
                self.optimiser.state[p] = state
        self.done = int(meta["step"])
        if "exponents" in meta:
            self.exponents = Exponents.from_json(json.loads(meta["exponents"]))

    def calibrate(self, crops: RandomCrops) -> None:
        """Choose the exponents from random crops of a seed of their own: the beginning of phase two."""
        sample = RandomCrops(crops.pictures, self.config.crop, _CALIBRATION_CROPS, self.config.seed + 1).batch(0)
        inputs, errors = torch.from_numpy(sample.inputs), torch.from_numpy(sample.errors)
        self.exponents = calibrated(self.model, inputs, errors, TABLES)

    def step(self, batch: Batch) -> float:
        """One optimiser step; returns bits/dim of the batch. Raises TrainingError when the loss is not finite."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate_at(self.done)
        loss = batch_nats(self.model, batch, self.exponents, torch.bfloat16) / batch.errors.size
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(f"loss is {value} in step {self.done}")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimiser.step()
        self.done += 1
        return value / math.log(2)


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

    def __init__(self, folder: Path, steps: int, done: int) -> None:
        self._path = folder / "log.csv"
        self._steps = steps
        self._mark = (time.monotonic(), done)

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


def _finish(run: Run, folder: Path, batches: list[Batch]) -> None:
    """Write model.safetensors and report.json: bits/dim of the float network and of its integers."""
    assert run.exponents is not None
    bits = {
        "float": bits_per_dim(run.model, batches),
        "quantised": bits_per_dim(run.model, batches, run.exponents),
    }
    data = freeze(run.model, run.exponents, TABLES, {"training": asdict(run.config)})
    (folder / "model.safetensors").write_bytes(data)
    report = {"validation_bits_per_dim": bits, "model_bytes": len(data)}
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    print(f"validation bits/dim: float {bits['float']:.4f}, quantised {bits['quantised']:.4f}; model {len(data)} bytes")


def train(config: TrainConfig, photos: Path, validation: Path, folder: Path) -> None:
    """Train both phases and write ``folder/model.safetensors``, resuming where a checkpoint in folder ends.

    SIGINT and SIGTERM save a checkpoint and return.
    """
    folder.mkdir(parents=True, exist_ok=True)
    crops = RandomCrops(load_pictures(photos), config.crop, config.batch, config.seed, config.gray_share)
    held_out = centre_crops(load_pictures(validation), config.validation_crop)
    batches = [prepare(held_out[i : i + 5]) for i in range(0, len(held_out), 5)]
    run = Run.new(config)
    if (folder / "last.safetensors").exists():
        run.load(folder / "last.safetensors")
        print(f"resuming after step {run.done}", flush=True)
    log = Log(folder, config.all_steps, run.done)
    recent: list[float] = []
    with stop_signals() as stopped:
        for batch in crops.from_step(run.done):
            if run.done >= config.steps and run.exponents is None:
                run.calibrate(crops)
            if run.done >= config.all_steps or stopped():
                break
            recent.append(run.step(batch))
            last = run.done == config.all_steps
            if run.done % 50 == 0 or last:
                judged = run.done % config.validate_every == 0 or run.done == config.steps or last
                value = bits_per_dim(run.model, batches, run.exponents) if judged else None
                log.report(run.done, float(np.mean(recent)), value, config.rate_at(run.done - 1), crops.pixels)
                recent.clear()
            if run.done % config.save_every == 0 or run.done == config.steps or last or stopped():
                run.save(folder)
    if run.done < config.all_steps:
        print(f"stopped after step {run.done}; run again to go on", flush=True)
    else:
        _finish(run, folder, batches)
