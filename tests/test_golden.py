"""Files written once decode to the same pixels for ever: by the package, by every engine, by the reference decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reference_decoder import decode as reference_decode

import pixzip
from pixzip.formats.image import read_image
from pixzip.model.file import find_model
from pixzip.pxz.container import Coding, read_header
from pixzip.runtime.multiply import HAS_INT8

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(FOLDER.glob("*.pxz"))
ENGINES = ["float32", *(["int8"] if HAS_INT8 else [])]


def source(path: Path) -> Path:
    """The picture a golden file was made of."""
    return FOLDER / (path.name.split(".")[0] + ".png")


def test_golden_files_are_there() -> None:
    assert len(FILES) >= 7
    assert sum(read_header(f.read_bytes()).coding == Coding.MODEL for f in FILES) >= 5


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_golden_file_decodes_to_its_picture(path: Path, engine: str) -> None:
    expected = read_image(source(path).read_bytes())
    got = pixzip.decompress(path.read_bytes(), engine=engine)
    assert (got.mode, got.depth) == (expected.mode, expected.depth)
    np.testing.assert_array_equal(got.planes, expected.planes)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", [f for f in FILES if "photo" in f.name or "thumb" in f.name], ids=lambda p: p.stem)
def test_golden_file_is_written_again_byte_for_byte(path: Path, engine: str) -> None:
    header = read_header(path.read_bytes())
    model = "cifar10" if "thumb" in path.name else "default"
    again = pixzip.compress(source(path).read_bytes(), model=model, tile=header.tile, engine=engine)
    if read_header(again).model_digest != header.model_digest:
        pytest.skip("made by an earlier model: files are kept for decoding")
    assert again == path.read_bytes()


@pytest.mark.parametrize(
    "path", [f for f in FILES if any(n in f.name for n in ("8x6", "one-pixel", "ramp16"))], ids=lambda p: p.stem
)
def test_reference_decoder_agrees_on_golden_file(path: Path) -> None:
    header = read_header(path.read_bytes())
    stored = header.coding == Coding.STORED
    if stored and header.depth < 16:
        pytest.skip("stored: nothing for the reference decoder")
    model = b"" if stored else find_model(header.model_digest).data
    width, height, pictures = reference_decode(path.read_bytes(), model)
    expected = read_image(source(path).read_bytes()).planes
    assert (height, width) == expected.shape[1:]
    np.testing.assert_array_equal(np.array(pictures[0], dtype=expected.dtype), expected)


def test_golden_files_of_16_bits_are_of_all_codings() -> None:
    found = {f.name.split(".")[0]: pixzip.inspect(f.read_bytes()) for f in FILES}
    deep = {name: info.coding for name, info in found.items() if info.depth == 16}
    assert deep == {"photo16-40x33": "model", "photo16-8x6": "model", "ramp16-15x11": "deep"}
