"""The pixels of a batch of blocks on a device, and the network's inputs and predictions at the positions of a step.

Position (block, picture, slot) of step t is the pixel of row y = slot modulo period that lies on the wavefront, at
x = t - 2y; a slot whose row has not begun or has ended is not active. Pixels stand in one line, with three rows above
each picture and three columns on either side that say so (OUTSIDE), and one more place for what inactive slots write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.coding.frame import ERROR_WINDOW, INPUTS, MIDDLE, WINDOW
from pixzip.runtime.device.arithmetic import saturated

#: The value of a pixel that is not in the picture.
OUTSIDE = -1024
_EDGE = 3
_WEST, _NORTH, _NORTH_WEST = (WINDOW.index(tap) for tap in ((0, -1), (-1, 0), (-1, -1)))

Shape = tuple[int, int, int]


class Where(NamedTuple):
    """The positions of a step, each (blocks, pictures, slots)."""

    y: Tensor
    x: Tensor
    active: Tensor
    place: Tensor  # of the pixel's first plane in Pixels.values


def period_of(shapes: Sequence[Shape]) -> int:
    """Slots that blocks of shapes (pictures, h, w) need: a slot is inactive for four steps before its next row begins.

    It is also inactive while row 0 is active, if it is the last one: what stands above row 0 is zeros.
    """
    return max(min(height + 1, width // 2 + 2) for _, height, width in shapes)


class Pixels:
    """Pixels and coding errors of blocks of shapes (n, h, w), n the same for all; planes: where they are known."""

    def __init__(
        self, shapes: Sequence[Shape], device: torch.device, planes: Sequence[NDArray[np.uint8]] | None = None
    ) -> None:
        self.shapes, self.period, self.pictures = shapes, period_of(shapes), shapes[0][0]
        height, width = (max(shape[i] for shape in shapes) for i in (1, 2))
        self._height, self._width = height + _EDGE, width + 2 * _EDGE  # of a plane
        self._limits = height - 1, width - 1
        values = np.full((len(shapes), self.pictures, 3, self._height, self._width), OUTSIDE, dtype=np.int16)
        for block, (_, h, w) in enumerate(shapes):
            values[block, :, :, _EDGE : _EDGE + h, _EDGE : _EDGE + w] = 0 if planes is None else planes[block]
        self.values = torch.from_numpy(np.append(values.reshape(-1), np.int16(0))).to(device)
        self.errors = torch.zeros_like(self.values)
        self._nowhere = self.values.numel() - 1
        first = torch.arange(len(shapes) * self.pictures, device=device) * (3 * self._height * self._width)
        self._first = first.reshape(-1, self.pictures, 1)
        sizes = torch.tensor(shapes, device=device)[:, :, None, None]
        self._heights, self._widths = sizes[:, 1], sizes[:, 2]
        self._slots = torch.arange(self.period, device=device)
        self._window = self._offsets(WINDOW).to(device)
        self._error_window = self._offsets(ERROR_WINDOW).to(device)
        self._middle = torch.tensor([MIDDLE, 0, 0], dtype=torch.int32, device=device)

    def _offsets(self, taps: Sequence[tuple[int, int]]) -> Tensor:
        """Distances of taps in all planes: (3 * taps,)."""
        one = torch.tensor([dy * self._width + dx for dy, dx in taps])
        return (torch.arange(3)[:, None] * (self._height * self._width) + one).reshape(-1)

    def where(self, step: Tensor) -> Where:
        """The positions of a step (a tensor of one integer)."""
        newest = torch.minimum(step // 2, self._heights)  # the row below the last one never begins
        y = newest - (newest - self._slots) % self.period  # (blocks, 1, slots)
        x = step - 2 * y
        active = (y >= 0) & (y < self._heights) & (x < self._widths)
        row, column = y.clamp(0, self._limits[0]), x.clamp(0, self._limits[1])
        index = self._first + ((row + _EDGE) * self._width + column + _EDGE)  # (blocks, pictures, slots)
        return Where(y.expand(index.shape), x.expand(index.shape), active.expand(index.shape), index)

    def inputs(self, where: Where) -> tuple[Tensor, Tensor]:
        """The trunk's inputs (positions, INPUTS) float32, and what predictions add to the colour before (positions, 3).

        As frame.pixel_inputs and frame.predict have them.
        """
        index = where.place.reshape(-1, 1)
        window = self.values[index + self._window].reshape(-1, 3, len(WINDOW)).to(torch.int32)
        errors = self.errors[index + self._error_window].reshape(-1, 3, len(ERROR_WINDOW))
        west, north, north_west = (window[:, :, i] for i in (_WEST, _NORTH, _NORTH_WEST))
        edges = self._edges(where)
        anchor = _median(west, north, north_west, edges, MIDDLE)
        differences = torch.where(window == OUTSIDE, 0, saturated(window - anchor[:, :, None], 127))
        parts = (differences, saturated(errors, 127), saturated(anchor - MIDDLE, 127)[:, :, None])
        inputs = torch.zeros(index.shape[0], INPUTS, device=index.device)
        inputs[:, : INPUTS - 1] = torch.cat(parts, dim=2).reshape(index.shape[0], INPUTS - 1)
        levels = [torch.cat([v[:, :1], v[:, 1:] - v[:, :-1]], dim=1) for v in (west, north, north_west)]
        return inputs, _median(levels[0], levels[1], levels[2], edges, self._middle)

    def _edges(self, where: Where) -> tuple[Tensor, Tensor]:
        """Whether positions have a row above and a column before: (positions, 1) each."""
        return (where.y > 0).reshape(-1, 1), (where.x > 0).reshape(-1, 1)

    def read(self, where: Where, colour: int) -> Tensor:
        """Values of a colour: (positions,) int32."""
        index = where.place + colour * self._height * self._width
        return self.values[index.reshape(-1)].to(torch.int32)

    def places(self, where: Where, colour: int) -> Tensor:
        """Where a colour of the positions stands in values, for writing: (positions,)."""
        index = where.place + colour * self._height * self._width
        return torch.where(where.active, index, self._nowhere).reshape(-1)

    def write(self, places: Tensor, values: Tensor, errors: Tensor) -> None:
        """Put values and coding errors (positions,) in their places."""
        self.values[places] = values.to(torch.int16)
        self.errors[places] = errors.to(torch.int16)

    def cut(self, like: Tensor) -> list[NDArray[np.generic]]:
        """What each block (n, 3, h, w) has in a tensor like values."""
        shape = len(self.shapes), self.pictures, 3, self._height, self._width
        whole = like[:-1].reshape(shape)[:, :, :, _EDGE:, _EDGE:].cpu().numpy()
        return [np.ascontiguousarray(v[:, :, :h, :w]) for v, (_, h, w) in zip(whole, self.shapes, strict=True)]


def _median(
    west: Tensor, north: Tensor, north_west: Tensor, edges: tuple[Tensor, Tensor], middle: Tensor | int
) -> Tensor:
    """The median edge detector, with what it gives at the edges of the picture (frame.predict)."""
    has_north, has_west = edges
    inner = torch.clamp(west + north - north_west, torch.minimum(west, north), torch.maximum(west, north))
    one = torch.where(has_west, west, torch.where(has_north, north, middle))
    return torch.where(has_north & has_west, inner, one)
