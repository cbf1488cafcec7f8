"""A batch of feature maps as one flat matrix, so that every convolution tap is a contiguous slice.

Positions stand row by row over the whole batch, with one zero column after each picture's row and zeros in front::

    guard | row 0: picture 0 (w) . picture 1 (w) . ... | row 1: picture 0 (w) . ...      . = zero column

The neighbour (y + dy, x + dx) of position p is position p + dy * row + dx: columns beyond the picture fall on a
zero column, rows above it on the guard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FlatMap:
    """Geometry of n pictures of h × w positions; makes and reads matrices of shape (guard + h * row, channels)."""

    n: int
    h: int
    w: int
    chunk: int = 2048

    @property
    def row(self) -> int:
        """Positions of one picture row over the batch, zero columns included."""
        return self.n * (self.w + 1)

    @property
    def guard(self) -> int:
        """Zero positions in front of the first row."""
        return self.row + 8

    @property
    def size(self) -> int:
        """Positions in all."""
        return self.guard + self.h * self.row

    def offset(self, dy: int, dx: int) -> int:
        """Distance in positions to the neighbour (y + dy, x + dx)."""
        return dy * self.row + dx

    def adjacent(self, matrix: Tensor, lo: int, count: int, taps: int) -> Tensor:
        """Rows lo, lo + 1, ... of a matrix (size, c), each followed by the taps - 1 after it: (count, taps * c).

        A view, whose rows overlap.
        """
        c = matrix.shape[1]
        return matrix.as_strided((count, taps * c), (c, 1), matrix.storage_offset() + lo * c)

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges [lo, hi) that cover all rows, small enough to stay in cache."""
        for lo in range(self.guard, self.size, self.chunk):
            yield lo, min(lo + self.chunk, self.size)

    def row_groups(self) -> Iterator[tuple[int, int]]:
        """Ranges [first, last) that cover all rows, of as many as a chunk holds, one at least."""
        count = max(1, self.chunk // self.row)
        for first in range(0, self.h, count):
            yield first, min(first + count, self.h)

    def empty(self, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A matrix whose guard is zero and whose rows are not yet written."""
        out = torch.empty(self.size, channels, dtype=dtype, device=device)
        out[: self.guard].zero_()
        return out

    def zero_columns(self, matrix: Tensor) -> None:
        """Zero the column after each picture's row, in place."""
        self.grid(matrix)[:, :, self.w].zero_()

    def grid(self, matrix: Tensor) -> Tensor:
        """View of the rows: (h, n, w + 1, channels)."""
        return matrix[self.guard :].view(self.h, self.n, self.w + 1, matrix.shape[1])

    def pack(self, maps: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, h, w, channels) to a matrix."""
        out = self.empty(maps.shape[-1], dtype, maps.device)
        self.grid(out)[:, :, : self.w] = maps.permute(1, 0, 2, 3)
        self.zero_columns(out)
        return out

    def packed(self, rows: Tensor, factor: float) -> Tensor:
        """Rows (n * h * w, channels) times a factor as a matrix: the gradient of unpack, in one pass over memory."""
        out = self.empty(rows.shape[1], rows.dtype, rows.device)
        maps = rows.view(self.n, self.h, self.w, -1).permute(1, 0, 2, 3)
        torch.mul(maps, factor, out=self.grid(out)[:, :, : self.w])
        self.zero_columns(out)
        return out

    def unpack(self, matrix: Tensor) -> Tensor:
        """A matrix to (n, h, w, channels), a view."""
        return self.grid(matrix)[:, :, : self.w].permute(1, 0, 2, 3)
