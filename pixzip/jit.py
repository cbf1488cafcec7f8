"""Python functions on numpy arrays → compiled kernels, cached on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

_Function = TypeVar("_Function", bound=Callable[..., Any])


def jit(function: _Function, fastmath: bool | set[str] = False) -> _Function:
    """Compile on first call, without the interpreter lock, so that threads of ours run kernels side by side.

    Division by zero follows numpy (no check in the loop). Where numba finds no folder it may write its cache to, the
    kernel is compiled in every process. fastmath: what LLVM may assume of floats; the coding path has none.
    """
    return _compiled(function, cache=True, fastmath=fastmath)


def inner(function: _Function) -> _Function:
    """As jit, for functions that only compiled ones call: no entry from Python, which takes long to compile."""
    return _compiled(function, cache=False, no_cpython_wrapper=True)


def _compiled(function: _Function, cache: bool, **options: Any) -> _Function:
    options |= {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    try:
        compiled = numba.njit(cache=cache, **options)(function)
    except RuntimeError:
        compiled = numba.njit(**options)(function)
    return cast(_Function, compiled)


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function that writes its own machine code: from types to (signature, generator), as numba.extending has it."""
    return numba_intrinsic(function)


def call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Write a call of a function that LLVM or the C library brings; its result."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    get: Callable[..., Any] = cgutils.get_or_insert_function
    return builder.call(get(builder.module, kind, name), arguments)
