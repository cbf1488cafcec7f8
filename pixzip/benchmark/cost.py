"""A picture → the largest resident size of compressing and decompressing it, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pixzip.errors import PixzipError
from pixzip.image import from_array, write_image


class CostError(PixzipError):
    """A command that was to be measured failed."""


@dataclass(frozen=True)
class Memory:
    """MiB of whole commands."""

    compress_mib: float
    decompress_mib: float


def peak_memory(pixels: NDArray[Any], name: str, learning: int | None, threads: int) -> Memory:
    """Peaks of `pixzip compress` and `pixzip decompress` with compiled code in its cache.

    pixels: (h, w) or (h, w, 3). Raises CostError.
    """
    with tempfile.TemporaryDirectory() as folder:
        image, coded = Path(folder) / "a.png", Path(folder) / "a.pxz"
        image.write_bytes(write_image(from_array(pixels), "PNG"))
        how = ["--model", name, "--threads", str(threads), "--force", "-q"]
        rate = [] if learning is None else ["--learning", str(learning)]
        compress_mib = _peak_mib("compress", str(image), "--no-verify", *rate, *how)
        return Memory(compress_mib, _peak_mib("decompress", str(coded), *how))


def _peak_mib(*arguments: str) -> float:
    """Largest resident size of a pixzip command."""
    process = subprocess.Popen([sys.executable, "-m", "pixzip", *arguments])
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CostError(f"pixzip {arguments[0]}: exit code {process.returncode}")
    return float(usage.ru_maxrss / 1024)
