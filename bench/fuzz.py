"""Mutated .pxz and model files, guided by coverage → whether any gets another answer than pixels or a named error.

    pip install atheris
    python bench/fuzz.py --runs 1000000 --corpus FOLDER          # the documented run
    python bench/fuzz.py --coverage --corpus FOLDER              # lines that the corpus reaches
    python bench/fuzz.py --corpus FOLDER FILE...                 # files that were found, once more
    python bench/fuzz.py --seeded 20000                          # without atheris: the same files again, counted

Seeds: pictures of 1 to 9 pixels a side in all modes, coded by tiny models of the tests or stored, with metadata,
several tiles, several pictures, embedded models; and the models. What becomes of them is in bench/mutations.py.

For every file: decompress gives an error of pixzip's, or pictures whose checksum is the header's, and those of the seed
where the checksum is a seed's; salvage likewise, and calls whole only what decompress gives; inspect never fails where
decompress does not, and what the Pillow plugin reads before the pixels is what the whole file says. What is decoded and
written as PNG reads as the same picture. One of 16 files that a model coded goes through the other engine, one of 16 of
up to 16 pixels through the reference decoder: each must come to the same outcome. A model that loads codes and decodes
a picture to itself. An execution of over 5 s, or a process of over 2 GiB, is a fault. libFuzzer keeps what it finds as
crash-*, timeout-* or oom-* beside the folder; a seeded run ends at the first fault and names the seed's number.
"""

from __future__ import annotations

import atexit
import io
import json
import resource
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import click
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

import mutations  # noqa: E402
import reference_decoder  # noqa: E402
from tiny_model import tiny_bytes, tiny_model  # noqa: E402

from pixzip import api, codec, contents, errors, pillow  # noqa: E402
from pixzip.coding import entropy, stored  # noqa: E402
from pixzip.formats import metadata, png  # noqa: E402
from pixzip.formats.image import MODES, Picture, read_image, write_image  # noqa: E402
from pixzip.model import checks, file  # noqa: E402
from pixzip.model.file import Model, load_model  # noqa: E402
from pixzip.pxz import container, names, remains  # noqa: E402
from pixzip.pxz.container import MAGIC, read_container, write_container  # noqa: E402
from pixzip.runtime.multiply import HAS_INT8  # noqa: E402

_MAX_PIXELS = mutations.MOST_PIXELS
_MAX_BYTES = 1 << 17
_LIMIT_S = 5
_MIB_AT_MOST = 2048
_REFERENCE_ONE_IN, _REFERENCE_PIXELS = 16, 16
_ENGINE_ONE_IN = 16
_SAID_EVERY = 50_000

#: What happened: outcome → executions.
outcomes: Counter[str] = Counter()


# ------------------------------------------------------------------------ seeds


@cache
def models() -> tuple[Model, ...]:
    """One that is in the files of coding MODEL, one that is embedded."""
    sizes = {"channels": 16, "hidden": 16, "lstm": 8, "head": 16}
    return tiny_model(0, "cl", **sizes), tiny_model(1, "c", **sizes)


def _picture(mode: str, depth: int, h: int, w: int) -> Picture:
    chance = np.random.default_rng([h, w, depth])
    dtype = np.uint16 if depth == 16 else np.uint8
    planes = chance.integers(0, 2**depth, (MODES[mode][0], h, w)).astype(dtype)
    palette = bytes(chance.integers(0, 256, 3 * 2**depth).tolist()) if mode == "P" else b""
    key = {"L": b"\0\1", "RGB": b"\0\1\0\2\0\3", "P": b"\x07\xff"}.get(mode, b"")
    metadata = (("text", b"Title\0a title"), ("gama", struct.pack(">I", 45455)))
    return Picture(planes, mode, depth, palette, key, metadata)


def _coded(picture: Picture, count: int, model: Model, **layout: Any) -> bytes:
    """A file of coding MODEL, whether or not that is shorter than storing."""
    planes = np.stack([picture.planes] * count)
    return write_container(contents.as_coded(picture, planes, model, contents.Layout(**layout), mutations.HOW))


