"""One of the paper's networks in float and sample pictures → the exponents of its frozen form.

They begin with those of least squared error and are then moved, one after the other, while the frozen network's
distributions come nearer to the float network's. Its loss is no measure for that: on few pictures it falls where a cut
activation happens to suit them, and rises on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixzip.freezing.equalisation import equalised
from pixzip.freezing.exponents import HIDDEN, LOGIT, MOST_SHIFT, best_exponent, stream_exponent
from pixzip.freezing.rounding import Rounding, gathered
from pixzip.freezing.stack_integers import Arrays, Exponents, stack_arrays, stack_config, stack_network
from pixzip.freezing.tables import Tables
from pixzip.model.stack import StackNetwork
from pixzip.nets.pixels import as_logits
from pixzip.nets.stack import Stack
from pixzip.runtime.engines import choose_engine, one_thread
from pixzip.runtime.stack.layers import logit_row
from pixzip.runtime.stack.rows import traverse
from pixzip.shifts import Ints

#: Activation → the module that reads it, in this order of execution, and whether it is one after ReLU.
Readers = dict[str, tuple[nn.Module, bool]]
#: Share of a feature's values that lie within its reach.
REACHED = 0.9995


def readers(network: Stack) -> Readers:
    """The modules whose inputs are a network's activations."""
    found: Readers = {}
    for i, layer in enumerate(network.layers):
        name, parts = f"layer.{i}", dict(layer.named_children())
        if network.config.skip:
            found[f"{name}.skip"] = network.skips[i], False
        if "middle" in parts:
            found |= {f"{name}.input": (parts["down"], True), f"{name}.down": (parts["middle"], True)}
            found[f"{name}.middle"] = parts["up"], True
        else:
            found[f"{name}.input"] = layer, False
    head = network.head
    return found | {"head.input": (head.one, True), "head.one": (head.two, True), "head.two": (head.last, True)}


@contextmanager
def _watched(network: Stack, seen: dict[str, Tensor]) -> Iterator[None]:
    """Within the block, passes of the network leave their activations in ``seen``, and the stream's largest value."""

    def keep(name: str) -> Callable[[Any, Any], None]:
        return lambda module, arguments: seen.__setitem__(name, arguments[0].detach())

    def largest(x: Tensor) -> None:
        seen["stream"] = torch.maximum(seen["stream"], x.detach().abs().max())

    skipped: list[Tensor] = []

    def add_skip(module: Any, arguments: Any, out: Tensor) -> None:
        skipped.append(out.detach() + (skipped[-1] if skipped else 0))
        largest(skipped[-1])

    seen["stream"] = torch.zeros(())
    handles = [module.register_forward_pre_hook(keep(name)) for name, (module, _) in readers(network).items()]
    for layer in (*network.layers, network.head):
        handles.append(layer.register_forward_pre_hook(lambda module, arguments: largest(arguments[0])))
    handles += [skip.register_forward_hook(add_skip) for skip in network.skips]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Conditioning:
    """The map that biases a network's layers: real (n, features, h, w), held as integers (h, w, n, features)."""

    real: Tensor
    integers: NDArray[np.int8]
    exponent: int


def _activations(network: Stack, crops: NDArray[np.uint8], given: Conditioning | None) -> dict[str, Tensor]:
    """What _watched leaves of one pass over the crops."""
    seen: dict[str, Tensor] = {}
    with torch.no_grad(), _watched(network, seen):
        network.outputs(network.prepare(crops), torch.float32, None if given is None else given.real)
    return seen


def first_exponents(network: Stack, crops: NDArray[np.uint8], given: Conditioning | None = None) -> dict[str, int]:
    """Exponents of least squared error."""
    seen = _activations(network, crops, given)
    e = {} if given is None else {"conditioning": given.exponent}
    e |= {"stream": stream_exponent(float(seen["stream"]))}
    for name, (_, rectified) in readers(network).items():
        values = torch.relu(seen[name]) if rectified else seen[name]
        best = best_exponent(values, HIDDEN if rectified else 127)
        e[name] = min(best, e["stream"]) if _from_stream(name) else best
    return e


def _from_stream(name: str) -> bool:
    """Whether an activation is taken from the stream by a right shift."""
    return name.endswith((".input", ".skip"))


def _allowed(e: Exponents) -> bool:
    """Whether the shifts from the stream are ones that a model file holds."""
    return all(0 <= e["stream"] - value <= MOST_SHIFT for name, value in e.items() if _from_stream(name))


