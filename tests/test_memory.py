"""pixzip.memory: what a limit allows fits into it, what is measured stays below, and what does not fit is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import model_picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_model import parts, tiny_bytes
from tiny_stack import stack_model

import pixzip
from pixzip import LimitError, codec, threads
from pixzip.api import need_to_compress, need_to_decompress
from pixzip.coding.schedule import Tile
from pixzip.formats.image import claimed_shape, read_image
from pixzip.memory import _SCRATCH_BYTES, MIB, PROCESS_BYTES, Need, decoding_tile, encoding_tile
from pixzip.model.file import TrunkNetwork, find_model, load_model, shipped_models, write_model
from pixzip.model.stack import StackNetwork
from pixzip.pxz.container import read_container, write_container
from pixzip.runtime.maps import StepMaps
from pixzip.runtime.stack.layers import map_specs
from pixzip.runtime.trunk import fused
from pixzip.runtime.trunk.fused import make_plan

EXAMPLES = Path(__file__).parents[1] / "examples"


@given(
    fixed=st.integers(0, 10**9),
    a_tile=st.integers(1, 10**8),
    tiles=st.integers(1, 500),
    otherwise=st.integers(0, 10**9),
)
@pytest.mark.parametrize("part", [0, 1, 7, 100, 10**4])
def test_tiles_within_a_limit_are_as_many_as_fit(
    part: int, fixed: int, a_tile: int, tiles: int, otherwise: int
) -> None:
    need = Need("work", fixed, a_tile, tiles, otherwise)
    limit = need.bytes() + part * a_tile // 3
    count = need.tiles_within(limit)
    assert count is not None
    assert need.bytes(count) <= limit
    assert count >= tiles or need.bytes(count + 1) > limit
    assert need.tiles_within(None) is None
    with pytest.raises(LimitError, match="work: needs up to"):
        need.tiles_within(need.bytes() - 1)


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Most tiles that were encoded, and decoded, at the same time."""
    most = {"_encode_tile": 0, "decode_block": 0}
    now, lock = dict(most), threading.Lock()

    def counted(name: str) -> Any:
        work = getattr(codec, name)

        def run(*arguments: Any) -> Any:
            with lock:
                now[name] += 1
                most[name] = max(most[name], now[name])
            time.sleep(0.005)  # so that others begin
            try:
                return work(*arguments)
            finally:
                with lock:
                    now[name] -= 1

        return run

    for name in most:
        monkeypatch.setattr(codec, name, counted(name))
    return most


def test_limit_bounds_the_tiles_at_work_and_changes_no_byte(model: Path, at_work: dict[str, int]) -> None:
    pixels = model_picture(96, 96)
    how: dict[str, Any] = {"model": model, "threads": 4}
    data = pixzip.compress(pixels, tile=24, **how)
    pixzip.decompress(data, **how)
    assert at_work == {"_encode_tile": 4, "decode_block": 4}
    # Of so small a picture tiles are the least part: with the true bound all fit, or none.
    most = Need("work", PROCESS_BYTES, 10 * MIB, 16, 0)
    for count in (1, 2, 3):
        at_work |= dict.fromkeys(at_work, 0)
        limit = most.bytes(count)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pixzip.api.compressing", lambda *sizes: most)
            patch.setattr("pixzip.api.decompressing", lambda *sizes: most)
            assert pixzip.compress(pixels, tile=24, max_memory=limit, **how) == data
            assert np.array_equal(pixzip.to_array(pixzip.decompress(data, max_memory=limit, **how)), pixels)
        assert at_work == dict.fromkeys(at_work, count)


def peak_of(work: Any) -> int:
    """Most bytes that Python and numpy hold during the work beyond what they held before; the second time."""
    work()
    return peak_once(work)


