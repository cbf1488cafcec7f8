"""Models of the repository: cards say what they are; what research models, used by path, wrote decodes for ever."""

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

HERE = Path(__file__).parent
MODELS = sorted((HERE.parent / "bench" / "research").glob("*.safetensors"))
SHIPPED = sorted((HERE.parent / "models").glob("*.safetensors"))
FILES = sorted((HERE / "golden" / "research").glob("*.pxz"))
ENGINES = ["float32", *(["int8"] if HAS_INT8 else [])]


def model_of(path: Path) -> Path:
    """The model that wrote a golden file."""
    return HERE.parent / "bench" / "research" / f"{path.name.split('.')[0]}.safetensors"


def test_every_model_has_golden_files() -> None:
    assert MODELS and {model_of(path) for path in FILES} == set(MODELS)
    assert all(read_header(path.read_bytes()).coding == Coding.MODEL for path in FILES)


@pytest.mark.parametrize("path", [*MODELS, *SHIPPED], ids=lambda p: p.stem)
def test_the_card_has_the_models_digest_and_size(path: Path) -> None:
    card, model = path.with_suffix(".md").read_text(encoding="utf-8"), find_model(path)
    assert f"`{model.digest[:8].hex()}`" in card and f"{len(model.data):,} bytes" in card
    assert f"{model.network.macs_per_pixel():,}" in card
    assert len(model.data) < (2_000_000 if path in SHIPPED else 400_000)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_golden_file_decodes_and_is_written_again(path: Path, engine: str) -> None:
    data, expected = path.read_bytes(), read_image(path.with_suffix(".png").read_bytes()).planes
    found = pixzip.decompress_batch(data, model=model_of(path), engine=engine, threads=1)
    np.testing.assert_array_equal(np.concatenate([picture.planes for picture in found], axis=1), expected)
    assert pixzip.compress_batch(found, model=model_of(path), engine=engine, threads=1) == data


@pytest.mark.parametrize("path", [path for path in FILES if "piece" in path.name], ids=lambda p: p.stem)
def test_reference_decoder_agrees_on_golden_file(path: Path) -> None:
    _, _, pictures = reference_decode(path.read_bytes(), model_of(path).read_bytes())
    expected = read_image(path.with_suffix(".png").read_bytes()).planes
    np.testing.assert_array_equal(np.array(pictures[0], dtype=np.uint8), expected)