def log_probabilities(
    network: Stack, crops: NDArray[np.uint8], given: Conditioning | None = None
) -> NDArray[np.float32]:
    """Of the float network, in the order of the rows' traversal: (h, planes, w * n, symbols)."""
    with torch.no_grad():
        conditioning = None if given is None else given.real
        outputs = network.outputs(network.prepare(crops), torch.float32, conditioning)
        logits = as_logits(outputs, network.config.pictures)
        if network.config.pictures == "binary":
            logits = torch.stack([torch.zeros_like(logits), logits], dim=4)  # (n, planes, h, w, symbols)
        log_p = torch.log_softmax(logits, dim=4).permute(2, 1, 3, 0, 4)
    return np.ascontiguousarray(log_p.flatten(2, 3).numpy())


def divergence(
    frozen: StackNetwork,
    engine: str,
    planes: NDArray[np.uint8],
    log_p: NDArray[np.float32],
    conditioning: NDArray[np.int8] | None = None,
) -> float:
    """Nats by which coding with the frozen network's rows exceeds coding with the float ones, if these are true."""
    heads = [logit_row(frozen, colour) for colour in range(frozen.planes)]
    total = 0.0

    def visit(y: int, colour: int, acc: Ints, symbols: NDArray[np.int16]) -> None:
        nonlocal total
        addend, shift, _ = heads[colour]
        logits = torch.from_numpy(((acc + addend) >> shift).astype(np.float32) * np.float32(2.0**-LOGIT))
        if frozen.pictures == "binary":
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        wanted = torch.from_numpy(log_p[y, colour])
        total += float((wanted.exp() * (wanted - torch.log_softmax(logits, dim=1))).sum(dtype=torch.float64))

    traverse(frozen, engine, planes, frozen.planes, visit, conditioning=conditioning)
    return total


def reaches(network: Stack, crops: NDArray[np.uint8], given: Conditioning | None = None) -> dict[str, Tensor]:
    """How far each feature of every activation reaches: (features,) of each."""
    seen = _activations(network, crops, given)
    found = {}
    for name, (_, rectified) in readers(network).items():
        values = torch.relu(seen[name]) if rectified else seen[name].abs()
        by_feature = values.movedim(1, 0).flatten(1)
        found[name] = by_feature.kthvalue(max(1, int(REACHED * by_feature.shape[1])), dim=1).values
    return found


@dataclass(frozen=True)
class Calibrated:
    """A network, equalised, with what turns it into integers: its exponents, and how its weights are rounded.

    clipped: of each activation the share of the sample's values that lie beyond its grid.
    """

    network: Stack
    exponents: dict[str, int]
    rounding: Rounding
    clipped: dict[str, float]

    def config(self) -> dict[str, Any]:
        """The configuration of the frozen form."""
        return stack_config(self.network, self.exponents)

    def arrays(self, tables: Tables) -> Arrays:
        """The arrays of the frozen form."""
        return stack_arrays(self.network, self.exponents, tables, self.rounding)


def calibrated(
    network: Stack, crops: NDArray[np.uint8], tables: Tables, given: Conditioning | None = None
) -> Calibrated:
    """What freezes a trained network, from sample crops (n, h, w, planes)."""
    network = equalised(network, reaches(network, crops, given))
    planes = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    with gathered(network) as rounding:
        log_p = log_probabilities(network, crops, given)
    best = first_exponents(network, crops, given)
    conditioning = None if given is None else given.integers
    engine = choose_engine(None)

    def distance(e: Exponents) -> float:
        return divergence(stack_network(network, e, tables, rounding), engine, planes, log_p, conditioning)

    with one_thread():
        least = distance(best)
        for name in [*readers(network), "stream"]:
            for by in (1, -1):
                changed = best | {name: best[name] + by}
                while _allowed(changed) and (now := distance(changed)) < least:
                    best, least = changed, now
                    changed = best | {name: best[name] + by}
    return Calibrated(network, best, rounding, _clipped(network, crops, given, best))


def _clipped(
    network: Stack, crops: NDArray[np.uint8], given: Conditioning | None, e: dict[str, int]
) -> dict[str, float]:
    """Of each activation the share of its values that its grid does not reach."""
    seen, found = _activations(network, crops, given), {}
    for name, (_, rectified) in readers(network).items():
        values = torch.relu(seen[name]) if rectified else seen[name].abs()
        found[name] = float((values * 2.0 ** e[name] >= (HIDDEN if rectified else 127) + 0.5).float().mean())
    return found
