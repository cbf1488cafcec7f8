"""pixzip.work: every entry point takes as much work as it is allowed, and refuses more before it allocates pixels."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import model_picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_model import tiny_model
from tiny_stack import stack_model

import pixzip
import pixzip.pillow
from pixzip import LimitError, api
from pixzip.commands.compress import compress as compress_command
from pixzip.limits import MAX_PIXELS, MAX_WORK
from pixzip.memory import MIB, Extent
from pixzip.model.file import find_model
from pixzip.pxz.container import HEAD, HEADER_BYTES, MAGIC, _frame, _pack_header, read_container, write_container
from pixzip.work import check_work, work_of

HEIGHT, WIDTH = 24, 40
#: Of the command line, which writes them itself so that it need not load what codes.
DEFAULTS: dict[str, Any] = {str(option.name): option.default for option in compress_command.params}
REFUSED = r"up to .* multiply-accumulates .* over the limit of .* \(max_work\)"
Blocks = list[tuple[int, int, int]]
WHOLE: Blocks = [(1, HEIGHT, WIDTH)]
THREE: Blocks = [(3, HEIGHT, WIDTH)]
TILES: Blocks = [(1, h, w) for h in (16, 8) for w in (16, 16, 8)]


@cache
def coded(model: Path, count: int = 1, tile: int = 1024) -> bytes:
    """A file that the model has coded."""
    pictures = [model_picture(HEIGHT, WIDTH, seed) for seed in range(count)]
    data = pixzip.compress_batch(pictures, model=model, tile=tile, embed_model=True)
    assert pixzip.inspect(data).coding == "model"
    return data


def compressed(model: Path, max_work: int, count: int = 1, tile: int = 1024) -> None:
    pictures = [model_picture(HEIGHT, WIDTH, seed) for seed in range(count)]
    pixzip.compress_batch(pictures, model=model, tile=tile, max_work=max_work)


def by_pillow(model: Path, max_work: int) -> None:
    with Image.open(io.BytesIO(coded(model))) as image:
        image.max_work = max_work  # type: ignore[attr-defined]
        image.load()


def saved_by_pillow(model: Path, max_work: int) -> None:
    Image.fromarray(model_picture(HEIGHT, WIDTH)).save(io.BytesIO(), "PXZ", model=model, max_work=max_work)


#: Entry point → the blocks that it works on, and the call with a model and a limit.
CALLS: dict[str, tuple[Blocks, Callable[[Path, int], Any]]] = {
    "compress": (WHOLE, lambda m, n: pixzip.compress(model_picture(HEIGHT, WIDTH), model=m, max_work=n)),
    "compress, tiles": (TILES, lambda m, n: compressed(m, n, tile=16)),
    "compress_batch": (THREE, lambda m, n: compressed(m, n, count=3)),
    "decompress": (WHOLE, lambda m, n: pixzip.decompress(coded(m), max_work=n)),
    "decompress, tiles": (TILES, lambda m, n: pixzip.decompress(coded(m, tile=16), max_work=n)),
    "decompress_batch": (THREE, lambda m, n: pixzip.decompress_batch(coded(m, 3), max_work=n)),
    "verify": (THREE, lambda m, n: pixzip.verify(coded(m, 3), max_work=n)),
    "salvage": (TILES, lambda m, n: pixzip.salvage(coded(m, tile=16)[:-1], max_work=n)),
    "sample": (THREE, lambda m, n: pixzip.sample(m, 3, (HEIGHT, WIDTH), threads=1, max_work=n)),
    "complete": (WHOLE, lambda m, n: pixzip.complete(m, model_picture(HEIGHT, WIDTH), max_work=n)),
    "Pillow's load": (WHOLE, by_pillow),
    "Pillow's save": (WHOLE, saved_by_pillow),
}


@pytest.mark.parametrize("name", CALLS)
def test_work_up_to_the_limit_is_done_and_more_is_refused(name: str, model: Path) -> None:
    blocks, call = CALLS[name]
    work = work_of(find_model(model).network, blocks)
    call(model, work)
    with pytest.raises(OSError if "Pillow" in name else LimitError, match=REFUSED):
        call(model, work - 1)


def test_without_the_comparison_any_work_would_be_done(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that the test above must find."""
    for check in ("check_work", "check_tiles"):
        monkeypatch.setattr(api, check, lambda *_: None)
    for name in ("compress", "decompress", "salvage"):
        CALLS[name][1](model, 1)


