"""Mutated .pxz and model files, guided by coverage → whether any gets another answer than pixels or a named error.

    pip install atheris
    python bench/fuzz.py --runs 1000000 --corpus FOLDER          # the documented run
    python bench/fuzz.py --coverage --corpus FOLDER              # lines that the corpus reaches
    python bench/fuzz.py --corpus FOLDER FILE...                 # files that were found, once more

Seeds: pictures of 1 to 9 pixels a side in all modes, coded by tiny models of the tests or stored, with metadata,
several tiles, several pictures, embedded models; and the models. A mutation changes the header's fields, a chunk's
payload, a tile's lane table or words, the order of chunks, an embedded model or a model's configuration and arrays, and
mostly repairs the checksums and digests, so that what is behind them is reached.

For every file: decompress gives an error of pixzip's, or pictures whose checksum is the header's, and those of the seed
where the checksum is a seed's; salvage likewise, and calls whole only what decompress gives; inspect never fails where
decompress does not, and what the Pillow plugin reads before the pixels is what the whole file says. One of 64 files of
up to 16 pixels that a model coded also goes through the reference decoder, which must come to the same outcome. A model
that loads codes and decodes a picture to itself. An execution of over 5 s, or a process of over 2 GiB, is a fault.
libFuzzer keeps what it finds as crash-*, timeout-* or oom-* beside the folder.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import json
import random
import re
import struct
import sys
import time
import zlib
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
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import reference_decoder  # noqa: E402
from tiny_model import tiny_bytes, tiny_model  # noqa: E402

from pixzip import (  # noqa: E402
    api,
    codec,
    container,
    entropy,
    errors,
    metadata,
    model_checks,
    model_file,
    names,
    pillow,
    png,
    remains,
    stored,
)
from pixzip.container import MAGIC, read_container, write_container  # noqa: E402
from pixzip.image import MODES, Picture  # noqa: E402
from pixzip.model_file import Model, load_model  # noqa: E402

_MAX_PIXELS = 1024
_MAX_BYTES = 1 << 17
_LIMIT_S = 5
_MIB_AT_MOST = 2048
_REFERENCE_ONE_IN, _REFERENCE_PIXELS = 64, 16
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
    how = api._How(1, "float32", None)
    return write_container(api._code(picture, planes, model, api._Layout(**layout), how))


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


# ------------------------------------------------------------------------ mutations


def _split(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """(type, payload) of the chunks whose lengths fit, and what follows them."""
    chunks, at = [], 9
    while at + 12 <= len(data):
        length = struct.unpack_from("<I", data, at + 4)[0]
        if length > len(data) - at - 12:
            break
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks, data[at:]


def _join(chunks: list[tuple[bytes, bytes]], tail: bytes, repair: bool) -> bytes:
    parts = [MAGIC, bytes([container.VERSION])]
    for i, (type_, payload) in enumerate(chunks):
        crc = zlib.crc32(payload, zlib.crc32(type_)) ^ (0 if repair or i else 1)
        parts.append(struct.pack("<4sI", type_, len(payload)) + payload + struct.pack("<I", crc))
    return b"".join(parts) + tail


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Another file: what libFuzzer calls."""
    import atheris

    chance = random.Random(seed)
    if not data.startswith(MAGIC):
        return _mutated_model(data, max_size, chance)
    chunks, tail = _split(data)
    if chance.random() < 0.1 or not chunks:
        return bytes(atheris.Mutate(data, max_size))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        chance.choice((_change_header, _change_payload, _change_payload, _change_tile, _change_tile, _change_order))(
            chunks, chance, atheris
        )
    if chance.random() < 0.9:
        _name_model(chunks)
    return _join(chunks, tail if chance.random() < 0.9 else b"", chance.random() < 0.95)[:max_size]


_Chunks = list[tuple[bytes, bytes]]


def _change_header(chunks: _Chunks, chance: random.Random, atheris: Any) -> None:
    """One field to a value that is small, at a limit or any."""
    if not chunks or len(chunks[0][1]) != 43:
        return
    fields = list(struct.unpack("<IIIBBBBHB8s16s", chunks[0][1]))
    i = chance.randrange(9)
    most = (2**32 - 1,) * 3 + (255,) * 4 + (2**16 - 1, 255)
    near = fields[i] + chance.choice((-1, 1))
    fields[i] = min(max(0, chance.choice((near, chance.randrange(12), 2**31, most[i], chance.randrange(200)))), most[i])
    chunks[0] = chunks[0][0], struct.pack("<IIIBBBBHB8s16s", *fields)


def _change_payload(chunks: _Chunks, chance: random.Random, atheris: Any) -> None:
    """Any chunk's bytes, as libFuzzer likes."""
    i = chance.randrange(len(chunks))
    chunks[i] = chunks[i][0], bytes(atheris.Mutate(chunks[i][1], len(chunks[i][1]) + 16))


