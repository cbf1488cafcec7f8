"""What -r works on ↔ what is done before, now, and in all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixzip.commands.arguments import remark, say
from pixzip.commands.options import Settings
from pixzip.commands.outputs import Outputs, makes_folder, target_of
from pixzip.errors import PixelChecksumError, PixzipError
from pixzip.tree import Tally, Tree, is_done, make_folder, tree_of

if TYPE_CHECKING:
    from pixzip.batch import Room
    from pixzip.formats.image import Picture
    from pixzip.pxz.container import Container


def asked_tree(files: Sequence[str], output: str | None, recursive: bool) -> Tree | None:
    """The tree to work through, where -r asks for one. Raises UsageError as tree_of does."""
    return tree_of(files, output) if recursive else None


@dataclass(frozen=True)
class Results:
    """Where the results of one command go: to the output, or where a tree has them; and which are there before."""

    output: str | None
    tree: Tree | None
    outputs: Outputs
    force: bool
    dry_run: bool

    def target(self, file: str, suffix: str) -> Path | None:
        """Where the result for a file goes; None: to standard output."""
        return target_of(file, self.output, suffix) if self.tree is None else self.tree.target(file, suffix)

    def are_there(self, file: str, targets: Sequence[Path]) -> bool:
        """Whether an earlier command did this file of a tree. Raises UsageError where a target is another file's."""
        if self.tree is None or self.force or not is_done(file, targets):
            return False
        for target in targets:
            self.outputs.claim(file, target)
        return True

    def prepare(self, file: str, target: Path) -> None:
        """Check a target, and make its folder, where that is asked for."""
        if self._makes_folders and not target.parent.is_dir():
            if self.dry_run:
                self.outputs.claim(file, target)
                return
            make_folder(target.parent)
        self.outputs.check(file, target)

    @property
    def _makes_folders(self) -> bool:
        return self.tree is not None or makes_folder(self.output)


def check_results(
    targets: Sequence[Path], data: bytes, settings: Settings, room: Room, check: Callable[[], None]
) -> None:
    """Compare the PNG files of an earlier command with the .pxz file: what is damaged, or was salvaged, is not done.

    Pixels are compared by the checksum in the file, metadata byte by byte; nothing is decoded by a model. Raises
    PixelChecksumError, FormatError, and naming the PNG file ImageError, UsageError, LimitError.
    """
    from pixzip.memory import Extent, comparing
    from pixzip.pxz.container import read_container

    c = read_container(data, max_pixels=settings.max_pixels)
    h = c.header
    extent = Extent(h.pictures, len(h.mode), h.height, h.width, 2 if h.depth > 8 else 1)
    file_bytes = len(data) + sum(target.stat().st_size for target in targets)
    with settings.let_in(room, comparing(extent, file_bytes), check):
        _check_pictures(targets, [_picture_in(target, settings) for target in targets], c)


def _picture_in(target: Path, settings: Settings) -> Picture:
    from pixzip.files import read_source
    from pixzip.formats.image import read_image

    try:
        return read_image(read_source(target, settings.image_bounds).data, max_pixels=settings.max_pixels)
    except PixzipError as error:
        raise type(error)(f"output {target}, done before: {error}") from None


def _check_pictures(targets: Sequence[Path], pictures: Sequence[Picture], c: Container) -> None:
    import numpy as np

    from pixzip.pxz.container import checksum
    from pixzip.pxz.names import KEY

    h = c.header
    kind, shape = (h.mode, h.depth, c.palette, c.transparency), (len(h.mode), h.height, h.width)
    alike = all(
        (found.mode, found.depth, found.palette, found.transparency) == kind and found.planes.shape == shape
        for found in pictures
    )
    of = f"output {targets[0]}" if len(targets) == 1 else f"outputs {targets[0]} to {targets[-1]}"
    planes = np.stack([found.planes for found in pictures]) if alike else None
    if planes is None or checksum(planes, *kind) != h.pixels_checksum:
        raise PixelChecksumError(f"{of}, there before: other pixels than the file has; --force writes anew")
    own = tuple(entry for entry in c.metadata if h.pictures == 1 or entry[0] != KEY)
    expected = _through_png(pictures[0], own)
    if any(found.metadata != expected for found in pictures):
        raise PixelChecksumError(f"{of}, there before: other metadata than the file has; --force writes anew")


def _through_png(picture: Picture, metadata: tuple[tuple[str, bytes], ...]) -> tuple[tuple[str, bytes], ...]:
    """These metadata of such a picture as they come out of a PNG file."""
    from dataclasses import replace

    from pixzip.formats.image import read_image, write_image

    pixel = replace(picture, planes=picture.planes[:, :1, :1], metadata=metadata)
    return read_image(write_image(pixel, "PNG")).metadata


@contextmanager
def summed_up(tally: Tally, tree: Tree | None, as_json: bool, quiet: bool) -> Iterator[None]:
    """Say what a command came to, whatever became of it: of a tree, or as JSON."""
    try:
        yield
    finally:
        if as_json:
            say(tally.as_json())
        elif tree is not None and not quiet:
            remark(str(tally))
