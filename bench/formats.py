"""A folder of image files of many kinds → each one coded, decoded and compared by readers that pixzip does not use.

    python bench/formats.py FOLDER [--model NAME]

PNG files are read by pypng (raw samples, depth, palette, tRNS) and their chunks by a few lines here, other files by
Pillow. A file that pixzip refuses must be refused with a PixzipError before anything is written. Of a PNG every
ancillary chunk is looked for, byte for byte, in the PNG that is decompressed; one that is not there is a fault unless
NOT_KEPT has the reason. Sizes are compared with the reference of docs/format.md: the lossless WebP (exact, quality 75,
method 4) where Pillow and WebP can hold the picture, else the optimised PNG.

One line a file: verdict, bytes of the .pxz file, chunks that are kept, chunks that are not; then sums. On PngSuite:

    python bench/formats.py DATA/formats/pngsuite
"""

from __future__ import annotations

import io
import struct
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import png
from PIL import Image

import pixzip
from pixzip.pxz.container import read_container

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Chunks that are not metadata: what they say is compared as size, samples and palette.
_PICTURE = ("IHDR", "IDAT", "IEND")
#: Chunks that must stand before PLTE, and behind it (section 5.6 of the specification); others may stand anywhere.
_BEFORE_PALETTE = ("cHRM", "cICP", "cLLI", "gAMA", "iCCP", "mDCV", "sBIT", "sRGB")
_BEHIND_PALETTE = ("bKGD", "hIST", "tRNS")
#: Chunk → why it does not come back.
NOT_KEPT = {"iDOT": "byte offsets into the source's own IDAT, wrong beside any other"}


def png_chunks(data: bytes) -> list[tuple[str, bytes]]:
    """(type, payload) of all chunks up to IEND, in order: of a good file, nothing is checked."""
    chunks, at = [], len(_SIGNATURE)
    while not chunks or chunks[-1][0] != "IEND":
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8].decode("latin-1"), data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def compare_chunks(source: bytes, back: bytes) -> tuple[Counter[str], Counter[str]]:
    """How many chunks of each type came back byte for byte, and how many did not.

    Chunks of one type must come in the same order, and stand where they may, before PLTE or behind it. A chunk that
    only the copy has counts as one that did not come back.
    """
    kept: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    before, after = png_chunks(source), png_chunks(back)
    for kind in sorted({kind for kind, _ in before + after if kind not in _PICTURE}):
        wanted, found = ([payload for k, payload in chunks if k == kind] for chunks in (before, after))
        same = wanted == found and _stands_right(after, kind)
        (kept if same else lost)[kind] += len(wanted) or len(found)
    return kept, lost


def _stands_right(chunks: list[tuple[str, bytes]], kind: str) -> bool:
    kinds = [k for k, _ in chunks]
    if "PLTE" not in kinds:
        return True
    behind = kinds.index(kind) > kinds.index("PLTE")
    return not (kind in _BEFORE_PALETTE and behind) and (kind not in _BEHIND_PALETTE or behind)


def png_facts(data: bytes) -> tuple[Any, ...]:
    """(samples (h, w * planes), depth, planes, palette, transparency) as pypng reads a PNG file."""
    reader = png.Reader(bytes=data)
    _, _, rows, info = reader.read()
    samples = np.array([np.array(row, dtype=np.uint16) for row in rows])
    return samples, info["bitdepth"], info["planes"], reader.plte, reader.trns


def png_is_same(source: bytes, back: bytes) -> bool:
    """Whether two PNG files hold the same picture, by pypng."""
    a, b = png_facts(source), png_facts(back)
    return np.array_equal(a[0], b[0]) and a[1:] == b[1:]


def pillow_is_same(source: bytes, back: bytes) -> bool:
    """Whether two image files hold the same pixels, by Pillow, in RGBA or in 16 bits."""
    with Image.open(io.BytesIO(source)) as a, Image.open(io.BytesIO(back)) as b:
        mode = "I" if a.mode.startswith("I") else "RGBA"
        return a.size == b.size and a.convert(mode).tobytes() == b.convert(mode).tobytes()


