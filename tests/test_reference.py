"""The reference decoder, written from the documents alone, gives the pixels that went in; pixzip does not help it."""

from __future__ import annotations

import ast
import hashlib
import sys
import zlib

import numpy as np
import pytest
import reference_decoder
from numpy.typing import NDArray
from reference_decoder import Refused, decode
from tiny_model import photo, tiny_model
from tiny_stack import ARCHITECTURES, stack_model

from pixzip import codec, shifts
from pixzip.errors import FormatError
from pixzip.keywords import DEFAULT_LEARNING
from pixzip.model.file import Model, load_model, shipped_models
from pixzip.pxz.container import CONSTANT, Coding, Container, Header, checksum, write_container

PLANES = {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3, "P": 1}  # planes in the TILE chunks


def pxz_file(model: Model, pixels: NDArray[np.uint8], mode: str, depth: int = 8, **options: int) -> bytes:
    """A .pxz file of the pixels (n, c, h, w); alpha, where the mode has one, is 77 everywhere."""
    n, c, height, width = pixels.shape
    encoded = codec.encode(model, pixels, engine="float32", depth=depth, **options)
    alpha = np.full((n, 1, height, width), 77, dtype=np.uint8)
    planes = np.concatenate([pixels, alpha], axis=1) if mode in ("LA", "RGBA") else pixels
    palette, transparency = (bytes(range(9)), b"\x80") if mode == "P" else (b"", b"")
    header = Header(
        width=width,
        height=height,
        pictures=n,
        mode=mode,
        depth=depth,
        coding=Coding.MODEL,
        model_digest=model.digest[:8],
        **encoded.layout,
        pixels_checksum=checksum(planes, mode, depth, palette, transparency),
    )
    return write_container(
        Container(
            header=header,
            palette=palette,
            transparency=transparency,
            metadata=(("text", b"passed over"),),
            alpha=(CONSTANT, b"\x4d") if planes.shape[1] > c else None,
            stored=None,
            tiles=encoded.tiles,
        )
    )


def assert_all_agree(model: Model, pixels: NDArray[np.uint8], mode: str, depth: int = 8, **options: int) -> None:
    """Reference decoder == codec.decode == the pixels that went in."""
    _, c, height, width = pixels.shape
    data = pxz_file(model, pixels, mode, depth, **options)
    reference_width, reference_height, pictures = decode(data, model.data)
    assert (reference_width, reference_height) == (width, height)
    by_reference = np.array(pictures)
    assert np.array_equal(by_reference[:, :c], pixels)
    assert by_reference.shape[1] == c + (mode in ("LA", "RGBA"))
    assert (by_reference[:, c:] == 77).all()

    encoded = codec.encode(model, pixels, engine="float32", depth=depth, **options)
    how = {"depth": depth} | encoded.layout
    again = codec.decode(model, encoded.tiles, pixels.shape, engine="float32", **how)
    assert np.array_equal(again, by_reference[:, :c])


def test_reference_imports_nothing_but_the_standard_library() -> None:
    with open(reference_decoder.__file__, encoding="utf-8") as source:
        nodes = list(ast.walk(ast.parse(source.read())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (13, 9)])
@pytest.mark.parametrize("extreme", [False, True])
def test_reference_decodes_every_size(size: tuple[int, int], extreme: bool) -> None:
    assert_all_agree(tiny_model(1, "cl", extreme), photo(2, (1, 3, *size)), "RGB", lanes=3)


@pytest.mark.parametrize("blocks", ["c", "l", "lc", "clcl"])
@pytest.mark.parametrize("extreme", [False, True])
def test_reference_decodes_every_order_of_blocks(blocks: str, extreme: bool) -> None:
    assert_all_agree(tiny_model(2, blocks, extreme), photo(3, (1, 3, 6, 7)), "RGB", lanes=2)


