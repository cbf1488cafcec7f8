"""`pixzip compress --delete` on a folder, killed at random moments or on a full disk → whether a picture was lost.

    python bench/killed_compress.py [--rounds 100] [--pictures 24] [--model fast] [--seed 0]
    python bench/killed_compress.py --full FOLDER [...]

Each round makes a folder of small pictures anew and runs the command on it. Without --full it is killed by SIGKILL: one
in ten while it starts, the others at a random moment between the first output and the time that an undisturbed run
takes. With --full, FOLDER is on a small file system (such as a tmpfs of a megabyte), of which all but a random number
of bytes is filled up first; the command ends by itself. Then, each time, the folder is judged: every picture is there,
as its source byte for byte or as a .pxz file that decodes to its samples and metadata; nothing else has a name but
temporary files; the same command once more leaves all pictures readable. Prints a line a round; exits 1 on any fault.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from pixzip import Picture, PixzipError, decompress, from_array, read_image, write_image

#: What a writer that was killed may leave (pixzip/files.py): hidden, so that no command takes it for a picture.
TEMPORARY = re.compile(r"\.pixzip-[0-9a-f]{16}\.tmp")

#: Of a full file system: a .pxz file of the pictures there takes up to 12 kB, in blocks of 4.
_ROOM_BYTES = 12_000


@dataclass
class Found:
    """What a folder holds after a command was stopped; faults: what must not be."""

    sources: int = 0  # there as they were
    coded: int = 0  # there as .pxz files that decode to them
    both: int = 0
    temporary: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.sources:3d} sources, {self.coded:3d} coded, {self.both} both, {self.temporary} temporary"
        return "; ".join([counts, *self.faults])


def judge(folder: Path, sources: Mapping[str, bytes], model: str | Path) -> Found:
    """What became of image files (name → bytes) that were compressed with --delete in a folder of their own."""
    found = Found()
    left = {path.name: path for path in folder.iterdir()}
    for name, data in sources.items():
        kept, packed = left.pop(name, None), left.pop(Path(name).with_suffix(".pxz").name, None)
        if kept is not None and kept.read_bytes() != data:
            found.faults.append(f"{name} has changed")
            kept = None
        if packed is not None and (fault := _difference(packed, read_image(data), model)):
            found.faults.append(f"{packed.name} {fault}")
            packed = None
        if kept is None and packed is None:
            found.faults.append(f"{name} is lost")
        found.sources += kept is not None
        found.coded += packed is not None
        found.both += kept is not None and packed is not None
    for name in left:
        if TEMPORARY.fullmatch(name):
            found.temporary += 1
        else:
            found.faults.append(f"{name} is left over")
    return found


def _difference(packed: Path, picture: Picture, model: str | Path) -> str:
    """What is wrong with a .pxz file of this picture, or nothing."""
    try:
        decoded = decompress(packed.read_bytes(), model=model, threads=1)
    except PixzipError as error:
        return f"is half a file: {error}"
    same = decoded.same_pixels(picture) and decoded.metadata == picture.metadata
    return "" if same else "holds another picture"


def pictures(count: int, seed: int, most_px: int) -> dict[str, bytes]:
    """PNG files of 8 to most_px pixels a side, ramps with noise, with a text each: name → bytes."""
    chance = np.random.default_rng(seed)
    made = {}
    for i in range(count):
        h, w = chance.integers(8, most_px + 1, 2)
        ramp = np.add.outer(np.arange(h), np.arange(w))[:, :, None] * chance.uniform(0.2, 1, 3)
        noisy = ramp + chance.normal(0, 3, (h, w, 3))
        picture = from_array(np.clip(noisy, 0, 255).astype(np.uint8))
        with_text = Picture(picture.planes, "RGB", 8, metadata=(("text", b"Title\0picture %d" % i),))
        made[f"{i:03d}.png"] = write_image(with_text, "PNG")
    return made


def command(folder: Path, model: str) -> list[str]:
    """The command to be killed."""
    words = ["compress", str(folder), "--delete", "--model", model, "--threads", "1", "-q"]
    return [sys.executable, "-m", "pixzip", *words]


def outputs(folder: Path) -> int:
    """How many .pxz files there are."""
    return sum(path.suffix == ".pxz" for path in folder.iterdir())


def run(folder: Path, model: str, wait_s: float | None = None, *, from_first: bool = True) -> tuple[float, float]:
    """Seconds to the first output, and to the end, of a command that is killed so long after one of them begins."""
    start = time.monotonic()
    process = subprocess.Popen(command(folder, model), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = 0.0
    try:
        while process.poll() is None and (from_first or wait_s is None) and not outputs(folder):
            time.sleep(0.002)
        first = time.monotonic() - start
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return first, time.monotonic() - start


@dataclass(frozen=True)
class Ordeal:
    """What all rounds share."""

    sources: dict[str, bytes]
    model: str

    def fill(self, folder: Path) -> None:
        """The pictures, in a folder of their own."""
        folder.mkdir()
        for name, data in self.sources.items():
            (folder / name).write_bytes(data)

    def judged(self, folder: Path) -> Found:
        """The folder after the command was stopped, and after it ran once more undisturbed."""
        found = judge(folder, self.sources, self.model)
        run(folder, self.model)
        found.faults += [f"then {fault}" for fault in judge(folder, self.sources, self.model).faults]
        return found


def killed(ordeal: Ordeal, rounds: int, chance: random.Random) -> list[Found]:
    """Judgements after kills at random moments."""
    judgements = []
    with tempfile.TemporaryDirectory() as name:
        for warm in ("compiling", "undisturbed"):
            ordeal.fill(Path(name) / warm)
            first_s, end_s = run(Path(name) / warm, ordeal.model)
        for i in range(rounds):
            at_start = i % 10 == 9
            wait_s = chance.uniform(0, first_s if at_start else end_s - first_s)
            folder = Path(name) / str(i)
            ordeal.fill(folder)
            run(folder, ordeal.model, wait_s, from_first=not at_start)
            judgements.append(ordeal.judged(folder))
            print(f"{i + 1:3d}  {'start' if at_start else 'work '} + {wait_s:.3f} s: {judgements[-1]}", flush=True)
    return judgements


def disk_full(ordeal: Ordeal, rounds: int, chance: random.Random, place: Path) -> list[Found]:
    """Judgements after commands that found no more room on their file system."""
    judgements = []
    for i in range(rounds):
        folder, ballast = place / "pictures", place / "ballast"
        ordeal.fill(folder)
        ballast.write_bytes(b"")
        room = chance.randrange(_ROOM_BYTES)
        _fill_up(ballast, room)
        run(folder, ordeal.model)
        ballast.unlink()
        judgements.append(ordeal.judged(folder))
        print(f"{i + 1:3d}  {room:7d} bytes left: {judgements[-1]}", flush=True)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    return judgements


def _fill_up(ballast: Path, room: int) -> None:
    """Write until the file system is full, then give back so many bytes."""
    with open(ballast, "wb", buffering=0) as file:
        block = bytes(4096)
        try:
            while True:
                file.write(block)
        except OSError:
            file.truncate(max(0, file.tell() - room))


@click.command()
@click.option("--rounds", default=100, show_default=True, type=click.IntRange(1))
@click.option("--pictures", "count", default=24, show_default=True, type=click.IntRange(1, 999))
@click.option("--model", default="fast", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--full", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A small file system.")
def main(rounds: int, count: int, model: str, seed: int, full: Path | None) -> None:
    """Stop compress --delete again and again, and look what became of the pictures."""
    ordeal, chance = Ordeal(pictures(count, seed, 96 if full else 48), model), random.Random(seed)
    judgements = disk_full(ordeal, rounds, chance, full) if full else killed(ordeal, rounds, chance)
    sums: Counter[str] = Counter()
    for found in judgements:
        between = 0 < found.coded < count
        sums.update(faults=len(found.faults), midway=between, both=found.both, temporary=found.temporary)
    print(
        f"{rounds} rounds, {sums['midway']} with part of the pictures coded; {sums['both']} pictures there twice, "
        f"{sums['temporary']} temporary files; {sums['faults']} faults"
    )
    raise SystemExit(1 if sums["faults"] else 0)


if __name__ == "__main__":
    main()
