"""Files that a command works on ↔ where the results go, and whether they may."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pixzip.commands.arguments import FORMATS, LOSSY, STREAM
from pixzip.errors import ImageError, UsageError

_SEPARATORS = (os.sep,) if os.altsep is None else (os.sep, os.altsep)


def target_of(file: str, output: str | None, suffix: str) -> Path | None:
    """Where the result for a file goes; None: to standard output."""
    if output == STREAM or (output is None and file == STREAM):
        return None
    try:
        renamed = Path("stdin" if file == STREAM else Path(file).name).with_suffix(suffix)
    except ValueError:
        raise UsageError("not the name of a file") from None
    if output is None:
        return Path(file).parent / renamed
    return Path(output) / renamed if is_folder(output) else Path(output)


def is_folder(output: str) -> bool:
    """Whether an output is a folder: one that is there, or by a separator at its end one that is to be made."""
    return os.path.isdir(output) or makes_folder(output)


def makes_folder(output: str | None) -> bool:
    """Whether an output is a folder that is made where it is missing."""
    return output is not None and output.endswith(_SEPARATORS)


def numbered(target: Path, count: int) -> list[Path]:
    """NAME.png → NAME-0001.png and so on."""
    digits = max(4, len(str(count)))
    return [target.with_name(f"{target.stem}-{i:0{digits}}{target.suffix}") for i in range(1, count + 1)]


def format_of(target: Path) -> str:
    """The format that a suffix names. Raises UsageError for lossy and unknown ones."""
    suffix = target.suffix.lower()
    if suffix in LOSSY:
        raise UsageError(f"output {target}: {suffix} is a lossy format, the pixels would change; .png keeps them")
    if suffix not in FORMATS:
        raise UsageError(f"output {target}: suffix {suffix or 'missing'}, known are {', '.join(FORMATS)}")
    return FORMATS[suffix]


def check_holds(target: Path, data: bytes) -> None:
    """Raise ImageError where a suffix is that of gray or bilevel pictures and a .pxz file's are others."""
    from pixzip.pxz.container import read_header

    suffix = target.suffix.lower()
    if suffix not in (".pgm", ".pbm"):
        return
    header = read_header(data)
    what, fits = ("bilevel", header.depth == 1) if suffix == ".pbm" else ("gray", header.depth > 1)
    if header.mode != "L" or not fits:
        kind = f"mode {header.mode} with {header.depth} bits a sample"
        raise ImageError(f"output {target}: {suffix} holds {what} pictures, this is of {kind}; .pnm and .png hold it")


def check_output(files: Sequence[str], output: str | None) -> None:
    """Raise UsageError where several files would go to one output."""
    if len(files) == 1:
        return
    if STREAM in files:
        raise UsageError("standard input must be the only file")
    if output is not None and not is_folder(output):
        raise UsageError(f"output {output} is not a folder, and there are {len(files)} files")


class Outputs:
    """Checks the outputs of one command before their work: that they may be written, and that none is written twice."""

    def __init__(self, *, force: bool) -> None:
        self._force = force
        self._taken: dict[str, dict[Path, str]] = {}

    def check(self, file: str, target: Path) -> None:
        """Raise UsageError or OutputError where a result for this file cannot go to this target."""
        from pixzip.files import check_target

        self.claim(file, target)
        check_target(target, force=self._force)
        if file != STREAM and target.exists() and target.samefile(file):
            raise UsageError(f"output {target} is the input")

    def claim(self, file: str, target: Path) -> None:
        """Raise UsageError where another file has this target: in other letters, too, if the disk takes them as one."""
        from pixzip.files import same_file_name

        place = Path(os.path.realpath(target))
        alike = self._taken.setdefault(unicodedata.normalize("NFC", str(place)).casefold(), {})
        for other, owner in alike.items():
            if other == place or same_file_name(other, place):
                raise UsageError(f"output {target} is also that of {owner}")
        alike[place] = file


def mtime_ns(file: str) -> int:
    """When a source was last modified, nanoseconds since 1970. Raises UsageError."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from None
