"""Command lines ↔ calls of the public API, files, one line an error and an exit code.

Every command imports what it needs when it runs, so that --help and mistakes load neither numpy nor numba nor torch.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pixzip import __version__
from pixzip.benchmark.command import bench
from pixzip.errors import LimitError, OutputError, PixelChecksumError, PixzipError, SalvageError, UsageError
from pixzip.training.freeze_command import freeze

if TYPE_CHECKING:
    from pixzip.api import Info, Salvaged
    from pixzip.batch import Room
    from pixzip.image import Picture
    from pixzip.memory import Need
    from pixzip.tree import Tally, Tree

_MAX_PIXELS = 64_000_000
_STREAM = "-"
#: Suffix → format that image.write_image knows.
_FORMATS = {
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
}
#: Further suffixes of files that are taken from a folder; those of JPEG on request.
_READABLE = (*_FORMATS, ".pnm", ".gif", ".tga")
_PACKED = ".pxz"
#: A small file may say that it holds millions of pictures of a pixel.
_MOST_TARGETS = 100_000
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")
#: Work that takes no longer shows no progress bar.
_QUIET_S = 1.0
_EXIT_CODES = """Exit codes: 0 all went well; 2 wrong usage, a file that cannot be read, an output that exists;
3 not an image, or one that cannot be kept without loss; 4 damaged .pxz file; 5 decoded pixels differ;
6 model not found; 7 damaged model; 8 over a limit, or out of memory; 9 output cannot be written;
11 damaged .pxz file of which --salvage wrote what is left; 130 interrupted. With several files the others are still
done, failures are listed at the end, and the code is that of the first."""


# ------------------------------------------------------------------------ interruption and progress


class _Interrupted(BaseException):
    """A signal asks to stop. Not an Exception, nor a KeyboardInterrupt, which click answers in its own way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class _Stop:
    """Whether a signal has come: threads that work on tiles ask between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Answer a signal, in the main thread."""
        self.signal = number
        raise _Interrupted(number)

    def check(self) -> None:
        """Raise _Interrupted in any thread once a signal has come."""
        if self.signal is not None:
            raise _Interrupted(self.signal)


@contextmanager
def _handled_signals(stop: _Stop) -> Iterator[None]:
    """SIGINT and SIGTERM end the work cleanly within this block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Meter:
    """A progress bar on a terminal for work that takes over a second; everywhere, where work notices a signal."""

    def __init__(self, label: str, stop: _Stop, *, quiet: bool) -> None:
        self._label, self._stop = label, stop
        self._shown = not quiet and sys.stderr.isatty()
        self._from = time.monotonic() + _QUIET_S
        self._bar: Any = None
        self._lock = threading.Lock()

    def part(self, start: float, end: float) -> Callable[[float], None]:
        """What one piece of work calls with its fraction done, from start to end of the whole."""

        def report(fraction: float) -> None:
            self._stop.check()
            if self._shown and time.monotonic() >= self._from:
                self._show(start + fraction * (end - start))

        return report

    def _show(self, done: float) -> None:
        with self._lock:
            if self._bar is None:
                self._bar = click.progressbar(length=1000, label=self._label, file=sys.stderr)
                self._bar.render_progress()
            self._bar.update(max(0, int(1000 * done) - self._bar.pos))

    def clear(self) -> None:
        """Take the bar off its line, for a line of text; the next report draws it again."""
        if self._bar is not None:
            click.echo("\r\033[K", nl=False, err=True)

    def check(self) -> None:
        """Raise _Interrupted once a signal has come."""
        self._stop.check()

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None


@contextmanager
def _meter(label: str, stop: _Stop, *, quiet: bool) -> Iterator[_Meter]:
    meter = _Meter(label, stop, quiet=quiet)
    try:
        yield meter
    finally:
        meter.close()


# ------------------------------------------------------------------------ files and their errors


def _complain(where: str, message: str) -> None:
    """One line on stderr."""
    line = " ".join(f"pixzip: {where}{': ' if where else ''}{message}".split())
    click.echo(line, err=True)


@dataclass(frozen=True)
class _Files:
    """What a command works on, folders replaced by their files; faults: why a folder has none."""

    names: list[str]
    faults: dict[str, UsageError]


def _found(arguments: Sequence[str], suffixes: Sequence[str], *, quiet: bool = True, recursive: bool = False) -> _Files:
    """The files meant: those named, and of each folder (recursive: and all below) those with these suffixes."""
    found = _Files([], {})
    for argument in arguments:
        if argument == _STREAM or not Path(argument).is_dir():
            found.names.append(argument)
            continue
        try:
            found.names.extend(_in_folder(argument, suffixes, quiet, recursive))
        except UsageError as error:
            found.names.append(argument)
            found.faults[argument] = error
    return found


def _in_folder(folder: str, suffixes: Sequence[str], quiet: bool, recursive: bool) -> list[str]:
    """The folder's files with these suffixes. Raises UsageError where there are none."""
    from pixzip.files import files_in
    from pixzip.tree import files_below

    inside = files_below(Path(folder)) if recursive else files_in(Path(folder))
    taken = [str(path) for path in inside if path.suffix.lower() in suffixes]
    for path in inside:
        if not quiet and path.suffix.lower() not in (*suffixes, _PACKED):
            _complain(_name(str(path)), "passed over: its suffix is not that of an image")
    if not taken:
        raise UsageError(f"no files {', '.join(suffixes)} in this folder")
    return taken


#: The whole work on a file, begun in its turn; it returns a line to print, or nothing.
_Work = Callable[[], str | None]


