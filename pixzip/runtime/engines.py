"""int8 activations × int8 weights → exact accumulators: the two matrix engines of the CPU.

``int8`` uses integer instructions (runtime/multiply.py), ``float32`` is exact because every output stays below 2^24 (a
model file is refused otherwise). Compiled traversals multiply with runtime/multiply.py in either engine.
The products here are for callers in Python; their float32 is numpy's, so that the two are checked against each other.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pixzip.errors import UsageError
from pixzip.jit import jit
from pixzip.keywords import ENGINES, check_engine
from pixzip.runtime.multiply import HAS_INT8, SLACK, Packed, pack, padded, product
from pixzip.shifts import Acc


def padded_rows(rows: int) -> int:
    """Rows that numpy multiplies for a batch of this many: no library meets a degenerate shape."""
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


@jit
def multiply(
    source: NDArray[np.int8], weights: Packed, rows: int, real: NDArray[np.int32], acc: NDArray[np.int32]
) -> None:
    """runtime.multiply.product for callers in Python: source (rows, inputs), acc (rows, padded outputs)."""
    product(source, weights, rows, source.shape[1], real, acc)


class Int8Product:
    """The product on integer instructions."""

    def __init__(self, weight: NDArray[np.int8], rows: int) -> None:
        outputs, inputs = weight.shape
        self.source = np.zeros((rows + SLACK, inputs), dtype=np.int8)
        self._weight = pack(weight, "int8")
        self._acc = np.zeros((rows + SLACK, padded(outputs)), dtype=np.int32)
        self._space = np.zeros(self.source.size, dtype=np.int32)
        self._outputs = outputs

    def __call__(self, rows: int) -> Acc:
        multiply(self.source, self._weight, rows, self._space, self._acc)
        return self._acc[:rows, : self._outputs]


class _OneBlasThread:
    """BLAS on one thread for as long as any block asks for it: the first in sets that, the last out restores what was.

    The number is the process's, and blocks on several threads end in any order: if each restored what it had found, one
    that began within another would leave 1 behind. A thread of its own sets and restores, as threadpoolctl from 3.8 on
    lets no other thread change what one has set.
    """

    def __init__(self) -> None:
        self._lock, self._blocks = threading.Lock(), 0
        self._held = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._blocks == 0:
                self._held = self._hold()
            self._blocks += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                self._held.close()

    def _hold(self) -> ExitStack:
        """Set one thread; closing restores what was."""
        with ExitStack() as held:
            holder = held.enter_context(ThreadPoolExecutor(1))
            limit = holder.submit(threadpool_limits, 1, "blas").result()
            held.callback(lambda: holder.submit(limit.restore_original_limits).result())
            return held.pop_all()


_ONE_BLAS_THREAD = _OneBlasThread()


def one_thread() -> AbstractContextManager[None]:
    """Within the block numpy's products run on the calling thread.

    The products of one step take tens of microseconds: on a machine with other work, threads that wait for each other
    in every one of them can cost many times that (seen once: 4 minutes for a picture that takes 5 seconds so).
    """
    return _ONE_BLAS_THREAD


def make_product(engine: str, weight: NDArray[np.int8], rows: int) -> Product:
    """A product of at most this many rows with one layer's weights (outputs, inputs)."""
    return Int8Product(weight, rows) if engine == "int8" else Float32Product(weight, rows)


def choose_engine(wanted: str | None) -> str:
    """``wanted`` if given; else int8 where the processor has the instructions. Raises UsageError."""
    check_engine(wanted, ENGINES)
    if wanted == "int8" and not HAS_INT8:
        raise UsageError("the int8 engine needs an x86-64 processor, or ARM's dot product instructions; use float32")
    return wanted or ("int8" if HAS_INT8 else "float32")
