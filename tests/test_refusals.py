"""Files and arguments for the refusals that no other table has, and the law that every refusal is reached."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import refusals
from conftest import model_picture
from PIL import Image
from test_image import picture_of
from tiny_model import photo, tables, tiny_model
from tiny_stack import SIZES, stack_parts

import pixzip
from pixzip import codec
from pixzip.coding import stored
from pixzip.errors import FormatError, ImageError, LimitError, ModelError, ModelNotFoundError, PixzipError, UsageError
from pixzip.formats import image, tiff
from pixzip.formats.png import SIGNATURE, read_header
from pixzip.model.file import MAX_BYTES, Model, find_model, load_model, write_model
from pixzip.model.multiscale import multiscale_arrays
from pixzip.pxz import container
from pixzip.pxz.container import read_container, write_container


def stack_model(**sizes: Any) -> Model:
    return load_model(write_model(*stack_parts("pixelcnn", **sizes)), "paper's")


def stored_file(**changes: Any) -> bytes:
    """A stored palette picture, with parts of its container changed; its checksum is made right."""
    c = replace(read_container(pixzip.compress(picture_of("P", 2, 3, 4))), **changes)
    planes = stored.restore(*(c.stored or (0, b"")), (1, 3, 4), "P", 2)
    checksum = container.checksum(planes[None], "P", 2, c.palette, c.transparency)
    return write_container(replace(c, header=replace(c.header, pixels_checksum=checksum)))


def without_palette() -> bytes:
    """A palette picture whose palette has a wrong byte."""
    data = bytearray(stored_file())
    data[data.index(b"PALT") + 8] ^= 1
    return bytes(data)


def gif_with_a_giant_frame() -> bytes:
    """A canvas of one pixel, a frame of 65535 x 65535."""
    return b"GIF89a\1\0\1\0\x80\0\0" + bytes(6) + struct.pack("<BHHHHB", 0x2C, 0, 0, 65535, 65535, 0) + b"\2\2\x44\1\0;"


def palette_image(**parts: Any) -> Image.Image:
    made = Image.new("P", (2, 2))
    for name, value in parts.items():
        setattr(made, name, value)
    return made


def keyed_image(mode: str, key: object) -> Image.Image:
    made = Image.new(mode, (2, 2))
    made.info["transparency"] = key
    return made


def no_entries() -> Image.Image:
    made = Image.new("P", (2, 2))
    made.putpalette(b"")
    return made


def multiscale(**changes: Any) -> bytes:
    """A Multi-Scale model of zeros, with entries of arrays changed: name=value of its first entry."""
    sizes = {**SIZES, "pictures": "gray", "layers": 1, "h": 4, "head": 8, "info": {}}
    shifts = {"layers": [5], "skips": [], "head": 5}
    part = {**sizes, "architecture": "pixelcnn", "shifts": shifts}
    config = {"architecture": "multiscale", "factor": 2, "features": 4, "small": part, "large": part, "info": {}}
    arrays: dict[str, Any] = {}
    for name, (shape, dtype) in multiscale_arrays(config).items():
        table = name.partition(".")[2]
        kind = {"I8": np.int8, "I16": np.int16, "I32": np.int32}[dtype]
        arrays[name] = tables()[table].astype(kind) if table in tables() else np.zeros(shape, kind)
    for name, value in changes.items():
        arrays[name.replace("__", ".")].flat[0] = value
    return write_model(config, arrays)


def encode(pixels: np.ndarray, model: Model | None = None, **how: Any) -> Any:
    return codec.encode(model or tiny_model(0), pixels, threads=1, engine="float32", **how)


def decode_with_learning(model: Model, learning: int) -> Any:
    pixels = photo(0, (1, 3, 3, 4))
    made = encode(pixels, model)
    layout = {**made.layout, "learning": learning}
    return codec.decode(model, made.tiles, pixels.shape, **layout, threads=1, engine="float32")


REFUSED: list[tuple[str, type[PixzipError], Callable[[], object], str]] = [
    ("checksum of an unknown mode", UsageError,
        lambda: container.checksum(np.zeros((1, 2, 2), np.uint8), "CMYK", 8, b"", b""), "mode 'CMYK': must be one"),
    ("pixels of two planes", UsageError, lambda: encode(np.zeros((1, 2, 3, 4), np.uint8)), "(n, 1 or 3, h, w) uint8"),
    ("pixels of 16 bits", UsageError, lambda: encode(np.zeros((1, 3, 3, 4), np.uint16)), "type uint16"),
    ("colour by a model of gray", UsageError, lambda: encode(photo(0, (1, 3, 3, 4)), stack_model(pictures="gray")),
        "pictures of 3 planes of 8 bits: model paper's"),
    ("colour by a model of gray, from a file", FormatError,
        lambda: codec.decode(stack_model(pictures="gray"), [b"\0"], (1, 3, 3, 4), tile=8, lanes=1, learning=0),
        "pictures of 3 planes of 8 bits: model paper's"),
    ("sample beyond the depth", UsageError, lambda: encode(np.full((1, 1, 3, 4), 4, np.uint8), depth=2),
        "sample 4 in a picture of depth 2"),
    ("tile of 0", UsageError, lambda: encode(photo(0, (1, 3, 3, 4)), tile=0), "tile 0: must be 1 to 65535"),
    ("65 lanes", UsageError, lambda: encode(photo(0, (1, 3, 3, 4)), lanes=65), "lanes 65: must be 1 to 64"),
    ("learning of 256", UsageError, lambda: encode(photo(0, (1, 3, 3, 4)), learning=256), "learning 256: must be 0 to"),
    ("learning, by a model that cannot", UsageError,
        lambda: encode(photo(0, (1, 3, 3, 4)), stack_model(), learning=1), "cannot learn from what it codes"),
    ("learning, by a model that cannot, from a file", FormatError, lambda: decode_with_learning(stack_model(), 1),
        "cannot learn from what it codes"),
    ("tiles of another number", FormatError,
        lambda: codec.decode(tiny_model(0), [b"\0"] * 2, (1, 3, 3, 4), tile=8, lanes=1, learning=0),
        "2 tiles, a picture of this size has 1"),
    ("another network on a GPU", UsageError,
        lambda: codec.encode(stack_model(), photo(0, (1, 3, 3, 4)), engine="cuda"), "runs on the CPU only"),
    ("GIF beyond Pillow's own limit", LimitError, lambda: image.read_image(gif_with_a_giant_frame()),
        "GIF file beyond a limit"),
    ("format without 16-bit colour", ImageError,
        lambda: image.write_image(picture_of("RGB", 16, 2, 2), "WEBP"),
        "WEBP cannot hold mode RGB with 16 bits a sample; PNG can"),
    ("header of a PNG with a wrong CRC", ImageError,
        lambda: read_header(SIGNATURE + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 1, 1, 8, 0, 0, 0, 0, 7)),
        "its IHDR is not whole"),
    ("palette picture whose palette is lost, salvaged", FormatError, lambda: pixzip.salvage(without_palette()),
        "what is left makes no picture: palette of 0 bytes"),
    ("no model of a name", ModelNotFoundError, lambda: find_model("no-such-model"), "no model named no-such-model"),
    ("names for other pictures", UsageError,
        lambda: pixzip.compress_batch([picture_of("P", 2, 3, 4)] * 2, names=["one"]), "1 names for 2 images"),
    ("names among the metadata", UsageError,
        lambda: pixzip.compress_batch([picture_of("P", 2, 3, 4, metadata=(("names", b""),))] * 2),
        "metadata with the key names"),
    ("palette image without its palette", ImageError, lambda: image.from_pil(palette_image(palette=None)),
        "image of mode P without a palette"),
    ("palette image of no entries", ImageError, lambda: image.from_pil(no_entries()), "palette of 0 entries"),
    ("transparent colour of two samples in gray", ImageError, lambda: image.from_pil(keyed_image("L", (1, 2))),
        "transparency (1, 2) in an image of mode L"),
    ("transparent colour over 65535", ImageError, lambda: image.from_pil(keyed_image("RGB", (1, 2, 65536))),
        "transparency (1, 2, 65536) in an image of mode RGB"),
    ("more transparency than palette", FormatError,
        lambda: pixzip.decompress(stored_file(transparency=bytes(5), palette=bytes(12))),
        "transparency of 5 bytes in mode P"),
    ("more transparency than palette, salvaged", FormatError,
        lambda: pixzip.salvage(stored_file(transparency=bytes(5), palette=bytes(12))),
        "transparency of 5 bytes in mode P"),
    ("upsampling weight of -128", ModelError, lambda: multiscale(upsample__0__weight=-128),
        "upsample.0.weight holds -128"),
    ("upsampling beyond 2^30", ModelError, lambda: multiscale(upsample__0__bias=2**30),
        "upsample.0.weight: output 0 can reach 1073741824, the limit is 2^30"),
    ("part of a Multi-Scale model", ModelError, lambda: multiscale(small__table__exp=0), "small: table.exp must start"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "make", "reason"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_refuses_with_the_reason(kind: type[PixzipError], make: Callable[[], object], reason: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert type(caught.value) is kind
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_crafted_things_are_good_but_for_what_is_changed() -> None:
    load_model(multiscale(), "zeros")
    pixzip.decompress(stored_file(transparency=bytes(4), palette=bytes(12)))
    assert decode_with_learning(stack_model(), 0).shape == (1, 3, 3, 4)
    assert image.from_pil(keyed_image("RGB", (1, 2, 65535))).transparency == struct.pack(">3H", 1, 2, 65535)


def test_limits_that_no_test_can_afford_to_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 4 GiB, made small; a model file of 64 MiB and a byte, which is a hole."""
    picture = picture_of("RGB", 8, 3, 4)
    with monkeypatch.context() as small:
        small.setattr(tiff, "_MOST_BYTES", 10)
        with pytest.raises(ImageError, match=r"TIFF cannot hold \d+ bytes"):
            pixzip.write_image(picture, "TIFF")
    with monkeypatch.context() as small:
        small.setattr(container, "_MAX_PAYLOAD_BYTES", 42)
        with pytest.raises(UsageError, match="chunk HEAD: 43 bytes, over 42"):
            pixzip.compress(picture)
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ModelError, match=f"file of {MAX_BYTES + 1} bytes, allowed {MAX_BYTES}"):
        find_model(path)


