"""A run and its pictures → steps, validations and checkpoints, until it is done, stopped, or has to go back."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixzip.data.crops import Pixels, RandomCrops, ahead
from pixzip.errors import TrainingError
from pixzip.nets.precision import product_type
from pixzip.training import integers
from pixzip.training.checkpoint import (
    LAST,
    Run,
    Setback,
    parsed,
    read_good,
    read_resumable,
    write_after_stop,
    write_best,
    write_last,
    write_stop,
)
from pixzip.training.memory import settled_objects
from pixzip.training.processes import Processes
from pixzip.training.report import Entry, Log
from pixzip.training.schedule import rate_at
from pixzip.training.watch import Watch
from pixzip.training.workers import Outcome, Task, Workers, computed, shares, torch_threads, trained

#: Pixels that validation works on at once.
_VALIDATION_PX = 81920
#: What a setback multiplies the rate by.
_SLOWER = 0.5


class Share(NamedTuple):
    """Crops (n, h, w, planes) of a step, and their batch where this process has prepared it."""

    crops: Pixels
    batch: Any


@dataclass
class Trainer:
    """A run with what it works on: pictures, folder, processes, workers and log."""

    run: Run
    crops: RandomCrops
    held_out: Pixels
    folder: Path
    processes: Processes
    workers: Workers = field(default_factory=Workers)
    log: Log | None = None
    recent: list[float] = field(default_factory=list)
    stopped: Callable[[], int] = lambda: 0
    #: What a signal interrupts within, where nothing is lost that is not on disk.
    interruptible: Callable[[], AbstractContextManager[None]] = nullcontext
    #: Whether the last checkpoint is one that a run writes that is left alone.
    last_is_due: bool = True

    def __post_init__(self) -> None:
        settings, self.cores = self.run.config.training, torch.get_num_threads()
        self.run.threads = self.cores * self.processes.world
        if settings.recompute:
            self.run.network.recompute = True
        self.dtype = product_type(settings.precision, next(self.run.network.parameters()).device.type)
        self._float_nats: Callable[[Any, torch.dtype], Tensor] = self.run.network.nats
        if settings.compile:
            self._float_nats = torch.compile(self.run.network.nats)

    # -------------------------------------------------------------------- one step

    def parts(self, step: int) -> list[list[Share]]:
        """This process's part of a step's crops: what gradients are accumulated over, shared by the workers.

        Of each share list the first is this process's own and prepared; the workers prepare theirs.
        """
        settings, prepare = self.run.config.training, self.run.network.prepare
        count = settings.batch // (self.processes.world * settings.accumulate)
        first = self.processes.rank * count * settings.accumulate
        attempt, each = len(self.run.setbacks), shares(count, self.workers.count)
        made = []
        for i in range(first, first + count * settings.accumulate, count):
            crops = [self.crops.batch(attempt, step, range(i + own.start, i + own.stop)) for own in each]
            made.append([Share(own, None if j else prepare(own)) for j, own in enumerate(crops)])
        return made

    def computed(self, task: Task) -> Outcome:
        """A task's outcome, in this process."""
        return computed(self.run.network, task, self._float_nats)

    def gradients(self, parts: list[list[Share]]) -> float:
        """Put the gradients of the whole batch, over all processes, in place; returns its bits/dim."""
        parameters = trained(self.run.network)
        for p in parameters:
            p.grad = None
        sub_pixels = sum(share.crops.size for part in parts for share in part) * self.processes.world
        loss = 0.0
        for part in parts:
            tasks = [Task(share.crops, self.dtype, self.run.exponents, sub_pixels, share.batch) for share in part]
            for mean, gradients in self.workers.map(self.computed, self.run.network, tasks):
                loss += mean
                for p, gradient in zip(parameters, gradients, strict=True):
                    if gradient is None:
                        continue
                    if p.grad is None:  # a copy, since two may share one, and in the parameter's order of memory:
                        p.grad = torch.empty_like(p)  # fused optimisers take the one for the other's
                        p.grad.copy_(gradient)
                    else:
                        p.grad.add_(gradient)
        self.note_lost()
        (total,) = self.processes.sum([loss])
        self.processes.sum_gradients(parameters)
        return total / math.log(2)

    def note_lost(self) -> None:
        """Say which workers have ended since it was last asked."""
        for how in self.workers.lost:
            if self.log is not None:
                self.log.event(self.run.done, f"a process that shares the batch {how}; for now this one does its part")
        self.workers.lost.clear()

    def step(self, parts: list[list[Share]]) -> str | None:
        """One optimiser step; returns what is wrong where the loss says so, and leaves the weights as they were."""
        run, settings = self.run, self.run.config.training
        bits = self.gradients(parts)
        if trouble := run.watch.trouble(bits, settings.spike):
            return trouble
        norm = float(torch.nn.utils.clip_grad_norm_(run.network.parameters(), settings.clip))
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        self.set_rate()
        for optimiser in run.optimisers:
            optimiser.step()
        if run.average is not None:
            run.average.update(run.network, run.done)
        run.done += 1
        self.recent.append(bits)
        return None

    def rate(self, step: int) -> float:
        """The schedule's rate, lowered by setbacks."""
        return rate_at(self.run.config.training, step) * _SLOWER ** len(self.run.setbacks)

    def set_rate(self) -> None:
        """Of the coming step."""
        for optimiser in self.run.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.rate(self.run.done) * group["share"]

    # -------------------------------------------------------------------- validation, phases

    def validate(self, crops: Pixels, *, integer: bool) -> float:
        """Bits/dim of crops (n, h, w, planes), of the weights that would be shipped, float32 or integers."""
        run = self.run
        count = max(1, _VALIDATION_PX // (crops.shape[1] * crops.shape[2]))
        starts = range(0, len(crops), count)[self.processes.rank :: self.processes.world]
        exponents, at_once = run.exponents if integer else None, self.workers.count
        tasks = [Task(crops[start : start + count], torch.float32, exponents) for start in starts]
        found: list[Outcome] = []
        weights = run.average.in_place(run.network) if run.average is not None else nullcontext()
        with weights, torch_threads(self.workers.inside):
            for i in range(0, len(tasks), at_once):
                found += self.workers.map(partial(computed, run.network), run.network, tasks[i : i + at_once])
        self.note_lost()
        sums = math.fsum(outcome.nats for outcome in found), sum(task.crops.size for task in tasks)
        nats, sub_pixels = self.processes.sum(list(sums))
        return nats / sub_pixels / math.log(2)

    def begin_integers(self) -> None:
        """Choose the exponents from crops of a seed of their own; the averaged weights, if any, go on."""
        run = self.run
        if run.average is not None:
            run.average.become_weights(run.network)
        run.network.cpu()  # from a GPU, where the integers are not
        sample = run.network.prepare(integers.calibration_crops(self.crops))
        if self.log is not None:
            self.log.say("choosing the exponents of the integers")
        with torch_threads(self.cores), self.interruptible():
            run.exponents = self.processes.agreed(integers.calibrate(run.network, sample))
        run.watch, run.best = Watch(), math.inf

    # -------------------------------------------------------------------- checkpoints

    def save(self, *, stopping: bool = False) -> None:
        """Write the last checkpoint; stopping: one that is not due."""
        if self.processes.leads:
            data = self.run.to_bytes(stopped=stopping)
            if stopping:
                write_stop(self.folder, data, again=not self.last_is_due)
            elif self.last_is_due:
                write_last(self.folder, data)
            else:
                write_after_stop(self.folder, data)
        self.last_is_due = not stopping

    def resume(self, *, allow_changes: bool, say: Callable[[str], None]) -> bool:
        """Go on from the newest whole checkpoint in the folder, if there is one."""
        found = self.processes.led(lambda: read_resumable(self.folder))
        if found is None:
            return False
        name, data, missing = found
        if missing:
            say(missing)
        shown, run = str(self.folder / name), self.run
        run.check_same(data, shown, allow_changes=allow_changes)
        run.restore(data, shown)
        if run.exponents is not None and run.done < run.config.training.steps:
            raise TrainingError(
                f"training.steps {run.config.training.steps}: this run is at step {run.done}, on its integers already; "
                "prolong that phase (training.quantised_steps), or begin another run with it (--init)"
            )
        state, _ = parsed(data, shown)
        if state.get("threads", 0) not in (0, run.threads):
            say(f"{run.threads} threads where there were {state['threads']}: other bits than without an interruption")
        self.last_is_due = name == LAST and not state.get("stopped", False)
        return True

    def set_back(self, reason: str) -> None:
        """Return to a good checkpoint and go on with a lower rate and other crops."""
        step, limit, before = self.run.done, self.run.config.training.setbacks, self.run.setbacks
        found = self.processes.led(lambda: read_good(self.folder, before))
        if found is None or len(before) >= limit:
            raise TrainingError(
                f"{reason} in step {step}, after {len(before)} setbacks; good until then: {self.folder / LAST}"
            )
        name, data = found
        best = (self.run.exponents is None, self.run.best)
        self.run.restore(data, name)
        if best[0] == (self.run.exponents is None):  # best.safetensors is of this phase and stays
            self.run.best = min(self.run.best, best[1])
        self.run.setbacks = [*before, Setback(step, reason, self.run.done)]
        if self.processes.leads:
            write_last(self.folder, self.run.to_bytes(), keep_previous=False)
        self.last_is_due = True
        self.recent.clear()
        if self.log is not None:
            self.log.go_back(self.run.done)
            rate = f"{_SLOWER ** len(self.run.setbacks):g}"
            self.log.event(self.run.done, f"{reason} in step {step}: back to step {self.run.done}, rate times {rate}")

    # -------------------------------------------------------------------- the loop

    def go(self) -> int:
        """Train to the end, or until a signal: its number is returned, the state saved."""
        with torch_threads(self.workers.inside), settled_objects():
            while self.run.done < self.run.config.training.all_steps:
                trouble, number = self._until_trouble()
                if number:
                    return number
                if trouble:
                    self.set_back(trouble)
        return 0

    def _until_trouble(self) -> tuple[str | None, int]:
        """(what went wrong, signal) of the steps from here on; neither at the end."""
        settings = self.run.config.training
        with closing(ahead(self.parts, self.run.done)) as feed:
            while self.run.done < settings.all_steps:
                if self.run.done >= settings.steps and self.run.exponents is None:
                    self.begin_integers()
                if trouble := self.step(next(feed)):
                    return trouble, 0
                stopping = self.processes.sum([float(bool(self.stopped()))])[0] > 0
                if trouble := self._after_step(stopping=stopping):
                    return trouble, 0
                if stopping:
                    return None, self.stopped() or signal.SIGTERM
        return None, 0

    def _after_step(self, *, stopping: bool) -> str | None:
        """Validate, report and save where the settings say so; returns what is wrong where the validation says so."""
        run, settings = self.run, self.run.config.training
        ending = run.done in (settings.steps, settings.all_steps)
        value = None
        if run.done % settings.validate_every == 0 or ending:
            value = self.validate(self.held_out, integer=run.exponents is not None)
            if not math.isfinite(value):
                return f"validation is {value}"
        if run.done % settings.report_every == 0 or ending or value is not None:
            if self.log is not None:
                self.log.report(Entry(run.done, float(np.mean(self.recent)), value, self.rate(run.done - 1)))
            self.recent.clear()
        if value is not None and value < run.best:
            run.best = value
            if self.processes.leads:
                write_best(self.folder, run.to_bytes())
        if ending or (run.done % settings.save_every == 0 and run.watch.calm(settings.spike)):
            self.save()
        elif stopping:
            self.save(stopping=True)
        return None
