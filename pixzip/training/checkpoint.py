"""The state of a run ↔ one safetensors file: everything that the next step depends on, and no pickle.

The batches of a step depend on (seed, setbacks, step) alone, so that no random state needs keeping. Files are written
beside their name, flushed and renamed: whenever a process dies, ``last.safetensors`` is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import struct
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pixzip.errors import OutputError, TrainingError
from pixzip.files import staged
from pixzip.freezing.exponents import Exponents
from pixzip.nets.network import build
from pixzip.training.config import Config, differences, from_tables, to_tables
from pixzip.training.optimisers import Average, make_optimisers
from pixzip.training.watch import Watch

#: The only key of the file's metadata (with two, safetensors would write them in any order).
FORMAT = "pixzip-checkpoint"
#: What stands for a checkpoint's SHA-256, the first of all that it holds, when that is computed.
_NO_DIGEST = "0" * 64
#: A checkpoint's settings may differ in these when a run goes on: they do not touch the weights.
_FREE = ("data.train", "data.validation", "data.note", "training.init", "training.report_every", "training.setbacks")


@dataclass(frozen=True)
class Setback:
    """A return to an earlier checkpoint: in which step, why, to which step."""

    step: int
    reason: str
    back_to: int


@dataclass
class Run:
    """What a checkpoint holds. ``best`` is the lowest validation bits/dim.

    ``data`` names training and validation pictures by digest, ``counts`` has their numbers (none in checkpoints of
    earlier versions); ``start`` is the digest of the checkpoint or model that the weights began with, empty where they
    are random; ``threads`` are those of all processes that compute it, 0 where not known.
    """

    config: Config
    network: Any
    optimisers: list[torch.optim.Optimizer]
    average: Average | None
    data: dict[str, str]
    exponents: Exponents | None = None
    watch: Watch = field(default_factory=Watch)
    setbacks: list[Setback] = field(default_factory=list)
    best: float = math.inf
    done: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    start: str = ""
    threads: int = 0

    @staticmethod
    def new(config: Config, data: dict[str, str], device: str = "cpu", counts: dict[str, int] | None = None) -> Run:
        """A run before its first step."""
        network = build(config.model, config.training.seed).to(device)
        average = Average(network, config.training.average) if config.training.average else None
        return Run(config, network, make_optimisers(network, config.training), average, data, counts=counts or {})

    def names(self) -> dict[int, str]:
        """Parameter names by identity."""
        return {id(p): name for name, p in self.network.named_parameters()}

    def to_bytes(self, *, stopped: bool = False) -> bytes:
        """The checkpoint; stopped: written because a signal came, where a run that is left alone writes none."""
        tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in self.network.state_dict().items()}
        names = self.names()
        for optimiser in self.optimisers:
            for p, state in optimiser.state.items():
                tensors |= {f"optimiser.{key}.{names[id(p)]}": value for key, value in _tensors(state).items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.weights.items()}
        state = {
            "digest": _NO_DIGEST,
            "step": self.done,
            "config": to_tables(self.config),
            "data": self.data,
            "counts": self.counts,
            "start": self.start,
            "threads": self.threads,
            "stopped": stopped,
            "watch": asdict(self.watch),
            "setbacks": [asdict(s) for s in self.setbacks],
            "best": None if math.isinf(self.best) else self.best,
            "exponents": None if self.exponents is None else self.exponents.to_json(),
        }
        data = save_tensors({k: v.contiguous() for k, v in tensors.items()}, {FORMAT: json.dumps(state)})
        return data.replace(_NO_DIGEST.encode(), _digest(data, _NO_DIGEST).encode(), 1)

    def restore(self, data: bytes, name: str) -> None:
        """Become what a checkpoint holds. Its configuration must have been compared (``check_same``)."""
        state, tensors = parsed(data, name)
        try:
            self.network.load_state_dict(_under("model.", tensors))
        except RuntimeError as error:
            raise TrainingError(f"{name}: checkpoint of another network: {str(error).splitlines()[0]}") from None
        same = state["config"]["training"].get("optimiser") == self.config.training.optimiser
        kept = _under("optimiser.", tensors) if same else {}  # another optimiser begins anew
        names = self.names()
        for optimiser in self.optimisers:
            optimiser.state.clear()
            for group in optimiser.param_groups:
                for p in group["params"]:
                    if own := _state_of(names[id(p)], kept, p, fused=bool(group.get("fused"))):
                        optimiser.state[p] = own
        if self.average is not None:
            weights = _under("average.", tensors)
            self.average.weights = {
                k: weights.get(k, p.detach()).to(p.device, copy=True) for k, p in self.network.named_parameters()
            }
        self.exponents = Exponents.from_json(state["exponents"]) if state["exponents"] else None
        self.watch = Watch(**state["watch"])
        self.setbacks = [Setback(**s) for s in state["setbacks"]]
        self.best = state["best"] if state["best"] is not None and self._is_judged_as(state) else math.inf
        self.done = state["step"]
        self.start = state.get("start", "")

    def _is_judged_as(self, state: dict[str, Any]) -> bool:
        """Whether this run's validation is that of a checkpoint's state: the same crops of the same pictures."""
        then, now = from_tables(state["config"]).data, self.config.data
        same = (then.validation_crop, then.validation_pictures) == (now.validation_crop, now.validation_pictures)
        return same and state["data"].get("validation") == self.data.get("validation")

    def check_same(self, data: bytes, name: str, *, allow_changes: bool) -> None:
        """Raise TrainingError where a checkpoint is of another network, other pictures or another recipe."""
        state, _ = parsed(data, name)
        stored = to_tables(from_tables(state["config"]))  # with the defaults of keys that came later
        found = [d for d in differences(stored, to_tables(self.config)) if d.split(" ")[0] not in _FREE]
        model = [d for d in found if d.startswith("model.")]
        if model:
            raise TrainingError(f"{name}: checkpoint of another network: {'; '.join(model)}")
        found += [f"{part} pictures" for part in self.data if state["data"].get(part) != self.data[part]]
        if state.get("start", "") != self.start:
            found.append("begun with other weights than those of training.init")
        if found and not allow_changes:
            raise TrainingError(f"{name}: checkpoint of another run: {'; '.join(found)}; --allow-changes goes on so")


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {key: value if isinstance(value, Tensor) else torch.tensor(value) for key, value in state.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _state_of(name: str, kept: dict[str, Tensor], p: Tensor, *, fused: bool) -> dict[str, Tensor]:
    """An optimiser's state of one parameter, on its device; counts of steps are on the CPU unless fused."""
    found = {}
    for key, value in kept.items():
        kind, _, owner = key.partition(".")
        if owner == name:
            device = p.device if kind != "step" or fused else torch.device("cpu")
            found[kind] = value.to(device, copy=True)
    return found


