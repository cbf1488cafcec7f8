"""Processes that share a step's batch with this one.

Every process has some of the crops and computes their gradients alone; they meet once a step. Threads inside every
operation would meet at the end of each, and the passes of pixzip.nets.fused would have one thread while the other
waits. Threads with crops of their own would wait for Python's lock between the operations (docs/training.md).

A worker is handed the weights with every task and keeps nothing from one to the next, so what it computes this process
computes too, to the bit: it does until the workers are there, and a run depends on their number only in how its batches
are cut.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pixzip.data.crops import Pixels
from pixzip.freezing.exponents import Exponents
from pixzip.training import integers
from pixzip.training.memory import keep_memory, settled_objects

#: Crops of a process at least: the products of fewer are small.
_LEAST_CROPS = 3
#: Work of so long that others would have done is worth their start, which takes about as long.
_PATIENCE_S = 3.0
#: What a process takes to end whose pipes are closed.
_DYING_S = 1.0
#: Linux's fcntl(2) for the size of a pipe, and the most that it gives everyone.
_F_SETPIPE_SZ, _PIPE_BYTES = 1031, 1 << 20


@dataclass(frozen=True)
class Task:
    """Crops (n, h, w, planes), and what is wanted of them.

    Of the float network with products in dtype, or of its integers where there are exponents: the nats, and where
    ``sub_pixels`` is not 0 the nats and their gradients divided by it. ``batch``: the crops prepared, where they are.
    """

    crops: Pixels
    dtype: torch.dtype
    exponents: Exponents | None = None
    sub_pixels: int = 0
    batch: Any = None


class Outcome(NamedTuple):
    """Nats of a task, and the gradients of the parameters in their order (None: it has no part in them)."""

    nats: float
    gradients: tuple[Tensor | None, ...] = ()


def computed(network: Any, task: Task, float_nats: Callable[[Any, torch.dtype], Tensor] | None = None) -> Outcome:
    """The outcome of a task. ``float_nats``: what stands for network.nats."""
    batch = network.prepare(task.crops) if task.batch is None else task.batch
    with torch.set_grad_enabled(task.sub_pixels > 0):
        if task.exponents is not None:
            nats = integers.integer_nats(network, batch, task.exponents)
        else:
            nats = (float_nats or network.nats)(batch, task.dtype)
        if not task.sub_pixels:
            return Outcome(nats.item())
        mean = nats / task.sub_pixels
        return Outcome(mean.item(), torch.autograd.grad(mean, trained(network), allow_unused=True))


def trained(network: Any) -> list[nn.Parameter]:
    """The parameters that get gradients."""
    return [p for p in network.parameters() if p.requires_grad]


class Workers:
    """This process and ``count`` - 1 more, in each of which torch has ``inside`` threads (0: as now).

    The others are started when this one has done their work for ``patience_s`` seconds. One that ends, killed for its
    memory perhaps, or cannot be started is noted in ``lost``: how it ended. This process then does the others' work
    again, and starts them the later the more often that happens.
    """

    def __init__(self, count: int = 1, inside: int = 0, patience_s: float = _PATIENCE_S) -> None:
        self.count, self.inside = count, inside or torch.get_num_threads()
        self.lost: list[str] = []
        self._patience_s, self._alone_s = patience_s, 0.0
        self._others: list[_Worker] = []

    @staticmethod
    def sharing(crops: int) -> Workers:
        """As many as share so many crops well, with all the threads that torch has now."""
        cores = torch.get_num_threads()
        count = max(1, min(cores, crops // _LEAST_CROPS))
        return Workers(count, cores // count)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._others:
            worker.end()
        self._others = []

    def wait(self) -> None:
        """Until the others that have been started take tasks, or have ended."""
        while any(worker.alive() and not worker.ready() for worker in self._others):
            time.sleep(0.05)

    def map(self, here: Callable[[Task], Outcome], network: Any, tasks: Sequence[Task]) -> list[Outcome]:
        """The outcomes of at most ``count`` tasks, in their order; ``here`` computes one in this process."""
        try:
            return self._map(here, network, tasks)
        except BaseException:
            self.__exit__()  # what the others still send is not for the next tasks
            raise

    def _map(self, here: Callable[[Task], Outcome], network: Any, tasks: Sequence[Task]) -> list[Outcome]:
        weights = [p.detach().numpy() for p in network.parameters()] if self._others else []
        free = [worker for worker in self._others if worker.ready()]
        busy = {i: worker for i, worker in enumerate(free[: len(tasks) - 1], 1) if worker.give(weights, tasks[i])}
        found = {0: here(tasks[0])}
        start = time.monotonic()
        found |= {i: here(task) for i, task in enumerate(tasks) if i and i not in busy}
        self._alone_s += time.monotonic() - start
        if not self._others and len(tasks) > 1 and self._alone_s > self._patience_s:
            self._start(network)
        found |= {i: worker.outcome() or here(tasks[i]) for i, worker in busy.items()}
        if gone := [worker.end() for worker in self._others if not worker.alive()]:
            self._give_up([f"was killed by signal {-code}" if code < 0 else f"ended with code {code}" for code in gone])
        return [found[i] for i in range(len(tasks))]

    def _start(self, network: Any) -> None:
        try:
            for _ in range(self.count - 1):
                self._others.append(_Worker(network, self.inside))
        except (OSError, RuntimeError, ValueError) as error:  # no memory, too many processes; no interpreter's name
            self._give_up([f"could not be started ({error})"])

    def _give_up(self, how: list[str]) -> None:
        """End all others, to start them later."""
        self.__exit__()
        self.lost += how
        self._patience_s, self._alone_s = 2 * self._patience_s, 0.0


class _Worker:
    """One more process; what goes there and back are pickles over its standard input and output."""

    def __init__(self, network: Any, inside: int) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from pixzip.training.workers import work; work()"
        own_group: dict[str, Any] = {"start_new_session": True}  # signals of the terminal are for the first process
        if sys.platform == "win32":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": str(inside)},
            **own_group,
        )
        for pipe in (self._process.stdin, self._process.stdout):
            _widen(pipe)
        self._ready, self._gone = threading.Event(), False
        threading.Thread(target=self._begin, args=(pickle.dumps((network, inside)),), daemon=True).start()

    def _begin(self, first: bytes) -> None:
        """Wait until it has imported what it needs, in a thread."""
        assert self._process.stdin
        try:
            self._process.stdin.write(first)
            self._process.stdin.flush()
        except (OSError, ValueError):  # it has ended, or was ended here
            return
        self._receive()
        self._ready.set()

    def ready(self) -> bool:
        """Whether it takes tasks."""
        return self._ready.is_set()

    def alive(self) -> bool:
        """Whether it has not ended."""
        return not self._gone and self._process.poll() is None

    def give(self, weights: list[Any], task: Task) -> bool:
        """Begin a task; whether the process is there to take it."""
        assert self._process.stdin
        try:
            pickle.dump((weights, task), self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except OSError:
            self._gone = True
        return not self._gone

    def outcome(self) -> Outcome | None:
        """Of the task begun last; None: the process has ended. Raises what was raised there."""
        found = self._receive()
        if isinstance(found, Exception):
            raise found
        if found is None:
            return None
        nats, gradients = found
        return Outcome(nats, tuple(None if g is None else torch.from_numpy(g) for g in gradients))

    def _receive(self) -> Any:
        assert self._process.stdout
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            self._gone = True
            return None

    def end(self) -> int:
        """End it, for it keeps nothing that would be lost; its exit code, the negative number of a signal."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_S if self._gone else 0)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with suppress(OSError):  # what was not yet sent
                pipe.close()
        return self._process.returncode


