"""pixzip.pillow: .pxz files through Image.open and Image.save, lazily, to the bytes that all other ways write."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import model_picture
from PIL import Image, ImageSequence, UnidentifiedImageError

import pixzip
import pixzip.pillow
from pixzip import cli
from pixzip.formats.image import MODES, Picture
from pixzip.pxz.container import read_container, write_container


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


def opened(data: bytes) -> pixzip.pillow.PxzImageFile:
    image = Image.open(io.BytesIO(data))
    assert isinstance(image, pixzip.pillow.PxzImageFile)
    return image


def saved(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PXZ", **options)
    return out.getvalue()


def picture_of(mode: str, depth: int, **parts: Any) -> Picture:
    random = np.random.default_rng(depth)
    dtype = np.uint16 if depth == 16 else np.uint8
    planes = random.integers(0, 2**depth, (MODES[mode][0], 5, 7)).astype(dtype)
    palette = bytes(random.integers(0, 256, 3 * 2**depth).tolist()) if mode == "P" else b""
    return Picture(planes, mode, depth, palette, **parts)


#: As a PNG has them: gamma, chromaticities, resolution, profile, EXIF, XMP and two kinds of text.
METADATA = (
    ("gama", struct.pack(">I", 45455)),
    ("chrm", struct.pack(">8I", *range(30000, 38000, 1000))),
    ("phys", struct.pack(">IIB", 11811, 5906, 1)),
    ("iccp", b"name\0\0" + zlib.compress(b"a profile")),
    ("exif", b"MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    ("itxt", b"XML:com.adobe.xmp\0" + bytes(4) + b"<xmp/>"),
    ("text", b"Title\0a \xe9 title"),
)


# ------------------------------------------------------------------------ the same bytes


def test_pillow_pipe_command_line_and_api_write_the_same_bytes(
    model: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    dpi = ("phys", struct.pack(">IIB", 11811, 11811, 1))
    exif = ("exif", METADATA[4][1])
    picture = replace(pixzip.from_array(model_picture(24, 32)), metadata=(exif, dpi))
    source = pixzip.write_image(picture, "PNG")
    photo = tmp_path / "photo.png"
    photo.write_bytes(source)
    by_api = pixzip.compress(source, model=model)

    assert cli.main(["compress", str(photo), "-q", "--model", str(model)]) == 0
    assert photo.with_suffix(".pxz").read_bytes() == by_api
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source)))
    capsysbinary.readouterr()
    assert cli.main(["compress", "-", "-q", "--model", str(model)]) == 0
    assert capsysbinary.readouterr().out == by_api

    with Image.open(photo) as image:
        image.save(tmp_path / "by-pillow.pxz", model=model)
    assert (tmp_path / "by-pillow.pxz").read_bytes() == by_api
    with Image.open(tmp_path / "by-pillow.pxz") as image:
        image.model = model
        assert saved(image, model=str(model)) == by_api

    assert cli.main(["decompress", str(photo.with_suffix(".pxz")), "--model", str(model), "-o", "-"]) == 0
    assert capsysbinary.readouterr().out == source == pixzip.write_image(pixzip.decompress(by_api, model=model), "PNG")


@pytest.mark.parametrize(
    ("mode", "depth"), [(mode, depth) for mode, (_, _, depths) in MODES.items() for depth in depths]
)
def test_opened_image_is_the_png_that_decompress_writes(mode: str, depth: int) -> None:
    transparency = {"L": b"\0\1", "RGB": b"\0\1\0\2\0\3", "P": b"\x07\xff"}.get(mode, b"")
    picture = picture_of(mode, depth, transparency=transparency, metadata=METADATA)
    data = pixzip.compress(picture)
    if depth == 16 and mode != "L":
        with pytest.raises(OSError, match=f"no mode for {mode} with 16 bits"):
            opened(data)
        return
    image = opened(data)
    png = Image.open(io.BytesIO(pixzip.write_image(pixzip.decompress(data), "PNG")))
    png.load()
    if mode == "L" and depth in (2, 4):  # Pillow's PNG plugin spreads samples, and forgets the transparent one
        assert (png.info.pop("transparency"), image.info.pop("transparency")) == (1, 255 // (2**depth - 1))
    assert (image.mode, image.size, image.info) == (png.mode, png.size, png.info)
    assert {"gamma", "chromaticity", "dpi", "icc_profile", "exif", "xmp", "Title"} <= image.info.keys()
    assert image.getexif() == png.getexif()
    assert image.tobytes() == png.tobytes()
    assert image.convert("RGBA").tobytes() == png.convert("RGBA").tobytes() or (mode == "L" and depth in (2, 4))
    assert image.metadata == picture.metadata


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pillow_gives_back_what_it_saved(mode: str, tmp_path: Path) -> None:
    pixels = model_picture(9, 11)
    image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 200)
    if mode in ("1", "L", "P", "RGB"):
        image.info["transparency"] = {"1": 255, "L": 9, "P": 3, "RGB": (1, 2, 3)}[mode]
    image.save(tmp_path / "image.pxz", dpi=(300, 300), icc_profile=b"profile")
    with Image.open(tmp_path / "image.pxz") as back:
        back.load()
    assert (back.format, back.mode, back.size) == ("PXZ", mode, image.size)
    assert back.tobytes() == image.tobytes()
    assert back.info["icc_profile"] == b"profile"
    assert back.info["dpi"] == pytest.approx((300, 300), rel=1e-4)
    assert back.info.get("transparency") == image.info.get("transparency")
    assert (tmp_path / "image.pxz").read_bytes() == saved(back) == pixzip.compress(back)


def test_save_takes_packets_instead_of_those_of_the_image() -> None:
    image = Image.new("L", (3, 2))
    image.info |= {"icc_profile": b"old", "xmp": b"old", "dpi": (72, 72)}
    exif = Image.Exif()
    exif[0x010E] = "description"
    back = opened(saved(image, icc_profile=b"new", xmp=None, dpi=None, exif=exif))
    assert back.info["icc_profile"] == b"new"
    assert not {"xmp", "dpi"} & back.info.keys()
    assert back.getexif()[0x010E] == "description"
    assert image.info["icc_profile"] == b"old"


# ------------------------------------------------------------------------ lazily


def test_opening_reads_no_pixels_and_loads_neither_numba_nor_torch(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "photo.pxz"
    path.write_bytes(pixzip.compress(model_picture(24, 32), model=model))
    script = """if True:
        import sys
        import pixzip.pillow
        from PIL import Image
        image = Image.open(sys.argv[1])
        assert (image.size, image.mode, image.info) == ((32, 24), "RGB", {}), image
        assert not {"numba", "torch", "constriction", "pixzip.api"} & sys.modules.keys()
    """
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_opening_ends_before_the_pixels(model: Path) -> None:
    class Watched(io.BytesIO):
        furthest = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.furthest = max(self.furthest, self.tell())
            return data

    data = pixzip.compress(replace(pixzip.from_array(model_picture(24, 32)), metadata=METADATA), model=model)
    file = Watched(data)
    image = pixzip.pillow.PxzImageFile(file)  # Image.open may ask plugins without a magic first, which read on
    assert file.furthest == data.index(b"TILE") + 8
    assert image.size == (32, 24)


def test_image_closes_with_its_file(tmp_path: Path) -> None:
    image = Image.new("L", (3, 2), 7)
    image.save(tmp_path / "image.pxz")
    with Image.open(tmp_path / "image.pxz") as unloaded:
        pass
    with pytest.raises(ValueError, match="closed"):
        unloaded.load()
    with Image.open(tmp_path / "image.pxz") as loaded:
        loaded.load()
    (tmp_path / "image.pxz").unlink()
    assert loaded.getpixel((0, 0)) == 7


# ------------------------------------------------------------------------ damage and refusals


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_damage_raises_what_pillow_raises(model: Path, tmp_path: Path) -> None:
    data = pixzip.compress(replace(pixzip.from_array(model_picture(24, 32)), metadata=METADATA[:1]), model=model)
    for damaged in (data[:40], flipped(data, 30), flipped(data, data.index(b"gama")), b"\x89PXZ" + bytes(80)):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(damaged))
    for damaged, reason in ((data[:-9], "truncated"), (flipped(data, len(data) - 9), "CRC"), (data + b"x", "trailing")):
        image = opened(damaged)
        image.model = model
        with pytest.raises(OSError, match=reason):
            image.load()
        with pytest.raises(SyntaxError, match=reason):
            opened(damaged).verify()
    container = read_container(data)
    wrong = write_container(replace(container, header=replace(container.header, pixels_checksum=bytes(16))))
    image = opened(wrong)
    image.model = model
    with pytest.raises(OSError, match="checksum"):
        image.load()
    with pytest.raises(OSError, match="no model with digest"):
        opened(data).load()
    opened(data).verify()


def test_sizes_are_limited_by_pillows_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape, counted in (((8, 9), 648), ((4, 5), 576)):  # tiny ones count as 64 pixels each
        data = pixzip.compress_batch([np.full(shape, i, dtype=np.uint8) for i in range(9)])
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", counted // 2 - 1)
        with pytest.raises(Image.DecompressionBombError, match=f"9 pictures count as {counted} pixels"):
            opened(data)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", counted // 2)
        assert opened(data).n_frames == 9


def test_failed_save_raises_and_leaves_no_file(tmp_path: Path) -> None:
    target = tmp_path / "image.pxz"
    with pytest.raises(OSError, match="mode CMYK cannot be kept"):
        Image.new("CMYK", (2, 2)).save(target)
    with pytest.raises(OSError, match="no model"):
        Image.new("RGB", (2, 2)).save(target, model="unheard-of")
    with pytest.raises(ValueError, match="tile 0"):
        Image.new("RGB", (2, 2)).save(target, tile=0)
    assert not target.exists()


# ------------------------------------------------------------------------ frames


def test_pictures_of_a_file_are_frames(model: Path) -> None:
    pictures = [model_picture(9, 12, seed) for seed in range(3)]
    image = opened(pixzip.compress_batch(pictures, model=model))
    image.model = model
    assert (image.n_frames, image.is_animated, image.tell()) == (3, True, 0)
    for i in (2, 0, 1):
        image.seek(i)
        assert image.tell() == i
        assert np.array_equal(np.asarray(image), pictures[i])
    with pytest.raises(EOFError):
        image.seek(3)
    assert [np.asarray(frame).tobytes() for frame in ImageSequence.Iterator(image)] == [p.tobytes() for p in pictures]


def test_save_all_writes_the_file_of_a_batch(model: Path) -> None:
    pictures = [model_picture(9, 12, seed) for seed in range(3)]
    images = [Image.fromarray(picture) for picture in pictures]
    names = ["a.png", "b.png", "c.png"]
    by_api = pixzip.compress_batch(pictures, names=names, model=model)
    data = saved(images[0], save_all=True, append_images=images[1:], names=names, model=model)
    assert data == by_api
    again = opened(data)
    again.model = model
    assert saved(again, save_all=True, names=names, model=model) == by_api
    assert saved(images[1], model=model) == pixzip.compress(pictures[1], model=model)
