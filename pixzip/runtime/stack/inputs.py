"""Pixels ↔ a network's int8 inputs and symbols (docs/model-format.md, section 7).

inputs are (n, i, h, w), plane by plane: value - 128 and, in the residual frame, the coding error cut to -127 .. 127; of
a binary picture -64 or 64. Beyond the picture they are 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixzip.coding.frame import MIDDLE, picture_errors, predict
from pixzip.jit import jit
from pixzip.model.stack import BINARY_INPUT, WINDOW, StackNetwork

_WINDOW = np.array(WINDOW, dtype=np.int64)


def picture_inputs(network: StackNetwork, planes: NDArray[np.uint8]) -> tuple[NDArray[np.int8], NDArray[np.int16]]:
    """Known pixels (n, planes, h, w) → inputs (n, i, h, w) and symbols (n, planes, h, w)."""
    if network.pictures == "binary":
        return np.where(planes > 0, BINARY_INPUT, -BINARY_INPUT).astype(np.int8), planes.astype(np.int16)
    values = planes.astype(np.int16) - MIDDLE
    if network.frame == "raw":
        return values.astype(np.int8), planes.astype(np.int16)
    errors = np.empty(planes.shape, dtype=np.int16)
    for picture, of_picture in zip(planes, errors, strict=True):
        picture_errors(picture, of_picture)
    n, _, height, width = planes.shape
    inputs = np.stack([values, errors.clip(-127, 127)], axis=2).astype(np.int8)
    return inputs.reshape(n, network.inputs, height, width), errors & np.int16(255)


@jit
def _window(inputs: NDArray[np.int8], y: int, x: int, own: int, out: NDArray[np.int8]) -> None:
    """One pixel's inputs: all features at the 24 earlier places of the window, then its own first ``own``."""
    features, width = inputs.shape[0], inputs.shape[2]
    k = 0
    for place in range(_WINDOW.shape[0]):
        ny, nx = y + _WINDOW[place, 0], x + _WINDOW[place, 1]
        inside = ny >= 0 and 0 <= nx < width
        for f in range(features):
            out[k] = inputs[f, ny, nx] if inside else 0
            k += 1
    for f in range(own):
        out[k] = inputs[f, y, x]
        k += 1


@jit
def row_windows(inputs: NDArray[np.int8], y: int, own: int, out: NDArray[np.int8]) -> None:
    """Inputs of the first layer for row y: out (w * n, k), position x * n + picture."""
    n = inputs.shape[0]
    for p in range(out.shape[0]):
        _window(inputs[p % n], y, p // n, own, out[p])


@jit
def step_windows(inputs: NDArray[np.int8], step: int, slope: int, first: int, own: int, out: NDArray[np.int8]) -> None:
    """Inputs of the first layer for a step's positions from ``first`` = y * n + picture on: out (m, k)."""
    n = inputs.shape[0]
    for j in range(out.shape[0]):
        y = (first + j) // n
        _window(inputs[(first + j) % n], y, step - slope * y, own, out[j])


@jit
def step_predictions(
    planes: NDArray[np.uint8], colour: int, step: int, slope: int, first: int, out: NDArray[np.int16]
) -> None:
    """Predictions of one colour at a step's positions: out (m,)."""
    n = planes.shape[0]
    for j in range(out.shape[0]):
        y = (first + j) // n
        out[j] = predict(planes[(first + j) % n], colour, y, step - slope * y)


@jit
def write_step(
    features: NDArray[np.int16],
    colour: int,
    step: int,
    slope: int,
    first: int,
    values: NDArray[np.int16],
    planes: NDArray[np.uint8],
    inputs: NDArray[np.int8],
) -> None:
    """Put one colour of a step's positions in its place: values (m,), its input features (m, features of a plane)."""
    n, of_plane = planes.shape[0], features.shape[1]
    for j in range(values.shape[0]):
        y, i = (first + j) // n, (first + j) % n
        x = step - slope * y
        planes[i, colour, y, x] = values[j]
        for f in range(of_plane):
            inputs[i, colour * of_plane + f, y, x] = features[j, f]


class StepPixels:
    """Pixels of a block as they become known, in steps: planes (n, planes, h, w) and the network's inputs."""

    def __init__(self, network: StackNetwork, n: int, height: int, width: int) -> None:
        self._network, self._slope = network, network.slope_at(width)
        self.planes = np.zeros((n, network.planes, height, width), dtype=np.uint8)
        self.inputs = np.zeros((n, network.inputs, height, width), dtype=np.int8)

    def windows(self, step: int, first: int, own: int, out: NDArray[np.int8]) -> None:
        """Inputs of the first layer."""
        step_windows(self.inputs, step, self._slope, first, own, out)

    def predictions(self, colour: int, step: int, first: int, m: int) -> NDArray[np.int16]:
        """What is added to a symbol, mod 256, to give the value: 0 in the raw frame."""
        out = np.zeros(m, dtype=np.int16)
        if self._network.frame == "residual":
            step_predictions(self.planes, colour, step, self._slope, first, out)
        return out

    def write(self, colour: int, step: int, first: int, values: NDArray[np.int16]) -> None:
        """Take in the values (m,) of one colour."""
        if self._network.pictures == "binary":
            features = [np.where(values > 0, BINARY_INPUT, -BINARY_INPUT).astype(np.int16)]
        else:
            features = [values - np.int16(MIDDLE)]
        if self._network.frame == "residual":
            errors = values - self.predictions(colour, step, first, len(values))
            features.append(errors.clip(-127, 127))
        write_step(np.stack(features, axis=1), colour, step, self._slope, first, values, self.planes, self.inputs)