def test_a_stored_picture_is_no_work(model: Path) -> None:
    bilevel = pixzip.compress(model_picture(HEIGHT, WIDTH)[..., 0] > 128, model=model, max_work=1)
    assert pixzip.decompress(bilevel, max_work=1).depth == 1


@given(n=st.integers(1, 5), h=st.integers(1, 3000), w=st.integers(1, 3000))
def test_work_grows_with_pixels_and_is_most_for_narrow_pictures(n: int, h: int, w: int) -> None:
    network = find_model("default").network
    work = work_of(network, [(n, h, w)])
    assert work >= n * h * w * network.macs_per_pixel()
    assert work < work_of(network, [(n + 1, h, w)])
    assert work < work_of(network, [(n, h + 1, w)])
    assert work < work_of(network, [(n, h, w + 1)])
    assert 2 * work == work_of(network, [(n, h, w)] * 2)
    assert work <= work_of(network, [(n, h * w, 1)])
    assert 2 * work > work_of(network, [(n, h, w + w)])


def test_the_largest_picture_that_is_allowed_takes_a_tenth_of_the_work_that_is() -> None:
    blocks = Extent(1, 3, 8000, 8000, 1).blocks(1024)
    network = find_model("default").network
    assert MAX_WORK / 20 < work_of(network, blocks) < MAX_WORK / 5
    check_work(network, blocks, MAX_WORK)


def test_a_file_that_claims_much_is_refused_before_anything_is_allocated(model: Path) -> None:
    """60,000,000 pixels in one column: hours, as no two of them can be coded at a time."""
    c = read_container(coded(model))
    claimed = 60_000_000
    header = replace(c.header, width=1, height=claimed, tile=65535)
    hostile = write_container(replace(c, header=header, tiles=(c.tiles[0],) * -(-claimed // 65535)))
    for read in (pixzip.decompress, pixzip.verify, pixzip.salvage):
        tracemalloc.start()
        with pytest.raises(LimitError, match=REFUSED):
            read(hostile)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB + 8 * len(hostile)
        tracemalloc.stop()


def test_layers_and_learning_count_in_every_step() -> None:
    """A step of 64 layers of the paper takes 60 times one of a layer, however few its pixels and weights."""
    column: Blocks = [(1, 1000, 1)]
    for architecture in ("pixelcnn", "row_lstm", "diagonal_bilstm"):
        small, deep = (work_of(stack_model(architecture, layers=n, h=3, head=3).network, column) for n in (1, 64))
        assert deep > 12 * small
    narrow, wide = (work_of(tiny_model(channels=c, head=h, blocks="c").network, column) for c, h in ((8, 8), (64, 256)))
    assert wide > 1.5 * narrow


def test_weights_count_in_every_tile() -> None:
    wide = stack_model("pixelcnn", layers=1, h=60, head=200).network
    weights = sum(array.size for name, array in wide.arrays.items() if name.endswith(".weight"))
    assert work_of(wide, [(1, 1, 1)] * 1000) > 1000 * (10**9 + 1000 * weights)


def test_more_tiles_than_any_model_may_have_are_refused_before_they_are_listed(model: Path) -> None:
    c = read_container(coded(model))
    header = replace(c.header, width=2000, height=2000, tile=1)
    data = write_container(replace(c, header=replace(c.header, tile=1024)))
    claimed = MAGIC + data[8:9] + _frame(HEAD, _pack_header(header)) + data[HEADER_BYTES:] + bytes(4_000_000)
    tracemalloc.start()
    with pytest.raises(LimitError, match=r"4000000 tiles take at least .* over the limit of .* \(max_work\)"):
        pixzip.salvage(claimed)
    assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    tracemalloc.stop()
    assert pixzip.salvage(data).whole


@pytest.mark.parametrize(("value", "work"), [("1e15", 10**15), ("1", 1), ("2500", 2500), ("3E2", 300)])
def test_a_number_of_the_command_line(value: str, work: int) -> None:
    from pixzip.commands.options import _count

    assert _count(None, None, DEFAULTS["max_work"]) == MAX_WORK  # type: ignore[arg-type]
    assert DEFAULTS["max_pixels"] == MAX_PIXELS
    assert _count(None, None, value) == work  # type: ignore[arg-type]