def _digest(data: bytes, there: str) -> str:
    """SHA-256 of a checkpoint with _NO_DIGEST in the place of the digest that is there."""
    return hashlib.sha256(data.replace(there.encode(), _NO_DIGEST.encode(), 1)).hexdigest()


def parsed(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(state, tensors) of a checkpoint. Raises TrainingError where it is none, is damaged, or holds no numbers."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        meta = json.loads(data[8 : 8 + length])["__metadata__"]
        if FORMAT not in meta:
            raise TrainingError(f"{name}: not a checkpoint of pixzip train")
        state, tensors = json.loads(meta[FORMAT]), load_tensors(data)
        digest = state.pop("digest", None)  # None in checkpoints of earlier versions
        if digest is not None and _digest(data, digest) != digest:
            raise ValueError("it is not what was written")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, SafetensorError, OverflowError) as error:
        raise TrainingError(f"{name}: damaged checkpoint ({type(error).__name__}: {error})") from None
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise TrainingError(f"{name}: {key} is not finite")
    return state, tensors


def check_device(device: str) -> None:
    """Raise TrainingError where there is no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no such device")


def load_run(data: bytes, name: str, device: str = "cpu") -> Run:
    """A run as its checkpoint has it, for evaluation; the averaged weights are put in place."""
    state, _ = parsed(data, name)
    run = Run.new(from_tables(state["config"]), state["data"], device, state.get("counts"))
    run.restore(data, name)
    if run.average is not None:
        run.average.become_weights(run.network)
    return run


# ------------------------------------------------------------------------ files

LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
#: The one before the previous one, kept while the last one is of a stop.
EARLIER = "earlier.safetensors"
#: What else is in a run's folder under a name of its own; never there before the first checkpoint.
RESULTS = ("model.safetensors", "config.toml", "log.csv", "report.json", "card.md", "curves.png", "samples.png")


def write_last(folder: Path, data: bytes, *, keep_previous: bool = True) -> None:
    """Make these bytes the last checkpoint; the one before becomes the previous one."""
    last = folder / LAST
    with staged(last, data, force=True):
        if keep_previous and last.exists():
            _copy(last, folder / PREVIOUS)
    if keep_previous:
        _forget_earlier(folder)


def write_stop(folder: Path, data: bytes, *, again: bool) -> None:
    """Make the state at a stop the last checkpoint.

    A run that is left alone has no such checkpoint and must not go back to it after a setback: the last one becomes the
    previous, the previous the earlier one. again: the last one is of a stop itself.
    """
    if not again:
        for newer, older in ((PREVIOUS, EARLIER), (LAST, PREVIOUS)):
            if (folder / newer).exists():
                _copy(folder / newer, folder / older)
    write_last(folder, data, keep_previous=False)


def write_after_stop(folder: Path, data: bytes) -> None:
    """Make these bytes the last checkpoint, the one before being of a stop, or damaged."""
    write_last(folder, data, keep_previous=False)
    _forget_earlier(folder)


def _forget_earlier(folder: Path) -> None:
    with suppress(OSError):
        (folder / EARLIER).unlink(missing_ok=True)


def write_best(folder: Path, data: bytes) -> None:
    """Make these bytes the best checkpoint."""
    with staged(folder / BEST, data, force=True):
        pass


def _copy(source: Path, target: Path) -> None:
    """A second name for a file, in the place of what had it: at any moment both names lead to whole files."""
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from None


def read_resumable(folder: Path) -> tuple[str, bytes, str] | None:
    """(name, bytes, what to say) of the newest checkpoint that a run can go on from; None in a folder without a run.

    Raises TrainingError where all are damaged, and where there is none but other files that a run would write over.
    """
    faults = []
    for name in (LAST, PREVIOUS, EARLIER):
        if (data := _read(folder / name)) is None:
            continue
        try:
            parsed(data, str(folder / name))
        except TrainingError as error:
            faults.append(str(error))
            continue
        missing = "" if name == LAST else "; ".join(faults) or f"no {folder / LAST}"
        return name, data, missing and f"{missing}: going on from {name}"
    if faults:
        raise TrainingError("; ".join(faults))
    if there := [name for name in (BEST, *RESULTS) if (folder / name).exists()]:
        raise TrainingError(
            f"{folder} holds {', '.join(there)}, but neither {LAST} nor {PREVIOUS} of a run to go on from: "
            "choose another folder" + (f", and begin with {BEST} there by --init" if BEST in there else "")
        )
    return None


def read_good(folder: Path, setbacks: list[Setback]) -> tuple[str, bytes] | None:
    """(name, bytes) of the checkpoint to go back to: the last one, unless the run went wrong from there already.

    Those of stops do not count, nor do damaged ones.
    """
    found: list[tuple[int, str, bytes]] = []
    for name in (LAST, PREVIOUS, EARLIER):
        data = _read(folder / name)
        with suppress(TrainingError):
            if data is not None and not (state := parsed(data, name)[0]).get("stopped", False):
                found.append((state["step"], name, data))
    if not found:
        return None
    before = [each for each in found if each[0] < found[0][0]]
    if before and setbacks and setbacks[-1].back_to == found[0][0]:
        return before[0][1:]
    return found[0][1:]


def _read(path: Path) -> bytes | None:
    return read_checkpoint(path) if path.exists() else None


def read_checkpoint(path: Path) -> bytes:
    """The bytes of a checkpoint. Raises TrainingError where the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}") from None


def is_checkpoint(path: Path) -> bool:
    """Whether there is a file whose header says that it is a checkpoint."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return f'"{FORMAT}"'.encode() in file.read(min(length, 1 << 26))
    except OSError:
        return False