def peak_once(work: Any) -> int:
    """The same, the first time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(1, 400, 500), (1, 37, 2000), (300, 20, 24), (1, 2000, 16)], ids=str)
@pytest.mark.parametrize("architecture", ["trunk", "pixelcnn", "row_lstm", "diagonal_bilstm"])
def test_arrays_of_a_tile_are_below_its_bound(architecture: str, shape: tuple[int, int, int]) -> None:
    if architecture == "trunk":
        sizes = {"channels": 32, "hidden": 32, "lstm": 32, "head": 32}
        model = load_model(tiny_bytes(1, "clclcl", **sizes), "trunk")
    else:
        shape = (shape[0], shape[1] // 8 + 1, shape[2] // 8 + 1)  # they take long
        model = stack_model(architecture)
    n, h, w = shape
    pixels = np.broadcast_to(np.arange(w, dtype=np.uint8), (n, 3, h, w)).copy()
    tile = Tile(0, n, 0, 0, h, w)
    how: dict[str, Any] = {"threads": 2, "tile": 2000}
    coded = codec.encode(model, pixels, **how)
    encoding = peak_of(lambda: codec.encode(model, pixels, **how))
    decoding = peak_of(lambda: codec.decode(model, coded.tiles, pixels.shape, **coded.layout | how))
    assert encoding <= encoding_tile(model.network, tile)
    assert decoding <= decoding_tile(model.network, tile) + pixels.size
    # Beside what is the same for all sizes the bound is no more than some times what is needed.
    same = 2 * 12 * MIB
    assert encoding_tile(model.network, tile) <= 8 * encoding + same
    assert decoding_tile(model.network, tile) <= 8 * decoding + same


@pytest.mark.parametrize("architecture", ["pixelcnn", "row_lstm"])
@pytest.mark.parametrize("shape", [(64, 100, 1), (1, 6000, 2)], ids=str)
def test_narrow_pictures_have_maps_of_all_their_rows(architecture: str, shape: tuple[int, int, int]) -> None:
    n, h, w = shape
    network = stack_model(architecture, layers=8, h=32, head=8, pictures="gray").network
    assert isinstance(network, StackNetwork)
    maps = peak_of(lambda: StepMaps(map_specs(network), n, h, w, network.slope_at(w)))
    bound = decoding_tile(network, Tile(0, n, 0, 0, h, w)) - _SCRATCH_BYTES
    assert maps + 9 * n * h * w <= bound <= 4 * maps


def test_weights_count_in_every_tile_that_is_at_work() -> None:
    sizes = {"channels": 512, "hidden": 512, "lstm": 8, "head": 8}
    config, arrays = parts(1, "cccc", **sizes)
    for name in arrays:
        if name.endswith(".bias"):
            arrays[name] = np.zeros_like(arrays[name])
        if name.endswith(".weight"):
            arrays[name] = np.sign(arrays[name])
    network = load_model(write_model(config, arrays), "wide").network
    assert isinstance(network, TrunkNetwork)
    tile = Tile(0, 1, 0, 0, 8, 8)
    for bound in (encoding_tile(network, tile), decoding_tile(network, tile)):
        assert peak_of(lambda: make_plan(network, "float32")) <= bound
        fused._PLANS.pop(network)
        assert peak_once(lambda: make_plan(network, "float32")) <= bound


def test_tiles_that_wait_for_a_thread_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = stack_model("pixelcnn")

    def peak() -> int:
        return peak_of(lambda: codec._run(model, lambda i, threads: None, 20_000, 2, None))

    assert peak() < 4 * MIB
    monkeypatch.setattr(threads, "_HANDED_OUT", 10**9)
    assert peak() > 16 * MIB


PEAKS = """
import json, sys
import numpy, pixzip
from pixzip.formats.image import from_array, write_image

def peak(reset=False):
    if reset:
        open("/proc/self/clear_refs", "w").write("5")
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return 1024 * int(lines["VmHWM"].split()[0])

threads, tile = int(sys.argv[1]), int(sys.argv[2])
photo = pixzip.to_array(pixzip.read_image(open(sys.argv[5], "rb").read()))
photo = numpy.concatenate([photo, photo[::-1]])
for pixels in (photo[:64, :64], numpy.concatenate([photo, photo[:, ::-1]], axis=1)):
    source = write_image(from_array(pixels), "PNG")
    peak(reset=True)
    data = pixzip.compress(source, threads=threads, tile=tile)
    compressing = peak()
    peak(reset=True)
    image = write_image(pixzip.decompress(data, threads=threads), "PNG")
    decompressing = peak()
    assert image == source