def reference_bytes(picture: pixzip.Picture) -> int:
    """Size of the file that pixzip's must not exceed but for its fixed overhead."""
    bare = pixzip.write_image(pixzip.Picture(picture.planes, picture.mode, picture.depth, picture.palette), "PNG")
    if picture.depth != 8 or picture.mode not in ("L", "RGB", "RGBA") or max(picture.planes.shape[1:]) > 16383:
        return len(bare)
    out = io.BytesIO()
    pixzip.to_pil(picture).save(out, "WEBP", lossless=True, exact=True, quality=75, method=4)
    return len(out.getvalue())


def overhead_bytes(coded: bytes) -> int:
    """Header, chunk frames, metadata, palette and transparency: what a reference file is not charged for."""
    c = read_container(coded)
    chunks = sum(12 + len(key) + 1 + len(value) for key, value in c.metadata)
    return 80 + chunks + 12 + len(c.palette) + 12 + len(c.transparency)


@dataclass(frozen=True)
class Judgement:
    """What became of one file: "model", "stored", "refused", or a fault in capitals; and what there is to say of it."""

    verdict: str
    detail: str
    kept: Counter[str]
    lost: Counter[str]


def judge(path: Path, model: str | Path) -> Judgement:
    """Compress, decompress, compare."""
    data = path.read_bytes()
    none: Counter[str] = Counter()
    try:
        picture = pixzip.read_image(data)
        coded = pixzip.compress(data, model=model, threads=1)
    except pixzip.PixzipError as error:
        return Judgement("refused", str(error), none, none)
    back = pixzip.write_image(pixzip.decompress(coded, model=model, threads=1), "PNG")
    is_png = data.startswith(_SIGNATURE)
    kept, lost = compare_chunks(data, back) if is_png else (none, none)
    try:
        same = png_is_same(data, back) if is_png else pillow_is_same(data, back)
    except png.Error as error:
        same = pillow_is_same(data, back)
        click.echo(f"{path.name}: pypng says {error}; compared by Pillow")
    if not same:
        return Judgement("DIFFERENT", "", kept, lost)
    unexplained = sorted(set(lost) - set(NOT_KEPT))
    if unexplained:
        return Judgement("CHANGED", " ".join(unexplained), kept, lost)
    how = "model" if read_container(coded).tiles else "stored"
    excess = len(coded) - overhead_bytes(coded) - reference_bytes(picture)
    if excess > 0:
        return Judgement("LARGER", f"by {excess} bytes, coded {how}", kept, lost)
    return Judgement(how, f"{len(coded)} bytes", kept, lost)


def _shown(chunks: Counter[str]) -> str:
    return " ".join(f"{kind}*{n}" if n > 1 else kind for kind, n in sorted(chunks.items()))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", default="default")
def main(folder: Path, model: str) -> None:
    """Judge every file below FOLDER."""
    verdicts: Counter[tuple[str, str]] = Counter()
    kept: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in Image.registered_extensions()):
        found = judge(path, model)
        verdicts[path.parent.name, found.verdict] += 1
        kept += found.kept
        lost += found.lost
        chunks = _shown(found.kept) + (f"; not {_shown(found.lost)}" if found.lost else "")
        click.echo(f"{path.parent.name + '/' + path.name:36} {found.verdict:9} {found.detail:12} {chunks}".rstrip())
    click.echo()
    for (kind, verdict), count in sorted(verdicts.items()):
        click.echo(f"{kind:20} {verdict:10} {count:4}")
    click.echo(f"chunks kept: {_shown(kept) or 'none'}")
    click.echo(f"chunks not kept: {_shown(lost) or 'none'}")
    for kind in sorted(lost & Counter(dict.fromkeys(NOT_KEPT, sys.maxsize))):
        click.echo(f"  {kind}: {NOT_KEPT[kind]}")
    sys.exit(any(verdict.isupper() for _, verdict in verdicts))


if __name__ == "__main__":
    main()
