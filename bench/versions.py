"""The exactness tests with other versions of PyTorch, each in an environment of its own: one digest for all.

    python bench/versions.py [VERSION ...]

Makes a virtual environment for every version, installs this checkout and that torch in it, and runs
tests/test_exactness.py. Versions before 2.13 may come as CUDA builds, of some gigabytes each.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

_ROOT = Path(__file__).parent.parent


@click.command()
@click.argument("versions", nargs=-1)
def main(versions: tuple[str, ...]) -> None:
    """Run the tests with each version, 2.6.0 and the newest by default."""
    failed = []
    for version in versions or ("2.6.0", ""):
        wanted = f"torch=={version}" if version else "torch"
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            python = str(Path(folder) / "bin" / "python")
            install = [python, "-m", "pip", "install", "--quiet", str(_ROOT), wanted, "pytest", "hypothesis"]
            subprocess.run(install, check=True)
            tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_exactness.py"]
            done = subprocess.run(tests, cwd=_ROOT, capture_output=True, text=True)
        print(f"{wanted}: {done.stdout.strip().splitlines()[-1]}", flush=True)
        failed += [wanted] * (done.returncode != 0)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
