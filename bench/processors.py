"""Golden files and the exactness tests on other processors, emulated → whether they find the same bytes and pixels.

    apt-get install qemu-user-static                    # QEMU's user mode; Debian or Ubuntu on x86-64
    dpkg --add-architecture arm64 && apt-get update     # for aarch64 alone
    python bench/processors.py FOLDER [NAME ...]

haswell     x86-64 with AVX2 and FMA, as QEMU emulates it, without AVX-512 and VNNI: vectors of 8, float32 products
epyc        x86-64 as AMD's first EPYC has it
aarch64     64-bit ARM: other builds of Python, numpy, LLVM and numba, code for NEON; no constriction, no torch

FOLDER keeps the foreign Python (Debian's packages, wheels by pip) and what numba compiled. Emulated, compiling alone
takes minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import click

_ROOT = Path(__file__).resolve().parent.parent
_TESTS = ("tests/test_golden.py", "tests/test_exactness.py")
_X86 = {"haswell": "Haswell", "epyc": "EPYC"}
#: Debian's Python and the libraries that it and the wheels load.
_DEBIAN = (
    *("python3.11", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "zlib1g"),
    *("libexpat1", "libssl3", "libbz2-1.0", "liblzma5", "libffi8", "libsqlite3-0", "libuuid1", "libcrypt1"),
    *("libstdc++6", "libgcc-s1", "libgomp1", "libncursesw6", "libtinfo6", "libreadline8"),
)
_WHEELS = (
    "numpy",
    "numba",
    "llvmlite",
    "pillow",
    "click",
    "threadpoolctl",
    "pytest",
    "iniconfig",
    "pluggy",
    "packaging",
)
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def foreign_python(folder: Path) -> list[str]:
    """The command of an ARM Python with what pixzip needs; made in the folder the first time."""
    system, packages = folder / "system", folder / "packages"
    if not packages.exists():
        system.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", *(f"{name}:arm64" for name in _DEBIAN)], cwd=folder, check=True)
        for archive in sorted(folder.glob("*_arm64.deb")):
            subprocess.run(["dpkg", "-x", archive.name, system.name], cwd=folder, check=True)
        wanted = [f"{name}=={version(name)}" for name in _WHEELS]
        kind = ["--python-version", "3.11", "--implementation", "cp"]
        kind += [word for abi in ("cp311", "abi3", "none") for word in ("--abi", abi)]
        kind += [word for name in _PLATFORMS for word in ("--platform", name)]
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--only-binary=:all:"]
        subprocess.run([*install, *kind, "--target", str(packages), *wanted, "pygments"], check=True)
    return ["qemu-aarch64-static", "-L", str(system), str(system / "usr/bin/python3.11")]


def run(name: str, folder: Path) -> bool:
    """Run the tests on one processor; whether they passed."""
    path = [str(_ROOT), str(_ROOT / "tests")]
    if name == "aarch64":
        python = foreign_python(folder)
        path.append(str(folder / "packages"))
    else:
        python = ["qemu-x86_64-static", "-cpu", _X86[name], sys.executable]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONPYCACHEPREFIX": str(folder / "pyc"),
        "NUMBA_CACHE_DIR": str(folder / f"compiled-{name}"),
        "OMP_NUM_THREADS": "1",
    }
    start = time.monotonic()
    facts = "import llvmlite.binding as l, platform as p; print(p.machine(), l.get_host_cpu_name())"
    about = subprocess.run([*python, "-c", facts], env=environment, capture_output=True, text=True, check=True)
    tests = [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", *_TESTS]
    done = subprocess.run(tests, cwd=_ROOT, env=environment, capture_output=True, text=True)
    result = (done.stdout.strip().splitlines() or [done.stderr])[-1]
    print(f"{name} ({about.stdout.strip()}): {result}, {(time.monotonic() - start) / 60:.0f} min", flush=True)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:])
    return done.returncode == 0


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("names", nargs=-1, type=click.Choice([*_X86, "aarch64"]))
def main(folder: Path, names: tuple[str, ...]) -> None:
    """Run the tests on each processor, on all by default."""
    folder.mkdir(parents=True, exist_ok=True)
    passed = [run(name, folder.resolve()) for name in names or (*_X86, "aarch64")]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