def seeds() -> dict[str, bytes]:
    """Name → file."""
    first, second = models()
    made = {f"stored-{m}{d}": api.compress(_picture(m, d, 3, 5)) for m, (_, _, ds) in MODES.items() for d in ds}
    layouts = {
        "one": (7, 9, 1, 16, 1),  # height, width, pictures, tile, lanes
        "tiles": (7, 9, 1, 4, 2),
        "small": (2, 5, 1, 3, 3),
        "pixel": (1, 1, 1, 8, 1),
        "several": (3, 4, 3, 8, 5),
    }
    for mode in ("L", "LA", "RGB", "RGBA"):
        for name, (h, w, count, tile, lanes) in layouts.items():
            for learning in (0, 8):
                picture = _picture(mode, 8, h, w)
                made[f"coded-{mode}-{name}-{learning}"] = _coded(
                    picture, count, first, tile=tile, lanes=lanes, learning=learning
                )
    for mode in ("L", "RGB", "RGBA"):
        for name in ("tiles", "several"):
            h, w, count, tile, lanes = layouts[name]
            picture = _picture(mode, 16, h, w)
            made[f"deep-{mode}-{name}"] = _coded(picture, count, first, tile=tile, lanes=lanes, learning=8)
    embedded = read_container(_coded(_picture("RGB", 8, 2, 3), 1, second, tile=8, lanes=1, learning=0))
    made["embedded"] = write_container(replace(embedded, model=second.data))
    return made | {"model-0": tiny_bytes(0, "cl"), "model-1": second.data}


def _known() -> dict[bytes, bytes]:
    """Pixels checksum → samples of all seeds."""
    known = {}
    for data in seeds().values():
        if data.startswith(MAGIC):
            pictures = api.decompress_batch(data, threads=1, engine="float32")
            known[container.read_header(data).pixels_checksum] = b"".join(p.planes.tobytes() for p in pictures)
    return known


@cache
def means(blind: mutations.Blind = mutations.blind) -> mutations.Means:
    """What mutations draw on."""
    return mutations.Means([data for data in seeds().values() if data.startswith(MAGIC)], models(), blind)


# ------------------------------------------------------------------------ checks


class Fault(Exception):
    """What must never happen."""


class Checker:
    """Judges one file after another."""

    def __init__(self) -> None:
        first = models()[0]

        def find_model(wanted: Any) -> Model:
            if wanted == "default" or first.digest.startswith(wanted):
                return first
            raise errors.ModelNotFoundError("not a seed's")

        api.find_model = find_model  # reading the model from disk for each file would take longer than all else
        self._known = _known()
        self._decoded = self._coded = self._seen = 0

    def __call__(self, data: bytes) -> None:
        """Raise Fault, or whatever came instead of an error of pixzip's."""
        data, start = bytes(data), time.monotonic()
        samples = self._file(data) if data.startswith(MAGIC) else self._model(data)
        if time.monotonic() - start > _LIMIT_S:
            raise Fault(f"took {time.monotonic() - start:.1f} s")
        self._ask_reference(data, samples)
        self._seen += 1
        if self._seen % _SAID_EVERY == 0:  # libFuzzer ends the process without a word to Python
            print(self._seen, json.dumps(outcomes), flush=True)

    def _file(self, data: bytes) -> bytes | None:
        """The samples, where they are given."""
        how: dict[str, Any] = {"threads": 1, "engine": "float32", "max_pixels": _MAX_PIXELS}
        pictures, samples = None, None
        try:
            pictures = api.decompress_batch(data, **how)
            outcome = "decoded"
        except errors.PixzipError as error:
            outcome = type(error).__name__
        outcomes[outcome] += 1
        outcomes[f"{outcome}, {_how_far(data)}"] += 1
        self._front(data)
        if pictures is not None:
            samples = b"".join(picture.planes.tobytes() for picture in pictures)
            api.inspect(data)
            self._compare(data, pictures, samples)
        self._salvage(data, how, samples)
        self._ask_other_engine(data, how, samples)
        return samples

    def _ask_other_engine(self, data: bytes, how: dict[str, Any], samples: bytes | None) -> None:
        """int8 on one of so many files of coding MODEL."""
        if not HAS_INT8 or _how_far(data) != "coded":
            return
        self._coded += 1
        if self._coded % _ENGINE_ONE_IN:
            return
        outcomes["asked the other engine"] += 1
        try:
            pictures = api.decompress_batch(data, **{**how, "engine": "int8"})
            found = b"".join(picture.planes.tobytes() for picture in pictures)
        except errors.PixzipError:
            found = None
        if found != samples:
            raise Fault("int8 comes to another outcome than float32")

    def _front(self, data: bytes) -> None:
        """What stands before the pixels, as the Pillow plugin reads it, against the whole file."""
        try:
            front = container.read_front(io.BytesIO(data))
        except errors.FormatError:
            front = None
        try:
            pillow.PxzImageFile(io.BytesIO(data))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # what Pillow's own plugins raise
            outcomes["refused by Pillow"] += 1
        try:
            c = read_container(data, max_pixels=_MAX_PIXELS)
        except errors.PixzipError:
            return
        if front != (c.header, c.palette, c.transparency, c.metadata):
            raise Fault(f"before the pixels stands {front}")

    def _compare(self, data: bytes, pictures: list[Picture], samples: bytes) -> None:
        header, first = container.read_header(data), pictures[0]
        planes = np.stack([picture.planes for picture in pictures])
        colours = (first.mode, first.depth, first.palette, first.transparency)
        if container.checksum(planes, *colours) != header.pixels_checksum:
            raise Fault("pictures of another checksum than the header's")
        if self._known.get(header.pixels_checksum, samples) != samples:
            raise Fault("other pixels under a seed's checksum")
        back = read_image(write_image(first, "PNG"), max_pixels=_MAX_PIXELS)
        if not back.same_pixels(first):
            raise Fault("another picture in the PNG that is written")

    def _salvage(self, data: bytes, how: dict[str, Any], samples: bytes | None) -> None:
        try:
            found = api.salvage(data, **how)
        except errors.PixzipError:
            if samples is not None:
                raise Fault("salvage refuses what decompress takes") from None
            return
        outcomes["salvaged"] += 1
        same = b"".join(picture.planes.tobytes() for picture in found.pictures) == samples
        if found.whole and not same:
            raise Fault("salvage calls whole what decompress does not give")

    def _ask_reference(self, data: bytes, samples: bytes | None) -> None:
        """The reference decoder on one of so many files of coding MODEL."""
        try:
            c = read_container(data, max_pixels=_REFERENCE_PIXELS)
        except errors.PixzipError:
            return
        own = c.model is None and c.header.model_digest == models()[0].digest[:8]
        if not own or (c.alpha is not None and c.alpha[0] != container.CONSTANT):
            return
        self._decoded += 1
        if self._decoded % _REFERENCE_ONE_IN == 0:
            outcomes["asked the reference decoder"] += 1
            ask_reference(data, c, samples)

    def _model(self, data: bytes) -> None:
        try:
            model = load_model(data, "fuzzed")
        except errors.PixzipError as error:
            outcomes[f"model: {type(error).__name__}"] += 1
            return
        outcomes["model: loaded"] += 1
        if model.network.refusal(3, 8) is not None:
            return
        planes = _picture("RGB", 8, 3, 5).planes[None]
        made = codec.encode(model, planes, tile=4, threads=1, engine="float32")
        back = codec.decode(model, made.tiles, planes.shape, **made.layout, threads=1, engine="float32")
        if not np.array_equal(back, planes):
            raise Fault("a model that loads does not decode what it coded")


