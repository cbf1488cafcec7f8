"""pixzip.cli: what each command writes, and for every kind of bad input one line, one exit code and nothing left."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import model_picture
from PIL import Image

import pixzip
import pixzip.api
from pixzip import cli
from pixzip.commands import progress, written
from pixzip.commands.arguments import say
from pixzip.files import staged
from pixzip.pxz.container import HEADER_BYTES, read_container, write_container

CLI = [sys.executable, "-m", "pixzip"]


@dataclass
class Result:
    code: int
    out: bytes
    err: str


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Result]:
    """The command line within this process."""

    def run_line(*arguments: str | Path) -> Result:
        code = cli.main([str(argument) for argument in arguments])
        captured = capsysbinary.readouterr()
        return Result(code, captured.out, captured.err.decode())

    return run_line


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A PNG file that the small model wins on, alone in its folder."""
    path = tmp_path / "photo.png"
    path.write_bytes(png_bytes(model_picture(24, 32)))
    return path


@pytest.fixture
def coded(photo: Path, model: Path) -> Path:
    """A .pxz file coded by the small model, alone in its folder."""
    path = photo.with_suffix(".pxz")
    path.write_bytes(pixzip.compress(photo.read_bytes(), model=model))
    photo.unlink()
    return path


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Bytes for standard input."""
    return lambda data: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))


def png_bytes(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pixels_in(path: Path) -> np.ndarray:
    """By Pillow, whatever pixzip thinks of the file."""
    with Image.open(path) as image:
        return np.asarray(image)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def said(result: Result) -> list[str]:
    """Lines on stderr, but for the warning that only the small model decodes what is written."""
    return [line for line in result.err.splitlines() if not line.startswith("pixzip: warning: only the model ")]


def assert_fails(result: Result, code: int, *fragments: str) -> None:
    """The exit code, and one line on stderr that says what and where."""
    assert result.code == code, result.err
    assert result.err.startswith("pixzip: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    for fragment in fragments:
        assert fragment in result.err


# ------------------------------------------------------------------------ what goes well


def test_compress_writes_beside_the_source_and_decompress_gives_it_back(
    run: Callable[..., Result], photo: Path, model: Path
) -> None:
    source, pixels = photo.read_bytes(), pixels_in(photo)
    done = run("compress", photo, "--model", model)
    assert (done.code, done.out) == (0, b"")
    assert len(said(done)) == 1
    assert photo.read_bytes() == source
    photo.unlink()
    assert run("decompress", photo.with_suffix(".pxz"), "--model", model) == Result(0, b"", "")
    assert np.array_equal(pixels_in(photo), pixels)
    assert sorted(contents(photo.parent)) == ["photo.png", "photo.pxz"]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".TIFF", ".bmp", ".ppm"])
def test_suffix_of_the_output_names_its_format(
    run: Callable[..., Result], coded: Path, model: Path, suffix: str
) -> None:
    target = coded.with_suffix(suffix)
    assert run("decompress", coded, "-o", target, "--model", model).code == 0
    assert np.array_equal(pixels_in(target), model_picture(24, 32))


def test_several_files_go_into_a_folder(run: Callable[..., Result], photo: Path, model: Path, tmp_path: Path) -> None:
    other = photo.with_name("other.png")
    other.write_bytes(png_bytes(model_picture(9, 9)))
    folder = tmp_path / "coded"
    folder.mkdir()
    assert run("compress", photo, other, "-o", folder, "--model", model, "-q") == Result(0, b"", "")
    back = tmp_path / "back"
    back.mkdir()
    assert run("decompress", *sorted(folder.iterdir()), "-o", back, "--model", model).code == 0
    assert {path.name: pixels_in(path).shape for path in back.iterdir()} == {
        "photo.png": (24, 32, 3),
        "other.png": (9, 9, 3),
    }


def test_the_line_on_a_file_says_where_no_model_has_a_part_in_it(
    run: Callable[..., Result], photo: Path, model: Path
) -> None:
    drawing = photo.with_name("drawing.png")
    drawing.write_bytes(png_bytes(np.tile(model_picture(16, 16), (6, 6, 1))))
    by_model, stored = sorted(said(run("compress", drawing, photo, "--model", model)), key=len)
    assert by_model.endswith(" %") and "photo.png -> " in by_model
    assert stored.endswith((" %, stored as WebP", " %, stored as PNG")) and "drawing.png -> " in stored


def test_standard_streams_carry_both_ways(
    run: Callable[..., Result], photo: Path, model: Path, feed: Callable[[bytes], None]
) -> None:
    feed(photo.read_bytes())
    packed = run("compress", "-", "--model", model, "-q")
    assert (packed.code, packed.err) == (0, "")
    feed(packed.out)
    image = run("decompress", "-", "--model", model)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image.out))), pixels_in(photo))
    assert sorted(contents(photo.parent)) == ["photo.png"]


def test_file_to_standard_output_equals_the_file(run: Callable[..., Result], photo: Path, model: Path) -> None:
    packed = run("compress", photo, "-o", "-", "--model", model, "-q")
    assert run("compress", photo, "--model", model).code == 0
    assert photo.with_suffix(".pxz").read_bytes() == packed.out


def test_embedded_model_needs_none_afterwards(run: Callable[..., Result], photo: Path, model: Path) -> None:
    assert run("compress", photo, "--model", model, "--embed-model").code == 0
    assert run("verify", photo.with_suffix(".pxz")).code == 0


def test_force_overwrites(run: Callable[..., Result], photo: Path, model: Path) -> None:
    target = photo.with_suffix(".pxz")
    target.write_bytes(b"old")
    assert run("compress", photo, "--model", model, "--force").code == 0
    assert pixzip.inspect(target.read_bytes()).width == 32


def test_delete_removes_the_source_once_verified(run: Callable[..., Result], photo: Path, model: Path) -> None:
    assert run("compress", photo, "--model", model, "--delete").code == 0
    assert sorted(contents(photo.parent)) == ["photo.pxz"]


@pytest.fixture
def masked() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("masked")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_output_has_the_permissions_of_its_source(
    run: Callable[..., Result], photo: Path, model: Path, mode: int
) -> None:
    photo.chmod(mode)
    assert run("compress", photo, "--model", model).code == 0
    assert mode_of(photo.with_suffix(".pxz")) == mode
    assert run("decompress", photo.with_suffix(".pxz"), "-o", photo.with_name("b.png"), "--model", model).code == 0
    assert mode_of(photo.with_name("b.png")) == mode


@pytest.mark.usefixtures("masked")
def test_pack_may_be_read_by_whom_all_its_pictures_may_be(
    run: Callable[..., Result], alike: list[Path], model: Path, feed: Callable[[bytes], None]
) -> None:
    for path, mode in zip(alike, (0o644, 0o640, 0o666, 0o604, 0o644), strict=True):
        path.chmod(mode)
    packed = alike[0].with_name("all.pxz")
    assert run("compress", *alike, "--pack", "-o", packed, "--model", model, "--delete").code == 0
    assert mode_of(packed) == 0o600
    assert run("decompress", packed, "--model", model).code == 0
    assert [mode_of(path) for path in alike] == [0o600] * 5
    feed(alike[0].read_bytes())
    assert run("compress", "-", "-o", packed.with_name("stdin.pxz"), "--model", model).code == 0
    assert mode_of(packed.with_name("stdin.pxz")) == 0o640  # the umask's


# ------------------------------------------------------------------------ sources that change during the work


def exchange(path: Path, how: str) -> bytes:
    """Make other bytes of a file's, with the same size and time."""
    status, other = path.stat(), png_bytes(model_picture(24, 32, 5))
    if how == "replaced":
        path.with_suffix(".new").write_bytes(other)
        path.with_suffix(".new").replace(path)
    elif how == "rewritten":
        path.write_bytes(other)
    else:
        other = path.read_bytes()[:-1] + b"!"
        path.write_bytes(other)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return other


