"""Colour heads on a device, each block with weights of its own, which learn (docs/model-format.md, sections 5 to 9).

Positions of a block come together: (blocks, positions of each, width). What runtime/trunk/plain.py does for one block.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pixzip.coding.frequencies import MASS, SYMBOLS
from pixzip.model.file import TrunkNetwork
from pixzip.runtime import kernels
from pixzip.runtime.device.arithmetic import hidden_units, on, rounded
from pixzip.runtime.trunk import learning
from pixzip.runtime.trunk.fused import backward_weights
from pixzip.runtime.trunk.layers import logit_row, rounding


class Layer:
    """A layer that moves, in every block its own way: as plain.Layer."""

    def __init__(self, weight: Tensor, kind: learning.Kind, rates: Tensor) -> None:
        """weight (outputs, inputs) integers; rates (blocks,) int64."""
        self._kept = (weight.to(torch.int64) << kind.fraction).repeat(len(rates), 1, 1)
        self._kind, self._rates = kind, rates
        self._sum, self._count = torch.zeros_like(rates), torch.zeros_like(rates)

    @property
    def weight(self) -> Tensor:
        """What multiplies: (blocks, outputs, inputs) float32."""
        return ((self._kept + (1 << (self._kind.fraction - 1))) >> self._kind.fraction).to(torch.float32)

    def learn(self, errors: Tensor, inputs: Tensor) -> None:
        """Move along the gradient of a step: errors (blocks, positions, outputs) and inputs, exact in float64."""
        gradient = (errors.transpose(1, 2).to(torch.float64) @ inputs.to(torch.float64)).to(torch.int64)
        size = (gradient.abs().sum(dim=(1, 2)) << learning.FORGET) // (gradient.shape[1] * gradient.shape[2])
        self._sum += size - (self._sum >> learning.FORGET)
        self._count += (1 << 16) - (self._count >> learning.FORGET)
        mean = (self._sum << (16 - learning.FORGET)) // self._count + self._kind.least
        by = (self._rates << (learning.PRECISION + self._kind.fraction - self._kind.unit)) // mean
        moved = self._kept + ((gradient * by[:, None, None] + (1 << (learning.PRECISION - 1))) >> learning.PRECISION)
        limit = 127 << self._kind.fraction
        self._kept.copy_(moved.clamp(-limit, limit))


class Head:
    """One colour's head in all blocks."""

    def __init__(self, network: TrunkNetwork, colour: int, rates: Tensor, learns: bool) -> None:
        device, arrays = rates.device, network.arrays
        known = arrays.get(f"head.{colour}.known")
        self._known = None if known is None else on(device, known, torch.int32)
        self._rounding = tuple(on(device, a, torch.int32) for a in rounding(arrays, f"head.{colour}.hidden"))
        *logit, exp = logit_row(network, colour)
        self._logit = tuple(on(device, a, torch.int32) for a in logit)
        self._exp = on(device, np.append(exp, 0), torch.int32)
        self._toward = on(device, backward_weights(network, colour), torch.int64)
        weights = (on(device, arrays[f"head.{colour}.{part}.weight"], torch.int64) for part in ("hidden", "logit"))
        kinds = (learning.HIDDEN, learning.LOGIT)
        self._hidden, self._last = (Layer(w, kind, rates) for w, kind in zip(weights, kinds, strict=True))
        self._first_sum, self._learns = self._last.weight.sum(dim=2, keepdim=True).transpose(1, 2), learns

    def weights(self, features: Tensor, errors: Tensor) -> Tensor:
        """w_0 .. w_255 of every position (blocks, positions, 256) int32 (frequencies.weigh).

        features (blocks, positions, channels) float32; errors (3, blocks, positions): earlier colours' are read.
        """
        sums = (features @ self._hidden.weight.transpose(1, 2)).to(torch.int32)
        if self._known is not None:
            for colour, table in enumerate(self._known):
                sums = sums + table[errors[colour].clamp(-128, 127) + 128]
        units = hidden_units(rounded(sums, *self._rounding)).to(torch.float32)
        weight = self._last.weight
        # The bias has 128 times the sum of the weights as they were at first.
        moved = kernels.HIDDEN_OFFSET * (weight.sum(dim=2, keepdim=True).transpose(1, 2) - self._first_sum)
        logits = rounded(units @ weight.transpose(1, 2) + moved, *self._logit)
        distance = logits.amax(dim=2, keepdim=True) - logits
        found = self._exp[distance.clamp(max=len(self._exp) - 1)]
        if self._learns:
            self._features, self._units, self._weights = features, units, found
        return found

    def learn(self, symbols: Tensor, active: Tensor) -> None:
        """The step whose weights were made last had these symbols; both (blocks, positions), active as 0 and 1."""
        coarse = ((self._weights.to(torch.int64) + (1 << (learning.COARSE - 1))) >> learning.COARSE).clamp(max=255)
        total = coarse.sum(dim=2, keepdim=True).clamp(min=1)
        toward = self._toward.to(torch.float32)  # sums below 2^23
        error = self._toward[symbols] * total - (coarse.to(torch.float32) @ toward).to(torch.int64)
        by_unit = (error * ((1 << 32) // total) + (1 << (31 - learning.FINE))) >> (32 - learning.FINE)
        by_unit = by_unit * (self._units != -kernels.HIDDEN_OFFSET) * active[:, :, None]
        by_logit = -((coarse * ((1 << 30) // total) + (1 << (29 - learning.ODDS))) >> (30 - learning.ODDS))
        by_logit.scatter_add_(2, symbols[:, :, None], torch.full_like(symbols, 1 << learning.ODDS)[:, :, None])
        self._hidden.learn(by_unit, self._features)
        self._last.learn(by_logit * active[:, :, None], self._units + kernels.HIDDEN_OFFSET)


def intervals_of(weights: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
    """(left, f) of a symbol in each row: weights (..., 256) int32, symbols (...); frequencies.weight_interval."""
    sums = weights.cumsum(dim=-1)
    total = sums[..., -1]
    after, own = (values.gather(-1, symbols[..., None])[..., 0] for values in (sums, weights))
    before = after - own
    left = before * MASS // total + symbols
    return left, after * MASS // total + symbols + 1 - left


def symbols_of(weights: Tensor, quantiles: Tensor) -> Tensor:
    """The symbol that owns a quantile in each row: weights (..., 256) int32, quantiles (...), as find_weight has it."""
    sums = weights.cumsum(dim=-1)
    order = torch.arange(SYMBOLS, device=weights.device)
    bound = (quantiles[..., None] - order + 1) * sums[..., -1:]
    return ((sums - weights) * MASS < bound).sum(dim=-1) - 1