def test_reference_decodes_models_with_unequal_widths() -> None:
    model = tiny_model(4, "lc", channels=24, hidden=8, lstm=16, head=32)
    assert_all_agree(model, photo(4, (1, 3, 5, 6)), "RGB", lanes=1)


@pytest.mark.parametrize("extreme", [False, True])
def test_reference_decodes_noise(extreme: bool) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (1, 3, 7, 6), dtype=np.uint8)
    assert_all_agree(tiny_model(5, "lc", extreme), pixels, "RGB", lanes=7)


def test_reference_decodes_black_and_white() -> None:
    pixels = np.random.default_rng(6).choice(np.array([0, 255], dtype=np.uint8), (1, 3, 6, 6))
    assert_all_agree(tiny_model(6), pixels, "RGB", lanes=64)


@pytest.mark.parametrize("size", [(13, 9), (9, 17), (8, 8)])
def test_reference_decodes_tiles(size: tuple[int, int]) -> None:
    assert_all_agree(tiny_model(7), photo(7, (1, 3, *size)), "RGB", tile=8, lanes=2)


@pytest.mark.parametrize("lanes", [1, 2, 3, 5])
def test_reference_decodes_three_pictures_in_a_block(lanes: int) -> None:
    assert_all_agree(tiny_model(8, "lc"), photo(8, (3, 3, 4, 5)), "RGB", lanes=lanes)


def test_reference_decodes_two_blocks_of_pictures() -> None:
    model = tiny_model(8, "c", channels=8, hidden=8, lstm=8, head=8)
    assert_all_agree(model, photo(8, (1025, 1, 1, 1)), "L", lanes=5)


@pytest.mark.parametrize(("mode", "depth"), [("L", 8), ("LA", 8), ("RGBA", 8), ("P", 8), ("L", 1), ("L", 4), ("P", 2)])
def test_reference_decodes_every_mode(mode: str, depth: int) -> None:
    pixels = photo(9, (1, PLANES[mode], 6, 5)) >> 8 - depth
    assert_all_agree(tiny_model(9, "cl"), pixels, mode, depth, lanes=2)


def test_reference_decodes_gray_tiles_and_gray_pictures() -> None:
    assert_all_agree(tiny_model(10, "lc"), photo(10, (1, 1, 9, 10)), "L", tile=6, lanes=2)
    assert_all_agree(tiny_model(10, "lc"), photo(11, (3, 1, 4, 3)), "L", lanes=2)


