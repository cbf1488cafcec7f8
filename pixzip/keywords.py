"""Values of keywords → those that are allowed, before any work: UsageError says which keyword, and what it takes.

Nothing of what codes is loaded for it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from pixzip.errors import UsageError
from pixzip.model.file import Model
from pixzip.pxz.container import MAX_LEARNING

MAX_THREADS = 1024
#: Rate at which the heads learn, in 1/64 of a weight's unit a step (docs/model-format.md, section 9).
DEFAULT_LEARNING = 8
#: Engines of the CPU (runtime/engines.py).
ENGINES = ("int8", "float32")
#: Engines that code all blocks of a call at once, in torch: on a GPU, or on the CPU for comparison (runtime/device).
DEVICES = ("cuda", "torch")


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A value of a keyword, if it is an integer of Python's, numpy's or the like, in this range. Raises UsageError."""
    allowed = f"at least {least}" if most is None else f"{least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} {value!r:.40}: must be an integer, {allowed}") from None
    if number < least or (most is not None and number > most):
        raise UsageError(f"{name} {number}: must be {allowed}")
    return number


def threads_of(value: int | None) -> int | None:
    """A number of threads; None: as many as there are cores. Raises UsageError."""
    return None if value is None else integer("threads", value, 1, MAX_THREADS)


def check_engine(wanted: str | None, allowed: Sequence[str]) -> None:
    """Raise UsageError for what is none of the allowed engines, or needs what is not installed."""
    if wanted is not None and wanted not in allowed:
        raise UsageError(f"engine {wanted!r:.40}: must be one of {', '.join(allowed)}")
    if wanted in DEVICES and find_spec("torch") is None:
        raise UsageError(f"engine {wanted} needs PyTorch 2.6 or later, which is not installed")


def rate_of(model: Model, learning: int | None) -> int:
    """The rate of learning that is meant. Raises UsageError for one that the network cannot have."""
    learns = model.network.learns
    if learning is None:
        return DEFAULT_LEARNING if learns else 0
    learning = integer("learning", learning, 0, MAX_LEARNING)
    if learning and not learns:
        raise UsageError(f"learning {learning}: model {model.name} cannot learn from what it codes, only 0 is allowed")
    return learning
