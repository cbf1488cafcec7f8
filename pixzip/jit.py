"""Python functions on numpy arrays → compiled kernels, cached on disk where that is possible."""

from __future__ import annotations

import functools
import hashlib
import pickle
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import intrinsic as numba_intrinsic
from numpy.typing import NDArray

#: Modules with compiled functions, all in one stamp: numba itself looks at a function's own file only, though its
#: machine code holds all functions that it calls.
_SOURCES = ("*.py", "nets/*.py", "runtime/**/*.py")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def jit(
    function: _Function, fastmath: bool | set[str] = False, *, inline: bool = False, arrays: bool = True
) -> _Function:
    """Compile on first call, without the interpreter lock, so that threads of ours run kernels side by side.

    Division by zero follows numpy (no check in the loop). Machine code is kept beside the module, or in the user's
    cache folder; where neither can be written, it is made in every process. fastmath: what LLVM may assume of floats;
    the coding path has none.
    """
    return _compiled(function, cache=True, fastmath=fastmath, inline="always" if inline else "never")


def entry(function: _Function) -> _Function:
    """As jit, for large functions: arrays are neither made nor counted in them.

    Counting references to the arrays that threads share, at every call inside, costs more than the work.
    """
    return _compiled(function, cache=True, _nrt=False)


def inner(function: _Function) -> _Function:
    """As entry, for functions that only compiled ones call; no way in from Python, which takes long to compile."""
    return _compiled(function, cache=False, _nrt=False, no_cpython_wrapper=True)


def inlined(function: _Function) -> _Function:
    """A function that becomes part of those that call it, so that it may return a view of an array."""
    return _compiled(function, cache=False, _nrt=False, inline="always")


def _compiled(function: _Function, cache: bool, **options: Any) -> _Function:
    options |= {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    compiled = numba.njit(**options)(function)
    if cache:
        with suppress(RuntimeError):  # no folder to write to
            compiled._cache = _Cache(function)
    return cast(_Function, compiled)


@functools.cache
def _stamp() -> str:
    """Changes with any source that compiled functions come from."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in package.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Files(IndexDataCacheFile):
    """numba's cache files, with a checksum: a damaged one counts as absent, and is written anew."""

    def _load_index(self) -> Any:
        try:
            return super()._load_index()
        except Exception:  # whatever reading a damaged pickle raises
            return {}

    def _load_data(self, name: str) -> Any:
        data = Path(self._data_path(name)).read_bytes()
        if len(data) <= 4 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            raise OSError(f"{name} is damaged")  # numba takes it for a file that is gone
        return pickle.loads(data[4:])

    def _save_data(self, name: str, data: Any) -> None:
        dumped = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(zlib.crc32(dumped).to_bytes(4, "little") + dumped)


class _Cache(FunctionCache):
    """numba's cache of compiled functions on disk, which never keeps one from running."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, _stamp())

    def save_overload(self, signature: Any, data: Any) -> None:
        with suppress(OSError):  # a full disk
            super().save_overload(signature, data)


@inner
def address(array: NDArray[Any]) -> int:
    """Where an array's data stands: signed, since numba adds int64 to uint64 in float64."""
    return np.int64(array.ctypes.data)


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function that writes its own machine code: from types to (signature, generator), as numba.extending has it."""
    return numba_intrinsic(function)


def call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Write a call of a function that LLVM or the C library brings; its result."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    get: Callable[..., Any] = cgutils.get_or_insert_function
    return builder.call(get(builder.module, kind, name), arguments)
