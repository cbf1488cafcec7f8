"""Float weights → int8 weights whose errors cancel on what a product reads, instead of each the nearest (GPTQ).

Inputs of a product are correlated, after a ReLU above all by their means. So the error of one weight can be made up for
by the weights that are rounded after it: Frantar et al. 2022, "GPTQ" (arXiv 2210.17323), algorithm 1, in float64.
docs/networks.md says what freezing loses with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pixzip.freezing.quantised import power, to_int8
from pixzip.nets.masked_conv import MaskedConv

#: Added to the diagonal of the second moment, as a share of its mean: for inputs that the sample does not vary.
_DAMPING = 1e-3


def rounded(w: Tensor, scale: Tensor, moment: Tensor) -> Tensor:
    """w (inputs, outputs) * scale (outputs,) → int8 (inputs, outputs), -127 to 127.

    moment (inputs, inputs): mean of x xᵀ over inputs x. Weights that are rounded first pass their errors on; they are
    those of the largest inputs.
    """
    count = len(moment)
    order = torch.argsort(moment.diagonal(), descending=True)
    moment = moment.double()[order][:, order]
    moment = moment + _DAMPING * moment.diagonal().mean().clamp(min=1e-12) * torch.eye(count, dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    passed_on = torch.linalg.cholesky(inverse, upper=True)
    rest = (w.double() * scale.double())[order]
    made = torch.empty(rest.shape, dtype=torch.int8)
    for i in range(count):
        made[i] = to_int8(rest[i], 1.0)
        error = (rest[i] - made[i]) / passed_on[i, i]
        rest[i:] -= passed_on[i, i:, None] * error
    return made[torch.argsort(order)]


@dataclass
class Rounding:
    """Second moments of what the convolutions of a network read, and the weights that were made with them."""

    moments: dict[nn.Module, Tensor]
    _made: dict[tuple[nn.Module, tuple[int, ...]], Tensor] = field(default_factory=dict)

    def weights(self, conv: MaskedConv, w: Tensor, exponent: Tensor) -> Tensor:
        """w (inputs, outputs) of a convolution, with its mask applied, at 2^exponent (outputs,) → int8.

        Where nothing is known of its inputs, each weight is rounded to the nearest. Masked weights stay 0.
        """
        moment = self.moments.get(conv)
        if moment is None:
            return to_int8(w, power(exponent))
        key = conv, tuple(exponent.tolist())
        if key not in self._made:
            self._made[key] = self._by_mask(conv.by_tap(conv.mask) > 0, w, power(exponent), moment)
        return self._made[key]

    @staticmethod
    def _by_mask(seen: Tensor, w: Tensor, scale: Tensor, moment: Tensor) -> Tensor:
        """Outputs that see the same inputs are rounded together, and only the weights of these inputs."""
        made = torch.zeros(w.shape, dtype=torch.int8)
        patterns, pattern = torch.unique(seen.t(), dim=0, return_inverse=True)
        for i, inputs in enumerate(patterns):
            outputs = pattern == i
            if inputs.any():
                part = rounded(w[inputs][:, outputs], scale[outputs], moment[inputs][:, inputs])
                made[inputs.nonzero(), outputs.nonzero()[:, 0]] = part
        return made


@contextmanager
def gathered(network: nn.Module) -> Iterator[Rounding]:
    """Within the block, passes of the network leave the second moments of its convolutions' inputs."""
    found = Rounding({})
    sums: dict[nn.Module, tuple[Tensor, int]] = {}

    def keep(module: Any, arguments: Any) -> None:
        for picture in arguments[0].detach().split(1):  # windows of a large map are many times the map
            x = module.windows(picture).double()
            before, count = sums.get(module, (torch.zeros((), dtype=torch.float64), 0))
            sums[module] = before + x @ x.t(), count + x.shape[1]

    convolutions = [module for module in network.modules() if isinstance(module, MaskedConv)]
    handles = [module.register_forward_pre_hook(keep) for module in convolutions]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
    found.moments |= {module: total / count for module, (total, count) in sums.items()}
