"""This process → what machine and versions its measurements are of."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pixzip
from pixzip.benchmark import peers
from pixzip.runtime.engines import choose_engine


def cores() -> int:
    """Cores that this process may use: threads on fewer would wait for each other."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    """The processor's name, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = dict(line.partition(":")[::2] for line in lines)
    fields = {key.strip(): value.strip() for key, value in named.items()}
    family = f"family {fields['cpu family']}, model {fields['model']}" if "cpu family" in fields else ""
    return f"{fields.get('model name', platform.machine())} ({family})" if family else platform.machine()


@cache
def code_digest() -> str:
    """A digest of pixzip's sources, this package's reports left out: other code may measure other numbers."""
    root = Path(pixzip.__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        if "benchmark" not in path.relative_to(root).parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def described() -> dict[str, Any]:
    """Machine and versions, as reports say them."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "cores_of_machine": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "engine": choose_engine(None),
        "pixzip": pixzip.__version__,
        "code": code_digest(),
        "versions": {
            "Python": platform.python_version(),
            "numpy": version("numpy"),
            "numba": version("numba"),
            **peers.versions(),
        },
    }


def load() -> float:
    """Processes that wanted to run in the last minute, on average; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
