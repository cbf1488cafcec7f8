"""Threads inside one picture: each tells how far it is, and waits for others in compiled code without the lock.

A counter is one int64 of an array (counters, 8): alone on its cache line, only ever raised, written by one thread at a
time. Waiting is a short spin and then sleep, so that on a busy machine a waiting thread leaves its core to others.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from pixzip.jit import address, call, inner, intrinsic

Counters = NDArray[np.int64]
_SPINS = 4000  # of tens of cycles each
_SLEEP_US = 50
#: What a thread that failed leaves in its counters, so that nobody waits for it.
_GIVEN_UP = 1 << 62


def counters(count: int) -> Counters:
    """This many counters of 0."""
    return np.zeros((count, 8), dtype=np.int64)


@intrinsic
def _load(typing: Any, where: Any) -> Any:
    """The int64 at an address; what its writer wrote before it is seen by reads after this one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def _raise(typing: Any, where: Any, value: Any) -> Any:
    """The int64 at an address becomes at least value, after all writes before it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.atomic_rmw("max", pointer, arguments[1], "acq_rel")
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _sleep(typing: Any) -> Any:
    """Leave the core to others for about _SLEEP_US."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name, time = ("Sleep", 1) if sys.platform == "win32" else ("usleep", _SLEEP_US)
        call(builder, name, ir.IntType(32), [ir.Constant(ir.IntType(32), time)])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _pause(typing: Any) -> Any:
    """Tell the processor that this is a waiting loop."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), generate


@inner
def wait_for(counters: Counters, which: int, value: int) -> None:
    """Return when this counter is at least value."""
    here = address(counters) + 64 * which
    spins = 0
    while _load(here) < value:
        spins += 1
        if spins > _SPINS:
            _sleep()
        else:
            _pause()


@inner
def advance(counters: Counters, which: int, value: int) -> None:
    """Raise a counter to value, after everything this thread has written."""
    _raise(address(counters) + 64 * which, value)


def given_up(done: Counters) -> bool:
    """Whether a thread has failed, so that the others need not go on."""
    return bool(done.max() >= _GIVEN_UP)


def run_together(work: Callable[[int], None], count: int, done: Counters) -> None:
    """Run work(0) here and work(1), ... on threads beside; if one fails all end, and its exception is raised."""

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException:
            done[:] = _GIVEN_UP
            raise

    if count == 1:
        guarded(0)
        return
    with ThreadPoolExecutor(count - 1) as pool:
        try:
            others = [pool.submit(guarded, index) for index in range(1, count)]
        except BaseException:  # no more threads: those that run wait for it
            done[:] = _GIVEN_UP
            raise
        guarded(0)
        for other in others:
            other.result()