def _each(
    files: _Files, begin: Callable[[str], _Work], threads: int, meter: _Meter | None = None, *, err: bool = True
) -> None:
    """Do the work on every file, whatever becomes of the others; then exit with the first failure's code.

    begin is called in the order of the files, and says what is to be done on one of ``threads`` threads. Lines are
    printed in this order too, failures after all others.
    """
    from pixzip.batch import in_order

    failures = []
    jobs = (_attempt(files, file, begin) for file in files.names)
    try:
        for file, result in zip(files.names, in_order(jobs, threads), strict=False):
            if isinstance(result, PixzipError):
                failures.append((file, result))
            elif result is not None:
                if meter is not None:
                    meter.clear()
                click.echo(result, err=err)
    finally:
        if meter is not None:
            meter.close()
        for file, error in failures:
            _complain(_name(file), str(error))
    if failures:
        raise SystemExit(failures[0][1].exit_code)


def _once(name: str, work: Callable[[str], None]) -> None:
    """Do the one work of a command; exit with its code where it fails."""
    try:
        work(name)
    except PixzipError as error:
        _complain(_name(name), str(error))
        raise SystemExit(error.exit_code) from None
    except MemoryError as error:
        _complain(_name(name), f"out of memory: {error}")
        raise SystemExit(LimitError.exit_code) from None