assert pixzip.inspect(data).coding == "model"
open(sys.argv[3], "wb").write(source), open(sys.argv[4], "wb").write(data)
print(json.dumps([compressing, decompressing]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc")
@pytest.mark.skipif(not (EXAMPLES / "photo.png").exists(), reason="no sample photograph")
@pytest.mark.skipif("default" not in [info.name for info in shipped_models()], reason="no default model is shipped")
@pytest.mark.parametrize(("threads", "tile"), [(1, 1024), (4, 192)])
def test_measured_memory_is_below_the_bound_and_not_far(model: Path, tmp_path: Path, threads: int, tile: int) -> None:
    source, coded = tmp_path / "a.png", tmp_path / "a.pxz"
    line = [sys.executable, "-c", PEAKS, *map(str, (threads, tile, source, coded, EXAMPLES / "photo.png"))]
    for _ in range(2):  # the first may compile, which takes memory of its own
        done = subprocess.run(line, check=True, capture_output=True, text=True)
    needs = (
        need_to_compress([source.read_bytes()], find_model("default"), tile=tile, max_pixels=10**8),
        need_to_decompress(coded.read_bytes()),
    )
    for measured, need in zip(json.loads(done.stdout), needs, strict=True):
        assert measured <= need.bytes(threads) <= 2 * measured


# ------------------------------------------------------------------------ before anything is allocated


def headed_png(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("source", "limit"),
    [
        (headed_png(8000, 8000), 2 << 30),
        (headed_png(4000, 4000, 16), 600 << 20),
        (b"P6 8000 8000 255\n", 2 << 30),
        (b"P6 4000 4000 65535\n", 600 << 20),
        (b"GIF89a" + struct.pack("<HHBBB", 8000, 7000, 0, 0, 0) + b";", 1 << 30),
    ],
    ids=["PNG", "16-bit PNG", "PNM", "16-bit PNM", "GIF"],
)
def test_size_in_a_header_is_enough_to_refuse(model: Path, source: bytes, limit: int) -> None:
    with pytest.raises(pixzip.ImageError):  # there are no pixels: what reads them finds that out
        pixzip.compress(source, model=model, max_memory=1 << 50)
    if not source.startswith(b"GIF"):
        with pytest.raises(LimitError, match="000 pixels: needs up to"):
            pixzip.compress(source, model=model, max_memory=limit)


def test_size_in_the_header_of_a_coded_file_is_enough_to_refuse(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    c = read_container(pixzip.compress(model_picture(8, 8), model=model))
    header = dataclasses.replace(c.header, width=7000, height=7000, tile=8000)
    data = write_container(dataclasses.replace(c, header=header))
    begun: list[object] = []

    def decode(*arguments: object, **how: object) -> None:
        begun.append(how["at_once"])
        raise pixzip.FormatError("begun")

    monkeypatch.setattr(codec, "decode", decode)
    with pytest.raises(LimitError, match="7000 x 7000 pixels: needs up to"):
        pixzip.decompress(data, model=model, max_memory=600 << 20)
    assert not begun
    with pytest.raises(pixzip.FormatError, match="begun"):
        pixzip.decompress(data, model=model, max_memory=4 << 30)


@pytest.mark.parametrize("pictures", [1, 40])
def test_arrays_and_batches_are_limited_too(model: Path, pictures: int) -> None:
    images = [model_picture(40, 40)] * pictures
    need = need_to_compress(images, find_model(model), tile=1024, max_pixels=10**8)
    pixzip.compress_batch(images, model=model, max_memory=need.bytes())
    with pytest.raises(LimitError, match="40 x 40"):
        pixzip.compress_batch(images, model=model, max_memory=need.bytes() - 1)
    assert need.bytes() - PROCESS_BYTES > pictures * 40 * 40 * 3


@pytest.mark.parametrize("kind", ["PNG", "PPM", "TIFF", "BMP", "GIF", "TGA", "WEBP"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_claimed_shape_is_the_one_that_is_read(kind: str, mode: str) -> None:
    image = Image.fromarray(model_picture(9, 14)).convert(mode)
    out = io.BytesIO()
    try:
        image.save(out, kind, **({"lossless": True} if kind == "WEBP" else {}))
        picture = read_image(out.getvalue())
    except (OSError, pixzip.ImageError):
        pytest.skip(f"no {kind} has mode {mode}")
    planes, height, width, depth = claimed_shape(out.getvalue())
    assert (height, width) == picture.planes.shape[1:]
    assert planes >= len(picture.planes)
    assert (depth > 8) == (picture.depth > 8)
