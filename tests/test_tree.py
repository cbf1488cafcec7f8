"""compress -r, decompress -r, verify -r: a tree of results, resumed where it was interrupted; summaries and JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import model_picture

import pixzip
from pixzip import cli
from pixzip.errors import FormatError, ImageError, UsageError
from pixzip.tree import names_below


@dataclass
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    def run_line(*arguments: str | Path) -> Result:
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run_line


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Pictures on three levels, beside what is none, what is hidden, and a link that goes round in a circle."""
    album = tmp_path / "album"
    for i, name in enumerate(["a.png", "x/b.png", "x/y/c.png"]):
        path = album / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pixzip.write_image(pixzip.from_array(model_picture(9, 12, i)), "PNG"))
    (album / "x" / "notes.md").touch()
    (album / ".hidden").mkdir()
    (album / ".hidden" / "d.png").touch()
    (album / "x" / "circle").symlink_to(album)
    return album


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_names_below_are_all_but_hidden_ones_and_links_to_folders(album: Path) -> None:
    found, faults = names_below(album)
    assert [str(path.relative_to(album)) for path in found] == ["a.png", "x/b.png", "x/notes.md", "x/y/c.png"]
    assert faults == {}
    with pytest.raises(UsageError, match="cannot be read"):
        names_below(album / "a.png")


def test_tree_goes_there_and_back(run: Run, album: Path, model: Path, tmp_path: Path) -> None:
    packed, back = tmp_path / "packed", tmp_path / "back"
    done = run("compress", "-r", album, "-o", packed, "--model", model)
    assert done.code == 0
    assert tree(packed) == ["a.pxz", "x/b.pxz", "x/y/c.pxz"]
    assert "notes.md: passed over" in done.err
    assert "3 files, 3 done now, 0 before, 0 not: " in done.err
    assert run("verify", "-r", packed, "--model", model).out.count("as they were encoded") == 3
    assert run("decompress", "-r", packed, "-o", back, "--model", model).code == 0
    assert tree(back) == ["a.png", "x/b.png", "x/y/c.png"]
    for name in tree(back):
        assert (back / name).read_bytes() == (album / name).read_bytes()


