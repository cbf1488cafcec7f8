"""The Triton kernel that decodes lanes: in the interpreter it does what whole-tensor operations do, and it compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

INTERPRETED = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
torch.set_num_threads(1)
from pixzip.runtime.device import lanes, take
from test_device import SHAPES, agree, tiny_model
lanes.compiles = lambda device: True
calls = []
whole = take.take
take.take = lambda *arguments: (calls.append(1), whole(*arguments))
if "fault" in sys.argv:
    take.PRECISION = 23
if "lane" in sys.argv:
    take.take = lambda w, s, coder, places, *rest: whole(w, s, coder, (places[0], places[1] + 1, *places[2:]), *rest)
assert agree(tiny_model(2, "c"), [(1, 9, 13), (1, 5, 7)], [8, 0], [3, 1], "cpu"), "differs"
assert calls, "not used"
assert agree(tiny_model(3, "c"), [(2, 6, 5)], [8], [3], "cpu"), "differs"
"""


def interpreted(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    return subprocess.run(
        [sys.executable, "-c", INTERPRETED, *arguments], capture_output=True, text=True, env=environment
    )


def test_in_the_interpreter_it_decodes_what_was_encoded() -> None:
    done = interpreted()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fault", ["fault", "lane"])
def test_a_planted_fault_is_caught(fault: str) -> None:
    done = interpreted(fault)
    assert "AssertionError: differs" in done.stderr or "FormatError: lane" in done.stderr


@pytest.mark.parametrize("capability", [75, 80, 90])
def test_it_compiles_for_gpus_that_are_not_here(capability: int) -> None:
    code = f"""
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pixzip.runtime.device.take import MASS, PRECISION, SYMBOLS, take_symbols
names = take_symbols.arg_names
kinds = {{name: "*i64" for name in names}} | {{"weights": "*i32", "n": "i32", "period": "i32"}}
constants = {{"MASS": MASS, "PRECISION": PRECISION, "SYMBOLS": SYMBOLS}}
kinds |= {{name: "constexpr" for name in constants}}
source = ASTSource(take_symbols, kinds, {{(names.index(k),): v for k, v in constants.items()}})
made = triton.compile(source, target=GPUTarget("cuda", {capability}, 32), options={{"num_warps": 1}})
assert "ptx" in made.asm
"""
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
