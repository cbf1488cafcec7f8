"""Command lines ↔ calls of the public API, files, one line an error and an exit code.

Every command imports what it needs when it runs, so that --help and mistakes load neither numpy nor numba nor torch.
"""

from __future__ import annotations

import math
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pixzip import __version__
from pixzip.errors import LimitError, OutputError, PixelChecksumError, PixzipError, UsageError

if TYPE_CHECKING:
    from pixzip.api import Info
    from pixzip.image import Picture

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
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")
#: Work that takes no longer shows no progress bar.
_QUIET_S = 1.0
_EXIT_CODES = """Exit codes: 0 all went well; 2 wrong usage, a file that cannot be read, an output that exists;
3 not an image, or one that cannot be kept without loss; 4 damaged .pxz file; 5 decoded pixels differ;
6 model not found; 7 damaged model; 8 over a limit, or out of memory; 9 output cannot be written;
130 interrupted. With several files the others are still done, and the code is that of the first failure."""


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

    def part(self, start: float, end: float) -> Callable[[float], None]:
        """What one piece of work calls with its fraction done, from start to end of the whole."""

        def report(fraction: float) -> None:
            self._stop.check()
            if self._shown and time.monotonic() >= self._from:
                self._show(start + fraction * (end - start))

        return report

    def _show(self, done: float) -> None:
        if self._bar is None:
            self._bar = click.progressbar(length=1000, label=self._label, file=sys.stderr)
            self._bar.render_progress()
        self._bar.update(max(0, int(1000 * done) - self._bar.pos))

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


def _each(files: Sequence[str], work: Callable[[str], None]) -> None:
    """Do the work for every file, whatever becomes of the others; then exit with the first failure's code."""
    code = 0
    for file in files:
        try:
            work(file)
        except PixzipError as error:
            _complain(_name(file), str(error))
            code = code or error.exit_code
        except MemoryError as error:
            _complain(_name(file), f"out of memory: {error}")
            code = code or LimitError.exit_code
    if code:
        raise SystemExit(code)


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
        """Raise UsageError or OutputError where the result for this file cannot go to this target."""
        from pixzip.files import check_target

        check_target(target, force=self._force)
        if file != _STREAM and target.exists() and target.samefile(file):
            raise UsageError(f"output {target} is the input")
        other = self._taken.setdefault(target.resolve(), file)
        if other != file:
            raise UsageError(f"output {target} is also that of {other}")


def _check_output(files: Sequence[str], output: str | None) -> None:
    """Raise UsageError where several files would go to one output."""
    if len(files) == 1:
        return
    if _STREAM in files:
        raise UsageError("standard input must be the only file")
    if output is not None and not Path(output).is_dir():
        raise UsageError(f"output {output} is not a folder, and there are {len(files)} files")


def _check_device(device: str) -> None:
    if device == "cuda":
        raise UsageError("--device cuda: this version codes on the CPU only")


# ------------------------------------------------------------------------ options that commands share