def test_interrupted_command_goes_on(run: Run, album: Path, model: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    line = ("compress", "-r", album, "-o", packed, "--model", model)
    assert run(*line).code == 0
    (packed / "x" / "b.pxz").unlink()
    times = {name: (packed / name).stat().st_mtime_ns for name in tree(packed)}
    again = run(*line)
    assert (again.code, "3 files, 1 done now, 2 before, 0 not" in again.err) == (0, True)
    assert {name: (packed / name).stat().st_mtime_ns for name in times} == times
    back = tmp_path / "back"
    line = ("decompress", "-r", packed, "-o", back, "--model", model)
    assert run(*line).code == 0
    (back / "a.png").unlink()
    assert "3 files, 1 done now, 2 before, 0 not" in run(*line).err


def test_source_changed_since_is_not_passed_over(run: Run, album: Path, model: Path, tmp_path: Path) -> None:
    line = ("compress", "-r", album, "-o", tmp_path / "packed", "--model", model)
    assert run(*line).code == 0
    later = (tmp_path / "packed" / "a.pxz").stat().st_mtime + 10
    os.utime(album / "a.png", (later, later))
    again = run(*line)
    assert again.code == UsageError.exit_code
    assert "a.pxz exists: --force overwrites it" in again.err
    assert "3 files, 0 done now, 2 before, 1 not" in again.err
    assert "3 done now" in run(*line, "--force").err


def test_two_sources_of_one_name_are_never_taken_for_one_done_before(
    run: Run, album: Path, model: Path, tmp_path: Path
) -> None:
    line = ("compress", "-r", album, "-o", tmp_path / "packed", "--model", model)
    assert run(*line).code == 0
    (album / "a.webp").write_bytes(pixzip.write_image(pixzip.from_array(model_picture(9, 12, 9)), "WEBP"))
    os.utime(album / "a.webp", (1, 1))
    again = run(*line)
    assert again.code == UsageError.exit_code
    assert "is also that of" in again.err


def test_source_of_other_pixels_was_not_done_before_whatever_its_time(
    run: Run, album: Path, model: Path, tmp_path: Path
) -> None:
    line = ("compress", "-r", album, "-o", tmp_path / "packed", "--model", model, "-q")
    assert run(*line).code == 0
    (album / "a.png").unlink()
    (album / "a.webp").write_bytes(pixzip.write_image(pixzip.from_array(model_picture(9, 12, 9)), "WEBP"))
    (album / "x" / "b.png").write_bytes((album / "x" / "y" / "c.png").read_bytes())
    for name in ("a.webp", "x/b.png"):
        os.utime(album / name, (1, 1))
    before = {name: (tmp_path / "packed" / name).read_bytes() for name in tree(tmp_path / "packed")}
    for more in ((), ("--delete",), ("--dry-run",)):
        again = run(*line, *more)
        assert again.code == 5
        assert again.err.count("its .pxz file holds other pixels") == 2
        assert str(album / "a.webp") in again.err and str(album / "x" / "b.png") in again.err
    assert before == {name: (tmp_path / "packed" / name).read_bytes() for name in before}
    assert tree(album) == [".hidden/d.png", "a.webp", "x/b.png", "x/notes.md"]


def test_damaged_result_was_not_done_before(run: Run, album: Path, model: Path, tmp_path: Path) -> None:
    line = ("compress", "-r", album, "-o", tmp_path / "packed", "--model", model, "-q")
    assert run(*line).code == 0
    data = bytearray((tmp_path / "packed" / "a.pxz").read_bytes())
    data[-9] ^= 1
    (tmp_path / "packed" / "a.pxz").write_bytes(data)
    assert run(*line).code == FormatError.exit_code


def test_delete_says_what_is_true_of_a_result_that_was_there(
    run: Run, album: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("compress", "-r", album, "-o", tmp_path / "packed", "--model", model, "-q")
    assert run(*line).code == 0
    picture = pixzip.read_image((album / "a.png").read_bytes())
    (album / "a.png").write_bytes(
        pixzip.write_image(dataclasses.replace(picture, metadata=(("text", b"k\0v"),)), "PNG")
    )
    os.utime(album / "a.png", (1, 1))
    done = run(*line, "--delete")
    assert done.code == 5
    assert "the .pxz file of an earlier command has other metadata; both files are kept" in done.err
    assert (album / "a.png").exists() and (tmp_path / "packed" / "a.pxz").exists()


def test_delete_takes_sources_done_before_only_once_verified(
    run: Run, album: Path, model: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    line = ("compress", "-r", album, "-o", packed, "--model", model)
    assert run(*line).code == 0
    (packed / "a.pxz").write_bytes((packed / "x" / "b.pxz").read_bytes())  # another picture under this name
    (packed / "x" / "y" / "c.pxz").write_bytes(b"no .pxz file")
    done = run(*line, "--delete")
    assert done.code == 5
    assert "a.png: its .pxz file holds other pixels" in done.err and "c.png: not a .pxz file" in done.err
    assert tree(album) == [".hidden/d.png", "a.png", "x/notes.md", "x/y/c.png"]


def test_dry_run_says_what_would_be_done_and_does_nothing(run: Run, album: Path, model: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    done = run("compress", "-r", album, "-o", packed, "--model", model, "--dry-run", "-q", "--delete")
    assert done.code == 0 and not packed.exists() and len(tree(album)) == 5
    assert done.err.splitlines() == [f"{album / name}.png -> {packed / name}.pxz" for name in ("a", "x/b", "x/y/c")]
    assert run("compress", "-r", album, "--model", model, "-q", "--delete").code == 0
    assert run("decompress", album / "a.pxz", "--model", model).code == 0
    done = run("decompress", "-r", album, "--model", model, "--dry-run")
    assert done.err.splitlines() == [f"{album / name}.pxz -> {album / name}.png" for name in ("x/b", "x/y/c")]
    assert tree(album) == [".hidden/d.png", "a.png", "a.pxz", "x/b.pxz", "x/notes.md", "x/y/c.pxz"]


def test_failures_leave_the_others_and_are_counted(run: Run, album: Path, model: Path, tmp_path: Path) -> None:
    (album / "x" / "b.png").write_bytes(b"no image")
    done = run("compress", "-r", album, "-o", tmp_path / "packed", "--model", model, "--json", "-q")
    assert done.code == ImageError.exit_code
    summary = json.loads(done.out)
    assert {key: summary[key] for key in ("command", "files", "worked", "before", "failed")} == {
        "command": "compress", "files": 3, "worked": 2, "before": 0, "failed": 1,
    }  # fmt: skip
    sizes = {}
    for key, root, suffix in (("read_bytes", album, ".png"), ("written_bytes", tmp_path / "packed", ".pxz")):
        sizes[key] = sum((root / name).with_suffix(suffix).stat().st_size for name in ("a", "x/y/c"))
    assert {key: summary[key] for key in sizes} == sizes


def test_finished_command_that_deleted_has_nothing_to_do(run: Run, album: Path, model: Path, tmp_path: Path) -> None:
    for packed in (tmp_path / "packed", album):
        line = ("compress", "-r", album, "-o", packed, "--model", model, "--delete")
        assert run(*line).code == 0
        again = run(*line)
        assert (again.code, f"nothing to do: no files to compress, and .pxz files in {packed}" in again.err) == (
            0,
            True,
        )
        assert run(*line, "-q").err == ""
        (album / "a.png").write_bytes(pixzip.write_image(pixzip.from_array(model_picture(9, 12, 1)), "PNG"))
    (album / "a.png").unlink()
    assert run("compress", "-r", album, "-o", tmp_path / "new", "--model", model, "-q").code == UsageError.exit_code


def test_salvage_works_through_a_tree(run: Run, album: Path, model: Path, tmp_path: Path) -> None:
    packed, back = tmp_path / "packed", tmp_path / "back"
    assert run("compress", "-r", album, "-o", packed, "--model", model, "--tile", 8).code == 0
    damaged = bytearray((packed / "x" / "b.pxz").read_bytes())
    damaged[-9] ^= 1
    (packed / "x" / "b.pxz").write_bytes(damaged)
    assert run("decompress", "-r", packed, "-o", back, "--model", model).code == FormatError.exit_code
    done = run("decompress", "-r", packed, "-o", back, "--model", model, "--salvage", "--json")
    assert done.code == 11
    assert json.loads(done.out)["before"] == 2
    assert tree(back) == ["a.png", "x/b.png", "x/y/c.png"]


def with_metadata(path: Path, model: Path) -> bytes:
    """The .pxz file of this picture with three kinds of metadata, in tiles of 8."""
    picture = pixzip.read_image(path.read_bytes())
    entries = (("icc", b"profile"), ("exif", b"II*\0\x08\0\0\0\0\0"), ("xmp", b"<x/>"))
    return pixzip.compress(dataclasses.replace(picture, metadata=entries), model=model, tile=8)


@pytest.mark.parametrize("lost", ["tile", "metadata"])
def test_salvaged_picture_was_not_done_before(run: Run, album: Path, model: Path, tmp_path: Path, lost: str) -> None:
    packed, back = tmp_path / "packed", tmp_path / "back"
    packed.mkdir()
    good = with_metadata(album / "a.png", model)
    damaged = bytearray(good)
    damaged[-9 if lost == "tile" else good.index(b"profile")] ^= 1
    (packed / "a.pxz").write_bytes(damaged)
    line = ("decompress", "-r", packed, "-o", back, "--model", model)
    assert run(*line, "--salvage").code == 11
    salvaged = (back / "a.png").read_bytes()
    for more in ((), ("--salvage",)):
        again = run(*line, *more)
        assert (again.code, "1 files, 0 done now, 0 before, 1 not" in again.err) == (FormatError.exit_code, True)
    (packed / "a.pxz").write_bytes(good)
    os.utime(packed / "a.pxz", (1, 1))
    for more in ((), ("--salvage",)):
        again = run(*line, *more)
        assert (again.code, f"output {back / 'a.png'}, there before: other " in again.err) == (5, True)
    assert (back / "a.png").read_bytes() == salvaged
    assert run(*line, "--force").code == 0
    assert "0 done now, 1 before, 0 not" in run(*line).err


def test_pictures_of_a_pack_were_done_before_if_all_are_there(
    run: Run, album: Path, model: Path, tmp_path: Path
) -> None:
    packed, back = tmp_path / "packed", tmp_path / "back"
    packed.mkdir()
    sources = [album / "a.png", album / "x" / "b.png"]
    assert run("compress", *sources, "--pack", "-o", packed / "two.pxz", "--model", model).code == 0
    line = ("decompress", "-r", packed, "-o", back, "--model", model)
    back.mkdir()
    (back / "two.png").write_bytes(b"in no way of the pack")
    assert "1 done now, 0 before" in run(*line).err
    assert tree(back) == ["a.png", "b.png", "two.png"]
    assert "0 done now, 1 before, 0 not" in run(*line).err
    (back / "a.png").write_bytes(sources[1].read_bytes())
    assert run(*line).code == 5
    (back / "a.png").write_bytes(b"no image")
    assert (run(*line).code, "a.png, done before: not an image" in run(*line).err) == (ImageError.exit_code, True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (("-r", "{album}/a.png"), "-r takes one folder"),
        (("-r", "{album}", "{album}"), "-r takes one folder"),
        (("-r", "{album}", "-o", "-"), "-r needs a folder"),
        (("-r", "{album}", "-o", "{album}/a.png"), "-r needs a folder"),
        (("-r", "{album}", "--pack", "-o", "x.pxz"), "--pack excludes -r"),
        (("{album}/a.png", "-o", "-", "--json"), "--json and -o -"),
    ],
)
def test_wrong_usage_is_refused(run: Run, album: Path, line: tuple[str, ...], reason: str) -> None:
    done = run("compress", "-q", *(word.format(album=album) for word in line))
    assert (done.code, reason in done.err, done.err.count("\n")) == (UsageError.exit_code, True, 1)


def test_info_says_the_same_as_json(run: Run, album: Path, model: Path) -> None:
    assert run("compress", album / "a.png", "--model", model).code == 0
    found = json.loads(run("info", album / "a.pxz", "--json").out)
    info = pixzip.inspect((album / "a.pxz").read_bytes())
    assert found["file"] == str(album / "a.pxz")
    assert (found["width"], found["height"], found["mode"]) == (12, 9, "RGB")
    assert (found["model_digest"], found["bits_per_dim"]) == (info.model_digest, info.bits_per_dim)
