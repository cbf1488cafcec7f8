"""A picture → the largest resident size of compressing and decompressing it, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pixzip.errors import CostError
from pixzip.formats.image import from_array, write_image


@dataclass(frozen=True)
class Memory:
    """MiB of whole commands; None: not known."""

    compress_mib: float | None
    decompress_mib: float | None


def peak_memory(pixels: NDArray[Any], name: str, learning: int | None, threads: int) -> Memory:
    """Peaks of `pixzip compress` and `pixzip decompress` with compiled code in its cache.

    pixels: (h, w) or (h, w, 3). Raises CostError.
    """
    with tempfile.TemporaryDirectory() as folder:
        image, coded = Path(folder) / "a.png", Path(folder) / "a.pxz"
        image.write_bytes(write_image(from_array(pixels), "PNG"))
        how = ["--model", name, "--threads", str(threads), "--force", "-q"]
        rate = [] if learning is None else ["--learning", str(learning)]
        pixzip = [sys.executable, "-m", "pixzip"]
        compress_mib = peak_mib([*pixzip, "compress", str(image), "--no-verify", *rate, *how])
        return Memory(compress_mib, peak_mib([*pixzip, "decompress", str(coded), *how]))


def peak_mib(command: list[str]) -> float | None:
    """Largest resident size of a command; None where the system does not say. Raises CostError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "peak"
        process = subprocess.Popen([sys.executable, "-m", "pixzip.benchmark.peak", str(file), *command])
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if code:
            raise CostError(f"exit code {code}: {' '.join(command[2:4])}")
        found = file.read_text()
        return float(found) if found else None
