"""Pixels of a block → accumulators of all its symbols, where the heads learn: plainly, as docs/model-format.md says it.

A trunk does not learn, so its features come from the rows' traversal; the heads then go through them step by step. What
the compiled traversal (steps.py, learning.py) is compared with.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pixzip.frame import picture_errors
from pixzip.model_file import Network
from pixzip.runtime import kernels, learning, rows
from pixzip.runtime.fused import backward_weights
from pixzip.runtime.network import logit_row, rounding
from pixzip.schedule import first_row, last_row, number_of_steps

Progress = Callable[[float], None]
Numbers = NDArray[np.int64]
#: Called with (rows (m,), columns x * n + picture (m,), colour, accumulators (m, 256), errors (m,)) for every step.
Visit = Callable[[Numbers, Numbers, int, NDArray[np.float32], NDArray[np.int16]], None]


class Head:
    """One colour's head, whose first layer moves."""

    def __init__(self, network: Network, colour: int, rate: int) -> None:
        arrays = network.arrays
        self._known = arrays.get(f"head.{colour}.known")
        self._hidden, self._logit = rounding(arrays, f"head.{colour}.hidden"), logit_row(network, colour)
        self._last = arrays[f"head.{colour}.logit.weight"].astype(np.float32)
        self._toward = backward_weights(network, colour).astype(np.int64)
        self._kept = arrays[f"head.{colour}.hidden.weight"].astype(np.int64) << learning.FRACTION
        self._rate, self._sum, self._weight = rate, 0, 0

    def logits(self, features: NDArray[np.int8], errors: NDArray[np.int16]) -> NDArray[np.float32]:
        """As network.Layers.logits; features (m, t), errors (3, m)."""
        half = 1 << (learning.FRACTION - 1)
        weight = (self._kept + half) >> learning.FRACTION
        acc = features.astype(np.float32) @ weight.T.astype(np.float32)
        self._features, self._units = features, np.empty((len(features), len(weight)), dtype=np.int8)
        if self._known is None:
            kernels.rectify(acc, *self._hidden, self._units)
        else:
            kernels.rectify_known(acc, self._hidden[0], self._known, errors, self._hidden[1], self._units)
        self._acc: NDArray[np.float32] = self._units.astype(np.float32) @ self._last.T
        return self._acc

    def learn(self, symbols: Numbers) -> None:
        """The step whose logits were made last had these symbols (m,)."""
        addend, shift, exp = self._logit
        logits = (self._acc.astype(np.int64) + addend) >> shift
        distance = logits.max(axis=1, keepdims=True) - logits
        weights = np.append(exp, 0)[np.minimum(distance, len(exp))]
        coarse = np.minimum((weights + (1 << (learning.COARSE - 1))) >> learning.COARSE, 255)
        total = np.maximum(coarse.sum(axis=1, keepdims=True), 1)
        error = self._toward[symbols] * total - coarse @ self._toward
        inverse = (1 << 32) // total
        moved = (error * inverse + (1 << (31 - learning.FINE))) >> (32 - learning.FINE)
        moved[self._units == -kernels.HIDDEN_OFFSET] = 0
        gradient = moved.T @ self._features.astype(np.int64)
        size = (int(np.abs(gradient).sum()) << learning.FORGET) // gradient.size
        self._sum += size - (self._sum >> learning.FORGET)
        self._weight += (1 << 16) - (self._weight >> learning.FORGET)
        mean = (self._sum << (16 - learning.FORGET)) // self._weight + learning.LEAST
        by = (self._rate << 28) // mean
        self._kept = np.clip(self._kept + ((gradient * by + (1 << 25)) >> 26), -learning.LIMIT, learning.LIMIT)


def traverse(
    network: Network,
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
