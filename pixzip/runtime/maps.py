"""Where features of computed pixels are kept until no later pixel needs them, and how a neighbour is found again.

Two ways, one for each order of pixels. Both hand out *views*: the m positions that are computed together, with
``at(name, dy, dx)`` their neighbours' features (m, width), row r of every answer belonging to the same position.
``at(name, 0, 0)`` is where the positions' own features are written. Positions of n pictures lie side by side.

Outside the picture a map holds its edge values: ``above`` in the row y = -1, ``beside`` left and right of every row and
of that one. They are written, never assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class MapSpec:
    """One map: features a pixel, type, edge values (each a number or one for every feature), (dy, dx) that are read."""

    width: int
    dtype: type
    above: ArrayLike
    beside: ArrayLike
    taps: tuple[tuple[int, int], ...]

    def depth(self, slope: int) -> int:
        """Steps of a wavefront that are kept, this one among them."""
        return 1 + max(-slope * dy - dx for dy, dx in self.taps)


Specs = dict[str, MapSpec]


class View(Protocol):
    """Positions computed together."""

    m: int

    def at(self, name: str, dy: int, dx: int) -> NDArray[Any]:
        """Features (m, width) of the neighbours."""
        ...

    def columns(self) -> Iterator[tuple[slice, View]]:
        """One picture column after the other, from left to right: which of the m positions, and their view."""
        ...


class RowMaps:
    """This row and the last one: pixels in raster order. Position x * n + picture, n edge positions at either end."""

    def __init__(self, specs: Specs, n: int, width: int) -> None:
        self._specs, self._n, self._width = specs, n, width
        self._pairs: dict[str, list[NDArray[Any]]] = {}
        for name, spec in specs.items():
            pair: list[NDArray[Any]] = [np.empty(((width + 2) * n, spec.width), dtype=spec.dtype) for _ in range(2)]
            for row in pair:
                row[:] = spec.beside
            pair[1][n : -n or None] = spec.above
            self._pairs[name] = pair

    def next_row(self) -> None:
        """This row becomes the last row."""
        for pair in self._pairs.values():
            pair.reverse()

    def row(self) -> RowView:
        """All positions of this row."""
        return self.column_range(0, self._width)

    def column_range(self, first: int, last: int) -> RowView:
        """Positions of columns first .. last - 1 of this row."""
        return RowView(self._pairs, self._n, first, last)


class RowView:
    """Columns of the current row."""

    def __init__(self, pairs: dict[str, list[NDArray[Any]]], n: int, first: int, last: int) -> None:
        self._pairs, self._n, self._first, self._last = pairs, n, first, last
        self.m = (last - first) * n

    def at(self, name: str, dy: int, dx: int) -> NDArray[Any]:
        """Features (m, width) of the neighbours."""
        start = (self._first + dx + 1) * self._n
        return self._pairs[name][-dy][start : start + self.m]

    def columns(self) -> Iterator[tuple[slice, RowView]]:
        """One column after the other, from left to right."""
        for i, x in enumerate(range(self._first, self._last)):
            yield slice(i * self._n, (i + 1) * self._n), RowView(self._pairs, self._n, x, x + 1)


class StepMaps:
    """The last steps of a wavefront: (steps, n + h * n, width), position y * n + picture, the row y = -1 in front.

    The neighbour (y + dy, x + dx) was computed dx + slope * dy steps ago. Maps begin as ``beside``, which is the edge
    left of every row; ``begin_step`` writes the row y = -1 as if it were coded, and the edge right of rows that ended.
    """

    def __init__(self, specs: Specs, n: int, height: int, width: int, slope: int) -> None:
        self._specs, self._n, self._height, self._width, self._slope = specs, n, height, width, slope
        self._slots: dict[str, NDArray[Any]] = {}
        for name, spec in specs.items():
            self._slots[name] = np.empty((spec.depth(slope), n + height * n, spec.width), dtype=spec.dtype)
            self._slots[name][:] = spec.beside
        for step in range(-max(map(len, self._slots.values())), 0):
            self._write_above(step)

    def _write_above(self, step: int) -> None:
        """The row y = -1 has its column step + slope in this step."""
        inside = 0 <= step + self._slope < self._width
        for name, spec in self._specs.items():
            slots = self._slots[name]
            slots[step % len(slots), : self._n] = spec.above if inside else spec.beside

    def begin_step(self, step: int) -> None:
        """Write the edge values that belong to this step."""
        self._write_above(step)
        row, left = divmod(step - self._width, self._slope)
        if left == 0 and 0 <= row < self._height:
            ended = slice((row + 1) * self._n, (row + 2) * self._n)
            for name, spec in self._specs.items():
                slots = self._slots[name]
                slots[step % len(slots), ended] = spec.beside

    def view(self, step: int, lo: int, hi: int) -> StepView:
        """Positions lo .. hi - 1 of a step."""
        return StepView(self._slots, self._n, self._slope, step, lo, hi)


class StepView:
    """Some positions of one step."""

    def __init__(self, slots: dict[str, NDArray[Any]], n: int, slope: int, step: int, lo: int, hi: int) -> None:
        self._slots, self._n, self._slope, self._step, self._lo = slots, n, slope, step, lo
        self.m = hi - lo

    def at(self, name: str, dy: int, dx: int) -> NDArray[Any]:
        """Features (m, width) of the neighbours."""
        start = self._n * (1 + dy) + self._lo
        slots = self._slots[name]
        return slots[(self._step + dx + self._slope * dy) % len(slots), start : start + self.m]

    def columns(self) -> Iterator[tuple[slice, StepView]]:
        """A wavefront has no columns: networks that need them are coded in raster order."""
        raise AssertionError("a wavefront has no columns")