def _attempt(files: _Files, file: str, begin: Callable[[str], _Work]) -> Callable[[], str | PixzipError | None]:
    """The work on a file, which gives back what went wrong; what is found on beginning, in its turn."""

    def outcome(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except PixzipError as error:
            return error
        except MemoryError as error:
            return LimitError(f"out of memory: {error}")

    if file in files.faults:
        return lambda: files.faults[file]
    begun = outcome(lambda: begin(file))
    return (lambda: begun) if isinstance(begun, PixzipError) else (lambda: outcome(begun))


def _name(file: str) -> str:
    return "standard input" if file == _STREAM else click.format_filename(file)


def _read(file: str) -> bytes:
    from pixzip.files import read_file, read_stdin

    return read_stdin() if file == _STREAM else read_file(Path(file))


def _target(file: str, output: str | None, suffix: str) -> Path | None:
    """Where the result for a file goes; None: to standard output."""
    if output == _STREAM or (output is None and file == _STREAM):
        return None
    try:
        renamed = Path("stdin" if file == _STREAM else Path(file).name).with_suffix(suffix)
    except ValueError:
        raise UsageError("not the name of a file") from None
    if output is None:
        return Path(file).parent / renamed
    return Path(output) / renamed if Path(output).is_dir() else Path(output)


class _Outputs:
    """Checks the outputs of one command before their work: that they may be written, and that none is written twice."""

    def __init__(self, *, force: bool) -> None:
        self._force = force
        self._taken: dict[Path, str] = {}

    def check(self, file: str, target: Path) -> None:
        """Raise UsageError or OutputError where a result for this file cannot go to this target."""
        from pixzip.files import check_target

        self.claim(file, target)
        check_target(target, force=self._force)
        if file != _STREAM and target.exists() and target.samefile(file):
            raise UsageError(f"output {target} is the input")

    def claim(self, file: str, target: Path) -> None:
        """Raise UsageError where another file has this target."""
        place = target.resolve()
        if place in self._taken:
            raise UsageError(f"output {target} is also that of {self._taken[place]}")
        self._taken[place] = file


def _check_output(files: Sequence[str], output: str | None) -> None:
    """Raise UsageError where several files would go to one output."""
    if len(files) == 1:
        return
    if _STREAM in files:
        raise UsageError("standard input must be the only file")
    if output is not None and not Path(output).is_dir():
        raise UsageError(f"output {output} is not a folder, and there are {len(files)} files")


def _cores(threads: int | None) -> int:
    return threads or os.cpu_count() or 1


def _bytes(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A size with K, M, G or T, powers of 1024, or without."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})([KMGT]?)(i?B)?", value, re.IGNORECASE)
    if match is None or not int(match[1]):
        raise click.BadParameter(f"{value!r} is not a size such as 500M or 2G")
    return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")


# ------------------------------------------------------------------------ options that commands share


@dataclass(frozen=True)
class _Settings:
    """Options as given, for the work on each file; the first five are those of decoding."""

    model: str | None
    device: str
    threads: int | None
    engine: str | None
    max_pixels: int
    max_memory: int | None = None
    force: bool = False
    tile: int = 1024
    learning: int | None = None
    embed_model: bool = False
    allow_jpeg: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        if self.device == "cuda" and self.engine is not None:
            raise UsageError(f"--engine {self.engine} is of the CPU, --device cuda has its own")

    def _how(self, progress: Callable[[float], None]) -> dict[str, Any]:
        """What compressing and decompressing are told alike."""
        engine = "cuda" if self.device == "cuda" else self.engine
        limits = {"max_pixels": self.max_pixels, "max_memory": self.max_memory}
        return {"threads": self.threads, "engine": engine, "progress": progress} | limits

    def decompress(self, data: bytes, progress: Callable[[float], None]) -> Picture:
        """The only picture in a .pxz file."""
        from pixzip.api import decompress

        return decompress(data, model=self.model, **self._how(progress))

    def decompress_all(self, data: bytes, progress: Callable[[float], None]) -> list[Picture]:
        """All pictures in a .pxz file."""
        from pixzip.api import decompress_batch

        return decompress_batch(data, model=self.model, **self._how(progress))

    def salvage(self, data: bytes, progress: Callable[[float], None]) -> Salvaged:
        """What is left of a damaged .pxz file."""
        from pixzip.api import salvage

        return salvage(data, model=self.model, **self._how(progress))

    def need_to_compress(self, sources: Sequence[bytes]) -> Need:
        """The memory that these image files take as one .pxz file."""
        from pixzip.api import need_to_compress
        from pixzip.model_file import find_model

        model = find_model(self.model or "default")
        return need_to_compress(sources, model, tile=self.tile, max_pixels=self.max_pixels)

    def need_to_decompress(self, data: bytes, image_format: str) -> Need:
        """The memory that a .pxz file takes, with its pictures written in this format."""
        from pixzip.api import need_to_decompress

        webp = image_format == "WEBP"
        return need_to_decompress(data, model=self.model, max_pixels=self.max_pixels, webp=webp)

    @contextmanager
    def let_in(self, room: Room, need: Need, check: Callable[[], None]) -> Iterator[_Settings]:
        """Wait for room; these settings with the threads and the memory of the share."""
        with room.taken(need, check) as share:
            yield replace(self, threads=share.threads, max_memory=share.max_memory)

    def compress(
        self, pictures: Sequence[Picture], names: Sequence[str] | None, progress: Callable[[float], None]
    ) -> bytes:
        """The .pxz file of one picture, or of several and their names."""
        from pixzip.api import compress_batch

        layout: dict[str, Any] = {"tile": self.tile, "learning": self.learning, "embed_model": self.embed_model}
        return compress_batch(pictures, names=names, model=self.model or "default", **layout, **self._how(progress))


_F = TypeVar("_F", bound=Callable[..., Any])


def _options(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Several click options as one decorator, in this order in --help."""

    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_files = click.argument("files", nargs=-1, required=True, metavar="FILE...")
_quiet = click.option("-q", "--quiet", is_flag=True, help="No progress bar, no summary.")
_force = click.option("--force", is_flag=True, help="Overwrite outputs that exist.")
_tree = _options(
    click.option(
        "-r",
        "--recursive",
        is_flag=True,
        help="FILE is one folder: all below it, to the same tree in the folder OUTPUT.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    click.option("--json", "as_json", is_flag=True, help="A summary as JSON on standard output."),
)
_coding = _options(
    click.option(
        "--device",
        type=click.Choice(["cpu", "cuda"]),
        default="cpu",
        show_default=True,
        help="cuda codes many files, or large pictures, side by side on a GPU, to the same bytes; needs PyTorch.",
    ),
    click.option("--threads", type=click.IntRange(1, 1024), help="Default: as many as there are cores."),
    click.option(
        "--engine",
        type=click.Choice(["int8", "float32"]),
        help="How the CPU multiplies; same files either way. int8 needs VNNI instructions. Default: int8 if it can.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(1),
        default=_MAX_PIXELS,
        show_default=True,
        help="Refuse larger pictures.",
    ),
)
_max_memory = click.option(
    "--max-memory",
    callback=_bytes,
    metavar="SIZE",
    help="Memory to get along with, such as 500M or 2G; fewer tiles and files at once; refuse what needs more.",
)
_model_for_decoding = click.option(
    "--model", help="A model file to try before the one in the .pxz file and the shipped ones."
)


@click.group(epilog=_EXIT_CODES, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pixzip")
@click.pass_context
def _pixzip(context: click.Context) -> None:
    """Lossless image compression by a neural network in exact integer arithmetic.

    A FILE of - is standard input or output.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


# ------------------------------------------------------------------------ compress


@_pixzip.command(epilog=_EXIT_CODES)
@_files
@click.option("-o", "--output", help="File or existing folder; - for standard output. Default: FILE with suffix .pxz.")
@click.option("--model", default="default", show_default=True, help="Name of a shipped model, or a model file.")
@_coding
@_max_memory
@click.option("--tile", type=click.IntRange(1, 65535), default=1024, show_default=True, help="Side of a tile, pixels.")
@click.option(
    "--learning",
    type=click.IntRange(0, 255),
    help="Rate at which the model learns from the pixels it has coded, in this file only; 0: it does not. Default: 8.",
)
@click.option("--embed-model", is_flag=True, help="Put the model into the file, where the picture is coded by it.")
@click.option("--allow-jpeg", is_flag=True, help="Take a JPEG's pixels as they decode; the JPEG is usually smaller.")
@click.option("--verify/--no-verify", default=True, help="Decode the written file and compare it with the input.")
@click.option("--keep/--delete", default=True, help="Keep the input, or delete it once the output is verified.")
@click.option("--pack", is_flag=True, help="All pictures, equal in size and mode, into the one file OUTPUT.")
@_tree
@_force
@_quiet
@click.pass_obj
def compress(
    stop: _Stop,
    /,
    files: tuple[str, ...],
    output: str | None,
    keep: bool,
    pack: bool,
    recursive: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Compress image files: FILE.png → FILE.pxz; of a folder, the image files in it, by their suffixes.

    With -r, what an earlier command has done is passed over, so that it goes on where that one was interrupted.

    PNG, PNM, WebP, TIFF, BMP, GIF and TGA are read; what cannot be kept without loss is refused. Nothing is overwritten
    without --force, and a failure leaves no output.
    """
    settings = _Settings(**options)
    tree = _tree_of(files, output, recursive)
    suffixes = (*_READABLE, *(_LOSSY if settings.allow_jpeg else ()))
    found = _found(files, suffixes, quiet=quiet, recursive=recursive)
    if as_json and (output == _STREAM or (output is None and _STREAM in files)):
        raise UsageError("--json and -o - both write to standard output")
    if not keep and (not settings.verify or output == _STREAM or _STREAM in files):
        raise UsageError("--delete needs --verify, an input file and an output file")
    if pack and (recursive or dry_run or as_json):
        raise UsageError("--pack excludes -r, --dry-run and --json")
    if pack:
        _pack(found, output, settings, stop, keep=keep, quiet=quiet)
        return
    if tree is None:
        _check_output(found.names, output)
    outputs, room = _Outputs(force=settings.force), _room(settings, found)
    tally = _tally("compress", found)

    def begin(file: str) -> _Work:
        part = parts()
        target = _target(file, output, _PACKED) if tree is None else tree.target(file, _PACKED)
        if target is not None and _is_before(file, [target], tree, outputs, settings):
            return lambda: _was_done(file, target, settings, room, meter, tally, keep=keep or dry_run)
        if target is not None:
            _prepare(file, target, tree, outputs, dry_run=dry_run)

        def work() -> str | None:
            source_bytes, coded_bytes = _compress(file, target, settings, room, meter, part)
            if not keep:
                _delete(Path(file))
            tally.count(source_bytes, coded_bytes)
            return None if quiet else _summary(_name(file), target, source_bytes, coded_bytes)

        return (lambda: f"{_name(file)} -> {target or 'standard output'}") if dry_run else work

    with _meter(_label(found), stop, quiet=quiet) as meter, _summed_up(tally, tree, as_json, quiet or dry_run):
        parts = _parts(len(found.names))
        _each(found, begin, room.side_by_side, meter)


def _tally(command: str, files: _Files) -> Tally:
    from pixzip.tree import Tally

    return Tally(command, len(files.names))


def _tree_of(files: Sequence[str], output: str | None, recursive: bool) -> Tree | None:
    from pixzip.tree import tree_of

    return tree_of(files, output) if recursive else None


def _is_before(file: str, targets: Sequence[Path], tree: Tree | None, outputs: _Outputs, settings: _Settings) -> bool:
    """Whether an earlier command has done this file of a tree. Raises UsageError where a target is another file's."""
    from pixzip.tree import is_done

    if tree is None or settings.force or not is_done(file, targets):
        return False
    for target in targets:
        outputs.claim(file, target)
    return True


def _make_folder(folder: Path) -> None:
    from pixzip.tree import make_folder

    make_folder(folder)


def _prepare(file: str, target: Path, tree: Tree | None, outputs: _Outputs, *, dry_run: bool) -> None:
    """Check an output, and make its folder in a tree."""
    if tree is not None and not target.parent.is_dir():
        if dry_run:
            outputs.claim(file, target)
            return
        _make_folder(target.parent)
    outputs.check(file, target)


def _was_done(
    file: str, target: Path, settings: _Settings, room: Room, meter: _Meter, tally: Tally, *, keep: bool
) -> None:
    """Count a file that was compressed before; delete it once its .pxz file is verified, where that is asked for."""
    from pixzip.image import read_image

    if not keep:
        source, coded = _read(file), _read(str(target))
        with settings.let_in(room, settings.need_to_compress([source]), meter.check) as share:
            picture = read_image(source, max_pixels=settings.max_pixels, allow_jpeg=settings.allow_jpeg)
            _check_same(picture, share.decompress(coded, lambda fraction: meter.check()))
        _delete(Path(file))
    tally.count(before=True)


@contextmanager
def _summed_up(tally: Tally, tree: Tree | None, as_json: bool, quiet: bool) -> Iterator[None]:
    """Say what a command came to, whatever became of it: of a tree, or as JSON."""
    try:
        yield
    finally:
        if as_json:
            click.echo(tally.as_json())
        elif tree is not None and not quiet:
            click.echo(str(tally), err=True)


#: Files in work while a GPU codes: their threads read, wait for it together, and write.
_FED_AT_ONCE = 64


def _room(settings: _Settings, files: _Files) -> Room:
    from pixzip.batch import Room

    threads = _FED_AT_ONCE if settings.device == "cuda" else _cores(settings.threads)
    return Room(threads, len(files.names), settings.max_memory)


def _label(files: _Files) -> str:
    return _name(files.names[0]) if len(files.names) == 1 else f"{len(files.names)} files"


#: Where a piece of work begins and ends in the whole.
_Part = tuple[float, float]


def _parts(count: int) -> Callable[[], _Part]:
    """Gives the parts of so many files, one after another."""
    numbers = iter(range(count))

    def following() -> _Part:
        i = next(numbers)
        return i / count, (i + 1) / count

    return following


def _summary(name: str, target: Path | None, source_bytes: int, coded_bytes: int) -> str:
    to = "standard output" if target is None else target
    return f"{name} -> {to}: {source_bytes} -> {coded_bytes} bytes, {100 * coded_bytes / source_bytes:.1f} %"


def _compress(
    file: str, target: Path | None, settings: _Settings, room: Room, meter: _Meter, part: _Part
) -> tuple[int, int]:
    """One file, to its target or standard output: (bytes of the image file, bytes of the .pxz file)."""
    from pixzip.image import read_image

    source = _read(file)
    with settings.let_in(room, settings.need_to_compress([source]), meter.check) as share:
        picture = read_image(source, max_pixels=settings.max_pixels, allow_jpeg=settings.allow_jpeg)
        half = (part[0] + part[1]) / 2 if settings.verify else part[1]
        coded = share.compress([picture], None, meter.part(part[0], half))
        _write_coded(
            coded, target, share, lambda data: share.decompress_all(data, meter.part(half, part[1])), [picture]
        )
    return len(source), len(coded)


def _write_coded(
    coded: bytes,
    target: Path | None,
    settings: _Settings,
    decompress: Callable[[bytes], list[Picture]],
    pictures: Sequence[Picture],
) -> None:
    """A .pxz file to its target or standard output, after reading it back and comparing."""
    from pixzip.files import read_file, staged, write_stdout

    def check(data: bytes) -> None:
        if settings.verify:
            for picture, decoded in zip(pictures, decompress(data), strict=True):
                _check_same(picture, decoded)

    if target is None:
        check(coded)
        write_stdout(coded, force=settings.force)
        return
    with staged(target, coded, force=settings.force) as written:
        check(read_file(written) if settings.verify else coded)


def _pack(files: _Files, output: str | None, settings: _Settings, stop: _Stop, *, keep: bool, quiet: bool) -> None:
    """All pictures into one file, which either gets them all or is not written."""
    if output is None or (output != _STREAM and Path(output).is_dir()):
        raise UsageError("--pack needs -o and the name of the one file to write")
    for folder, fault in files.faults.items():
        raise UsageError(f"{_name(folder)}: {fault}")
    target = None if output == _STREAM else Path(output)
    if target is not None:
        outputs = _Outputs(force=settings.force)
        outputs.check(_STREAM, target)
        for file in files.names:
            if file != _STREAM and target.exists() and Path(file).exists() and target.samefile(file):
                raise UsageError(f"output {target} is the input {_name(file)}")
    names = _distinct(files.names)
    pictures, source_bytes = _read_alike(files.names, settings)
    with _meter(_label(files), stop, quiet=quiet) as meter:
        half = 0.5 if settings.verify else 1.0
        coded = settings.compress(pictures, names, meter.part(0, half))
        _write_coded(coded, target, settings, lambda data: settings.decompress_all(data, meter.part(half, 1)), pictures)
    if not keep:
        for file in files.names:
            _delete(Path(file))
    if not quiet:
        click.echo(_summary(f"{len(pictures)} pictures", target, source_bytes, len(coded)), err=True)


def _distinct(files: Sequence[str]) -> list[str]:
    """The files' names without folders. Raises UsageError where two would come out under one name."""
    taken: dict[str, str] = {}
    for file in files:
        stem = Path(file).stem
        if stem in taken:
            raise UsageError(f"{_name(file)}: has the name of {_name(taken[stem])}, but for folder and suffix")
        taken[stem] = file
    return ["stdin" if file == _STREAM else Path(file).name for file in files]


def _read_alike(files: Sequence[str], settings: _Settings) -> tuple[list[Picture], int]:
    """The pictures in these files, all like the first, and the bytes of the files. Raises naming the first that is not.

    What all of them take follows from the first, before the others are read.
    """
    from pixzip.image import read_image

    pictures: list[Picture] = []
    source_bytes = 0
    for file in files:
        try:
            source = _read(file)
            if not pictures and settings.max_memory is not None:
                settings.need_to_compress([source] * len(files)).tiles_within(settings.max_memory)
            picture = read_image(source, max_pixels=settings.max_pixels, allow_jpeg=settings.allow_jpeg)
            first = pictures[0] if pictures else picture
            pixels = len(files) * first.width * first.height
            if pixels > settings.max_pixels:
                raise LimitError(f"{len(files)} pictures like this have {pixels} pixels, over {settings.max_pixels}")
            for part in ("width", "height", "mode", "depth", "palette", "transparency", "metadata"):
                own, other = getattr(picture, part), getattr(first, part)
                if own != other:
                    values = f": {own}, not {other}" if isinstance(own, (int, str)) else ""
                    raise UsageError(f"differs from {_name(files[0])} in {part}{values}")
        except PixzipError as error:
            raise type(error)(f"{_name(file)}: {error}") from None
        pictures.append(picture)
        source_bytes += len(source)
    return pictures, source_bytes


def _check_same(picture: Picture, decoded: Picture) -> None:
    """Raise PixelChecksumError where what was read back is not what went in."""
    if not decoded.same_pixels(picture):
        raise PixelChecksumError("verification failed: the written file decodes to other pixels; no output is left")
    if decoded.metadata != picture.metadata:
        raise PixelChecksumError("verification failed: the written file has other metadata; no output is left")


def _delete(source: Path) -> None:
    try:
        source.unlink()
    except OSError as error:
        raise OutputError(f"compressed, but cannot be deleted: {error.strerror}") from None


# ------------------------------------------------------------------------ decompress


@_pixzip.command(epilog=_EXIT_CODES)
@_files
@click.option("-o", "--output", help="File or existing folder; - for standard output. Default: FILE with suffix .png.")
@_model_for_decoding
@click.option("--salvage", is_flag=True, help="Of damaged files write what is left; say what is lost; exit code 11.")
@_tree
@_coding
@_max_memory
@_force
@_quiet
@click.pass_obj
def decompress(
    stop: _Stop,
    /,
    files: tuple[str, ...],
    output: str | None,
    salvage: bool,
    recursive: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Decompress .pxz files: FILE.pxz → FILE.png; of a folder, all .pxz files in it.

    The output's suffix names its format: .png, .webp, .tif, .bmp, .ppm. PNG holds every picture with all its metadata;
    the others are refused where they cannot hold the pixels. Lossy formats are refused. The pictures of a file that
    holds several get the names they had, or with -o NAME.png NAME-0001.png and so on.
    """
    tree = _tree_of(files, output, recursive)
    found = _found(files, (_PACKED,), recursive=recursive)
    if tree is None:
        _check_output(found.names, output)
    if salvage and dry_run:
        raise UsageError("--salvage excludes --dry-run")
    if as_json and (output == _STREAM or (output is None and _STREAM in files)):
        raise UsageError("--json and -o - both write to standard output")
    settings = _Settings(**options)
    outputs, room, tally = _Outputs(force=settings.force), _room(settings, found), _tally("decompress", found)

    def begin(file: str) -> _Work:
        part = parts()
        target = _target(file, output, ".png") if tree is None else tree.target(file, ".png")
        image_format = "PNG" if target is None else _format(target)
        if target is not None and _is_before(file, [target], tree, outputs, settings):
            return lambda: tally.count(before=True)
        data = _read(file)
        if salvage:
            if tree is not None and target is not None:
                _make_folder(target.parent)
            return lambda: _salvage(file, data, target, image_format, settings, outputs, meter, part, tally)
        need = settings.need_to_decompress(data, image_format)
        targets = _targets(data, target, named=tree is not None or output is None or Path(output).is_dir())
        if targets is not None and _is_before(file, targets, tree, outputs, settings):
            return lambda: tally.count(before=True)
        for target in targets or ():
            _prepare(file, target, tree, outputs, dry_run=dry_run)
        if dry_run:
            shown = ["standard output"] if targets is None else list(map(str, targets))
            return lambda: "\n".join(f"{_name(file)} -> {each}" for each in shown)

        def work() -> None:
            with settings.let_in(room, need, meter.check) as share:
                written_bytes = _decompress(data, targets, image_format, share, meter.part(*part))
            tally.count(len(data), written_bytes)

        return work

    with _meter(_label(found), stop, quiet=quiet) as meter, _summed_up(tally, tree, as_json, quiet or dry_run):
        parts = _parts(len(found.names))
        _each(found, begin, 1 if salvage else room.side_by_side, meter)


def _targets(data: bytes, target: Path | None, *, named: bool) -> list[Path] | None:
    """Where the pictures in a file within the limit of pixels go; None: to standard output.

    named: under the names in the file, if there are any, and otherwise numbers.
    """
    from pixzip.api import picture_names
    from pixzip.container import read_header

    count = read_header(data).pictures
    if count == 1:
        return None if target is None else [target]
    if target is None:
        raise UsageError(f"the file holds {count} pictures: standard output takes one, -o a folder or NAME.png")
    if count > _MOST_TARGETS:
        raise LimitError(f"the file holds {count} pictures: no more than {_MOST_TARGETS} are written as files")
    names = picture_names(data) if named else ()
    if names:
        return [target.with_name(name).with_suffix(target.suffix) for name in names]
    return _numbered(target, count)


def _numbered(target: Path, count: int) -> list[Path]:
    digits = max(4, len(str(count)))
    return [target.with_name(f"{target.stem}-{i:0{digits}}{target.suffix}") for i in range(1, count + 1)]


def _format(target: Path) -> str:
    """The format that a suffix names. Raises UsageError for lossy and unknown ones."""
    suffix = target.suffix.lower()
    if suffix in _LOSSY:
        raise UsageError(f"output {target}: {suffix} is a lossy format, the pixels would change; .png keeps them")
    if suffix not in _FORMATS:
        raise UsageError(f"output {target}: suffix {suffix or 'missing'}, known are {', '.join(_FORMATS)}")
    return _FORMATS[suffix]


def _decompress(
    data: bytes,
    targets: Sequence[Path] | None,
    image_format: str,
    settings: _Settings,
    progress: Callable[[float], None],
) -> int:
    """The pictures of one file, to their targets, all or none, or the only one to standard output; bytes written."""
    from pixzip.files import staged, write_stdout
    from pixzip.image import write_image

    if targets is None:
        image = write_image(settings.decompress(data, progress), image_format)
        write_stdout(image, force=settings.force)
        return len(image)
    written_bytes = 0
    with ExitStack() as written:
        for target, picture in zip(targets, settings.decompress_all(data, progress), strict=True):
            image = write_image(picture, image_format)
            written.enter_context(staged(target, image, force=settings.force))
            written_bytes += len(image)
    return written_bytes


#: Lines about one file's lost tiles.
_MOST_LINES = 100


def _salvage(
    file: str,
    data: bytes,
    target: Path | None,
    image_format: str,
    settings: _Settings,
    outputs: _Outputs,
    meter: _Meter,
    part: _Part,
    tally: Tally,
) -> None:
    """What is left of a file to its targets. Raises SalvageError, after writing, where that is not all."""
    from pixzip.files import staged, write_stdout
    from pixzip.image import write_image

    found = settings.salvage(data, meter.part(*part))
    many = len(found.pictures) > 1
    if many and target is None:
        raise UsageError(f"the file holds {len(found.pictures)} pictures: standard output takes one")
    targets = [] if target is None else _numbered(target, len(found.pictures)) if many else [target]
    for each in targets:
        outputs.check(file, each)
    with ExitStack() as written:
        for each, picture in zip(targets, found.pictures, strict=False):
            written.enter_context(staged(each, write_image(picture, image_format), force=settings.force))
    if target is None:
        write_stdout(write_image(found.pictures[0], image_format), force=settings.force)
    if found.whole:
        tally.count(len(data))
        return
    meter.clear()
    damage = [*found.faults, *(f"lost {area}" for area in found.lost)]
    for line in damage[:_MOST_LINES]:
        _complain(_name(file), line)
    raise SalvageError(f"what is left is written; {len(found.lost)} tiles are lost, other faults: {len(found.faults)}")


# ------------------------------------------------------------------------ info, verify, models


@_pixzip.command(epilog=_EXIT_CODES)
@_files
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line for each file.")
def info(files: tuple[str, ...], as_json: bool) -> None:
    """Say what .pxz files hold; nothing is decoded."""

    def begin(file: str) -> _Work:
        from pixzip.api import inspect

        found = inspect(_read(file))
        if as_json:
            return lambda: json.dumps({"file": file, "bits_per_dim": found.bits_per_dim} | asdict(found))
        return lambda: "\n".join([_name(file), *(f"  {key:<12}{value}" for key, value in _described(found))])

    _each(_found(files, (_PACKED,)), begin, 1, err=False)


def _described(found: Info) -> Iterator[tuple[str, str]]:
    """Lines of `pixzip info`."""
    several = f"{found.pictures} pictures of " if found.pictures > 1 else ""
    yield "picture", f"{several}{found.width} x {found.height}, {found.mode}, {found.depth} bits a sample"
    yield "file", f"{found.file_bytes} bytes, {found.bits_per_dim:.4f} bits/dim"
    if found.coding == "model":
        name = found.model_name or ("embedded" if found.model_embedded_bytes else "not one of the shipped models")
        yield "model", f"{found.model_digest} ({name})"
        yield (
            "payload",
            f"{found.payload_bytes} bytes, tiles of {found.tile}, {found.lanes} lanes, learning {found.learning}",
        )
        if found.low_bytes:
            yield "low bytes", f"{found.low_bytes} bytes of the payload"
    else:
        yield "stored", f"{found.coding}, {found.payload_bytes} bytes"
    if found.model_embedded_bytes:
        yield "embedded", f"model of {found.model_embedded_bytes} bytes"
    if found.alpha_bytes is not None:
        yield "alpha", f"{found.alpha_bytes} bytes"
    if found.palette_entries:
        yield "palette", f"{found.palette_entries} entries"
    if found.transparency_bytes:
        yield "transparency", f" {found.transparency_bytes} bytes"
    for key, size in found.metadata_bytes:
        yield "metadata", f"{key}, {size} bytes"
    yield "checksum", found.pixels_checksum


@_pixzip.command(epilog=_EXIT_CODES)
@_files
@click.option("-r", "--recursive", is_flag=True, help="Of folders all .pxz files below them.")
@_model_for_decoding
@_coding
@_max_memory
@_quiet
@click.pass_obj
def verify(stop: _Stop, /, files: tuple[str, ...], recursive: bool, quiet: bool, **options: Any) -> None:
    """Decode .pxz files and compare the pixels with the checksum in each; of a folder, of all .pxz files in it."""
    found = _found(files, (_PACKED,), recursive=recursive)
    _check_output(found.names, None)
    settings = _Settings(**options)
    room = _room(settings, found)

    def begin(file: str) -> _Work:
        data, part = _read(file), parts()
        need = settings.need_to_decompress(data, "PNG")

        def work() -> str | None:
            with settings.let_in(room, need, meter.check) as share:
                share.decompress_all(data, meter.part(*part))
            return None if quiet else f"{_name(file)}: pixels are as they were encoded"

        return work

    with _meter(_label(found), stop, quiet=quiet) as meter:
        parts = _parts(len(found.names))
        _each(found, begin, room.side_by_side, meter, err=False)


@_pixzip.command(epilog=_EXIT_CODES)
def models() -> None:
    """List the models that ship with pixzip: name, digest as .pxz files name it, bytes, file."""
    from pixzip.container import DIGEST_BYTES
    from pixzip.model_file import models_folder, shipped_models

    found = shipped_models()
    if not found:
        raise UsageError(f"no models in {models_folder()}")
    for model in found:
        click.echo(f"{model.name:<12}{model.digest[:DIGEST_BYTES].hex()}  {model.size_bytes:>9}  {model.path}")


# ------------------------------------------------------------------------ sample, complete


_drawing = _options(
    click.option(
        "-o", "--output", required=True, help="Image file, its suffix names the format; - for standard output (PNG)."
    ),
    click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Of random numbers."),
    click.option(
        "--temperature",
        default="1",
        show_default=True,
        help="Divides the logits: a number from 1/1000 to 100, as 0.9 or 9/10. Below 1 likely values become likelier.",
    ),
    _coding,
    _force,
    _quiet,
)


@dataclass(frozen=True)
class _Drawing:
    """Options that sample and complete share, as given."""

    output: str
    seed: int
    temperature: str
    device: str
    threads: int | None
    engine: str | None
    max_pixels: int
    force: bool
    quiet: bool

    def how(self, progress: Callable[[float], None]) -> dict[str, Any]:
        """Arguments of pixzip.sample and pixzip.complete."""
        named = {key: getattr(self, key) for key in ("seed", "temperature", "threads", "engine", "max_pixels")}
        return named | {"progress": progress}

    def target(self, file: str) -> tuple[Path | None, str]:
        """Where the grid goes (None: standard output), and its format. Raises UsageError, OutputError."""
        if self.device == "cuda":
            raise UsageError("--device cuda: pictures are drawn on the CPU only")
        if self.output == _STREAM:
            return None, "PNG"
        target = Path(self.output)
        _Outputs(force=self.force).check(file, target)
        return target, _format(target)

    def write(self, grid: Any, target: Path | None, image_format: str) -> None:
        """A grid (h, w) or (h, w, 3) as an image file."""
        from pixzip.files import staged, write_stdout
        from pixzip.image import from_array, write_image

        image = write_image(from_array(grid), image_format)
        if target is None:
            write_stdout(image, force=self.force)
        else:
            with staged(target, image, force=self.force):
                pass


@_pixzip.command(epilog=_EXIT_CODES)
@click.argument("model")
@click.option("--count", type=click.IntRange(1), help="Pictures. Default: 16, or as rows and columns say.")
@click.option("--rows", type=click.IntRange(1), help="Of the grid.")
@click.option("--columns", type=click.IntRange(1), help="Of the grid. Default: as many as there are rows, or more.")
@click.option("--size", metavar="HxW", help="Of each picture, pixels. Default: as those the model was trained on.")
@_drawing
@click.pass_obj
def sample(
    stop: _Stop,
    /,
    model: str,
    count: int | None,
    rows: int | None,
    columns: int | None,
    size: str | None,
    **options: Any,
) -> None:
    """Draw pictures from a MODEL and write them as one grid.

    MODEL is a shipped model's name or a model file. Each picture depends on the model, its size, seed, temperature and
    its number in the grid only; --max-pixels is of all together.
    """
    settings = _Drawing(**options)
    count, columns = _layout(count, rows, columns)
    wanted = None if size is None else _size(size)

    def work(model: str) -> None:
        target, image_format = settings.target(_STREAM)
        from pixzip import drawing

        with _meter("drawing", stop, quiet=settings.quiet) as meter:
            pictures = drawing.sample(model, count, wanted, **settings.how(meter.part(0, 1)))
        settings.write(drawing.grid(pictures, columns), target, image_format)

    _once(model, work)


def _layout(count: int | None, rows: int | None, columns: int | None) -> tuple[int, int]:
    """Pictures and columns of a grid in which no row is empty. Raises UsageError."""
    count = count or (rows * columns if rows and columns else 16)
    columns = columns or (-(-count // rows) if rows else math.isqrt(count - 1) + 1)
    rows = rows or -(-count // columns)
    if columns > count or not (rows - 1) * columns < count <= rows * columns:
        raise UsageError(f"{count} pictures do not fill {rows} rows of {columns} columns")
    return count, columns


def _size(text: str) -> tuple[int, int]:
    """(h, w) of a size as the command line has it. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text)
    if found is None:
        raise UsageError(f"--size {text}: must be HEIGHTxWIDTH in pixels, as 32x32")
    return int(found[1]), int(found[2])


@_pixzip.command(epilog=_EXIT_CODES)
@click.argument("model")
@click.argument("picture")
@click.option("--count", type=click.IntRange(1), default=3, show_default=True, help="Completions.")
@click.option("--from-row", type=int, metavar="ROW", help="The first row that is drawn, counted from 0.")
@click.option("--keep", type=click.IntRange(0, 99), metavar="PERCENT", help="Of the rows. Default: 50.")
@click.option("--original/--no-original", default=True, help="Put the whole original before them, or not.")
@_drawing
@click.pass_obj
def complete(
    stop: _Stop,
    /,
    model: str,
    picture: str,
    count: int,
    from_row: int | None,
    keep: int | None,
    original: bool,
    **options: Any,
) -> None:
    """Keep the upper part of a PICTURE, draw the rest from a MODEL, several times, and write all side by side.

    MODEL is a shipped model's name or a model file; PICTURE an image file of the kind that it codes, - for standard
    input. Metadata is not kept; --max-pixels is of all completions together.
    """
    settings = _Drawing(**options)
    if from_row is not None and keep is not None:
        raise UsageError("--from-row and --keep exclude each other")

    def work(file: str) -> None:
        target, image_format = settings.target(file)
        from pixzip import drawing
        from pixzip.image import read_image, to_array

        known = read_image(_read(file), max_pixels=settings.max_pixels, allow_jpeg=True)
        cut = from_row if keep is None else known.height * keep // 100
        with _meter(_name(file), stop, quiet=settings.quiet) as meter:
            pictures = drawing.complete(model, known, count, cut, **settings.how(meter.part(0, 1)))
        shown = [to_array(known), *pictures] if original else list(pictures)
        settings.write(drawing.grid(shown, len(shown)), target, image_format)

    _once(picture, work)


# ------------------------------------------------------------------------ train, evaluate


@contextmanager
def _learning() -> Iterator[None]:
    """The learning half needs packages that coding does not."""
    try:
        yield
    except ImportError as error:
        raise UsageError(f"training needs {error.name}: install pixzip[train]") from None


_cache = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of decoded pictures. Default: $PIXZIP_CACHE, or pixzip in the user's cache folder.",
)
_device = click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)


@_pixzip.command(epilog=_EXIT_CODES)
@click.option("--preset", help="A configuration that comes with pixzip (default: default).")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="A configuration of your own, TOML.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one value: training.rate=1e-3")
@click.option("--data", help="Training pictures: a folder, or DATASET/PART:PLACE such as cifar10/train:FOLDER.")
@click.option("--validation", help="Pictures to judge by, likewise. Default: a fixed share of --data.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--init", help="Begin with the weights of another run's checkpoint; a trunk may be larger than it.")
@_cache
@_device
@click.option("--threads", type=click.IntRange(1), help="Default: as many as there are cores.")
@click.option("--tensorboard", is_flag=True, help="Write OUT/tensorboard too.")
@click.option("--allow-changes", is_flag=True, help="Go on from a checkpoint of other settings or pictures.")
@click.pass_obj
def train(
    stop: _Stop,
    /,
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    data: str | None,
    validation: str | None,
    out: Path,
    init: str | None,
    cache: Path | None,
    device: str,
    threads: int | None,
    tensorboard: bool,
    allow_changes: bool,
) -> None:
    """Train a network on pictures and write OUT/model.safetensors, with a card that says what it is.

    The same command goes on where an earlier one stopped. docs/training.md says more.
    """
    with _learning():
        import torch

        from pixzip.data.cache import default_cache
        from pixzip.training import config, loop, report
        from pixzip.training.processes import joined
    if preset and config_file:
        raise UsageError("--preset and --config exclude each other")
    tables = config.read_tables(config_file) if config_file else config.preset_tables(preset or "default")
    tables = config.overridden(tables, settings)
    places = {"train": data, "validation": validation}
    tables["data"] = dict(tables.get("data", {})) | {key: place for key, place in places.items() if place is not None}
    if init is not None:
        tables = config.overridden(tables, [f"training.init={json.dumps(init)}"])
    wanted = config.from_tables(tables)
    if threads is not None:
        torch.set_num_threads(threads)
    with joined(device) as processes:
        number = loop.train(
            wanted,
            out,
            cache or default_cache(),
            processes=processes,
            device=device,
            allow_changes=allow_changes,
            board=report.tensorboard(out) if tensorboard and processes.leads else None,
            say=lambda line: click.echo(line),
        )
    if number:
        raise _Interrupted(number)


