"""Salvage: every tile whose chunk is intact comes back exactly in its place, every other is marked and named."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import model_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import pixzip
from pixzip import cli
from pixzip.errors import FormatError, LimitError, SalvageError
from pixzip.pxz.container import read_container, tile_grid, write_container

TILE = 16
MARK = np.array([255, 0, 255])
METADATA = (("text", b"Title\0a title"), ("gama", struct.pack(">I", 45455)))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return model_picture(40, 56)


@pytest.fixture(scope="module")
def data(pixels: np.ndarray, model: Path) -> bytes:
    """Three rows of four tiles."""
    picture = replace(pixzip.from_array(pixels), metadata=METADATA)
    return pixzip.compress(picture, model=model, tile=TILE, threads=1)


def chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """(type, start, end) of every chunk."""
    found, at = [], 9
    while at < len(data):
        end = at + 12 + struct.unpack_from("<I", data, at + 4)[0]
        found.append((data[at : at + 4], at, end))
        at = end
    return found


def tile_spans(data: bytes) -> list[tuple[int, int]]:
    return [(start, end) for kind, start, end in chunks(data) if kind == b"TILE"]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def check(damaged: bytes, pixels: np.ndarray, model: Path, lost: list[int]) -> pixzip.Salvaged:
    """That exactly these tiles are lost and marked, and all other pixels right."""
    found = pixzip.salvage(damaged, model=model)
    expected = pixels.copy()
    grid = tile_grid(pixels.shape[1], pixels.shape[0], TILE)
    for i in lost:
        y, x, h, w = grid[i]
        expected[y : y + h, x : x + w] = MARK
    assert [(a.y, a.x, a.h, a.w) for a in found.lost] == [grid[i] for i in lost]
    assert np.array_equal(pixzip.to_array(found.pictures[0]), expected)
    assert found.whole == (not lost and not found.faults)
    return found


def test_undamaged_file_is_whole(data: bytes, pixels: np.ndarray, model: Path) -> None:
    found = check(data, pixels, model, [])
    assert found.whole
    assert found.pictures[0].metadata == METADATA


def test_tile_with_a_wrong_byte_is_marked_and_named(data: bytes, pixels: np.ndarray, model: Path) -> None:
    spans = tile_spans(data)
    damaged = flipped(flipped(data, spans[5][0] + 9), spans[11][1] - 1)
    found = check(damaged, pixels, model, [5, 11])
    assert found.faults == ()
    assert str(found.lost[0]).startswith(f"rows 16 to 31, columns 16 to 31: chunk TILE at byte {spans[5][0]}: CRC ")
    assert found.pictures[0].metadata == METADATA


@pytest.mark.parametrize("at", [0, 5])  # type, length
def test_tile_with_a_wrong_frame_costs_no_other(data: bytes, pixels: np.ndarray, model: Path, at: int) -> None:
    found = check(flipped(data, tile_spans(data)[3][0] + at), pixels, model, [3])
    assert any("counted from the end" in fault for fault in found.faults)


def test_bytes_put_in_or_taken_out_cost_their_tile_only(data: bytes, pixels: np.ndarray, model: Path) -> None:
    start, _end = tile_spans(data)[6]
    check(data[: start + 20] + data[start + 23 :], pixels, model, [6])
    check(data[: start + 20] + b"TILE" + data[start + 20 :], pixels, model, [6])


def test_chunks_that_are_gone_without_a_trace_are_a_fault(data: bytes, model: Path) -> None:
    start, end = tile_spans(data)[6]
    found = pixzip.salvage(data[:start] + data[end:], model=model)
    assert "11 tiles without a gap, the header says 12: if not the last are missing, places are wrong" in found.faults


def test_tiles_between_two_gaps_of_unknown_size_are_not_guessed(data: bytes, pixels: np.ndarray, model: Path) -> None:
    spans = tile_spans(data)
    damaged = flipped(flipped(data, spans[2][0] + 5), spans[7][0] + 5)
    found = check(damaged, pixels, model, list(range(2, 8)))
    assert "4 intact tiles are left out: their place is not known" in found.faults


def test_truncated_file_gives_the_tiles_before_its_end(data: bytes, pixels: np.ndarray, model: Path) -> None:
    start, end = tile_spans(data)[4]
    for length in (start, start + 5, end - 1):
        found = check(data[:length], pixels, model, list(range(4, 12)))
    assert "truncated" in found.lost[0].reason
    found = check(data + b"more", pixels, model, [])
    assert not found.whole


def test_lost_metadata_is_a_fault_and_costs_no_pixel(data: bytes, pixels: np.ndarray, model: Path) -> None:
    found = check(flipped(data, data.index(b"a title")), pixels, model, [])
    assert found.pictures[0].metadata == METADATA[1:]
    assert len(found.faults) == 1 and "chunk meta" in found.faults[0]


@pytest.mark.parametrize("kind", [b"HEAD", b"meta", b"PTCH", b"ABCD"])
def test_intact_chunks_out_of_place_are_a_fault(data: bytes, pixels: np.ndarray, model: Path, kind: bytes) -> None:
    """Found by bench/fuzz.py: such files were called whole, though decompress refuses them."""
    start, _ = tile_spans(data)[0]
    body = kind + struct.pack("<I", 3) + b"\1ab"
    stray = body + struct.pack("<I", zlib.crc32(b"\1ab", zlib.crc32(kind)))
    at = tile_spans(data)[4][0] if kind == b"meta" else start
    found = check(data[:at] + stray + data[at:], pixels, model, [])
    with pytest.raises(FormatError) as refused:
        pixzip.decompress(data[:at] + stray + data[at:], model=model)
    assert found.faults == (str(refused.value),)


def test_metadata_that_is_none_behind_a_right_crc_is_a_fault(data: bytes, pixels: np.ndarray, model: Path) -> None:
    """Found by bench/fuzz.py: an entry of no bytes ended in an IndexError."""
    start, _ = tile_spans(data)[0]
    for payload, reason in ((b"", "a key of 0 bytes"), (b"\5ab", "a key of 5 bytes"), (b"\2a\nb", "printable ASCII")):
        stray = b"meta" + struct.pack("<I", len(payload)) + payload
        stray += struct.pack("<I", zlib.crc32(payload, zlib.crc32(b"meta")))
        found = check(data[:start] + stray + data[start:], pixels, model, [])
        assert len(found.faults) == 1 and reason in found.faults[0]
        assert found.pictures[0].metadata == METADATA


def test_tile_behind_a_right_crc_that_is_not_an_encoders_is_lost(data: bytes, pixels: np.ndarray, model: Path) -> None:
    container = read_container(data)
    tiles = (*container.tiles[:2], container.tiles[2][:-4] + b"\1\1\1\1", *container.tiles[3:])
    found = check(write_container(replace(container, tiles=tiles)), pixels, model, [2])
    assert "lane 0 ends in state" in found.lost[0].reason


def test_wrong_pixels_behind_right_chunks_are_a_fault(data: bytes, pixels: np.ndarray, model: Path) -> None:
    container = read_container(data)
    header = replace(container.header, pixels_checksum=bytes(16))
    found = check(write_container(replace(container, header=header)), pixels, model, [])
    assert len(found.faults) == 1 and found.faults[0].startswith("pixels checksum 0000")


def test_alpha_is_kept_where_colours_are_lost_and_opaque_where_it_is_lost(model: Path) -> None:
    colours = model_picture(20, 24)
    alpha = np.random.default_rng(0).integers(0, 256, (20, 24, 1), dtype=np.uint8)
    data = pixzip.compress(np.concatenate([colours, alpha], axis=2), model=model, tile=TILE)
    assert pixzip.inspect(data).coding == "model"
    found = pixzip.salvage(flipped(data, tile_spans(data)[1][0] + 9), model=model)
    back = pixzip.to_array(found.pictures[0])
    assert np.array_equal(back[:, :, 3:], alpha)
    assert (back[:16, 16:, :3] == MARK).all() and np.array_equal(back[:, :16, :3], colours[:, :16])
    found = pixzip.salvage(flipped(data, data.index(b"ALPH") + 30), model=model)
    back = pixzip.to_array(found.pictures[0])
    assert np.array_equal(back[:, :, :3], colours) and (back[:, :, 3] == 255).all()
    assert any("opaque everywhere" in fault for fault in found.faults)


def test_stored_pictures_survive_lost_metadata_and_nothing_else() -> None:
    picture = replace(pixzip.from_array(np.arange(12, dtype=np.uint16).reshape(3, 4)), metadata=METADATA)
    data = pixzip.compress(picture)
    found = pixzip.salvage(flipped(data, data.index(b"a title")))
    assert found.pictures[0].same_pixels(picture) and not found.whole
    with pytest.raises(FormatError, match="stored in one piece"):
        pixzip.salvage(flipped(data, len(data) - 9))


def test_pictures_of_one_file_are_salvaged_by_blocks(model: Path) -> None:
    pictures = [model_picture(9, 12, seed) for seed in range(3)]
    data = pixzip.compress_batch(pictures, names=["a.png", "b.png", "c.png"], model=model)
    found = pixzip.salvage(flipped(data, data.index(b"meta") + 9), model=model)
    assert not found.whole
    assert [np.array_equal(pixzip.to_array(p), q) for p, q in zip(found.pictures, pictures, strict=True)] == [True] * 3
    with pytest.raises(FormatError, match="no tile is intact"):
        pixzip.salvage(flipped(data, len(data) - 9), model=model)


def test_refused_where_nothing_can_be_salvaged(data: bytes, model: Path) -> None:
    with pytest.raises(FormatError, match="CRC"):
        pixzip.salvage(flipped(data, 30), model=model)
    with pytest.raises(FormatError, match="no tile is intact"):
        pixzip.salvage(data[: tile_spans(data)[0][1] - 1], model=model)
    with pytest.raises(LimitError):
        pixzip.salvage(data, model=model, max_pixels=99)
    with pytest.raises(pixzip.ModelNotFoundError):
        pixzip.salvage(data)
    header = replace(read_container(data).header, width=60_000, height=1000, tile=1)
    stub = replace(read_container(data), header=replace(header, width=12, height=1, tile=1), tiles=(b"x",) * 12)
    huge = bytearray(write_container(stub))
    struct.pack_into("<II", huge, 17, 60_000, 1000)
    struct.pack_into("<I", huge, 60, zlib.crc32(bytes(huge[17:60]), zlib.crc32(b"HEAD")))
    with pytest.raises(FormatError, match="60000000 tiles, the file has"):
        pixzip.salvage(bytes(huge), model=model, max_work=10**18)
    with pytest.raises(LimitError, match="60000000 tiles take"):
        pixzip.salvage(bytes(huge), model=model)


def test_search_for_chunks_is_bounded(data: bytes, pixels: np.ndarray, model: Path) -> None:
    """Thousands of false chunks, each as long as the rest of the file, would take quadratic time."""
    start, _end = tile_spans(data)[6]
    length = 3_000_000
    false = b"".join(b"TILE" + struct.pack("<I", max(0, length - at - 12)) for at in range(0, length, 8))
    found = check(data[:start] + b"xxxx" + false + data[start:], pixels, model, list(range(6, 12)))
    assert not found.whole


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_is_damaged_no_pixel_is_wrong_without_being_named(draw: st.DataObject) -> None:
    model, data, pixels = _GIVEN["model"], _GIVEN["data"], _GIVEN["pixels"]
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(64, len(damaged) - 1))
        how = draw.draw(st.sampled_from(["flip", "cut", "insert", "zero"]))
        length = draw.draw(st.integers(1, 40))
        if how == "flip":
            damaged[at] ^= 1 << draw.draw(st.integers(0, 7))
        elif how == "cut":
            del damaged[at : at + length]
        elif how == "insert":
            damaged[at:at] = bytes(length)
        else:
            damaged[at : at + length] = bytes(len(damaged[at : at + length]))
    if len(damaged) < 100 or bytes(damaged) == data:
        return
    try:
        found = pixzip.salvage(bytes(damaged), model=model, threads=1)
    except FormatError:
        return
    assert not found.whole
    wrong = (pixzip.to_array(found.pictures[0]) != pixels).any(axis=2)
    for area in found.lost:
        wrong[area.y : area.y + area.h, area.x : area.x + area.w] = False
    said = ("counted from the end", "places are wrong")
    assert not wrong.any() or any(words in fault for fault in found.faults for words in said)


_GIVEN: dict[str, object] = {}


@pytest.fixture(autouse=True)
def given_values(data: bytes, pixels: np.ndarray, model: Path) -> None:
    _GIVEN.update(data=data, pixels=pixels, model=model)


# ------------------------------------------------------------------------ command line


def test_command_writes_what_is_left_lists_what_is_lost_and_exits_with_its_own_code(
    data: bytes, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photo.pxz"
    path.write_bytes(flipped(data, tile_spans(data)[5][0] + 9))
    line = ["decompress", str(path), "--model", str(model)]
    assert cli.main(line) == FormatError.exit_code
    assert not path.with_suffix(".png").exists()
    capsys.readouterr()
    assert cli.main([*line, "--salvage"]) == SalvageError.exit_code == 11
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "lost rows 16 to 31, columns 16 to 31: chunk TILE at byte" in lines[0]
    assert lines[1].endswith("what is left is written; 1 tiles are lost, other faults: 0")
    assert (np.asarray(Image.open(path.with_suffix(".png")))[16:32, 16:32] == MARK).all()

    path.write_bytes(data)
    assert cli.main([*line, "--salvage"]) == 2  # the output exists
    assert cli.main([*line, "--salvage", "--force"]) == 0


@pytest.mark.parametrize("recursive", [False, True])
def test_command_makes_no_folder_where_nothing_is_left(tmp_path: Path, recursive: bool) -> None:
    source, output = tmp_path / "in" / "nothing.pxz", tmp_path / "out"
    source.parent.mkdir()
    source.write_bytes(b"nothing")
    arguments = ["-r", str(source.parent), "-o", str(output)] if recursive else [str(source), "-o", f"{output}{os.sep}"]
    assert cli.main(["decompress", "--salvage", *arguments]) == FormatError.exit_code
    assert not output.exists()


def test_command_salvages_to_standard_output_and_several_pictures(
    data: bytes,
    model: Path,
    tmp_path: Path,
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data[:-1])))
    assert cli.main(["decompress", "-", "--salvage", "--model", str(model)]) == 11
    assert Image.open(io.BytesIO(capsysbinary.readouterr().out)).size == (56, 40)
    both = pixzip.compress_batch(
        [model_picture(9, 12, seed) for seed in range(2)], names=["a.png", "b.png"], model=model
    )
    (tmp_path / "both.pxz").write_bytes(flipped(both, both.index(b"meta") + 9))
    assert cli.main(["decompress", str(tmp_path / "both.pxz"), "--salvage", "--model", str(model)]) == 11
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["both-0001.png", "both-0002.png"]


def test_progress_is_reported(data: bytes, model: Path) -> None:
    seen: list[float] = []
    report: Callable[[float], None] = seen.append
    pixzip.salvage(data[:-1], model=model, threads=1, progress=report)
    assert seen and max(seen) <= 1