def _widen(pipe: Any) -> None:
    """Let a pipe hold more where the system can: the processes change places less often while they write and read."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE_BYTES)


def work() -> None:
    """The other end of a _Worker: tasks from standard input until it ends, outcomes to standard output."""
    given, back = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print
    keep_memory()
    with suppress(EOFError, OSError, pickle.UnpicklingError):  # until the first process has ended
        network, inside = pickle.load(given)
        torch.set_num_threads(inside)
        with settled_objects():
            _work(network, given, back)


def _work(network: Any, given: Any, back: Any) -> None:
    outcome: Any = None
    while True:
        pickle.dump(outcome, back, pickle.HIGHEST_PROTOCOL)
        back.flush()
        weights, task = pickle.load(given)
        outcome = _done(network, weights, task)


def _done(network: Any, weights: list[np.ndarray[Any, Any]], task: Task) -> Any:
    """What a _Worker's outcome() expects."""
    try:
        with torch.no_grad():
            for p, values in zip(network.parameters(), weights, strict=True):
                p.copy_(torch.from_numpy(values))
        nats, gradients = computed(network, task)
        return nats, [None if g is None else g.numpy() for g in gradients]
    except Exception as error:
        return error


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Within the block torch has so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shares(count: int, parts: int) -> list[range]:
    """0 .. count - 1 in at most so many ranges, none empty, that differ by one at most."""
    parts = min(count, parts)
    ends = [count * i // parts for i in range(parts + 1)]
    return [range(a, b) for a, b in pairwise(ends)]
