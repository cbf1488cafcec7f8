"""A command → the largest resident size that it had.

    python -m pixzip.benchmark.peak FILE COMMAND...

runs the command and writes MiB into FILE, nothing where the system does not say. A process of its own, because the
system counts to a process what the one that started it held at that moment: this one holds next to nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def main(file: Path, command: list[str]) -> int:
    """Run a command; its exit code. SIGTERM is handed on to it."""
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    if not hasattr(os, "wait4"):  # Windows
        file.write_text("")
        return process.wait()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    file.write_text(f"{usage.ru_maxrss / 1024}")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
