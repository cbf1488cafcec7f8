"""pixzip.api: images ↔ .pxz bytes, which coding is chosen, which model is found, and what is refused."""

from __future__ import annotations

import dataclasses
import doctest
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import model_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import pixzip
from pixzip import FormatError, LimitError, ModelError, ModelNotFoundError, PixelChecksumError, UsageError, codec
from pixzip.coding.stored import store
from pixzip.formats.image import Picture, from_array
from pixzip.model.file import find_model, shipped_models
from pixzip.pxz.container import Coding, Container, Header, checksum, read_container, write_container
from pixzip.runtime.multiply import HAS_INT8

ROOT = Path(__file__).parents[1]
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "P": 1}
KINDS = [(mode, 8) for mode in CHANNELS] + [(mode, 16) for mode in CHANNELS if mode != "P"]
KINDS += [("L", 1), ("L", 2), ("L", 4), ("P", 1), ("P", 2), ("P", 4)]

needs_vnni = pytest.mark.skipif(not HAS_INT8, reason="no instructions for it")
needs_default = pytest.mark.skipif(
    "default" not in [info.name for info in shipped_models()], reason="no default model is shipped"
)


def picture(mode: str, depth: int, height: int, width: int, seed: int = 0) -> Picture:
    """Noise, a constant, or an easy slope, by seed; a palette where the mode has one."""
    random = np.random.default_rng(seed)
    shape = (CHANNELS[mode], height, width)
    noise = random.integers(0, 2**depth, shape)
    slope = np.add.outer(np.arange(height), np.arange(width)) % 2**depth + 0 * noise
    planes = (noise, 0 * noise + random.integers(0, 2**depth), slope)[seed % 3]
    palette = random.bytes(3 * 2**depth) if mode == "P" else b""
    return Picture(planes.astype(np.uint16 if depth == 16 else np.uint8), mode, depth, palette)


