"""Python functions on numpy arrays → compiled kernels, cached on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def jit(function: _Function, fastmath: bool | set[str] = False, *, inline: bool = False) -> _Function:
    """Compile on first call, without the interpreter lock, so that threads of ours run kernels side by side.

    Division by zero follows numpy (no check in the loop). Where numba finds no folder it may write its cache to, the
    kernel is compiled in every process. fastmath: what LLVM may assume of floats; the coding path has none.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    options["inline"] = "always" if inline else "never"
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        compiled = numba.njit(**options)(function)
    return cast(_Function, compiled)
