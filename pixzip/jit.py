"""Python functions on numpy arrays → compiled kernels, cached on disk where that is possible.

================  ============  ==============  ==================  ========================================
made by           from Python?  kept on disk?   counts references?  for
================  ============  ==============  ==================  ========================================
jit, fused._fast  yes           yes             yes                 functions that may make arrays
entry             yes           yes             no                  large functions that call many others
inner             no            in its callers  no                  what only compiled functions call
inlined           yes           in its callers  no                  parts of callers, which may return views
fused.part        yes           yes             no                  many short loops over slices
================  ============  ==============  ==================  ========================================
"""

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
from numba import _dynfunc  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering
from numba.extending import intrinsic as numba_intrinsic
from numpy.typing import NDArray

#: Modules with compiled functions, and those that they import, all in one stamp: numba itself looks at a function's own
#: file only, though its machine code holds all functions that it calls and the numbers that it names.
SOURCES = ("*.py", "coding/*.py", "model/*.py", "nets/*.py", "pxz/*.py", "runtime/**/*.py")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def jit(
    function: _Function, fastmath: bool | set[str] = False, *, inline: bool = False, arrays: bool = True
) -> _Function:
    """Compile on first call, without the interpreter lock, so that threads of ours run kernels side by side.

    Division by zero follows numpy (no check in the loop). Machine code is kept beside the module, or in the user's
    cache folder; where neither can be written, it is made in every process. fastmath: what LLVM may assume of floats;
    the coding path has none. arrays: whether arrays are made, and references to them counted; without, a function that
    makes one is refused when it is compiled.
    """
    return _compiled(function, cache=True, fastmath=fastmath, inline="always" if inline else "never", _nrt=arrays)


def entry(function: _Function) -> _Function:
    """As jit, for large functions: arrays are neither made nor counted in them.

    Counting references to the arrays that threads share, at every call inside, costs more than the work.
    """
    return _compiled(function, cache=True, _nrt=False)


def inner(function: _Function) -> _Function:
    """As entry, for functions that only compiled ones call; no way in from Python, which takes long to compile."""
    return _compiled(function, cache=False, _nrt=False, no_cpython_wrapper=True, pipeline_class=_Inner)


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


class _Part(JITCodeLibrary):
    """Code that becomes part of its callers' only: LLVM's whole work on it, and its machine code, are left to them.

    numba does both for every function and so again at each level of calls, a third of the time that compiling took.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    """numba's way from its own representation to LLVM's, into a _Part."""

    _name = "pixzip_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _Part(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        context, make = state.targetctx, state.targetctx.get_executable

        def executable(library: Any, description: Any, environment: Any) -> Any:
            """A function without machine code has none to call."""
            if not isinstance(library, _Part):
                return make(library, description, environment)
            library.finalize()
            module, name = description.lookup_module(), description.qualname.split(".")[-1]
            return _dynfunc.make_function(module, name, "", 0, environment, (library,))

        context.get_executable = executable
        try:
            return bool(super().run_pass(state))
        finally:
            del context.get_executable


class _Inner(CompilerBase):
    """numba's pipeline with that in it."""

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [(_Lowering if kind is NativeLowering else kind, text) for kind, text in passes.passes]
        passes.finalize()
        return [passes]


@functools.cache
def _stamp() -> str:
    """Changes with any source that compiled functions come from."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in package.glob(pattern)):
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