def with_alpha(pixels: NDArray[np.uint8], alpha: int | NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.dstack([pixels, np.broadcast_to(np.uint8(alpha) if isinstance(alpha, int) else alpha, pixels.shape[:2])])


def forged(data: bytes, **header: Any) -> bytes:
    """The file with other header fields, chunks and CRCs right."""
    c = read_container(data)
    return write_container(dataclasses.replace(c, header=dataclasses.replace(c.header, **header)))


# ------------------------------------------------------------------------ the law


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    tile=st.sampled_from([5, 16, 1024]),
    seed=st.integers(0, 999),
)
def test_decompress_inverts_compress(
    model: Path, kind: tuple[str, int], height: int, width: int, tile: int, seed: int
) -> None:
    before = picture(*kind, height, width, seed)
    after = pixzip.decompress(pixzip.compress(before, model=model, tile=tile), model=model)
    assert after.same_pixels(before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (33, 47)])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_picture_that_a_model_codes_comes_back(model: Path, mode: str, shape: tuple[int, int]) -> None:
    rgb = model_picture(*shape)
    alpha = model_picture(*shape, seed=1)[..., 0]
    pixels = {"L": rgb[..., 0], "LA": with_alpha(rgb[..., :1], 77), "RGB": rgb, "RGBA": with_alpha(rgb, alpha)}[mode]
    data = pixzip.compress(pixels, model=model, tile=20)
    assert np.array_equal(pixzip.to_array(pixzip.decompress(data, model=model)), pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_model_wins_where_it_is_shorter(model: Path, mode: str) -> None:
    rgb = model_picture(33, 47)
    pixels = {"L": rgb[..., 0], "LA": with_alpha(rgb[..., :1], 77), "RGB": rgb, "RGBA": with_alpha(rgb, 9)}[mode]
    assert pixzip.inspect(pixzip.compress(pixels, model=model)).coding == "model"


def test_stored_wins_where_it_is_shorter(model: Path) -> None:
    pattern = from_array(np.tile(model_picture(16, 16), (6, 6, 1)))
    data = pixzip.compress(pattern, model=model)
    assert pixzip.inspect(data).coding in ("PNG", "WebP")
    assert len(data) == 77 + len(store(pattern.planes, "RGB", 8)[1])


@pytest.mark.parametrize("kind", [("P", 8), ("L", 4), ("P", 2)])
def test_what_no_model_codes_is_stored(model: Path, kind: tuple[str, int]) -> None:
    info = pixzip.inspect(pixzip.compress(picture(*kind, 9, 9), model=model))
    assert (info.coding in ("PNG", "WebP"), info.model_digest) == (True, "")


def test_constant_alpha_costs_bytes_only(model: Path) -> None:
    rgb = model_picture(33, 47)
    opaque, colour = (pixzip.compress(pixels, model=model) for pixels in (with_alpha(rgb, 255), rgb))
    assert len(opaque) - len(colour) <= 14


def test_palette_transparency_and_metadata_are_kept(model: Path) -> None:
    entries = (("icc", b"profile"), ("text", b""), ("text", b"twice"))
    before = Picture(np.arange(4, dtype=np.uint8).reshape(1, 2, 2), "P", 2, b"\1\2\3" * 4, b"\0\x80", entries)
    after = pixzip.decompress(pixzip.compress(before, model=model))
    assert after.same_pixels(before)
    assert after.metadata == entries


def test_bytes_array_pillow_and_picture_give_one_file(model: Path) -> None:
    pixels = model_picture(20, 30)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    kinds = (out.getvalue(), pixels, Image.fromarray(pixels), from_array(pixels))
    assert len({pixzip.compress(image, model=model) for image in kinds}) == 1


@pytest.mark.parametrize(
    "how",
    [{"threads": 1}, {"threads": 2}, {"engine": "float32"}, pytest.param({"engine": "int8"}, marks=needs_vnni)],
    ids=str,
)
def test_threads_and_engines_change_neither_file_nor_pixels(model: Path, how: dict[str, Any]) -> None:
    pixels = model_picture(50, 70)
    data = pixzip.compress(pixels, model=model, tile=32)
    assert pixzip.compress(pixels, model=model, tile=32, **how) == data
    assert np.array_equal(pixzip.to_array(pixzip.decompress(data, model=model, **how)), pixels)


# ------------------------------------------------------------------------ likelihood


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("learning", [0, None])
def test_model_bits_are_what_the_coder_writes(model: Path, mode: str, learning: int | None) -> None:
    rgb = model_picture(33, 47)
    pixels = {"L": rgb[..., 0], "LA": with_alpha(rgb[..., :1], 77), "RGB": rgb, "RGBA": with_alpha(rgb, 9)}[mode]
    bits = pixzip.model_bits(pixels, model=model, learning=learning, tile=20)
    planes = from_array(pixels).planes[None, : 3 if mode.startswith("RGB") else 1]
    assert bits.shape == planes.shape[1:]
    tiles = codec.encode(find_model(model), planes, learning=learning, tile=20, lanes=1).tiles
    assert 0 < 8 * sum(map(len, tiles)) - bits.sum() < 80 * len(tiles)
    wrong = pixzip.model_bits(pixels, model=model, learning=40, tile=20)
    assert abs(wrong.sum() - bits.sum()) > 1e-6


def test_model_bits_of_sixteen_bits_are_those_of_the_high_bytes(model: Path) -> None:
    deep = picture("RGBA", 16, 8, 9)
    high = from_array(np.ascontiguousarray((deep.planes[:3] >> 8).astype(np.uint8).transpose(1, 2, 0)))
    assert np.array_equal(pixzip.model_bits(deep, model=model), pixzip.model_bits(high, model=model))


def test_model_bits_of_a_sub_pixel_are_of_what_comes_before(model: Path) -> None:
    before = model_picture(9, 11)
    after = before.copy()
    after[4, 5, 1] ^= 255
    place = (4 * 11 + 5) * 3 + 1
    old, new = (pixzip.model_bits(p, model=model, learning=0).transpose(1, 2, 0).ravel() for p in (before, after))
    assert np.array_equal(old[:place], new[:place])
    assert old[place] != new[place] and old[place + 1] != new[place + 1]


@pytest.mark.parametrize("kind", [("P", 8), ("L", 4)])
def test_model_bits_of_what_no_model_codes_are_refused(model: Path, kind: tuple[str, int]) -> None:
    with pytest.raises(UsageError, match=f"codes no pictures of mode {kind[0]} with {kind[1]} bits"):
        pixzip.model_bits(picture(*kind, 9, 9), model=model)


# ------------------------------------------------------------------------ several pictures in a file


@pytest.mark.parametrize(("mode", "depth"), [("L", 8), ("RGB", 8), ("LA", 8), ("RGBA", 8), ("RGB", 16), ("L", 1)])
def test_batch_comes_back(model: Path, mode: str, depth: int) -> None:
    before = [picture(mode, depth, 7, 9, seed) for seed in range(5)]
    data = pixzip.compress_batch(before, model=model)
    assert pixzip.inspect(data).pictures == 5
    assert all(b.same_pixels(a) for a, b in zip(before, pixzip.decompress_batch(data, model=model), strict=True))


def test_batch_of_model_pictures_shares_one_header(model: Path) -> None:
    pixels = [with_alpha(model_picture(16, 16, seed=seed), 200 + seed) for seed in range(6)]
    data = pixzip.compress_batch(pixels, model=model)
    assert pixzip.inspect(data).coding == "model"
    assert len(data) < sum(len(pixzip.compress(each, model=model)) for each in pixels)
    decoded = pixzip.decompress_batch(data, model=model)
    assert all(np.array_equal(pixzip.to_array(a), b) for a, b in zip(decoded, pixels, strict=True))


@pytest.mark.parametrize(
    ("images", "fault"),
    [
        ([], "no images"),
        ([picture("L", 8, 4, 4), picture("L", 8, 4, 5)], "width"),
        ([picture("L", 8, 4, 4), picture("RGB", 8, 4, 4)], "mode"),
        ([picture("P", 8, 4, 4, 0), picture("P", 8, 4, 4, 1)], "palette"),
        ([picture("L", 8, 40, 40), picture("L", 8, 40, 40)], "one tile"),
    ],
)
def test_batch_that_one_file_cannot_hold_is_refused(model: Path, images: list[Picture], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        pixzip.compress_batch(images, model=model, tile=32)


def test_decompress_refuses_several_pictures(model: Path) -> None:
    data = pixzip.compress_batch([picture("L", 8, 4, 4)] * 2, model=model)
    with pytest.raises(UsageError, match="2 pictures"):
        pixzip.decompress(data, model=model)


# ------------------------------------------------------------------------ models


def test_embedded_model_decodes_alone(model: Path, model_bytes: bytes) -> None:
    pixels = model_picture(20, 30)
    data = pixzip.compress(pixels, model=model, embed_model=True)
    assert pixzip.inspect(data).model_embedded_bytes == len(model_bytes)
    assert np.array_equal(pixzip.to_array(pixzip.decompress(data)), pixels)


def test_embedded_model_is_left_out_of_a_stored_file(model: Path) -> None:
    data = pixzip.compress(picture("L", 4, 9, 9), model=model, embed_model=True)
    assert pixzip.inspect(data).model_embedded_bytes == 0


def test_given_model_with_another_digest_is_passed_over(model: Path, other_model: Path) -> None:
    pixels = model_picture(20, 30)
    data = pixzip.compress(pixels, model=model, embed_model=True)
    assert np.array_equal(pixzip.to_array(pixzip.decompress(data, model=other_model)), pixels)


def test_missing_model_is_named_with_all_places(model: Path, other_model: Path) -> None:
    data = pixzip.compress(model_picture(20, 30), model=model)
    with pytest.raises(ModelNotFoundError) as error:
        pixzip.decompress(data, model=other_model)
    text = str(error.value)
    assert pixzip.inspect(data).model_digest in text
    assert str(other_model) in text
    assert "models" in text


def test_hostile_embedded_model_is_refused(model: Path, model_bytes: bytes) -> None:
    import hashlib

    data = pixzip.compress(model_picture(20, 30), model=model, embed_model=True)
    hostile = model_bytes[:-1] + b"\x80"  # the last bias, which must stay below 2^24
    c = read_container(data)
    header = dataclasses.replace(c.header, model_digest=hashlib.sha256(hostile).digest()[:8])
    with pytest.raises(ModelError):
        pixzip.decompress(write_container(dataclasses.replace(c, header=header, model=hostile)))


def test_unknown_model_name_is_refused_for_every_picture() -> None:
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        pixzip.compress(picture("RGB", 16, 3, 3), model="no-such-model")


# ------------------------------------------------------------------------ bad files


@pytest.fixture(scope="module")
def small_file(model: Path) -> bytes:
    return pixzip.compress(model_picture(8, 8), model=model)


def test_every_flipped_bit_is_refused(small_file: bytes, model: Path) -> None:
    assert pixzip.inspect(small_file).coding == "model"
    for at in range(len(small_file)):
        damaged = bytearray(small_file)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(FormatError):
            pixzip.decompress(bytes(damaged), model=model)


def test_every_truncation_is_refused(small_file: bytes, model: Path) -> None:
    for length in range(len(small_file)):
        with pytest.raises(FormatError):
            pixzip.decompress(small_file[:length], model=model)


def test_trailing_bytes_are_refused(small_file: bytes, model: Path) -> None:
    with pytest.raises(FormatError, match="trailing"):
        pixzip.decompress(small_file + b"\0", model=model)


@settings(max_examples=60, deadline=None)
@given(payload=st.binary(min_size=1, max_size=60))
def test_any_payload_gives_pixels_or_a_pixzip_error(model: Path, small_file: bytes, payload: bytes) -> None:
    c = read_container(small_file)
    with pytest.raises(FormatError):
        pixzip.decompress(write_container(dataclasses.replace(c, tiles=(payload,))), model=model)


def test_wrong_pixels_have_an_error_of_their_own(small_file: bytes, model: Path) -> None:
    with pytest.raises(PixelChecksumError, match="00000000"):
        pixzip.decompress(forged(small_file, pixels_checksum=bytes(16)), model=model)


def test_model_coded_samples_beyond_the_depth_are_refused(model: Path) -> None:
    data = pixzip.compress(model_picture(8, 8)[..., 0], model=model)
    assert pixzip.inspect(data).coding == "model"
    with pytest.raises(FormatError, match="depth 4"):
        pixzip.decompress(forged(data, depth=4), model=model)


def test_transparency_beyond_the_palette_is_refused(model: Path) -> None:
    before = picture("P", 2, 4, 4, 1)
    c = read_container(pixzip.compress(before, model=model))
    sum_of_file = checksum(before.planes, "P", 2, before.palette, bytes(9))
    header = dataclasses.replace(c.header, pixels_checksum=sum_of_file)
    with pytest.raises(FormatError, match="transparency"):
        pixzip.decompress(write_container(dataclasses.replace(c, header=header, transparency=bytes(9))))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("constant", [False, True])
def test_alpha_apart_from_a_stored_picture_is_read(depth: int, constant: bool) -> None:
    before = picture("RGBA", depth, 5, 6)
    if constant:
        before.planes[3] = 201
    sample = (201).to_bytes(depth // 8, "little")
    alpha = (0, sample) if constant else store(before.planes[3:], "L", depth)
    sum_of_file = checksum(before.planes, "RGBA", depth, b"", b"")
    header = Header(6, 5, 1, "RGBA", depth, Coding.STORED, bytes(8), 1, 1, 0, sum_of_file)
    stored = store(before.planes[:3], "RGB", depth)
    c = Container(header, b"", b"", (), alpha, stored, ())
    assert pixzip.decompress(write_container(c)).same_pixels(before)


# ------------------------------------------------------------------------ arguments and limits


def test_limit_of_pixels_holds_both_ways(model: Path) -> None:
    pixels = model_picture(8, 8)
    data = pixzip.compress(pixels, model=model, max_pixels=64)
    for image in (pixels, Image.fromarray(pixels), from_array(pixels), pixzip.write_image(from_array(pixels), "PNG")):
        with pytest.raises(LimitError, match="64"):
            pixzip.compress(image, model=model, max_pixels=63)
    with pytest.raises(LimitError, match="64"):
        pixzip.decompress(data, model=model, max_pixels=63)
    with pytest.raises(LimitError, match="128"):
        pixzip.compress_batch([pixels, pixels], model=model, max_pixels=64)
    pixzip.decompress(data, model=model, max_pixels=64)


def test_pillow_image_beyond_the_limit_is_not_loaded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(Image.Image, "load", lambda self: loaded.append(self))
    data = pixzip.write_image(from_array(model_picture(8, 8)), "PNG")
    for images in ([Image.open(io.BytesIO(data))], [Image.open(io.BytesIO(data)) for _ in range(3)]):
        with pytest.raises(LimitError, match="8 x 8 = 64 pixels, over the limit of 63"):
            pixzip.compress_batch(images, model=model, max_pixels=63)
    assert loaded == []


@pytest.mark.parametrize("wrong", [{"tile": 0}, {"tile": 65536}, {"lanes": 65}, {"lanes": 0}, {"threads": 0}], ids=str)
def test_settings_out_of_range_are_refused(model: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must be 1 to"):
        pixzip.compress(model_picture(8, 8), model=model, **wrong)


@pytest.mark.parametrize("image", ["photo.png", Path("photo.png"), None, 5])
def test_other_types_are_refused(model: Path, image: Any) -> None:
    with pytest.raises(UsageError, match="must be bytes, an array"):
        pixzip.compress(image, model=model)


def test_unknown_engine_is_refused(model: Path) -> None:
    with pytest.raises(UsageError, match="abacus"):
        pixzip.compress(model_picture(8, 8), model=model, engine="abacus")


# ------------------------------------------------------------------------ description and imports


def test_inspect_says_what_the_file_holds(model: Path) -> None:
    before = dataclasses.replace(from_array(with_alpha(model_picture(33, 47), 9)), metadata=(("icc", b"12345"),))
    data = pixzip.compress(before, model=model)
    info = pixzip.inspect(data)
    assert (info.width, info.height, info.pictures, info.mode, info.depth, info.planes) == (47, 33, 1, "RGBA", 8, 4)
    assert (info.file_bytes, info.coding, info.alpha_bytes) == (len(data), "model", 1)
    assert info.metadata_bytes == (("icc", 5),)
    assert info.bits_per_dim == pytest.approx(8 * len(data) / before.planes.size)


def modules_after(code: str, *arguments: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running the code."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    assert not {"numpy", "numba", "torch", "PIL"} & modules_after("import pixzip; dir(pixzip)")


@pytest.mark.parametrize("bits", [8, 16])
def test_inspect_loads_neither_numba_nor_torch(bits: int, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.pxz"
    pixels = model_picture(24, 24)
    if bits == 16:
        pixels = 256 * pixels.astype(np.uint16) + np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint16)
    data = pixzip.compress(pixels, model=model)
    info = pixzip.inspect(data)
    assert (info.coding, info.depth, info.low_bytes > 0) == ("model", bits, bits == 16)
    path.write_bytes(data)
    code = "import pixzip; pixzip.inspect(open(sys.argv[1], 'rb').read())"
    assert not {"numba", "torch"} & modules_after(code, str(path))


def test_small_round_trip_loads_no_torch(model: Path) -> None:
    code = """
import numpy, pixzip
pixels = numpy.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(numpy.uint8)
data = pixzip.compress(pixels, model=sys.argv[1])
assert (pixzip.to_array(pixzip.decompress(data, model=sys.argv[1])) == pixels).all()
"""
    assert "torch" not in modules_after(code, str(model))


def test_all_names_are_there() -> None:
    assert all(hasattr(pixzip, name) for name in pixzip.__all__)
    with pytest.raises(AttributeError):
        pixzip.no_such_name  # noqa: B018


# ------------------------------------------------------------------------ documentation


@needs_default
@pytest.mark.parametrize("document", ["README.md", "docs/api.md"])
def test_examples_in_python_run(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    results = doctest.testfile(str(ROOT / document), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert results.attempted > 5
    assert results.failed == 0


@needs_default
@pytest.mark.slow
def test_sample_photograph_makes_the_round_trip() -> None:
    script = ROOT / "examples" / "roundtrip.py"
    path = str(Path(pixzip.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    assert "pixels identical" in done.stdout