@dataclass(frozen=True)
class _Settings:
    """Options as given, for the work on each file; the first four are those of decoding."""

    model: str | None
    threads: int | None
    engine: str | None
    max_pixels: int
    force: bool = False
    tile: int = 1024
    learning: int | None = None
    embed_model: bool = False
    allow_jpeg: bool = False
    verify: bool = True

    def decompress(self, data: bytes, progress: Callable[[float], None]) -> Picture:
        """The picture in a .pxz file."""
        from pixzip.api import decompress

        return decompress(
            data,
            model=self.model,
            threads=self.threads,
            engine=self.engine,
            max_pixels=self.max_pixels,
            progress=progress,
        )

    def compress(self, picture: Picture, progress: Callable[[float], None]) -> bytes:
        """The .pxz file of a picture."""
        from pixzip.api import compress

        return compress(
            picture,
            model=self.model or "default",
            tile=self.tile,
            learning=self.learning,
            threads=self.threads,
            engine=self.engine,
            embed_model=self.embed_model,
            max_pixels=self.max_pixels,
            progress=progress,
        )


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
_coding = _options(
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="This version codes on the CPU only: cuda is refused.",
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
@_force
@_quiet
@click.pass_obj
def compress(
    stop: _Stop, /, files: tuple[str, ...], output: str | None, device: str, keep: bool, quiet: bool, **options: Any
) -> None:
    """Compress image files: FILE.png → FILE.pxz.

    PNG, PNM, WebP, TIFF, BMP, GIF and TGA are read; what cannot be kept without loss is refused. Nothing is overwritten
    without --force, and a failure leaves no output.
    """
    _check_device(device)
    _check_output(files, output)
    settings = _Settings(**options)
    if not keep and (not settings.verify or output == _STREAM or _STREAM in files):
        raise UsageError("--delete needs --verify, an input file and an output file")
    outputs = _Outputs(force=settings.force)

    def work(file: str) -> None:
        target = _target(file, output, ".pxz")
        if target is not None:
            outputs.check(file, target)
        with _meter(_name(file), stop, quiet=quiet) as meter:
            source_bytes, coded_bytes = _compress(file, target, settings, meter)
        if not keep:
            _delete(Path(file))
        if not quiet:
            to = "standard output" if target is None else target
            ratio = f"{100 * coded_bytes / source_bytes:.1f} %"
            click.echo(f"{_name(file)} -> {to}: {source_bytes} -> {coded_bytes} bytes, {ratio}", err=True)

    _each(files, work)


def _compress(file: str, target: Path | None, settings: _Settings, meter: _Meter) -> tuple[int, int]:
    """One file, to its target or standard output: (bytes of the image file, bytes of the .pxz file)."""
    from pixzip.files import read_file, staged, write_stdout
    from pixzip.image import read_image

    source = _read(file)
    picture = read_image(source, max_pixels=settings.max_pixels, allow_jpeg=settings.allow_jpeg)
    half = 0.5 if settings.verify else 1.0
    coded = settings.compress(picture, meter.part(0, half))
    if target is None:
        if settings.verify:
            _check_same(picture, settings.decompress(coded, meter.part(half, 1)))
        write_stdout(coded, force=settings.force)
        return len(source), len(coded)
    with staged(target, coded, force=settings.force) as written:
        if settings.verify:
            _check_same(picture, settings.decompress(read_file(written), meter.part(half, 1)))
    return len(source), len(coded)


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
@_coding
@_force
@_quiet
@click.pass_obj
def decompress(
    stop: _Stop, /, files: tuple[str, ...], output: str | None, device: str, quiet: bool, **options: Any
) -> None:
    """Decompress .pxz files: FILE.pxz → FILE.png.

    The output's suffix names its format: .png, .webp, .tif, .bmp, .ppm. PNG holds every picture with all its metadata;
    the others are refused where they cannot hold the pixels. Lossy formats are refused.
    """
    _check_device(device)
    _check_output(files, output)
    settings = _Settings(**options)
    outputs = _Outputs(force=settings.force)

    def work(file: str) -> None:
        target = _target(file, output, ".png")
        image_format = "PNG" if target is None else _format(target)
        if target is not None:
            outputs.check(file, target)
        with _meter(_name(file), stop, quiet=quiet) as meter:
            _decompress(file, target, image_format, settings, meter)

    _each(files, work)


def _format(target: Path) -> str:
    """The format that a suffix names. Raises UsageError for lossy and unknown ones."""
    suffix = target.suffix.lower()
    if suffix in _LOSSY:
        raise UsageError(f"output {target}: {suffix} is a lossy format, the pixels would change; .png keeps them")
    if suffix not in _FORMATS:
        raise UsageError(f"output {target}: suffix {suffix or 'missing'}, known are {', '.join(_FORMATS)}")
    return _FORMATS[suffix]


def _decompress(file: str, target: Path | None, image_format: str, settings: _Settings, meter: _Meter) -> None:
    """One file, to its target or standard output."""
    from pixzip.files import staged, write_stdout
    from pixzip.image import write_image

    picture = settings.decompress(_read(file), meter.part(0, 1))
    image = write_image(picture, image_format)
    if target is None:
        write_stdout(image, force=settings.force)
    else:
        with staged(target, image, force=settings.force):
            pass


# ------------------------------------------------------------------------ info, verify, models


@_pixzip.command(epilog=_EXIT_CODES)
@_files
def info(files: tuple[str, ...]) -> None:
    """Say what .pxz files hold; nothing is decoded."""

    def work(file: str) -> None:
        from pixzip.api import inspect

        found = inspect(_read(file))
        click.echo("\n".join([_name(file), *(f"  {key:<12}{value}" for key, value in _described(found))]))

    _each(files, work)


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
@_model_for_decoding
@_coding
@_quiet
@click.pass_obj
def verify(
    stop: _Stop,
    /,
    files: tuple[str, ...],
    device: str,
    quiet: bool,
    model: str | None,
    threads: int | None,
    engine: str | None,
    max_pixels: int,
) -> None:
    """Decode .pxz files and compare the pixels with the checksum in each."""
    _check_device(device)
    if len(files) > 1 and _STREAM in files:
        raise UsageError("standard input must be the only file")

    def work(file: str) -> None:
        import pixzip.api as api

        with _meter(_name(file), stop, quiet=quiet) as meter:
            api.verify(
                _read(file),
                model=model,
                threads=threads,
                engine=engine,
                max_pixels=max_pixels,
                progress=meter.part(0, 1),
            )
        if not quiet:
            click.echo(f"{_name(file)}: pixels are as they were encoded")

    _each(files, work)


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
        _check_device(self.device)
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

    _each([model], work)


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

    _each([picture], work)


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


# ------------------------------------------------------------------------ entry


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
    except _Interrupted as error:
        _complain("", "interrupted")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("", "interrupted")
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
