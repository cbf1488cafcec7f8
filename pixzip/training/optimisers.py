"""Gradients → new weights: AdamW, RMSProp as in the paper, Muon; and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pixzip.errors import TrainingError
from pixzip.nets.precision import fastest_type
from pixzip.training.config import TrainingSettings


def orthogonalised(matrix: Tensor) -> Tensor:
    """The matrix with all its singular values near 1: five quintic Newton-Schulz steps (Jordan et al. 2024, Muon).

    In bfloat16, as there, where the device multiplies such matrices faster.
    """
    x = matrix.to(fastest_type(matrix.device.type))
    tall = x.shape[0] > x.shape[1]
    x = x.t() if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.t()
        x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.t() if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; each update has the size of an AdamW one (0.2 * sqrt(larger side)).

    A group's ``blocks`` is the number of matrices that stand side by side in each of its parameters, such as the
    four gates of an LSTM. A parameter is a matrix (inputs, outputs) or the weight of a convolution (outputs, inputs,
    rows, columns), whose taps count as inputs. torch has a Muon of its own since 2.9, without blocks; pixzip runs on
    2.6.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], rate: float, momentum: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": rate, "momentum": momentum, "weight_decay": weight_decay, "blocks": 1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter."""
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                towards = p.grad.lerp(state["momentum"], group["momentum"])
                matrix = towards if p.ndim == 2 else towards.flatten(1).t()
                parts = [
                    orthogonalised(part) * (0.2 * math.sqrt(max(part.shape)))
                    for part in matrix.chunk(group["blocks"], dim=1)
                ]
                update = torch.cat(parts, dim=1)
                update = update if p.ndim == 2 else update.t().reshape(p.shape)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


def make_optimisers(network: nn.Module, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """The optimisers of a network's parameters; each group's ``share`` is its rate over the schedule's.

    Raises TrainingError for Muon on a network that does not say which of its parameters are matrices between layers
    (``hidden_matrices``, see TrunkModel and Stack).
    """
    named = dict(network.named_parameters())
    if settings.optimiser == "rmsprop":
        # The paper says RMSProp and no more; alpha and eps are torch's defaults.
        made: list[torch.optim.Optimizer] = [torch.optim.RMSprop(named.values(), lr=settings.rate)]
    elif settings.optimiser == "adamw":
        made = [_adamw(list(named.values()), settings)]
    else:
        made = _muon(network, named, settings)
    for optimiser in made:
        for group in optimiser.param_groups:
            group.setdefault("share", 1.0)
    return made


def _adamw(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(parameters, settings.rate, betas, weight_decay=settings.weight_decay, fused=True)


def _muon(
    network: nn.Module, named: dict[str, nn.Parameter], settings: TrainingSettings
) -> list[torch.optim.Optimizer]:
    find = getattr(network, "hidden_matrices", None)
    if find is None:
        raise TrainingError(
            f"training.optimiser muon: {type(network).__name__} does not say which parameters are matrices between "
            "layers; adamw and rmsprop train it"
        )
    blocks: dict[str, int] = find()
    groups = [
        {"params": [named[name] for name, count in blocks.items() if count == wanted], "blocks": wanted}
        for wanted in sorted(set(blocks.values()))
    ]
    rest = _adamw([p for name, p in named.items() if name not in blocks], settings)
    for group in rest.param_groups:
        group["share"] = (settings.other_rate or settings.rate) / settings.rate
    return [Muon(groups, settings.rate, settings.momentum, settings.weight_decay), rest]


class Average:
    """Exponential moving average of a network's parameters, by name."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step; early in a run the average follows faster."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, p in network.named_parameters():
            self.weights[name].lerp_(p, 1 - keep)

    @contextmanager
    def in_place(self, network: nn.Module) -> Iterator[None]:
        """Within the block the network has the averaged weights."""
        own = {name: p.detach().clone() for name, p in network.named_parameters()}
        _put(network, self.weights)
        try:
            yield
        finally:
            _put(network, own)

    def become_weights(self, network: nn.Module) -> None:
        """The network goes on from the average."""
        _put(network, self.weights)


@torch.no_grad()
def _put(network: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, p in network.named_parameters():
        p.copy_(weights[name])
