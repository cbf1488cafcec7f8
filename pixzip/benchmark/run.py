"""Sources, models and peers → everything measured, one thing after another, each at most once in a journal."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pixzip.benchmark import machine
from pixzip.benchmark.calibration import CROP, Calibration, calibration
from pixzip.benchmark.colours import heat
from pixzip.benchmark.cost import Memory, peak_memory
from pixzip.benchmark.journal import Journal
from pixzip.benchmark.measure import Coded, Pixels, bits_of, measure
from pixzip.benchmark.peers import PEERS, PeerFile, missing_peers, run_peer
from pixzip.benchmark.pictures import count_of, hash_of, pictures_of, thumbnail, title_of
from pixzip.benchmark.results import BitsMap, Pack, Results, Section, Shot, Weights
from pixzip.errors import LimitError, PixzipError
from pixzip.keywords import rate_of
from pixzip.model.file import find_model

#: Pictures up to this side are also packed into one file, and go through a peer's process together.
SMALL_PX = 64
#: So many in a peer's process, and in a strip: WebP has at most 16,383 pixels a side.
STRIP = 255
#: Sides of the squares that the first picture is cut to.
_SIDES = (16, 32, 64, 128, 256, 512)
#: Pictures that the probabilities are looked at in.
_CALIBRATED = 4

_T = TypeVar("_T")


@dataclass(frozen=True)
class Settings:
    """What is measured, and how."""

    models: tuple[str, ...] = ("default",)
    peers: tuple[str, ...] = tuple(peer.name for peer in PEERS)
    learning: int | None = None  # None: each model's own
    gray: bool = False
    limit: int | None = None  # pictures of a source
    threads: int = 1
    runs: int = 3  # of the pictures whose times are medians
    timed: int = 2  # how many those are, the first ones


@dataclass
class _Run:
    """One source in work."""

    settings: Settings
    journal: Journal
    section: Section
    say: Callable[[str], None]
    models: dict[str, str] = field(default_factory=dict)  # as reports call them → as they are found
    first: list[tuple[str, Pixels]] = field(default_factory=list)  # kept for what looks closer
    small: dict[tuple[int, ...], list[int]] = field(default_factory=dict)  # shape → pictures
    pixels: dict[int, Pixels] = field(default_factory=dict)  # of small pictures

    # What decides about a measurement: its keys in the journal.

    def _key(self, what: str, pictures: Sequence[Pixels], **more: Any) -> dict[str, Any]:
        here = machine.described()
        return {"what": what, "pixels": hash_of(*pictures), "machine": here, "threads": self.settings.threads} | more

    def _model_key(self, what: str, pictures: Sequence[Pixels], name: str, **more: Any) -> dict[str, Any]:
        model = find_model(self.models[name])
        rate = rate_of(model, self.settings.learning)
        return self._key(what, pictures, model=model.digest.hex(), learning=rate, **more)

    def coded(self, pictures: Sequence[Pixels], name: str, runs: int) -> Coded:
        """One file of pictures of one shape."""
        s = self.settings

        def make() -> dict[str, Any]:
            return asdict(measure(pictures, self.models[name], s.learning, s.threads, runs))

        return Coded(**self.journal.once(self._model_key("file", pictures, name, runs=runs), make))

    def peer(self, pictures: NDArray[Any], name: str, runs: int) -> list[PeerFile]:
        """Files of a peer. Raises PeerError."""
        options = next(peer.options for peer in PEERS if peer.name == name)

        def make() -> dict[str, Any]:
            return {"files": [asdict(each) for each in run_peer(name, pictures, self.settings.threads, runs)]}

        key = self._key("peer", [pictures], peer=name, options=options, runs=runs)
        return [PeerFile(**each) for each in self.journal.once(key, make)["files"]]

    def memory(self, picture: Pixels, name: str) -> Memory:
        """Peaks of whole commands."""
        s = self.settings

        def make() -> dict[str, Any]:
            return asdict(peak_memory(picture, self.models[name], s.learning, s.threads))

        return Memory(**self.journal.once(self._model_key("memory", [picture], name), make))

    def calibration(self, name: str) -> Calibration:
        """Of the first pictures."""
        pictures = [picture for _, picture in self.first]

        def make() -> dict[str, Any]:
            return asdict(calibration(find_model(self.models[name]), pictures, self.settings.learning))

        return Calibration(**self.journal.once(self._model_key("calibration", pictures, name, crop=CROP), make))

    def map(self, name: str) -> BitsMap | None:
        """Of the first picture; None where the model does not code it."""
        title, picture = self.first[0]
        bits = bits_of(find_model(self.models[name]), [picture], self.settings.learning, self.settings.threads)
        if bits is None:
            return None
        each = bits[0].sum(axis=0)  # (h, w)
        most = float(np.percentile(each, 99.5))
        return BitsMap(title, most, heat(each / max(most, 1e-9)))

    def attempt(self, where: str, work: Callable[[], _T]) -> _T | None:
        """The result of a piece of work; None, and a failure to report, where it cannot be done."""
        try:
            return work()
        except PixzipError as error:
            self.fail(where, error)
        except MemoryError as error:
            self.fail(where, LimitError(f"out of memory: {error}"))
        return None

    def fail(self, where: str, error: PixzipError) -> None:
        """Keep a failure for the report, and say it now."""
        message = " ".join(str(error).split())
        self.section.failures.append((where, message))
        self.section.exit_code = self.section.exit_code or error.exit_code
        self.say(f"{where}: {message}")


def run(
    sources: Sequence[str], settings: Settings, journal: Journal, command: str, say: Callable[[str], None]
) -> Results:
    """Measure every source; say is called with lines of progress. A picture that fails does not stop the others.

    Raises what a source or a model that is not there raises, before anything is measured.
    """
    results = Results(command, machine.described(), machine.load())
    for name in settings.models:
        rate_of(find_model(name), settings.learning)
    for source in sources:
        count_of(source, None)
        next(iter(pictures_of(source, gray=False, limit=1)), None)
    for source in sources:
        section = Section(title_of(source), source, settings.gray, settings.learning, settings.threads)
        results.sections.append(section)
        _measure(_Run(settings, journal, section, say))
    results.made, results.reused = journal.made, journal.reused
    return results


def _measure(work: _Run) -> None:
    """One source."""
    section, settings = work.section, work.settings
    for found in settings.models:
        model = find_model(found)
        name = model.name  # of a model file without the folder
        name = name if name not in work.models else f"{name} {model.digest[:4].hex()}"
        work.models[name] = found
        section.models.append(Weights(name, model.digest[:8].hex(), len(model.data)))
        section.coded[name] = []
    total, start = count_of(section.source, settings.limit), time.monotonic()
    for i, (name, picture) in enumerate(pictures_of(section.source, gray=settings.gray, limit=settings.limit)):
        if isinstance(picture, PixzipError):
            work.fail(name, picture)
            continue
        if not section.pictures:
            _open_peers(work, gray=picture.ndim == 2)
        _take(work, name, picture)
        _tell(work, i + 1, total, time.monotonic() - start)
    for shape, places in work.small.items():
        _measure_small(work, shape, places)
    if work.first:
        _look_closer(work)


def _open_peers(work: _Run, *, gray: bool) -> None:
    """Find out which peers take part."""
    section = work.section
    section.missing = missing_peers(work.settings.peers, gray=gray)
    for name, reason in section.missing.items():
        work.say(f"{name} does not take part: {reason}")
    section.peers = {name: [] for name in work.settings.peers if name not in section.missing}


def _take(work: _Run, name: str, picture: Pixels) -> None:
    """Measure a picture, or put it off where it is small: models at once, peers several together."""
    section, settings = work.section, work.settings
    place = len(section.pictures)
    section.pictures.append(Shot(name, picture.shape[0], picture.shape[1], picture.size, thumbnail(picture)))
    runs = settings.runs if place < settings.timed else 1
    if len(work.first) < max(_CALIBRATED, settings.timed):
        work.first.append((name, picture))
    for model, files in section.coded.items():
        files.append(work.attempt(name, partial(work.coded, [picture], model, runs)))
    if runs > 1:
        section.timed.append(name)
    small = max(picture.shape[:2]) <= SMALL_PX
    if small:
        work.small.setdefault(picture.shape, []).append(place)
        work.pixels[place] = picture
    for peer, made in section.peers.items():
        made.append(None if small else _peer_of(work, name, picture, peer, runs))


def _peer_of(work: _Run, name: str, picture: Pixels, peer: str, runs: int) -> PeerFile | None:
    files = work.attempt(name, partial(work.peer, _samples(picture)[None], peer, runs))
    return files[0] if files else None


def _samples(picture: Pixels) -> NDArray[np.uint8]:
    """What peers are given: bilevel pictures as black and white."""
    return np.asarray(picture, dtype=np.uint8) * np.uint8(255) if picture.dtype == np.bool_ else picture


def _tell(work: _Run, done: int, total: int | None, spent_s: float) -> None:
    """A line of progress; of small pictures a line for every hundred."""
    section = work.section
    shot = section.pictures[-1]
    if max(shot.height, shot.width) <= SMALL_PX and done % 100 and done != total:
        return
    parts = []
    for model, files in section.coded.items():
        if (coded := files[-1]) is not None:
            model_part = "" if coded.model_bits is None else f" (model {coded.model_bits / shot.sub_pixels:.4f})"
            parts.append(f"{model} {coded.file_bits / shot.sub_pixels:.4f}{model_part}")
    for peer, made in section.peers.items():
        if (file := made[-1]) is not None:
            parts.append(f"{peer} {8 * file.bytes / shot.sub_pixels:.4f}")
    left = f", about {(total - done) * spent_s / done / 60:.0f} min left" if total and done < total else ""
    work.say(f"[{done}{f' of {total}' if total else ''}] {shot.name}: {', '.join(parts)}; {spent_s:.0f} s{left}")


def _measure_small(work: _Run, shape: tuple[int, ...], places: list[int]) -> None:
    """Small pictures of one shape: by peers one by one, and all together as one file or in strips."""
    section = work.section
    pictures = [work.pixels[place] for place in places]
    strips: dict[str, list[PeerFile]] = {}
    for peer, made in section.peers.items():
        work.say(f"{len(places)} small pictures: {peer}")
        for i in range(0, len(places), STRIP):
            stack = np.stack([_samples(picture) for picture in pictures[i : i + STRIP]])
            files = work.attempt(peer, partial(work.peer, stack, peer, 1))
            for place, file in zip(places[i : i + STRIP], files or [], strict=False):
                made[place] = file
            if len(pictures) > 1:
                strip = stack.reshape(1, -1, *stack.shape[2:])  # one under another
                found = work.attempt(peer, partial(work.peer, strip, peer, 1))
                strips[peer] = [*strips.get(peer, []), *(found or [])]
    if len(pictures) < 2:
        return
    coded = {}
    for model in section.coded:
        work.say(f"{len(places)} small pictures in one file: {model}")
        if (packed := work.attempt("one file", partial(work.coded, pictures, model, 1))) is not None:
            coded[model] = packed
    expected = -(-len(pictures) // STRIP)
    whole = {peer: files for peer, files in strips.items() if len(files) == expected}
    section.packs.append(Pack(len(pictures), shape[0], shape[1], coded, min(STRIP, len(pictures)), whole))


def _look_closer(work: _Run) -> None:
    """Memory, sizes, calibration and the map of bits, of the first pictures."""
    section = work.section
    section.calibrated_on = [name for name, _ in work.first]
    for model in section.coded:
        work.say(f"{model}: memory, cost by size, calibration")
        for name, picture in work.first[: work.settings.timed]:
            if max(picture.shape[:2]) > SMALL_PX:
                peaks = work.attempt(f"{name}: memory", partial(work.memory, picture, model))
                section.memory.setdefault(model, []).extend([(name, peaks)] if peaks else [])
        found = [work.attempt("a square", partial(work.coded, [s], model, 1)) for s in _squares(work.first[0][1])]
        section.sizes[model] = [each for each in found if each is not None]
        if _codes(work.models[model], work.first[0][1]):
            measured = work.attempt("calibration", partial(work.calibration, model))
            section.calibration |= {model: measured} if measured else {}
    section.map = work.attempt("map", partial(_kept_map, work, next(iter(section.coded))))


def _codes(name: str, picture: Pixels) -> bool:
    """Whether a model codes pictures of this kind."""
    colours = 1 if picture.ndim == 2 else 3
    return find_model(name).network.refusal(colours, 1 if picture.dtype == np.bool_ else 8) is None


def _squares(picture: Pixels) -> list[Pixels]:
    """The middle of a picture, cut to squares of growing sides."""
    h, w = picture.shape[:2]
    out = []
    for side in _SIDES:
        if side <= min(h, w):
            y, x = (h - side) // 2, (w - side) // 2
            out.append(np.ascontiguousarray(picture[y : y + side, x : x + side]))
    return out


def _kept_map(work: _Run, name: str) -> BitsMap | None:
    """The map, by way of the journal."""

    def make() -> dict[str, Any]:
        found = work.map(name)
        return {} if found is None else asdict(found) | {"png": base64.b64encode(found.png).decode()}

    kept = work.journal.once(work._model_key("map", [work.first[0][1]], name), make)
    return BitsMap(**kept | {"png": base64.b64decode(kept["png"])}) if kept else None
