"""The memory that a training takes again and again, and the objects that it keeps to its end."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: Numbers of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_memory() -> None:
    """Let glibc keep what is freed, for all threads; elsewhere nothing.

    By default it gives large blocks back after every layer and takes them again, which costs a third of the time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_TRIM_THRESHOLD, -1)
    mallopt(_MMAP_MAX, 0)
    mallopt(_ARENA_MAX, 1)


@contextmanager
def settled_objects() -> Iterator[None]:
    """Within the block Python looks for garbage among the objects made in it only.

    Those of torch are many, and it would go through all of them every few steps.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