@pytest.mark.parametrize("how", ["replaced", "rewritten", "rewritten at the same time"])
@pytest.mark.parametrize("pack", [(), ("--pack",)])
def test_source_that_changes_during_the_work_is_not_deleted(
    run: Callable[..., Result],
    photo: Path,
    model: Path,
    how: str,
    pack: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compare, made = written.check_same, []

    def compare_late(*arguments: object) -> None:
        compare(*arguments)
        made.append(exchange(photo, how))

    monkeypatch.setattr(written, "check_same", compare_late)
    target = photo.with_suffix(".pxz")
    done = run("compress", photo, "-o", target, "--model", model, "--delete", "-q", *pack)
    assert_fails(done, 9, str(photo), "changed since it was read")
    assert contents(photo.parent) == {"photo.png": made[0], "photo.pxz": target.read_bytes()}


def test_info_describes_every_file(run: Callable[..., Result], coded: Path) -> None:
    shown = run("info", coded, coded)
    assert shown.code == 0
    text = shown.out.decode()
    assert text.count(coded.name) == 2
    assert "32 x 24, RGB, 8 bits a sample" in text
    assert pixzip.inspect(coded.read_bytes()).model_digest in text


def test_verify_says_that_pixels_are_right(run: Callable[..., Result], coded: Path, model: Path) -> None:
    assert b"as they were encoded" in run("verify", coded, "--model", model).out
    assert run("verify", coded, "--model", model, "-q") == Result(0, b"", "")


def test_models_lists_name_digest_and_file(
    run: Callable[..., Result], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixzip.model.file.models_folder", lambda: model.parent)
    listed = run("models")
    assert listed.code == 0
    assert str(model) in listed.out.decode()


def test_jpeg_is_taken_on_request(run: Callable[..., Result], photo: Path, model: Path) -> None:
    jpeg = photo.with_suffix(".jpg")
    Image.fromarray(model_picture(24, 32)).save(jpeg)
    assert_fails(run("compress", jpeg, "--model", model), 3, "lossy")
    assert run("compress", jpeg, "--model", model, "--allow-jpeg").code == 0
    back = photo.with_name("back.png")
    assert run("decompress", jpeg.with_suffix(".pxz"), "-o", back, "--model", model).code == 0
    assert np.array_equal(pixels_in(back), pixels_in(jpeg))


def test_one_bad_file_does_not_stop_the_rest(run: Callable[..., Result], photo: Path, model: Path) -> None:
    bad, worse = photo.with_name("bad.png"), photo.with_name("worse.png")
    bad.write_bytes(b"nothing")
    done = run("compress", bad, worse, photo, "--model", model, "-q")
    assert done.code == 3  # the first failure's: not an image; the second is a missing file
    assert [line.split(": ")[1] for line in done.err.splitlines()] == [str(bad), str(worse)]
    assert photo.with_suffix(".pxz").exists()


def test_same_output_twice_is_refused_even_with_force(run: Callable[..., Result], photo: Path, model: Path) -> None:
    other = photo.with_suffix(".bmp")
    Image.fromarray(model_picture(9, 9)).save(other)
    done = run("compress", photo, other, "--model", model, "--force", "-q")
    assert_fails(done, 2, "photo.bmp: ", "is also that of")
    assert pixzip.inspect(photo.with_suffix(".pxz").read_bytes()).width == 32


# ------------------------------------------------------------------------ many files


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder of seven small pictures, of two sizes and two formats, and what else is found in folders."""
    folder = tmp_path / "album"
    (folder / "inner").mkdir(parents=True)
    for i in range(6):
        (folder / f"{i}.png").write_bytes(png_bytes(model_picture(9 + i % 2, 12, seed=i)))
    Image.fromarray(model_picture(9, 12, seed=6)).save(folder / "6.bmp")
    (folder / "inner" / "deep.png").write_bytes(png_bytes(model_picture(9, 12)))
    (folder / ".hidden.png").write_bytes(b"nothing")
    return folder


@pytest.mark.parametrize("threads", [1, 3])
def test_folder_gives_the_files_that_its_pictures_give_one_by_one(
    run: Callable[..., Result], album: Path, model: Path, threads: int
) -> None:
    done = run("compress", album, "--model", model, "--threads", threads)
    assert (done.code, done.out) == (0, b"")
    order = [line.split(" -> ")[0] for line in said(done)]
    assert order == [str(album / name) for name in ("0.png", "1.png", "2.png", "3.png", "4.png", "5.png", "6.bmp")]
    for i in range(6):
        assert (album / f"{i}.pxz").read_bytes() == pixzip.compress((album / f"{i}.png").read_bytes(), model=model)
    assert not list((album / "inner").glob("*.pxz"))
    back = album / "back"
    back.mkdir()
    assert run("decompress", album, "-o", back, "--model", model, "--threads", threads) == Result(0, b"", "")
    for i in range(7):
        assert np.array_equal(pixels_in(back / f"{i}.png"), model_picture(9 + i % 2 * (i < 6), 12, seed=i))


def test_bad_files_are_listed_at_the_end_in_order_while_the_rest_is_done(
    run: Callable[..., Result], album: Path, model: Path
) -> None:
    (album / "1.png").write_bytes(b"nothing")
    (album / "4.png").write_bytes(blank_png(0, 5))
    (album / "5.pxz").write_bytes(b"old")
    done = run("compress", album, "--model", model, "--threads", "3")
    lines = said(done)
    assert done.code == 3
    assert [" -> " in line for line in lines] == [True] * 4 + [False] * 3
    assert [line.split(": ")[1] for line in lines[4:]] == [str(album / name) for name in ("1.png", "4.png", "5.png")]
    assert sorted(path.stem for path in album.glob("*.pxz")) == ["0", "2", "3", "5", "6"]
    assert (album / "5.pxz").read_bytes() == b"old"
    (album / "2.pxz").write_bytes((album / "2.pxz").read_bytes()[:-1])
    for path in album.glob("*.png"):
        path.unlink()
    done = run("decompress", album, "--model", model, "--threads", "3")
    assert done.code == 4
    assert [line.split(": ")[1] for line in done.err.splitlines()] == [str(album / f"{i}.pxz") for i in (2, 5)]
    assert sorted(path.stem for path in album.glob("*.png")) == ["0", "3", "6"]


def test_file_in_a_folder_that_is_no_image_has_a_line_and_fails_nothing(
    run: Callable[..., Result], album: Path, model: Path
) -> None:
    (album / "notes.txt").write_bytes(b"Dear Sir or Madam")
    done = run("compress", album, "--model", model)
    assert done.code == 0
    assert [line for line in said(done) if " -> " not in line] == [
        f"pixzip: {album / 'notes.txt'}: passed over: its suffix is not that of an image"
    ]


@pytest.mark.parametrize("recursive", [(), ("-r",)])
@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_what_is_no_file_in_a_folder_is_named_and_what_cannot_be_read_fails(
    run: Callable[..., Result], photo: Path, model: Path, recursive: tuple[str, ...], quiet: tuple[str, ...]
) -> None:
    folder = photo.parent
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "gone.txt").symlink_to("nowhere")
    done = run("compress", folder, "--model", model, "--json", *recursive, *quiet)
    assert done.code == 2
    assert f"pixzip: {folder / 'pipe.png'}: passed over: it is neither a file nor a folder\n" in done.err
    assert f"pixzip: {folder / 'gone.png'}: cannot be read: No such file or directory\n" in done.err
    found = json.loads(done.out)
    assert [found[key] for key in ("files", "worked", "failed", "passed_over")] == [2, 1, 1, 2]


@pytest.mark.parametrize("recursive", [(), ("-r",)])
def test_what_may_not_be_looked_at_in_a_folder_has_a_line_each(
    run: Callable[..., Result], photo: Path, model: Path, monkeypatch: pytest.MonkeyPatch, recursive: tuple[str, ...]
) -> None:
    (photo.parent / "x").mkdir()
    shutil.copy(photo, photo.parent / "x.png")
    stat, walk = os.stat, os.walk

    def no_stat(path: Any, *rest: Any, **how: Any) -> os.stat_result:
        if not isinstance(path, int) and Path(path).name == "x.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *rest, **how)

    def no_walk(top: Path, onerror: Callable[[OSError], None]) -> Iterator[Any]:
        onerror(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(top / "x")))
        yield from walk(top)

    monkeypatch.setattr(os, "stat", no_stat)
    monkeypatch.setattr(os, "walk", no_walk)
    done = run("compress", photo.parent, "--model", model, "-q", *recursive)
    assert done.code == 2 and photo.with_suffix(".pxz").exists()
    assert f"pixzip: {photo.parent / 'x.png'}: cannot be read: Permission denied\n" in done.err
    assert (f"pixzip: {photo.parent / 'x'}: folder cannot be read: Permission denied\n" in done.err) == bool(recursive)


@pytest.mark.parametrize("count", [1, 2])
def test_separator_at_the_end_of_an_output_makes_it_a_folder(
    run: Callable[..., Result], photo: Path, model: Path, count: int, tmp_path: Path
) -> None:
    shutil.copy(photo, photo.with_name("second.png"))
    names = [photo, photo.with_name("second.png")][:count]
    line = ("compress", *names, "-o", f"{tmp_path}/coded/", "--model", model)
    assert run(*line, "--dry-run").code == 0 and not (tmp_path / "coded").exists()
    assert run(*line).code == 0
    assert sorted(contents(tmp_path / "coded")) == ["photo.pxz", "second.pxz"][:count]
    made = [tmp_path / "coded" / path.with_suffix(".pxz").name for path in names]
    for more in ((), ("--salvage", "--force")):
        assert run("decompress", *made, "-o", f"{tmp_path}/again/", "--model", model, *more).code == 0
        assert sorted(contents(tmp_path / "again")) == ["photo.png", "second.png"][:count]
    assert_fails(run("compress", *names, "--pack", "-o", f"{tmp_path}/new/", "--model", model), 2, "the one file")


def test_suffix_of_gray_pictures_is_refused_for_others(
    run: Callable[..., Result], coded: Path, model: Path, tmp_path: Path
) -> None:
    for suffix, kind in ((".pgm", "gray"), (".pbm", "bilevel")):
        line = ("decompress", coded, "-o", tmp_path / f"x{suffix}", "--model", model)
        for more in ((), ("--salvage",)):
            assert_fails(run(*line, *more), 3, f"{suffix} holds {kind} pictures, this is of mode RGB")
    for suffix, pixels in ((".pgm", np.zeros((3, 3), np.uint8)), (".pbm", np.zeros((3, 3), bool))):
        (tmp_path / "g.pxz").write_bytes(pixzip.compress(pixels))
        assert run("decompress", tmp_path / "g.pxz", "-o", tmp_path / f"g{suffix}").code == 0
        assert (tmp_path / f"g{suffix}").read_bytes()[:2] == (b"P5" if suffix == ".pgm" else b"P4")


def test_dry_run_refuses_what_headers_show(run: Callable[..., Result], photo: Path, model: Path) -> None:
    photo.write_bytes(b"no image")
    assert_fails(run("compress", photo, "--dry-run", "--model", model), 3, "not an image")


@pytest.mark.parametrize("command", ["compress", "decompress", "verify", "info"])
def test_folder_without_files_to_work_on_is_refused(
    run: Callable[..., Result], tmp_path: Path, model: Path, command: str
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    how = () if command == "info" else ("--model", model)
    assert_fails(run(command, folder, *how), 2, str(folder), "no files", "in this folder")
    assert not list(folder.iterdir())


def test_empty_folder_does_not_stop_the_others(run: Callable[..., Result], photo: Path, model: Path) -> None:
    folder = photo.with_name("empty")
    folder.mkdir()
    assert_fails(run("compress", folder, photo, "--model", model, "-q"), 2, str(folder))
    assert photo.with_suffix(".pxz").exists()


def test_file_given_twice_is_done_once(run: Callable[..., Result], photo: Path, model: Path) -> None:
    done = run("compress", photo, photo, "--model", model, "--force", "--delete", "-q")
    assert_fails(done, 2, "is also that of")
    assert sorted(contents(photo.parent)) == ["photo.pxz"]


def test_verify_goes_through_a_folder(run: Callable[..., Result], album: Path, model: Path) -> None:
    run("compress", album, "--model", model, "-q")
    shown = run("verify", album, "--model", model, "--threads", "3")
    assert shown.out.decode().splitlines() == [
        f"{album / f'{i}.pxz'}: pixels are as they were encoded" for i in range(7)
    ]


def test_model_is_read_once_for_many_files(
    run: Callable[..., Result], album: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = pixzip.model.file.load_model
    monkeypatch.setattr("pixzip.model.file.load_model", lambda *how: loads.append(how) or load(*how))
    path = album.with_name("m.safetensors")
    path.write_bytes(model.read_bytes())
    assert run("compress", album, "--model", path, "-q").code == 0
    assert len(loads) == 1


# ------------------------------------------------------------------------ several pictures in a file


@pytest.fixture
def alike(tmp_path: Path) -> list[Path]:
    """Five pictures that differ in their pixels only."""
    paths = [tmp_path / f"frame {i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_bytes(png_bytes(model_picture(9, 12, seed=i)))
    return paths


def test_pack_and_back_under_the_same_names(run: Callable[..., Result], alike: list[Path], model: Path) -> None:
    before = {path.name: pixels_in(path) for path in alike}
    packed = alike[0].with_name("all.pxz")
    done = run("compress", *alike, "--pack", "-o", packed, "--model", model, "--delete")
    assert (done.code, len(said(done))) == (0, 1)
    assert sorted(contents(packed.parent)) == ["all.pxz"]
    assert pixzip.inspect(packed.read_bytes()).pictures == 5
    assert run("decompress", packed, "--model", model) == Result(0, b"", "")
    assert sorted(contents(packed.parent)) == ["all.pxz", *sorted(before)]
    assert all(np.array_equal(pixels_in(packed.with_name(name)), pixels) for name, pixels in before.items())


@pytest.mark.parametrize("options", [(), ("--pack",)])
def test_the_rate_of_learning_reaches_the_file(
    run: Callable[..., Result], alike: list[Path], model: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    sources, packed = alike if options else alike[:1], tmp_path / "out.pxz"
    for rate in (0, 3):
        how = ("-o", packed, "--model", model, "--learning", rate, "--force", "-q")
        assert run("compress", *sources, *options, *how).code == 0
        assert pixzip.inspect(packed.read_bytes()).learning == rate


def test_pictures_of_a_file_are_numbered_on_request_and_where_they_have_no_names(
    run: Callable[..., Result], tmp_path: Path, model: Path, alike: list[Path]
) -> None:
    packed, folder = tmp_path / "all.pxz", tmp_path / "out"
    folder.mkdir()
    assert run("compress", tmp_path, "--pack", "-o", packed, "--model", model, "-q").code == 0
    assert run("decompress", packed, "-o", folder / "x.webp", "--model", model).code == 0
    assert sorted(contents(folder)) == [f"x-000{i}.webp" for i in range(1, 6)]
    assert np.array_equal(pixels_in(folder / "x-0003.webp"), pixels_in(alike[2]))
    packed.write_bytes(pixzip.compress_batch([model_picture(8, 8)] * 2, model=model))
    assert run("decompress", packed, "-o", folder, "--model", model).code == 0
    assert {"all-0001.png", "all-0002.png"} <= set(contents(folder))


def test_pack_names_the_first_picture_that_differs(run: Callable[..., Result], alike: list[Path], model: Path) -> None:
    folder, target = alike[0].parent, alike[0].with_name("all.pxz")
    alike[3].write_bytes(png_bytes(model_picture(9, 13)))
    alike[4].write_bytes(png_bytes(model_picture(9, 12)[..., 0]))
    done = run("compress", *alike, "--pack", "-o", target, "--model", model)
    assert_fails(done, 2, f"{alike[3]}: differs from {alike[0]} in width: 13, not 12")
    alike[3].write_bytes(b"nothing")
    assert_fails(run("compress", *alike, "--pack", "-o", target, "--model", model), 3, str(alike[3]), "not an image")
    alike[3].unlink()
    assert_fails(run("compress", *alike, "--pack", "-o", target, "--model", model), 2, str(alike[3]), "no such file")
    assert not target.exists()
    assert len(contents(folder)) == 4


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ((), "--pack needs -o"),
        (("-o", "."), "--pack needs -o"),
        (("-o", "frame 0.png", "--force"), "is the input"),
        (("-o", "old.pxz"), "exists"),
        (("frame 0.bmp", "-o", "new.pxz"), "has the name of"),
        (("empty", "-o", "new.pxz"), "in this folder"),
    ],
)
def test_pack_refuses(
    run: Callable[..., Result],
    alike: list[Path],
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    fragment: str,
) -> None:
    folder = alike[0].parent
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    (folder / "old.pxz").write_bytes(b"old")
    Image.fromarray(model_picture(9, 12)).save(folder / "frame 0.bmp")
    before = contents(folder)
    names = [path.name for path in alike]
    assert_fails(run("compress", *names, "--pack", "--model", model, *arguments), 2, fragment)
    assert contents(folder) == before


def test_pack_counts_the_pixels_of_all_before_reading_more(
    run: Callable[..., Result], alike: list[Path], model: Path
) -> None:
    target, how = alike[0].with_name("all.pxz"), ("--pack", "--model", model, "-q", "--max-pixels")
    assert run("compress", *alike, "-o", target, *how, str(5 * 9 * 12)).code == 0
    target.unlink()
    for path in alike[1:]:
        path.write_bytes(b"never read")
    assert_fails(run("compress", *alike, "-o", target, *how, str(5 * 9 * 12 - 1)), 8, str(alike[0]), "540 pixels")
    assert not target.exists()


def test_out_of_memory_while_packing_is_one_line(
    run: Callable[..., Result], alike: list[Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compress(*arguments: object, **how: object) -> bytes:
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr(pixzip.api, "compress_batch", compress)
    target = alike[0].with_name("all.pxz")
    assert_fails(run("compress", *alike, "--pack", "-o", target, "--model", model), 8, "out of memory", "7 TiB")
    assert not target.exists()


def test_several_pictures_go_all_or_none(
    run: Callable[..., Result], alike: list[Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = alike[0].with_name("all.pxz")
    assert run("compress", *alike, "--pack", "-o", packed, "--model", model, "-q", "--delete").code == 0
    alike[3].write_bytes(b"mine")
    assert_fails(run("decompress", packed, "--model", model), 2, "frame 3.png exists")
    assert contents(packed.parent).keys() == {"all.pxz", "frame 3.png"}
    alike[3].unlink()
    calls = []

    def fail_late(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail_late)
    assert_fails(run("decompress", packed, "--model", model), 9, "No space left")
    assert contents(packed.parent).keys() == {"all.pxz"}


def test_several_pictures_do_not_go_to_standard_output(run: Callable[..., Result], tmp_path: Path, model: Path) -> None:
    path = tmp_path / "two.pxz"
    path.write_bytes(pixzip.compress_batch([model_picture(8, 8)] * 2, model=model))
    assert_fails(run("decompress", path, "-o", "-", "--model", model), 2, "2 pictures")
    assert run("verify", path, "--model", model).code == 0


@pytest.mark.parametrize(
    ("count", "fragment"), [(2**31 - 1, "64000000"), (60_000_000, "64000000"), (900_000, "100000")]
)
def test_millions_of_pictures_in_a_small_file_are_refused_at_once(
    run: Callable[..., Result], tmp_path: Path, count: int, fragment: str
) -> None:
    path = tmp_path / "many.pxz"
    data = pixzip.compress_batch([np.zeros((1, 1), dtype=np.uint16)] * 2)
    path.write_bytes(with_header(data, 8, struct.pack("<I", count)))
    assert_fails(run("decompress", path), 8, str(path), fragment)
    assert sorted(contents(tmp_path)) == ["many.pxz"]


@pytest.mark.parametrize("name", ["../up.png", "/etc/passwd", "..", "", "a\nb.png", "a\\b.png"])
def test_names_that_lead_elsewhere_are_refused(
    run: Callable[..., Result], tmp_path: Path, model: Path, name: str
) -> None:
    path = tmp_path / "in" / "two.pxz"
    path.parent.mkdir()
    entry = ("names", zlib.compress(b"".join(each.encode() + b"\0" for each in ("fine.png", name))))
    c = read_container(pixzip.compress_batch([model_picture(8, 8)] * 2, model=model))
    path.write_bytes(write_container(dataclasses.replace(c, metadata=(entry,))))
    assert_fails(run("decompress", path, "--model", model), 4, str(path), "names of the pictures")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["in", "two.pxz"]
    assert run("decompress", path, "-o", path.with_name("x.png"), "--model", model).code == 0  # numbers need no names


def test_pictures_given_their_names_before_one_fails_are_taken_back(
    run: Callable[..., Result], alike: list[Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, link, calls = alike[0].with_name("all.pxz"), os.link, []
    assert run("compress", *alike, "--pack", "-o", packed, "--model", model, "-q", "--delete").code == 0

    def link_late(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 4:
            calls[0].unlink()
            calls[0].write_bytes(b"another's, in the place of ours")
            target.write_bytes(b"mine")
        link(source, target)

    monkeypatch.setattr(os, "link", link_late)
    assert_fails(run("decompress", packed, "--model", model), 2, "frame 3.png exists")
    assert contents(packed.parent).keys() == {"all.pxz", "frame 0.png", "frame 3.png"}
    assert calls[0].read_bytes() != calls[3].read_bytes() == b"mine"


def test_without_hard_links_nothing_is_replaced_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def replace(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "x"
    with staged(target, b"ours", force=False):
        pass
    with pytest.raises(pixzip.UsageError, match="exists"), staged(target, b"later", force=False):
        pass
    assert contents(tmp_path) == {"x": b"ours"}
    target.unlink()
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(pixzip.OutputError), staged(target, b"ours", force=False):
        pass
    assert contents(tmp_path) == {}


# ------------------------------------------------------------------------ memory


@pytest.mark.parametrize("command", ["compress", "decompress", "verify", "info"])
def test_large_file_that_is_none_is_refused_unread(
    run: Callable[..., Result], tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "big"
    with open(path, "wb") as file:
        file.truncate(3 << 40)
    code = 3 if command == "compress" else 4
    assert_fails(run(command, path), code, "not a")


@pytest.mark.parametrize("command", ["compress", "decompress", "verify"])
def test_file_that_is_too_large_for_the_memory_is_refused_unread(
    run: Callable[..., Result], photo: Path, model: Path, command: str, tmp_path: Path
) -> None:
    path, data = tmp_path / "big", photo.read_bytes()
    path.write_bytes(data if command == "compress" else pixzip.compress(data, model=model))
    with open(path, "r+b") as file:
        file.truncate(3 << 40)
    assert_fails(run(command, path, "--model", model, "--max-memory", "400M"), 8, "3298534883328 bytes", "400 MiB")


def test_pipe_is_read_no_further_than_the_memory_allows(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, photo: Path, model: Path
) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, place: Any) -> int:
            start = photo.read_bytes() if not self.given else b""
            place[:] = start.ljust(len(place), b"\0")[: len(place)]
            self.given += len(place)
            return len(place)

    endless = Endless()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(endless)))
    done = run("compress", "-", "-o", photo.with_name("x.pxz"), "--model", model, "--max-memory", "220M")
    assert_fails(done, 8, "standard input", "220 MiB")
    assert endless.given < 15 << 20
    assert not photo.with_name("x.pxz").exists()


@pytest.mark.parametrize("command", ["compress", "decompress", "verify"])
def test_max_memory_that_is_too_little_is_refused_before_the_work(
    run: Callable[..., Result], photo: Path, model: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photo
    if command != "compress":
        source = photo.with_suffix(".pxz")
        source.write_bytes(pixzip.compress(photo.read_bytes(), model=model))
        photo.unlink()
    before = contents(source.parent)
    assert run(command, source, "--model", model, "--max-memory", "2G", "-q").code == 0
    for path in set(source.parent.iterdir()) - {source.parent / name for name in before}:
        path.unlink()
    for name in ("pixzip.codec.encode", "pixzip.codec.decode", "pixzip.formats.image.read_image"):
        monkeypatch.setattr(name, None)
    assert_fails(run(command, source, "--model", model, "--max-memory", "100M"), 8, "32 x 24", "MiB", "100 MiB")
    assert contents(source.parent) == before


@pytest.mark.parametrize("size", ["0", "-1", "many", "1.5G", "5P", ""])
def test_size_that_is_none_is_refused(run: Callable[..., Result], photo: Path, model: Path, size: str) -> None:
    assert_fails(run("compress", photo, "--model", model, "--max-memory", size), 2, "is not a size")


# ------------------------------------------------------------------------ bad input


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def blank_png(width: int, height: int) -> bytes:
    """A PNG whose header says so much, and whose data say nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def cmyk_tiff() -> bytes:
    out = io.BytesIO()
    Image.new("CMYK", (4, 4)).save(out, "TIFF")
    return out.getvalue()


def animation() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("L", (4, 4), 10 * i) for i in range(2)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


BAD_IMAGES = {
    "not an image": (b"Dear Sir or Madam, this is a letter.", 3, "not an image"),
    "empty": (b"", 3, "empty"),
    "truncated": (png_bytes(model_picture(24, 32))[:-40], 3, "photo.png"),
    "zero width": (blank_png(0, 5), 3, "0 x 5"),
    "no data": (blank_png(5, 5), 3, "photo.png"),
    "CMYK": (cmyk_tiff(), 3, "photometric"),
    "animation": (animation(), 3, "frames"),
    "a .pxz file": (b"\x89PXZ\r\n\x1a\n\1", 3, "not an image"),
    "over the limit": (blank_png(8001, 8000), 8, "64000000"),
}


@pytest.mark.parametrize(("data", "code", "fragment"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_compress_refuses_bad_image(
    run: Callable[..., Result], photo: Path, model: Path, data: bytes, code: int, fragment: str
) -> None:
    photo.write_bytes(data)
    assert_fails(run("compress", photo, "--model", model), code, str(photo), fragment)
    assert contents(photo.parent) == {"photo.png": data}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def with_header(data: bytes, at: int, field: bytes) -> bytes:
    """The file with other bytes in its header chunk, whose CRC is right."""
    body = data[9 : HEADER_BYTES - 4]
    body = body[: 8 + at] + field + body[8 + at + len(field) :]
    crc = zlib.crc32(body[:4] + body[8:])
    return data[:9] + body + struct.pack("<I", crc) + data[HEADER_BYTES:]


BAD_FILES: dict[str, tuple[Callable[[bytes], bytes], int, str]] = {
    "wrong magic": (lambda d: b"GIF89a" + d[6:], 4, "not a .pxz file"),
    "empty": (lambda d: b"", 4, "truncated"),
    "newer version": (lambda d: d[:8] + b"\4" + d[9:], 4, "newer"),
    "truncated in the header": (lambda d: d[:30], 4, "truncated"),
    "truncated in the pixels": (lambda d: d[:-1], 4, "truncated"),
    "flipped bit in the header": (lambda d: flipped(d, 20), 4, "header CRC"),
    "flipped bit in the pixels": (lambda d: flipped(d, len(d) - 9), 4, "CRC"),
    "trailing bytes": (lambda d: d + b"\0", 4, "trailing"),
    "zero size": (lambda d: with_header(d, 0, bytes(4)), 4, "width 0"),
    "size over the limit": (lambda d: with_header(d, 0, struct.pack("<II", 8001, 8000)), 8, "64000000"),
    "unknown model": (lambda d: with_header(d, 19, b"\xab" * 8), 6, "abababababababab"),
    "other pixels": (lambda d: with_header(d, 27, b"\xcd" * 16), 5, "cdcdcdcd"),
}


@pytest.mark.parametrize("command", ["decompress", "verify"])
@pytest.mark.parametrize(("damage", "code", "fragment"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file_is_refused(
    run: Callable[..., Result],
    coded: Path,
    model: Path,
    command: str,
    damage: Callable[[bytes], bytes],
    code: int,
    fragment: str,
) -> None:
    data = damage(coded.read_bytes())
    coded.write_bytes(data)
    assert_fails(run(command, coded, "--model", model), code, str(coded), fragment)
    assert contents(coded.parent) == {"photo.pxz": data}


def test_unknown_model_is_named_with_where_it_was_looked_for(run: Callable[..., Result], coded: Path) -> None:
    digest = pixzip.inspect(coded.read_bytes()).model_digest
    assert_fails(run("decompress", coded), 6, digest, "looked in", "models")


def test_unknown_model_name_is_refused(run: Callable[..., Result], photo: Path) -> None:
    assert_fails(run("compress", photo, "--model", "no-such-model"), 6, "no-such-model")
    assert sorted(contents(photo.parent)) == ["photo.png"]


BAD_MODELS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "not a model": (lambda d: b"pickle", "model"),
    "truncated": (lambda d: d[:-5], "model"),
    "a bias over 2^24": (lambda d: d[:-1] + b"\x7f", "2^24"),
    "other arithmetic": (lambda d: d.replace(b'"arithmetic":"2"', b'"arithmetic":"9"'), "arithmetic"),
    "header length of 2^63": (lambda d: b"\xff" * 8 + d[8:], "model"),
}


@pytest.mark.parametrize("command", ["compress", "decompress"])
@pytest.mark.parametrize(("damage", "fragment"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_hostile_model_is_refused(
    run: Callable[..., Result],
    coded: Path,
    model_bytes: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    command: str,
    damage: Callable[[bytes], bytes],
    fragment: str,
) -> None:
    hostile = tmp_path_factory.mktemp("hostile") / "m.safetensors"
    hostile.write_bytes(damage(model_bytes))
    source = coded
    if command == "compress":
        source = coded.with_suffix(".png")
        source.write_bytes(png_bytes(model_picture(9, 9)))
        coded.unlink()
    before = contents(source.parent)
    assert_fails(run(command, source, "--model", hostile), 7, fragment)
    assert contents(source.parent) == before


@pytest.mark.parametrize("command", ["compress", "decompress", "info", "verify"])
def test_missing_file_is_refused(run: Callable[..., Result], tmp_path: Path, model: Path, command: str) -> None:
    how = () if command == "info" else ("--model", model)
    assert_fails(run(command, tmp_path / "nothing.png", *how), 2, "nothing.png: no such file")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_output_that_exists_stays(
    run: Callable[..., Result], photo: Path, model: Path, command: str, tmp_path: Path
) -> None:
    source = photo
    if command == "decompress":
        source = tmp_path / "photo.pxz"
        source.write_bytes(pixzip.compress(photo.read_bytes(), model=model))
    else:
        photo.with_suffix(".pxz").write_bytes(b"old")
    before = contents(tmp_path)
    assert_fails(run(command, source, "--model", model), 2, str(source), "exists", "--force")
    assert contents(tmp_path) == before


def test_output_that_exists_is_found_before_the_work(
    run: Callable[..., Result], photo: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo.with_suffix(".pxz").write_bytes(b"old")
    monkeypatch.setattr(pixzip.api, "compress_batch", None)
    assert_fails(run("compress", photo, "--model", model), 2, "exists")


def test_output_that_appears_meanwhile_stays(
    run: Callable[..., Result], photo: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = photo.with_suffix(".pxz")
    compare = written.check_same

    def compare_late(*pictures: pixzip.Picture) -> None:
        compare(*pictures)
        target.write_bytes(b"someone else's")

    monkeypatch.setattr(written, "check_same", compare_late)
    assert_fails(run("compress", photo, "--model", model), 2, "exists")
    assert target.read_bytes() == b"someone else's"
    assert sorted(contents(photo.parent)) == ["photo.png", "photo.pxz"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("-o", "photo.png", "--force"), "is the input"),
        (("-o", "no/such/folder.pxz"), "no folder"),
        (("--device", "cuda", "--engine", "float32"), "--engine float32 is of the CPU"),
        (("--delete", "--no-verify"), "--delete"),
        (("--delete", "-o", "-"), "--delete"),
        (("--threads", "0"), "threads"),
        (("--engine", "abacus"), "abacus"),
        (("--nonsense",), "--nonsense"),
        (("photo.png", "-o", "one.pxz"), "not a folder"),
        (("-",), "only file"),
    ],
)
def test_wrong_usage_is_refused(
    run: Callable[..., Result],
    photo: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    fragment: str,
) -> None:
    monkeypatch.chdir(photo.parent)
    before = contents(photo.parent)
    code = 9 if fragment == "no folder" else 2
    assert_fails(run("compress", "photo.png", "--model", model, *arguments), code, fragment)
    assert contents(photo.parent) == before


@pytest.mark.parametrize(
    ("name", "fragment"), [("a.jpg", "lossy"), ("a.JPEG", "lossy"), ("a.xyz", ".xyz"), ("plain", "missing")]
)
def test_decompress_refuses_suffixes_that_would_lose(
    run: Callable[..., Result], coded: Path, model: Path, name: str, fragment: str
) -> None:
    assert_fails(run("decompress", coded, "-o", coded.with_name(name), "--model", model), 2, fragment)
    assert sorted(contents(coded.parent)) == ["photo.pxz"]


def test_format_that_cannot_hold_the_picture_is_refused(
    run: Callable[..., Result], tmp_path: Path, model: Path
) -> None:
    deep = tmp_path / "deep.pxz"
    deep.write_bytes(pixzip.compress(np.zeros((3, 3, 3), dtype=np.uint16), model=model))
    assert_fails(run("decompress", deep, "-o", tmp_path / "deep.webp"), 3, "16 bits", "PNG")
    assert sorted(contents(tmp_path)) == ["deep.pxz"]


def test_max_pixels_option_sets_the_limit(run: Callable[..., Result], photo: Path, model: Path) -> None:
    assert_fails(run("compress", photo, "--model", model, "--max-pixels", "767"), 8, "768", "767")
    assert run("compress", photo, "--model", model, "--max-pixels", "768").code == 0
    coded = photo.with_suffix(".pxz")
    photo.unlink()
    assert_fails(run("decompress", coded, "--model", model, "--max-pixels", "767"), 8, "768", "767")


def test_max_work_option_sets_the_limit(run: Callable[..., Result], photo: Path, model: Path) -> None:
    assert_fails(run("compress", photo, "--model", model, "--max-work", "1e6"), 8, "multiply-accumulates", "1e+06")
    coded = photo.with_suffix(".pxz")
    assert not coded.exists()
    assert run("compress", photo, "--model", model, "--max-work", "1e12").code == 0
    for command in (("decompress", "--force"), ("verify",)):
        assert_fails(run(*command, coded, "--model", model, "--max-work", "1000"), 8, "1e+03 (max_work)")
    assert_fails(
        run("sample", model, "--size", "8x8", "-o", photo.with_name("grid.png"), "--max-work", "1"), 8, "(max_work)"
    )
    for value in ("0", "1e", "-1", "1.5", "1e100"):
        assert_fails(run("verify", coded, "--max-work", value), 2, "is not a number such as 1e15")


def test_jobs_side_by_side_give_the_same_files(
    run: Callable[..., Result], photo: Path, model: Path, tmp_path: Path
) -> None:
    sources = [photo]
    for i in range(5):
        sources.append(photo.with_name(f"copy{i}.png"))
        shutil.copy(photo, sources[-1])
    files = set()
    for jobs in ("1", "3", "100"):
        out = tmp_path / f"out{jobs}"
        out.mkdir()
        assert run("compress", *sources, "-o", out, "--model", model, "-q", "--jobs", jobs, "--threads", "2").code == 0
        files |= {path.read_bytes() for path in out.iterdir()}
        assert len(list(out.iterdir())) == 6
        assert run("verify", *out.iterdir(), "--model", model, "-q", "-j", jobs).code == 0
    assert len(files) == 1
    assert_fails(run("verify", out, "--jobs", "0"), 2, "--jobs")


# ------------------------------------------------------------------------ failures of writing and verifying


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_full_disk_leaves_nothing(
    run: Callable[..., Result], photo: Path, model: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    source = photo
    if command == "decompress":
        source = photo.with_suffix(".pxz")
        source.write_bytes(pixzip.compress(photo.read_bytes(), model=model))
        photo.unlink()
    before = contents(source.parent)

    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    assert_fails(run(command, source, "--model", model), 9, str(source), "No space left")
    assert contents(source.parent) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_standard_output_is_one_line(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(pixzip.write_image(pixzip.from_array(np.zeros((3, 3), dtype=np.uint16)), "PNG"))
    with open("/dev/full", "wb") as full:
        line = [*CLI, "compress", str(path), "-o", "-", "--model", str(model)]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert_fails(Result(done.returncode, b"", done.stderr), 9, "No space left")


def shell(line: str, **names: Path) -> tuple[int, str]:
    """Exit code of `pixzip LINE`, and stderr where that is not sent elsewhere."""
    command = " ".join([*CLI, line.format(**names)])
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "line",
    ["info {coded}", "info {coded} --json", "verify {coded} --model {model}",
     "verify {coded} --json --model {model}", "models"],
)  # fmt: skip
@pytest.mark.parametrize(("to", "why"), [("> /dev/full", "No space left on device"), (">&-", "it is closed")])
def test_answer_that_cannot_be_written_is_one_line(coded: Path, model: Path, line: str, to: str, why: str) -> None:
    code, err = shell(f"{line} {to}", coded=coded, model=model)
    assert (code, err.splitlines()[-1]) == (9, f"pixzip: cannot write to standard output: {why}")
    assert len([each for each in err.splitlines() if each.startswith("pixzip: ")]) == 1 and "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("line", ["--help", "--version", "compress --help"])
def test_help_that_cannot_be_written_is_one_line(line: str) -> None:
    assert shell(f"{line} > /dev/full") == (9, "pixzip: cannot write to standard output: No space left on device\n")


def test_closed_streams_are_one_line(coded: Path, model: Path) -> None:
    code, err = shell("decompress {coded} -o - --model {model} >&-", coded=coded, model=model)
    assert (code, err) == (9, f"pixzip: {coded}: cannot write to standard output: it is closed\n")
    code, err = shell("compress - <&-")
    assert (code, err) == (2, "pixzip: standard input: is closed\n")


def test_reader_that_goes_away_ends_an_answer_without_a_word(coded: Path, model: Path) -> None:
    code, err = shell("verify {coded} {coded} --model {model} | head -c 0", coded=coded, model=model)
    assert (code, err) == (9, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("to", ["2> /dev/full", "2>&-"])
def test_batch_goes_on_without_messages(photo: Path, model: Path, to: str, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "readme").touch()
    code, _ = shell(f"compress {tmp_path} --model {model} {to}")
    assert code == 3
    assert contents(tmp_path).keys() == {"bad.png", "photo.png", "photo.pxz", "readme"}


@pytest.mark.parametrize(("encoding", "name"), [("utf-8", "\udcff"), ("latin-1", "\u0142")])
def test_answer_has_any_name_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str, name: str) -> None:
    text = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", text)
    say(f"{name} is there")
    assert text.buffer.getvalue() == name.encode("ascii", "backslashreplace") + b" is there\n"  # type: ignore[attr-defined]


def test_failed_verification_leaves_nothing_and_keeps_the_source(
    run: Callable[..., Result], photo: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(photo.parent)
    decompress = pixzip.api.decompress_batch

    def decompress_wrongly(data: bytes, **how: object) -> list[pixzip.Picture]:
        pictures = decompress(data, **how)
        pictures[0].planes[0, 0, 0] ^= 1
        return pictures

    monkeypatch.setattr(pixzip.api, "decompress_batch", decompress_wrongly)
    assert_fails(run("compress", photo, "--model", model, "--delete"), 5, "verification failed")
    assert contents(photo.parent) == before
    assert run("compress", photo, "--model", model, "--no-verify").code == 0


def test_verification_reads_what_is_on_disk(
    run: Callable[..., Result], photo: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(photo.parent)
    write = Path.open

    def fsync_and_damage(handle: int) -> None:
        written = [path for path in photo.parent.iterdir() if path.suffix == ".tmp"]
        for path in written:
            with write(path, "r+b") as file:
                file.seek(-9, os.SEEK_END)
                file.write(b"\xff")

    monkeypatch.setattr(os, "fsync", fsync_and_damage)
    assert_fails(run("compress", photo, "--model", model, "--delete"), 4, "CRC")
    assert contents(photo.parent) == before


def test_out_of_memory_is_one_line(
    run: Callable[..., Result], photo: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compress(*arguments: object, **how: object) -> bytes:
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr(pixzip.api, "compress_batch", compress)
    assert_fails(run("compress", photo, "--model", model), 8, "out of memory", "7 TiB")
    assert sorted(contents(photo.parent)) == ["photo.png"]


@pytest.fixture
def at_work(tmp_path: Path, model: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the midst of coding a picture that takes it some ten seconds."""
    path = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (4000, 4000, 3), dtype=np.uint8)
    path.write_bytes(pixzip.write_image(pixzip.from_array(noise[:, :1000]), "PNG"))
    line = [*CLI, "compress", str(path), "--model", str(model), "--threads", "2", "--no-verify"]

    def heed_hangups() -> None:
        """The tests may be run by nohup."""
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, preexec_fn=heed_hangups) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        deadline = time.monotonic() + 60
        while "llvmlite" not in maps.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        yield process
        process.kill()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted_work_leaves_one_line_and_no_output(
    at_work: subprocess.Popen[str], tmp_path: Path, number: int, code: int
) -> None:
    before = contents(tmp_path)
    assert at_work.poll() is None
    at_work.send_signal(number)
    _, err = at_work.communicate(timeout=60)
    assert (at_work.returncode, err) == (code, "pixzip: interrupted\n")
    assert contents(tmp_path) == before


def test_hangup_that_is_ignored_stays_so() -> None:
    """As nohup asks for."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with progress.handled_signals(progress.Stop()):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_threads_at_work_stop_at_their_next_report() -> None:
    stop = progress.Stop()
    with progress.metered("photo.png", stop, quiet=True) as meter:
        report = meter.part(0.0, 1.0)
        report(0.1)
        stop.signal = signal.SIGINT
        with pytest.raises(progress.Interrupted):
            report(0.2)


def test_interruption_while_writing_leaves_nothing(
    run: Callable[..., Result], photo: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, handler = contents(photo.parent), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(os, "fsync", lambda handle: os.kill(os.getpid(), signal.SIGINT))
    assert_fails(run("compress", photo, "--model", model), 130, "interrupted")
    assert contents(photo.parent) == before
    assert signal.getsignal(signal.SIGINT) is handler


# ------------------------------------------------------------------------ start-up and progress


def test_help_starts_fast_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pixzip.cli import main; main(['--help']); main(['compress', '--help']);"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'numba', 'torch', 'PIL')))"
    )
    took_s = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took_s) < 0.6  # processor time, for machines that are shared; 0.3 s of real time are asked for


@pytest.mark.parametrize("command", ["compress", "decompress", "info", "verify", "models"])
def test_every_command_explains_itself_and_the_exit_codes(run: Callable[..., Result], command: str) -> None:
    shown = run(command, "--help")
    assert shown.code == 0
    assert b"Exit codes: 0" in shown.out


def test_version_is_the_package_s(run: Callable[..., Result]) -> None:
    assert pixzip.__version__ in run("--version").out.decode()


def test_progress_bar_shows_on_a_terminal_for_long_work_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = {}
    for wait_s, quiet in ((0.0, False), (60.0, False), (0.0, True)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(progress, "QUIET_S", wait_s)
        with progress.metered("photo.png", progress.Stop(), quiet=quiet) as meter:
            report = meter.part(0.0, 0.5)
            meter.clear()
            assert not terminal.getvalue()  # nothing is shown yet
            report(0.5)
            meter.clear()
            assert terminal.getvalue().endswith("\r\033[K") == bool(terminal.getvalue())
            meter.part(0.5, 1.0)(1.0)
        shown[wait_s, quiet] = terminal.getvalue()
    assert "photo.png" in shown[0.0, False]
    assert "100%" in shown[0.0, False]
    assert shown[60.0, False] == shown[0.0, True] == ""
