"""Pixels of a block → accumulators of all its symbols, where the heads learn: plainly, as docs/model-format.md says it.

A trunk does not learn, so its features come from the rows' traversal; the heads then go through them step by step. What
the compiled traversal (steps.py, learning.py) is compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.frame import picture_errors
from pixzip.coding.schedule import first_row, last_row, number_of_steps
from pixzip.model.file import TrunkNetwork
from pixzip.runtime import kernels
from pixzip.runtime.trunk import learning, rows
from pixzip.runtime.trunk.fused import backward_weights
from pixzip.runtime.trunk.layers import logit_row, rounding

Progress = Callable[[float], None]
Numbers = NDArray[np.int64]
#: Called with (rows (m,), columns x * n + picture (m,), colour, accumulators (m, 256), errors (m,)) for every step.
Visit = Callable[[Numbers, Numbers, int, NDArray[np.float32], NDArray[np.int16]], None]


def _product(a: NDArray[Any], b: NDArray[Any]) -> Numbers:
    """a @ b of integers whose sums stay below 2^53, by way of float64, which numpy multiplies faster."""
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)


class Layer:
    """A layer that moves."""

    def __init__(self, weight: NDArray[np.int8], kind: learning.Kind) -> None:
        self.kept, self._kind = weight.astype(np.int64) << kind.fraction, kind
        self._sum = self._count = 0

    @property
    def weight(self) -> Numbers:
        """What multiplies: (outputs, inputs)."""
        return (self.kept + (1 << (self._kind.fraction - 1))) >> self._kind.fraction

    def learn(self, gradient: Numbers, rate: int) -> None:
        """Move along the gradient (outputs, inputs) of a step."""
        size = (int(np.abs(gradient).sum()) << learning.FORGET) // gradient.size
        self._sum += size - (self._sum >> learning.FORGET)
        self._count += (1 << 16) - (self._count >> learning.FORGET)
        mean = (self._sum << (16 - learning.FORGET)) // self._count + self._kind.least
        by = (rate << (learning.PRECISION + self._kind.fraction - self._kind.unit)) // mean
        limit = 127 << self._kind.fraction
        moved = (gradient * by + (1 << (learning.PRECISION - 1))) >> learning.PRECISION
        self.kept = np.clip(self.kept + moved, -limit, limit)


class Head:
    """One colour's head, whose layers move."""

    def __init__(self, network: TrunkNetwork, colour: int, rate: int) -> None:
        arrays = network.arrays
        self._known = arrays.get(f"head.{colour}.known")
        self._rounding, self._logit = rounding(arrays, f"head.{colour}.hidden"), logit_row(network, colour)
        self._toward = backward_weights(network, colour).astype(np.int64)
        self.hidden = Layer(arrays[f"head.{colour}.hidden.weight"], learning.HIDDEN)
        self.last = Layer(arrays[f"head.{colour}.logit.weight"], learning.LOGIT)
        self._first_sum, self._rate = self.last.weight.sum(axis=1), rate

    def logits(self, features: NDArray[np.int8], errors: NDArray[np.int16]) -> NDArray[np.float32]:
        """As network.Layers.logits; features (m, t), errors (3, m)."""
        weight = self.hidden.weight
        sums = features.astype(np.float32) @ weight.T.astype(np.float32)
        self._features, self._units = features, np.empty((len(features), len(weight)), dtype=np.int8)
        if self._known is None:
            kernels.rectify(sums, *self._rounding, self._units)
        else:
            kernels.rectify_known(sums, self._rounding[0], self._known, errors, self._rounding[1], self._units)
        weight = self.last.weight
        # The bias has 128 times the sum of the weights as they were at first.
        moved = (kernels.HIDDEN_OFFSET * (weight.sum(axis=1) - self._first_sum)).astype(np.float32)
        acc: NDArray[np.float32] = self._units.astype(np.float32) @ weight.T.astype(np.float32) + moved
        self._acc = acc
        return acc

    def learn(self, symbols: Numbers) -> None:
        """The step whose logits were made last had these symbols (m,)."""
        addend, shift, exp = self._logit
        logits = (self._acc.astype(np.int64) + addend) >> shift
        distance = logits.max(axis=1, keepdims=True) - logits
        weights = np.append(exp, 0)[np.minimum(distance, len(exp))]
        coarse = np.minimum((weights + (1 << (learning.COARSE - 1))) >> learning.COARSE, 255)
        total = np.maximum(coarse.sum(axis=1, keepdims=True), 1)
        error = self._toward[symbols] * total - _product(coarse, self._toward)
        by_unit = (error * ((1 << 32) // total) + (1 << (31 - learning.FINE))) >> (32 - learning.FINE)
        by_unit[self._units == -kernels.HIDDEN_OFFSET] = 0
        by_logit = -((coarse * ((1 << 30) // total) + (1 << (29 - learning.ODDS))) >> (30 - learning.ODDS))
        by_logit[np.arange(len(symbols)), symbols] += 1 << learning.ODDS
        self.hidden.learn(_product(by_unit.T, self._features), self._rate)
        self.last.learn(_product(by_logit.T, self._units.astype(np.int64) + kernels.HIDDEN_OFFSET), self._rate)


def traverse(
    network: TrunkNetwork,
    engine: str,
    planes: NDArray[np.uint8],
    colours: int,
    rate: int,
    visit: Visit,
    progress: Progress | None = None,
) -> None:
    """As rows.traverse, in the order of steps; rate: of learning."""
    n, _, height, width = planes.shape
    features = np.empty((height, width * n, network.channels), dtype=np.int8)
    errors = np.zeros(planes.shape, dtype=np.int16)
    for i in range(n):
        picture_errors(planes[i], errors[i])
    by_row = np.ascontiguousarray(errors.transpose(1, 2, 3, 0)).reshape(3, height, width * n)
    rows.features(network, engine, planes, features)
    heads = [Head(network, colour, rate) for colour in range(colours)]
    steps = number_of_steps(height, width, network.slope)
    for step in range(steps):
        y = np.arange(first_row(step, width, network.slope), last_row(step, height, network.slope) + 1)
        columns = ((step - network.slope * y)[:, None] * n + np.arange(n)).reshape(-1)
        y = y.repeat(n)
        known = np.ascontiguousarray(by_row[:, y, columns])
        for colour, head in enumerate(heads):
            visit(y, columns, colour, head.logits(features[y, columns], known), known[colour])
            head.learn(known[colour].astype(np.int64) & 255)
        if progress is not None:
            progress((step + 1) / steps)
