"""pixzip.runtime.multiply: both kinds of product are exact, at every number of rows and the largest operands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from pixzip.jit import jit
from pixzip.runtime import multiply as module
from pixzip.runtime.engines import make_product
from pixzip.runtime.multiply import BLOCK, HAS_INT8, OUTER_BLOCK, SLACK, outer, pack, padded, product, whole_blocks

ROOT = Path(__file__).parents[1]
#: This processor's features, as numba's variable has them.
HERE = {f"+{name}" for name, has in llvmlite.binding.get_host_cpu_features().items() if has}
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


@pytest.mark.parametrize("way", ["as here", "pairs", "loops"])
@pytest.mark.parametrize("depth", [1, 2, 96])
def test_outer_products_are_exact(depth: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the instruction that multiplies pairs and adds, with that which only multiplies, and without."""
    if way != "as here":
        monkeypatch.setattr(module, "_VNNI", False)
    if way == "loops":
        monkeypatch.setattr(module, "_X86", False)
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


#: Prints the assembler of ARM's dot product for a processor; LLVM ends the process where it has none.
SELECT = """if True:
    import sys
    import llvmlite.binding as llvm
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
    text = f"declare <4 x i32> @{name}(<4 x i32>, <16 x i8>, <16 x i8>)"
    text += "define <4 x i32> @f(<4 x i32> %a, <16 x i8> %b, <16 x i8> %c) {"
    text += f" %r = call <4 x i32> @{name}(<4 x i32> %a, <16 x i8> %b, <16 x i8> %c) ret <4 x i32> %r }}"
    target = llvm.Target.from_triple("aarch64-unknown-linux-gnu")
    print(target.create_target_machine(cpu=sys.argv[1]).emit_assembly(llvm.parse_assembly(text)))
"""
#: One processor of each beginning of a name.
ARM_PROCESSORS = [
    *("apple-m1", "ampere1", "neoverse-n1", "cortex-x1", "cortex-a55", "cortex-a75", "cortex-a76", "cortex-a77"),
    *("cortex-a78", "cortex-a710", "cortex-a715", "cortex-a720"),
]


@pytest.mark.skipif(not hasattr(llvmlite.binding, "initialize_all_targets"), reason="an llvmlite of one target")
@pytest.mark.parametrize("name", [*ARM_PROCESSORS, "cortex-a72", "generic"])
def test_arm_processors_with_dot_products_are_those_that_llvm_has_them_for(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", SELECT, name], capture_output=True, text=True, check=False)
    assert ("sdot" in done.stdout) == name.startswith(module.ARM_DOT)
    assert (done.returncode == 0) == name.startswith(module.ARM_DOT)


def test_every_beginning_of_an_arm_name_is_tested() -> None:
    assert [name.startswith(begin) for name, begin in zip(ARM_PROCESSORS, module.ARM_DOT, strict=True)].count(
        False
    ) == 0


#: Processors of other years: name and features for numba, and how products of integers are made there.
X86_64 = "+64bit,+cmov,+cx16,+cx8,+fxsr,+mmx,+popcnt,+sahf,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3"
AVX2 = f"{X86_64},+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+xsave"
OLDER = {"nehalem": (X86_64, 4), "haswell": (AVX2, 8)}
#: Products, then the digest of tests/test_exactness.py by both engines, in a process of its own.
AGAIN = """if True:
    import sys
    import pytest
    from pixzip.runtime import multiply
    assert multiply.INTEGERS == "int16" and multiply._VECTOR == int(sys.argv[1]), vars(multiply)
    tests = ["tests/test_multiply.py", "tests/test_exactness.py"]
    only = "products or outer or payloads_are_the_same and 1-1 and not torch and not cuda"
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", only, *tests]))
"""


@pytest.mark.skipif(not module._X86, reason="not x86-64")
@pytest.mark.parametrize("name", [name for name in OLDER if set(OLDER[name][0].split(",")) <= HERE])
def test_older_processors_come_to_the_same_bytes(name: str) -> None:
    """Compiled for their instructions, which this processor has too."""
    features, vector = OLDER[name]
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(vector)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-300:]
