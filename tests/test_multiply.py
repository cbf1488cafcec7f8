"""pixzip.runtime.multiply: both kinds of product are exact, at every number of rows and the largest operands."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from pixzip.jit import jit
from pixzip.runtime import multiply as module
from pixzip.runtime.engines import make_product
from pixzip.runtime.multiply import BLOCK, HAS_INT8, OUTER_BLOCK, SLACK, outer, pack, padded, product, whole_blocks

ENGINES = ["float32", pytest.param("int8", marks=pytest.mark.skipif(not HAS_INT8, reason="no VNNI instructions"))]


@jit
def multiplied(source: Any, weights: Any, rows: Any, real: Any, acc: Any) -> None:
    """The product, called from a compiled function."""
    product(source, weights, rows, source.shape[1], real, acc)


def assert_exact(engine: str, source: NDArray[np.int8], weight: NDArray[np.int8]) -> None:
    """The first rows of the result are right; no row behind the slack is written."""
    (rows, inputs), outputs = source.shape, weight.shape[0]
    dtype = np.int32 if engine == "int8" else np.float32
    behind = np.concatenate([source, np.full((SLACK, inputs), 77, dtype=np.int8)])
    acc = np.full((rows + SLACK + 1, padded(outputs)), -5, dtype=dtype)
    real = np.zeros((rows + SLACK) * inputs, dtype=np.float32)
    multiplied(behind, pack(weight, engine), rows, real, acc)
    expected = source.astype(np.int64) @ weight.T.astype(np.int64)
    assert np.array_equal(acc[:rows, :outputs], expected)
    assert (acc[:rows, outputs:] == 0).all()
    assert (acc[rows + SLACK :] == -5).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("outputs", [8, BLOCK, BLOCK + 8, 96])
@pytest.mark.parametrize("inputs", [8, 88, 480])
def test_products_are_exact(engine: str, outputs: int, inputs: int) -> None:
    random = np.random.default_rng(inputs + outputs)
    for rows in (1, 2, 3, 4, 5, 11, 12, 13, 25, 60):
        source = random.integers(-128, 128, (rows, inputs)).astype(np.int8)
        weight = random.integers(-127, 128, (outputs, inputs)).astype(np.int8)
        assert_exact(engine, source, weight)


@pytest.mark.parametrize("engine", ENGINES)
def test_products_are_exact_at_the_largest_operands(engine: str) -> None:
    """Instructions that saturate in 16 bits fail here; 1024 inputs of 127 stay below 2^24."""
    source = np.full((13, 1024), -128, dtype=np.int8)
    source[::2, ::3] = 127
    weight = np.full((40, 1024), 127, dtype=np.int8)
    weight[1::2], weight[::5, ::2] = -127, 0
    assert_exact(engine, source, weight)


@pytest.mark.parametrize("engine", ENGINES)
def test_products_for_python_are_exact(engine: str) -> None:
    random = np.random.default_rng(3)
    weight = random.integers(-127, 128, (72, 40)).astype(np.int8)
    multiply = make_product(engine, weight, 50)
    for rows in (50, 1, 33):
        multiply.source[:rows] = random.integers(-128, 128, (rows, 40))
        expected = multiply.source[:rows].astype(np.int64) @ weight.T.astype(np.int64)
        assert np.array_equal(multiply(rows), expected)


def words(pairs: NDArray[np.int16]) -> NDArray[np.int32]:
    """(rows, n, 2) → (rows, n)."""
    return np.ascontiguousarray(pairs).view(np.int32)[..., 0]


@pytest.mark.parametrize(
    "wide", [False, pytest.param(True, marks=pytest.mark.skipif(not module._WIDE, reason="AVX512"))]
)
@pytest.mark.parametrize("depth", [1, 2, 96])
def test_outer_products_are_exact(depth: int, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the instruction for pairs and without it."""
    monkeypatch.setattr(module, "_WIDE", wide)
    compiled = numba.njit(outer.py_func)  # type: ignore[attr-defined]
    random = np.random.default_rng(depth)
    for t in (8, OUTER_BLOCK, OUTER_BLOCK + 8):
        a = random.integers(-2032, 2033, (depth, 24, 2)).astype(np.int16)
        b = random.integers(-127, 128, (depth, t, 2)).astype(np.int16)
        a[:, 0], b[:, 0], b[:, 1] = -2032, 127, -127  # the largest
        out = np.zeros((24, whole_blocks(t)), dtype=np.int32)
        behind = np.concatenate([words(b).reshape(-1), np.full(OUTER_BLOCK, 77, dtype=np.int32)])
        compiled(words(a).reshape(-1), 24, behind, t, depth, out)
        assert np.array_equal(out[:, :t], np.einsum("dji,dki->jk", a.astype(np.int64), b.astype(np.int64)))
