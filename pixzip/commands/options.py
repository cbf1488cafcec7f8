"""Options that commands share ↔ the settings of their work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pixzip.commands.arguments import image_bounds, packed_bounds
from pixzip.errors import UsageError
from pixzip.limits import MAX_PIXELS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from pixzip.api import Salvaged
    from pixzip.batch import Room
    from pixzip.files import Bounds
    from pixzip.formats.image import Picture
    from pixzip.memory import Need

EXIT_CODES = """Exit codes: 0 all went well; 1 a fault in pixzip itself; 2 wrong usage, a file that cannot be read, an
output that exists; 3 not an image, or one that cannot be kept without loss; 4 damaged .pxz file; 5 decoded pixels
differ; 6 model not found; 7 damaged model; 8 over a limit, or out of memory; 9 output cannot be written;
10 training cannot go on; 11 damaged .pxz file of which --salvage wrote what is left; 12 a file is not as a manifest
says; 13 what bench was to measure failed; 130 interrupted, 143 by SIGTERM, 129 by SIGHUP. With several files the others
are still done, failures are listed at the end, and the code is that of the first."""
#: (name, what it is for) of each variable that pixzip itself reads.
ENVIRONMENT = (
    (
        "PIXZIP_MODELS",
        "Folder of models that were added. Default: pixzip/models in the user's data folder, which is "
        "$XDG_DATA_HOME, ~/.local/share, or on Windows %LOCALAPPDATA%.",
    ),
    ("PIXZIP_CACHE", "Folder of decoded training pictures. Default: pixzip in $XDG_CACHE_HOME or ~/.cache."),
    ("NUMBA_CACHE_DIR", "Folder of compiled code. Default: beside pixzip's modules, or in the user's cache folder."),
    ("NO_COLOR", "Honoured, in that pixzip writes no colours at all."),
    ("TERM", "If it is dumb, no progress bar is drawn."),
)


@dataclass(frozen=True)
class Settings:
    """Options as given, for the work on each file; those without a default are of every command that codes."""

    model: str | None
    device: str
    threads: int | None
    engine: str | None
    max_pixels: int
    max_work: int
    max_memory: int | None = None
    jobs: int | None = None
    force: bool = False
    tile: int = 1024
    learning: int | None = None
    embed_model: bool = False
    allow_jpeg: bool = False
    strip: bool = False
    verify: bool = True
    keep_times: bool = False

    def __post_init__(self) -> None:
        if self.device == "cuda" and self.engine is not None:
            raise UsageError(f"--engine {self.engine} is of the CPU, --device cuda has its own")

    @property
    def reading(self) -> dict[str, bool]:
        """What read_image is told."""
        return {"allow_jpeg": self.allow_jpeg, "strip": self.strip}

    def _how(self, progress: Callable[[float], None]) -> dict[str, Any]:
        """What compressing and decompressing are told alike."""
        engine = "cuda" if self.device == "cuda" else self.engine
        limits = {"max_pixels": self.max_pixels, "max_memory": self.max_memory, "max_work": self.max_work}
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

    @property
    def image_bounds(self) -> Bounds:
        """What image files are read within."""
        return image_bounds(self.max_memory)

    @property
    def packed_bounds(self) -> Bounds:
        """What .pxz files are read within."""
        return packed_bounds(self.max_memory)

    def need_to_compress(self, sources: Sequence[bytes]) -> Need:
        """The memory that these image files take as one .pxz file."""
        from pixzip.api import need_to_compress
        from pixzip.model.file import find_model

        model = find_model(self.model or "default")
        return need_to_compress(sources, model, tile=self.tile, max_pixels=self.max_pixels)

    def need_to_decompress(self, data: bytes, image_format: str) -> Need:
        """The memory that a .pxz file takes, with its pictures written in this format."""
        from pixzip.api import need_to_decompress

        webp = image_format == "WEBP"
        return need_to_decompress(data, model=self.model, max_pixels=self.max_pixels, webp=webp)

    @contextmanager
    def let_in(self, room: Room, need: Need, check: Callable[[], None]) -> Iterator[Settings]:
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


def option_group(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Several click options as one decorator, in this order in --help."""

    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _bytes(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A size with K, M, G or T, powers of 1024, or without."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})([KMGT]?)(i?B)?", value, re.IGNORECASE)
    if match is None or not int(match[1]):
        raise click.BadParameter(f"{value!r} is not a size such as 500M or 2G")
    return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")


def _count(context: click.Context, option: click.Parameter, value: str) -> int:
    """A positive integer, which may be written as 1e15."""
    match = re.fullmatch(r"([0-9]{1,18})(?:e([0-9]{1,2}))?", value, re.IGNORECASE)
    if match is None or not int(match[1]):
        raise click.BadParameter(f"{value!r} is not a number such as 1e15")
    return int(match[1] + "0" * int(match[2] or 0))


def completed_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave an argument to the shell's own completion of files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


files_argument = click.argument("files", nargs=-1, required=True, metavar="FILE...", shell_complete=completed_files)


def _one_of_both(context: click.Context, option: click.Parameter, value: bool) -> bool:
    if value and context.params.get("verbose" if option.name == "quiet" else "quiet"):
        raise click.UsageError("--quiet and --verbose exclude each other")
    return value


quiet_option = click.option(
    "-q", "--quiet", is_flag=True, callback=_one_of_both, help="No progress bar, no summary, no warning."
)

verbose_option = click.option(
    "-v", "--verbose", is_flag=True, callback=_one_of_both, help="Of every file how it is coded, and seconds."
)

times_option = click.option("--keep-times", is_flag=True, help="Outputs get the modification time of their sources.")

force_option = click.option("--force", is_flag=True, help="Overwrite outputs that exist.")

json_option = click.option("--json", "as_json", is_flag=True, help="A summary as JSON on standard output.")

tree_options = option_group(
    click.option(
        "-r",
        "--recursive",
        is_flag=True,
        help="FILE is one folder: all below it, to the same tree in the folder OUTPUT.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    json_option,
)

coding_options = option_group(
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
        help="How the CPU multiplies; same files either way. int8 needs x86-64 or ARM's dot products. Default: int8.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(1),
        default=MAX_PIXELS,
        show_default=True,
        help="Refuse larger pictures.",
    ),
    click.option(
        "--max-work",
        callback=_count,
        default="1e15",
        show_default=True,
        metavar="N",
        help="Refuse what takes the model more multiply-accumulates; 1e15 are about an hour on two cores.",
    ),
)

room_options = option_group(
    click.option(
        "--max-memory",
        callback=_bytes,
        metavar="SIZE",
        help="Memory to get along with, such as 500M or 2G; fewer tiles and files at once; refuse what needs more.",
    ),
    click.option(
        "-j",
        "--jobs",
        type=click.IntRange(1, 1024),
        help="Files in work side by side, which share the threads. Default: as many as there are threads.",
    ),
)

decoding_model_option = click.option(
    "--model",
    shell_complete=completed_files,
    help="A model file to try before the one in the .pxz file and the shipped and added ones.",
)