def test_files_that_a_small_model_codes(tmp_path: Path, model: Path) -> None:
    gray = tmp_path / "gray.safetensors"
    gray.write_bytes(stack_model(pictures="gray").data)
    with pytest.raises(UsageError, match="model gray codes pictures of mode L or LA with 8 or 16 bits a sample"):
        pixzip.compress(picture_of("RGB", 8, 3, 4), model=gray)
    c = read_container(pixzip.compress(model_picture(24, 32), model=model, threads=1))
    broken = write_container(replace(c, tiles=(b"\x80" * len(c.tiles[0]),)))
    for give in (pixzip.decompress, pixzip.salvage):
        with pytest.raises(FormatError, match=r"lane table|no tile can be decoded"):
            give(broken, model=model, threads=1)


def test_what_pillow_raises_on_writing_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("encoder error -2\nwhen writing")

    monkeypatch.setattr(Image.Image, "save", fails)
    with pytest.raises(ImageError, match="BMP cannot be written: encoder error -2 when writing"):
        pixzip.write_image(picture_of("RGB", 8, 3, 4), "BMP")


def test_devices_are_refused_where_they_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = tiny_model(0), photo(0, (1, 3, 3, 4))
    made = encode(pixels, model)
    monkeypatch.setattr("pixzip.keywords.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="engine cuda needs PyTorch"):
        codec.encode(model, pixels, engine="cuda")
    monkeypatch.setattr("pixzip.keywords.find_spec", lambda name: name)
    with pytest.raises(UsageError, match="damaged files are decoded on the CPU only"):
        codec.decode(model, made.tiles, pixels.shape, **made.layout, engine="cuda", faults={})


# ------------------------------------------------------------------------ the law


def test_planted_refusals_that_no_test_reaches_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = ["def f(x):", "    if x:", "        raise FormatError(", "            'a')", "    _require(x, 'b')"]
    (tmp_path / "planted.py").write_text("\n".join([*lines, "    raise ValueError"]))
    monkeypatch.setattr(refusals, "PACKAGE", tmp_path)
    assert [line.partition(": ")[0] for line in refusals.unreached("planted", set())] == [
        "planted.py:3",
        "planted.py:5",
    ]
    assert refusals.unreached("planted", {("planted", 4), ("planted", 5)}) == []
    assert refusals.unreached("planted", {("planted", 3), ("other", 5)}) == ["planted.py:5: _require(x, 'b')"]


def test_errors_are_noted_where_they_are_made() -> None:
    before = set(refusals.reached)
    with pytest.raises(UsageError):
        container.Header(0, 1, 1, "L", 8, 1, bytes(8), 1, 1, 0, bytes(16))
    assert {name for name, _ in refusals.reached - before} <= {"pxz/container"}
    assert any(name == "pxz/container" for name, _ in refusals.reached)


def test_a_run_of_the_suite_fails_where_a_refusal_is_not_reached(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "planted.py").write_text("def f(x):\n    _require(x, 'a')\n    _require(not x, 'b')\n")
    (tmp_path / "conftest.py").write_text(
        "import sys\nfrom pathlib import Path\n\n"
        f"sys.path[:0] = {[str(refusals.PACKAGE.parent), str(Path(__file__).parent)]}\nimport refusals\n"
        "refusals.PACKAGE, refusals.READERS = Path(__file__).parent, ['planted']\n"
        "def pytest_configure(config):\n    config.pluginmanager.register(refusals.Law(refusals.PACKAGE))\n"
    )
    for k, line in enumerate((2, 3)):
        test = f"import refusals\n\ndef test_{k}():\n    refusals.reached.add(('planted', {line}))\n"
        (tmp_path / f"test_{k}.py").write_text(test)
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]

    def run(*chosen: str) -> tuple[int, str]:
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *chosen],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return ran.returncode, ran.stdout

    assert run("-n", "2")[0] == 0  # each worker reaches one
    (tmp_path / "test_1.py").write_text("def test_1():\n    pass\n")
    code, said = run("-n", "2")
    assert code == 1 and "planted.py:3: _require(not x, 'b')" in said and "2 passed" in said
    assert (run()[0], run("test_0.py")[0]) == (1, 0)  # in one process; only a part


def test_every_reader_has_refusals() -> None:
    assert all(refusals.sites((refusals.PACKAGE / f"{module}.py").read_text("utf-8")) for module in refusals.READERS)