@_pixzip.command(epilog=_EXIT_CODES)
@click.argument("model")
@click.argument("source")
@click.option("--limit", type=click.IntRange(1), help="Only so many pictures, the first by content hash.")
@_cache
@_device
@click.option("--threads", type=click.IntRange(1), help="Default: as many as there are cores.")
@click.pass_obj
def evaluate(
    stop: _Stop, /, model: str, source: str, limit: int | None, cache: Path | None, device: str, threads: int | None
) -> None:
    """Say how many bits a MODEL needs for the pictures of a SOURCE: a folder, or DATASET/PART:PLACE.

    MODEL is a shipped model's name, a model file, or a checkpoint of `pixzip train`, whose float network (and integers,
    where it has them) is measured. The interval is a bootstrap over pictures, 95 %.
    """
    with _learning():
        import torch

        from pixzip.data.cache import default_cache, load_pictures
        from pixzip.training.evaluation import evaluations
    if threads is not None:
        torch.set_num_threads(threads)
    pictures = load_pictures(source, cache or default_cache(), lambda line: click.echo(line, err=True))
    with _meter("evaluating", stop, quiet=False) as meter:
        found = evaluations(model, pictures, limit=limit, device=device, progress=meter.part(0, 1))
    for line in found:
        click.echo(line)


_pixzip.add_command(freeze)


# ------------------------------------------------------------------------ entry

_pixzip.add_command(bench)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's) and return its exit code."""
    stop = _Stop()
    try:
        with _handled_signals(stop):
            result = _pixzip.main(arguments, prog_name="pixzip", standalone_mode=False, obj=stop)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        _complain("", error.format_message())
        return UsageError.exit_code
    except PixzipError as error:
        _complain("", str(error))
        return error.exit_code
    except MemoryError as error:
        _complain("", f"out of memory: {error}")
        return LimitError.exit_code
    except _Interrupted as error:
        _complain("", "interrupted")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("", "interrupted")
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
