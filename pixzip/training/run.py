"""Pictures and a configuration → a trained network and its model file, through any number of interruptions."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pixzip.data.cache import check_apart
from pixzip.data.crops import RandomCrops, centre_crops
from pixzip.data.split import load_split
from pixzip.errors import OutputError, TrainingDataError, TrainingError
from pixzip.files import staged
from pixzip.nets.precision import product_type
from pixzip.training import integers
from pixzip.training.checkpoint import LAST, Run, check_device
from pixzip.training.config import Config, levels_of, to_tables, to_toml, without_places
from pixzip.training.finish import finish
from pixzip.training.loop import Trainer
from pixzip.training.processes import Processes
from pixzip.training.report import Log, silent
from pixzip.training.start import begin_from
from pixzip.training.workers import Workers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Stopped(BaseException):
    """A signal came while nothing was under way that a step's end would save."""


class StopSignals:
    """Called, it gives the number of the signal that came; 0: none."""

    def __init__(self) -> None:
        self._number, self._raises = 0, False

    def __call__(self) -> int:
        return self._number

    def receive(self, number: int, _: object) -> None:
        """What signal.signal is given."""
        self._number = self._number or number
        if self._raises:
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block a signal raises Stopped, also one that came before it."""
        self._raises = True
        try:
            if self._number:
                raise Stopped
            yield
        finally:
            self._raises = False


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Within the block SIGINT, SIGTERM and SIGHUP are only noted, unless they are to be felt at once.

    Where nohup, or who called, lets SIGHUP be ignored, it is.
    """
    stop = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    old = {number: signal.signal(number, stop.receive) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def check_config(config: Config, processes: Processes, device: str) -> None:
    """Raise TrainingError for what this machine, or this network, cannot do."""
    settings = config.training
    shares = processes.world * settings.accumulate
    if settings.batch % shares:
        raise TrainingError(
            f"training.batch {settings.batch} cannot be shared by {processes.world} processes in "
            f"{settings.accumulate} parts each: must be a multiple of {shares}"
        )
    check_device(device)
    if device == "cuda" and settings.quantised_steps and config.architecture == "trunk":
        raise TrainingError(
            "--device cuda: the phase on the integers runs on the CPU; set training.quantised_steps to 0 here, "
            f"and begin it there with this run's {LAST} (--init, training.steps 0)"
        )


def train(
    config: Config,
    folder: Path,
    cache: Path,
    *,
    processes: Processes | None = None,
    device: str = "cpu",
    allow_changes: bool = False,
    board: Callable[[int], Any] | None = None,
    say: Callable[[str], None] = silent,
) -> int:
    """Train both phases into ``folder``, resuming where a checkpoint there ends.

    Returns 0 when the run is complete and its model written, or the number of the signal that stopped it; it is saved
    then, and the same call goes on. Raises TrainingError, TrainingDataError, OutputError; the checkpoints in the folder
    are whole whatever happens. ``board`` opens a TensorBoard writer after so many steps (report.tensorboard).
    """
    processes = processes or Processes()
    if not processes.leads:
        say = silent
    check_config(config, processes, device)
    given, dtype = config.training.precision, product_type(config.training.precision, device)
    config = replace(config, training=replace(config.training, precision=str(dtype).removeprefix("torch.")))
    for source in (config.data.train, config.data.validation):
        check_apart("the folder of the run", folder, source)
    pictures, validation = processes.in_turn(lambda: load_split(config.data, cache, say))
    for part in (pictures, validation):
        if part.levels != levels_of(config.model):
            raise TrainingDataError(
                f"pictures of {part.levels} levels for a {config.architecture} of {levels_of(config.model)}"
            )
    crops = RandomCrops(pictures, config.data, config.training.seed)
    held_out = centre_crops(validation, config.data)
    parts = {"train": pictures, "validation": validation}
    digests, counts = {k: part.digest for k, part in parts.items()}, {k: len(part) for k, part in parts.items()}
    run = Run.new(config, digests, device, counts)
    if config.training.init:
        begin_from(run, config.training.init)
    processes.check_same(_shared(run))
    if config.training.quantised_steps and not integers.has_integers(run.network):
        raise TrainingError(f"{config.architecture} is not trained on its integers: set training.quantised_steps to 0")
    t = config.training
    if 0 < t.steps < t.warmup + t.decay:
        say(f"the rate rises over {t.warmup} steps and falls over {t.decay}, of {t.steps}: it never reaches {t.rate:g}")
    say(f"{len(pictures)} training pictures, {len(held_out)} validation crops of {len(validation)} pictures")
    by_torch = device == "cuda" or config.training.compile  # one batch, and threads inside each operation
    crops_at_once = config.training.batch // (processes.world * config.training.accumulate)
    workers = Workers() if by_torch else Workers.sharing(crops_at_once)
    trainer = Trainer(run, crops, held_out, folder, processes, workers)
    if given == "auto" and dtype is torch.float32 and config.training.steps:
        say("products in float32: there are no instructions for bfloat16 here")
    with ExitStack() as stack:
        processes.led(lambda: stack.enter_context(held(folder)))
        return _trained(trainer, say, board, allow_changes=allow_changes)


def _shared(run: Run) -> dict[str, Any]:
    """What must be the same in all processes, by name: all but places, which are those of each machine."""
    tables = without_places(to_tables(run.config))
    settings = {f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()}
    return settings | {f"{part} pictures": digest for part, digest in run.data.items()} | {"training.init": run.start}


def _trained(
    trainer: Trainer, say: Callable[[str], None], board: Callable[[int], Any] | None, *, allow_changes: bool
) -> int:
    """Train in a folder that is there and held."""
    run, processes, folder = trainer.run, trainer.processes, trainer.folder
    config = run.config
    if trainer.resume(allow_changes=allow_changes, say=say):
        say(f"resuming after step {run.done}")
    else:
        trainer.save()  # so that there is always a checkpoint to go back to
    if processes.leads:
        pixels = config.training.batch * config.data.crop**2
        with staged(folder / "config.toml", to_toml(to_tables(config)).encode(), force=True):
            pass
        trainer.log = Log(folder, config.training.all_steps, run.done, pixels, say, board)
    with stop_signals() as stop, closing(trainer.log) if trainer.log else nullcontext(), trainer.workers:
        trainer.stopped, trainer.interruptible = stop, stop.at_once
        with suppress(Stopped):
            if not trainer.go():
                if run.exponents is None and integers.has_integers(run.network):
                    trainer.begin_integers()
                with stop.at_once():
                    finish(trainer, say)
                return 0
    say(f"stopped after step {run.done}, saved; the same command goes on")
    return stop()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder, if need be, and keep other processes from training into it, where the system knows how.

    Raises OutputError where it cannot be made, TrainingError where another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from None
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without such locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TrainingError(f"another process trains into {folder}") from None
        yield
    finally:
        os.close(handle)
