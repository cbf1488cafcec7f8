"""One training over several processes, started by torchrun: who one is, and sums over all.

Gradients are summed after the backward pass instead of wrapping the network in DistributedDataParallel: the trunk's
layers write their gradients by hand (pixzip.nets.layers), so there is little for DDP's hooks to overlap with, its
buckets would change the order of additions from run to run of another size, and one explicit sum is what a reader
sees and a test can compare. Every process computes the same sums and so takes the same step, and the same decision.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

# Before any group is there: its functions have the group as a default argument. Imported later, by the first optimiser,
# they would hold the group's threads beyond destroy_process_group, to the interpreter's end, where one may abort.
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch import distributed as dist

from pixzip.errors import PixzipError, TrainingError

#: Others wait so long for the process that decodes the pictures.
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Processes:
    """This process's number among all, and on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def sum(self, numbers: list[float]) -> list[float]:
        """Sums over all processes, the same in each."""
        if self.world == 1:
            return numbers
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        t = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(t)
        return [float(value) for value in t]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes, in one message."""
        if self.world == 1:
            return
        grads: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))

    def agreed(self, value: Any) -> Any:
        """The first process's value, in every process."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def check_same(self, values: dict[str, Any]) -> None:
        """Raise TrainingError in every process where one has another value of a name than the first, which has all."""
        first: dict[str, Any] = self.agreed(values)
        others = self.sum([float(values.get(name) != value) for name, value in first.items()])
        if differing := [name for name, count in zip(first, others, strict=True) if count]:
            raise TrainingError(f"not the same in all processes: {', '.join(differing)}")

    def led(self, make: Callable[[], Any]) -> Any:
        """What make() gives in the first process, or the error that it ends with, in every process."""
        value, error = None, None
        if self.leads:
            try:
                value = make()
            except PixzipError as found:
                error = found
        value, error = self.agreed((value, error))
        if error is not None:
            raise error
        return value

    def in_turn(self, make: Callable[[], Any]) -> Any:
        """make() in one process of each machine, then, with what it left on disk, in the others.

        Where it fails in one of them, it does so in all: its own error, TrainingError in the others.
        """
        if self.world == 1:
            return make()
        made, error = None, None
        for mine in (self.local == 0, self.local != 0):
            if mine:
                try:
                    made = make()
                except Exception as found:
                    error = found
            if self.sum([float(error is not None)])[0]:
                raise error or TrainingError("another process could not read the pictures")
        return made


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes that torchrun started, joined for this block; without torchrun, one."""
    if "WORLD_SIZE" not in os.environ:
        yield Processes()
        return
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if name not in os.environ]:
        raise TrainingError(f"WORLD_SIZE is set as by torchrun, but not {', '.join(missing)}")
    rank, world, local = (int(os.environ[name]) for name in names[:3])
    if device == "cuda":
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(rank, world, local)
    finally:
        dist.destroy_process_group()