@pytest.mark.parametrize("info", shipped_models(), ids=lambda info: str(info.name))
def test_reference_decodes_a_file_of_every_shipped_model(info: object) -> None:
    model = load_model(info.path.read_bytes(), info.name)  # type: ignore[attr-defined]
    assert_all_agree(model, photo(12, (1, 3, 6, 8)), "RGB", lanes=2)


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("kind", ["rgb", "rgb residual", "gray", "binary"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reference_decodes_the_papers_networks(architecture: str, kind: str, extreme: bool) -> None:
    pictures, _, frame = kind.partition(" ")
    sizes = {"pictures": pictures, "frame": frame or "raw", "skip": extreme, "layers": 1 + extreme}
    model = stack_model(architecture, 20, extreme, **sizes)
    depth = 1 if pictures == "binary" else 8
    pixels = photo(20, (1, model.network.planes, 6, 5)) >> 8 - depth
    assert_all_agree(model, pixels, "RGB" if pictures == "rgb" else "L", depth, lanes=2, tile=4)
    assert_all_agree(model, np.repeat(pixels[:, :, :3], 3, axis=0), "RGB" if pictures == "rgb" else "L", depth, lanes=2)
    if pictures == "rgb":
        assert_all_agree(model, pixels[:, :1], "L", lanes=1)


def test_reference_refuses_a_model_for_other_pictures() -> None:
    model = stack_model("pixelcnn", 21, pictures="gray")
    data = pxz_file(model, photo(21, (1, 1, 3, 3)), "L", lanes=1)
    at = data.index(b"HEAD") + 8  # type and length
    head = bytearray(data[at : at + 43])
    head[12] = 3  # mode RGB
    crc = zlib.crc32(b"HEAD" + head).to_bytes(4, "little")
    with pytest.raises(Refused, match="other pictures"):
        decode(data[:at] + head + crc + data[at + 47 :], model.data)


# The reference decoder sees faults that encoder and decoder share, and damage.


def addend_without_half(bias: shifts.Ints, shift: shifts.Ints) -> shifts.Ints:
    """A wrong shifts.addend: all products are rounded down."""
    return bias


def test_reference_catches_a_rounding_fault_that_encoder_and_decoder_share(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = tiny_model(13), photo(13, (1, 3, 6, 7))
    monkeypatch.setattr(shifts, "addend", addend_without_half)
    encoded = codec.encode(model, pixels, lanes=1, engine="float32")
    shape = pixels.shape
    again = codec.decode(model, encoded.tiles, shape, **encoded.layout, engine="float32")
    assert np.array_equal(again, pixels)
    with pytest.raises(Refused):
        decode(pxz_file(model, pixels, "RGB", lanes=1), model.data)


def test_reference_refuses_every_flipped_byte() -> None:
    model = tiny_model(14, "c", channels=8, hidden=8, lstm=8, head=8)
    data = pxz_file(model, photo(14, (1, 1, 2, 2)), "L", lanes=2)
    for i in range(len(data)):
        with pytest.raises(Refused):
            decode(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :], model.data)
        with pytest.raises(Refused):
            decode(data[:i], model.data)
    with pytest.raises(Refused):
        decode(data + b"\0", model.data)


def test_reference_refuses_another_model() -> None:
    data = pxz_file(tiny_model(15), photo(15, (1, 3, 2, 2)), "RGB", lanes=1)
    with pytest.raises(Refused, match="another model"):
        decode(data, tiny_model(16).data)


def test_reference_and_codec_refuse_the_same_payloads() -> None:
    """One word changed, dropped or added: both refuse the payload, or give the same pixels."""
    model, pixels = tiny_model(17, "c"), photo(17, (1, 1, 3, 4))
    good = codec.encode(model, pixels, lanes=1, engine="float32").tiles[0]
    random = np.random.default_rng(17)
    cases = [good[:i] + random.bytes(1) + good[i + 1 :] for i in range(1, len(good))]
    cases += [bytes([(len(words)) // 4]) + words for words in (good[1:-4], good[5:], good[1:] + b"\1\0\0\0", b"")]
    for payload in cases:
        assert decoded_by_codec(model, payload, pixels.shape) == decoded_by_reference(model, payload, pixels.shape)


def decoded_by_codec(model: Model, payload: bytes, shape: tuple[int, int, int, int]) -> bytes | None:
    """Samples, or None where the payload is refused."""
    layout = {"tile": 64, "lanes": 1, "learning": DEFAULT_LEARNING}
    try:
        return codec.decode(model, [payload], shape, engine="float32", **layout).tobytes()
    except FormatError:
        return None


def decoded_by_reference(model: Model, payload: bytes, shape: tuple[int, ...]) -> bytes | None:
    """Samples, or None where the payload is refused; the checksum is made to fit what codec.decode gives."""
    n, c, height, width = shape
    samples = decoded_by_codec(model, payload, shape) or bytes(height * width)
    planes = np.frombuffer(samples, dtype=np.uint8).reshape(c, height, width)
    digest = hashlib.sha256(model.data).digest()[:8]
    pixels_checksum = checksum(planes, "L", 8, b"", b"")
    header = Header(width, height, n, "L", 8, Coding.MODEL, digest, 64, 1, DEFAULT_LEARNING, pixels_checksum)
    try:
        _, _, pictures = decode(write_container(Container(header, b"", b"", (), None, None, (payload,))), model.data)
    except Refused as error:
        assert "checksum" not in str(error)
        return None
    return bytes(sample for planes in pictures for plane in planes for row in plane for sample in row)