def _change_tile(chunks: _Chunks, chance: random.Random, atheris: Any) -> None:
    """A lane table or words of a tile; a word more or fewer with its count put right, one moved between lanes."""
    tiles = [i for i, chunk in enumerate(chunks) if chunk[0] == container.TILE and chunk[1]]
    if not tiles:
        return
    i = chance.choice(tiles)
    payload, lanes = bytearray(chunks[i][1]), max(1, chunks[0][1][15] if len(chunks[0][1]) > 15 else 1)
    table = min(lanes, len(payload))
    how = chance.randrange(5)
    if how == 0:
        payload[:table] = atheris.Mutate(bytes(payload[:table]), table + 5)
    elif how == 1 and len(payload) > table:
        payload[table:] = atheris.Mutate(bytes(payload[table:]), len(payload) - table)
    elif how == 2:
        k = chance.randrange(table)
        payload[k] = min(127, payload[k] + 1)
        payload += chance.randbytes(4)
    elif how == 3 and len(payload) >= table + 4:
        k = chance.randrange(table)
        payload[k] = max(0, payload[k] - 1)
        del payload[-4:]
    elif table > 1:
        a, b = chance.sample(range(table), 2)
        if payload[a] and payload[b] < 127:
            payload[a], payload[b] = payload[a] - 1, payload[b] + 1
    chunks[i] = chunks[i][0], bytes(payload)


def _change_order(chunks: _Chunks, chance: random.Random, atheris: Any) -> None:
    """A chunk away, twice, elsewhere, of another type."""
    i, j = chance.randrange(len(chunks)), chance.randrange(len(chunks))
    how = chance.randrange(4)
    if how == 0 and len(chunks) > 1:
        del chunks[i]
    elif how == 1:
        chunks.insert(j, chunks[i])
    elif how == 2:
        chunks[i], chunks[j] = chunks[j], chunks[i]
    else:
        types = (*container.CHUNKS, b"ABCD", b"abcd", b"A1b\xff")
        chunks[i] = chance.choice(types), chunks[i][1]


def _name_model(chunks: _Chunks) -> None:
    """The header names the embedded model, which may have changed."""
    model = next((payload for type_, payload in chunks if type_ == container.MODL), None)
    if model is not None and chunks[0][0] == container.HEAD and len(chunks[0][1]) == 43:
        head = chunks[0][1]
        chunks[0] = container.HEAD, head[:19] + hashlib.sha256(model).digest()[:8] + head[27:]


def _mutated_model(data: bytes, max_size: int, chance: random.Random) -> bytes:
    """Configuration (the length before it put right) or arrays."""
    import atheris

    length = int.from_bytes(data[:8], "little")
    if chance.random() < 0.1 or length > len(data) - 8:
        return bytes(atheris.Mutate(data, max_size))
    text, arrays = data[8 : 8 + length], data[8 + length :]
    if chance.random() < 0.5:
        at = chance.randrange(max(1, len(arrays)))
        piece = arrays[at : at + 64]
        return data[: 8 + length + at] + bytes(atheris.Mutate(piece, len(piece)) or piece) + arrays[at + 64 :]
    text = _other_number(text, chance) if chance.random() < 0.5 else bytes(atheris.Mutate(text, length + 8))
    return (len(text).to_bytes(8, "little") + text + arrays)[:max_size]


def _other_number(text: bytes, chance: random.Random) -> bytes:
    """The configuration with one of its numbers changed."""
    numbers = list(re.finditer(rb"[0-9]+", text))
    if not numbers:
        return text
    found = chance.choice(numbers)
    value = chance.choice((0, 1, int(found[0]) + 1, max(0, int(found[0]) - 1), 8, 16, 2**31, 10**30))
    return text[: found.start()] + str(value).encode() + text[found.end() :]


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
        self._decoded = self._seen = 0

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
        self._front(data)
        if pictures is not None:
            samples = b"".join(picture.planes.tobytes() for picture in pictures)
            api.inspect(data)
            self._compare(data, pictures, samples)
        self._salvage(data, how, samples)
        return samples

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
    if bytes(sample for picture in found for plane in picture for row in plane for sample in row) != samples:
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
GUIDES = (container, entropy, remains, metadata, names, model_file, model_checks, stored, png, api)


def _fuzz(corpus: Path, runs: int, seconds: int) -> None:
    import atheris

    for module in GUIDES:
        for function in _functions(module):
            atheris.instrument_func(function)
    for name, data in seeds().items():
        (corpus / name).write_bytes(data)
    check, begun = Checker(), time.monotonic()
    atexit.register(lambda: print(json.dumps(outcomes), f"{time.monotonic() - begun:.0f} s", flush=True))
    limits = [f"-timeout={_LIMIT_S}", f"-rss_limit_mb={_MIB_AT_MOST}", f"-max_len={_MAX_BYTES}"]
    lengths = [f"-atheris_runs={runs}", f"-max_total_time={seconds}", "-len_control=0", "-print_final_stats=1"]
    words = [sys.argv[0], *limits, *lengths, f"-artifact_prefix={corpus.parent}/", str(corpus)]
    atheris.Setup(words, check, custom_mutator=mutate)
    atheris.Fuzz()


@click.command()
@click.option(
    "--corpus", required=True, type=click.Path(file_okay=False, path_type=Path), help="Files that reach more."
)
@click.option("--runs", default=1_000_000, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=0, help="Stop earlier.")
@click.option("--coverage", is_flag=True, help="Say which lines the corpus reaches; nothing is mutated.")
@click.argument("again", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(corpus: Path, runs: int, seconds: int, coverage: bool, again: tuple[Path, ...]) -> None:
    """Mutate files; or judge those of a corpus, or these, once more."""
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
