"""`pixzip sample`, `pixzip complete`: a model → pictures drawn from it, in a grid."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pixzip.commands.arguments import STREAM, read_input, shown_name
from pixzip.commands.each import on_one
from pixzip.commands.options import (
    EXIT_CODES,
    coding_options,
    completed_files,
    force_option,
    option_group,
    quiet_option,
)
from pixzip.commands.outputs import Outputs, format_of
from pixzip.commands.progress import Stop, metered
from pixzip.errors import UsageError

_drawing = option_group(
    click.option(
        "-o",
        "--output",
        required=True,
        shell_complete=completed_files,
        help="Image file, its suffix names the format; - for standard output (PNG).",
    ),
    click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Of random numbers."),
    click.option(
        "--temperature",
        default="1",
        show_default=True,
        help="Divides the logits: a number from 1/1000 to 100, as 0.9 or 9/10. Below 1 likely values become likelier.",
    ),
    coding_options,
    force_option,
    quiet_option,
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
    max_work: int
    force: bool
    quiet: bool

    def how(self, progress: Callable[[float], None]) -> dict[str, Any]:
        """Arguments of pixzip.sample and pixzip.complete."""
        names = ("seed", "temperature", "threads", "engine", "max_pixels", "max_work")
        return {name: getattr(self, name) for name in names} | {"progress": progress}

    def target(self, file: str) -> tuple[Path | None, str]:
        """Where the grid goes (None: standard output), and its format. Raises UsageError, OutputError."""
        if self.device == "cuda":
            raise UsageError("--device cuda: pictures are drawn on the CPU only")
        if self.output == STREAM:
            return None, "PNG"
        target = Path(self.output)
        Outputs(force=self.force).check(file, target)
        return target, format_of(target)

    def write(self, grid: Any, target: Path | None, image_format: str) -> None:
        """A grid (h, w) or (h, w, 3) as an image file."""
        from pixzip.files import staged, write_stdout
        from pixzip.formats.image import from_array, write_image

        image = write_image(from_array(grid), image_format)
        if target is None:
            write_stdout(image, force=self.force)
        else:
            with staged(target, image, force=self.force):
                pass


@click.command(epilog=EXIT_CODES)
@click.argument("model", shell_complete=completed_files)
@click.option("--count", type=click.IntRange(1), help="Pictures. Default: 16, or as rows and columns say.")
@click.option("--rows", type=click.IntRange(1), help="Of the grid.")
@click.option("--columns", type=click.IntRange(1), help="Of the grid. Default: as many as there are rows, or more.")
@click.option("--size", metavar="HxW", help="Of each picture, pixels. Default: as those the model was trained on.")
@_drawing
@click.pass_obj
def sample(
    stop: Stop,
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
        target, image_format = settings.target(STREAM)
        from pixzip import drawing

        with metered("drawing", stop, quiet=settings.quiet) as meter:
            pictures = drawing.sample(model, count, wanted, **settings.how(meter.part(0, 1)))
        settings.write(drawing.grid(pictures, columns), target, image_format)

    on_one(model, work)


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


@click.command(epilog=EXIT_CODES)
@click.argument("model", shell_complete=completed_files)
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...", shell_complete=completed_files)
@click.option("--count", type=click.IntRange(1), default=3, show_default=True, help="Completions of a picture.")
@click.option("--from-row", type=int, metavar="ROW", help="The first row that is drawn, counted from 0.")
@click.option("--keep", type=click.IntRange(0, 99), metavar="PERCENT", help="Of the rows. Default: 50.")
@click.option(
    "--original/--no-original", default=True, help="Put what is kept before them, and the whole original after, or not."
)
@_drawing
@click.pass_obj
def complete(
    stop: Stop,
    /,
    model: str,
    pictures: tuple[str, ...],
    count: int,
    from_row: int | None,
    keep: int | None,
    original: bool,
    **options: Any,
) -> None:
    """Keep the upper part of a PICTURE, draw the rest from a MODEL, several times, and write all side by side.

    MODEL is a shipped model's name or a model file; PICTURE an image file of the kind that it codes, - for standard
    input. Several of one size and mode make a row each. Metadata is not kept; --max-pixels is of all completions of a
    picture together. From a Multi-Scale model the small picture is drawn first, from its own pixels that are kept.
    """
    settings = _Drawing(**options)
    if from_row is not None and keep is not None:
        raise UsageError("--from-row and --keep exclude each other")
    shown: list[Any] = []

    def work(file: str) -> None:
        settings.target(file)
        from pixzip import drawing
        from pixzip.formats.image import read_image, to_array

        known = read_image(read_input(file), max_pixels=settings.max_pixels, allow_jpeg=True)
        whole = to_array(known)
        if shown and (whole.shape, whole.dtype) != (shown[0].shape, shown[0].dtype):
            raise UsageError("of another size or mode than the first picture")
        cut = drawing.first_drawn(known.height, from_row if keep is None else known.height * keep // 100)
        with metered(shown_name(file), stop, quiet=settings.quiet) as meter:
            made = drawing.complete(model, known, count, cut, **settings.how(meter.part(0, 1)))
        shown.extend([drawing.occluded(whole, cut), *made, whole] if original else made)

    def write(file: str) -> None:
        from pixzip import drawing

        settings.write(drawing.grid(shown, len(shown) // len(pictures)), *settings.target(file))

    for picture in pictures:
        on_one(picture, work)
    on_one(pictures[0], write)