def _how_far(data: bytes) -> str:
    """Whether a file passes as a container, and how it is coded: "coded", "stored", "no container"."""
    try:
        c = read_container(data, max_pixels=_MAX_PIXELS)
    except errors.PixzipError:
        return "no container"
    return "stored" if c.tiles == () else "coded"


def ask_reference(data: bytes, c: container.Container, samples: bytes | None) -> None:
    """Raise Fault where the reference decoder comes to another outcome for a file of coding MODEL."""
    try:
        _, _, found = reference_decoder.decode(data, models()[0].data)
    except reference_decoder.Refused as error:
        if samples is not None:
            raise Fault(f"the reference decoder refuses what was decoded: {error}") from None
        return
    if samples is None:
        raise Fault("the reference decoder decodes what was refused")
    dtype = np.uint16 if c.header.depth == 16 else np.uint8
    if b"".join(np.array(picture, dtype).tobytes() for picture in found) != samples:
        raise Fault("the reference decoder gives other pixels")


# ------------------------------------------------------------------------ coverage


def _functions(module: ModuleType) -> list[FunctionType]:
    """Functions and methods of a module that the interpreter runs: those compiled by numba are objects of its own."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    methods = [value for each in own if isinstance(each, type) for value in vars(each).values()]
    made = [value for value in own + methods if isinstance(value, FunctionType)]
    return [value for value in made if value.__code__.co_filename == module.__file__]


def _lines(code: CodeType) -> set[int]:
    inner = (_lines(each) for each in code.co_consts if isinstance(each, CodeType))
    return {line for *_, line in code.co_lines() if line and line != code.co_firstlineno}.union(*inner)


def covered(files: list[bytes], modules: Sequence[ModuleType]) -> list[str]:
    """For each module: how many of the lines in its functions these files reach, and which they do not."""
    reached: set[tuple[str, int]] = set()
    places = {module.__file__ for module in modules}

    def note(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in places:
            return None
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return note

    check = Checker()
    sys.settrace(note)
    try:
        for data in files:
            check(data)
    finally:
        sys.settrace(None)
    said = []
    for module in modules:
        lines = set().union(*(_lines(function.__code__) for function in _functions(module)))
        left = sorted(line for line in lines if (module.__file__, line) not in reached)
        said.append(f"{module.__name__}: {len(lines) - len(left)} of {len(lines)} lines; not {left}")
    return said


# ------------------------------------------------------------------------ run

#: Whose branches guide the mutations.
GUIDES = (container, entropy, remains, metadata, names, file, checks, stored, png, api, contents)


def _fuzz(corpus: Path, runs: int, seconds: int) -> None:
    import atheris

    for module in GUIDES:
        for function in _functions(module):
            atheris.instrument_func(function)
    for name, data in seeds().items():
        (corpus / name).write_bytes(data)
    check, begun = Checker(), time.monotonic()
    atexit.register(lambda: print(json.dumps(outcomes), f"{time.monotonic() - begun:.0f} s", flush=True))
    atexit.register(lambda: signal.setitimer(signal.ITIMER_REAL, 0))  # libFuzzer's, which would end a slow exit
    limits = [f"-timeout={_LIMIT_S}", f"-rss_limit_mb={_MIB_AT_MOST}", f"-max_len={_MAX_BYTES}"]
    lengths = [
        f"-atheris_runs={runs}",
        f"-max_total_time={seconds}",
        "-len_control=0",
        "-mutate_depth=2",
        "-print_final_stats=1",
    ]
    words = [sys.argv[0], *limits, *lengths, f"-artifact_prefix={corpus.parent}/", str(corpus)]
    drawn = means(lambda data, most: bytes(atheris.Mutate(data, most)))
    atheris.Setup(words, check, custom_mutator=lambda *given: mutations.mutate(*given, drawn)[1])
    atheris.Fuzz()


def run_seeded(count: int, check: Checker) -> dict[str, Counter[str]]:
    """Judge so many files, the same in every run; mutation → outcome → files. Raises Fault, naming the seed."""
    files = list(seeds().values())
    table: dict[str, Counter[str]] = {}
    for seed in range(count):
        name, data = mutations.mutate(files[seed % len(files)], _MAX_BYTES, seed, means())
        before = outcomes.copy()
        try:
            check(data)
        except Exception as error:
            raise Fault(f"seed {seed}, mutation {name}: {type(error).__name__}: {error}") from error
        kinds = [kind for kind in outcomes - before if "," in kind or kind.startswith("model")]
        table.setdefault(name, Counter()).update(kinds)
    return table


def _seeded(count: int) -> None:
    begun = time.monotonic()
    table = run_seeded(count, Checker())
    kinds = sorted(set().union(*table.values()))
    for name, found in sorted(table.items()):
        print(
            f"{name:20} {sum(found.values()):7}  "
            + ", ".join(f"{kind}: {found[kind]}" for kind in kinds if found[kind])
        )
    print(json.dumps(dict(sorted(outcomes.items()))))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{count} files in {time.monotonic() - begun:.0f} s, at most {peak_mib} MiB")
    if peak_mib > _MIB_AT_MOST:
        raise Fault(f"{peak_mib} MiB of memory")


@click.command()
@click.option(
    "--corpus", type=click.Path(file_okay=False, path_type=Path), help="Files that reach more; needed but for --seeded."
)
@click.option("--runs", default=1_000_000, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=0, help="Stop earlier.")
@click.option("--seeded", type=click.IntRange(1), help="So many files without atheris, the same in every run.")
@click.option("--coverage", is_flag=True, help="Say which lines the corpus reaches; nothing is mutated.")
@click.argument("again", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(
    corpus: Path | None, runs: int, seconds: int, seeded: int | None, coverage: bool, again: tuple[Path, ...]
) -> None:
    """Mutate files; or judge those of a corpus, or these, once more."""
    if seeded is not None:
        _seeded(seeded)
        return
    if corpus is None:
        raise click.UsageError("--corpus is missing")
    corpus.mkdir(parents=True, exist_ok=True)
    if again:
        for path in again:
            Checker()(path.read_bytes())
    elif coverage:
        for line in covered([path.read_bytes() for path in sorted(corpus.iterdir())], (container, entropy, remains)):
            print(line)
        print(json.dumps(outcomes))
    else:
        _fuzz(corpus, runs, seconds)


if __name__ == "__main__":
    main()
