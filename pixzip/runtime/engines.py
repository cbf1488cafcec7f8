"""int8 activations × int8 weights → exact accumulators: the two matrix engines of the CPU.

``int8`` is torch's integer product, fast where the processor has VNNI instructions; ``float32`` is numpy's, exact
because every output stays below 2^24 (a model file is refused otherwise) and usable without torch. Both multiply
preallocated, contiguous buffers: sizes are rounded up to multiples of 8, at least 32 rows, so that no library meets a
degenerate stride.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pixzip.errors import UsageError
from pixzip.runtime.kernels import Acc

ENGINES = ("int8", "float32")


def padded_rows(rows: int) -> int:
    """Rows that an engine multiplies for a batch of this many."""
    return max(32, (rows + 7) & ~7)


class Product(Protocol):
    """One layer's product: fill ``source`` (rows, inputs) int8, call, read the result (rows, outputs)."""

    source: NDArray[np.int8]

    def __call__(self, rows: int) -> Acc:
        """Accumulators of the first rows; valid until the next call."""


class Float32Product:
    """The product in numpy's float32: exact, since the largest |input| * sum|w| < 2^24."""

    def __init__(self, weight: NDArray[np.int8], rows: int) -> None:
        size = padded_rows(rows)
        self.source = np.zeros((size, weight.shape[1]), dtype=np.int8)
        self._real = np.zeros((size, weight.shape[1]), dtype=np.float32)
        self._weight = np.ascontiguousarray(weight.T, dtype=np.float32)
        self._out = np.zeros((size, weight.shape[0]), dtype=np.float32)

    def __call__(self, rows: int) -> Acc:
        size = padded_rows(rows)
        self._real[:size] = self.source[:size]
        return np.matmul(self._real[:size], self._weight, out=self._out[:size])[:rows]


class Int8Product:
    """The product in torch's int8 kernels."""

    def __init__(self, weight: NDArray[np.int8], rows: int) -> None:
        import torch

        size = padded_rows(rows)
        self._torch = torch
        self._source = torch.zeros(size, weight.shape[1], dtype=torch.int8)
        self._weight = torch.tensor(weight).t()
        self._out = torch.zeros(size, weight.shape[0], dtype=torch.int32)
        self.source = self._source.numpy()
        self._result = self._out.numpy()

    def __call__(self, rows: int) -> Acc:
        size = padded_rows(rows)
        self._torch._int_mm(self._source[:size], self._weight, out=self._out[:size])
        return self._result[:rows]


@contextmanager
def one_thread(engine: str) -> Iterator[None]:
    """Within the block each product of this engine runs on the calling thread.

    The products of one step take tens of microseconds: on a machine with other work, threads that wait for each other
    in every one of them can cost many times that (seen once: 4 minutes for a picture that takes 5 seconds so).
    """
    if engine == "int8":
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
    else:
        with threadpool_limits(1, user_api="blas"):
            yield


def make_product(engine: str, weight: NDArray[np.int8], rows: int) -> Product:
    """A product of at most this many rows with one layer's weights (outputs, inputs)."""
    return Int8Product(weight, rows) if engine == "int8" else Float32Product(weight, rows)


def int8_is_exact(shapes: list[tuple[int, int]], rows: int) -> bool:
    """Whether torch's int8 product is right on extreme operands for (outputs, inputs) shapes.

    Without VNNI it saturates in 16 bits (pytorch issue 136746).
    """
    for outputs, inputs in shapes:
        weight = np.full((outputs, inputs), 127, dtype=np.int8)
        weight[::2] = -127
        product = Int8Product(weight, rows)
        product.source[:] = 127
        product.source[::3] = -128  # hidden layers hold 0 as -128
        expected = product.source.astype(np.float64) @ weight.T.astype(np.float64)
        if not np.array_equal(product(rows), expected[:rows]):
            return False
    return True


def _seconds(engine: str, weight: NDArray[np.int8], rows: int) -> float:
    """Best of five of one product."""
    product = make_product(engine, weight, rows)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        product(rows)
        best = min(best, time.perf_counter() - start)
    return best


def choose_engine(wanted: str | None, shapes: list[tuple[int, int]], rows: int, pixels: int) -> str:
    """``wanted`` if given; else int8 where torch is installed, exact on these shapes and faster, and worth its import.

    Importing torch costs about as much as coding 100,000 pixels in float32, so smaller work stays in numpy.
    """
    if wanted not in (None, *ENGINES):
        raise UsageError(f"engine {wanted!r}, allowed are {', '.join(ENGINES)}")
    has_torch = importlib.util.find_spec("torch") is not None
    if wanted == "int8" and not has_torch:
        raise UsageError("the int8 engine needs torch: install pixzip[fast], or use float32")
    if wanted == "float32" or not has_torch or (wanted is None and pixels < 100_000):
        return "float32"
    with one_thread("int8"), one_thread("float32"):
        if not int8_is_exact(shapes, rows):
            if wanted == "int8":
                raise UsageError("the int8 engine is not exact on this processor; use float32")
            return "float32"
        if wanted == "int8":
            return "int8"
        weight = np.ones(max(shapes, key=lambda s: s[0] * s[1]), dtype=np.int8)
        return "int8" if _seconds("int8", weight, rows) < _seconds("float32", weight, rows) else "float32"
