"""Outputs: their times, names that a disk takes as one, what --quiet and --verbose say, no colours, pipes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from conftest import model_picture
from test_tree import Run, album, run, tree

import pixzip
from pixzip import files
from pixzip.commands import progress
from pixzip.errors import OutputError, UsageError
from pixzip.files import check_target, same_file_name, staged, windows_fault

__all__ = ["album", "run"]

#: Nanoseconds since 1970, none of them a whole second.
TIMES_NS = (1_000_000_000_123_456_789, 1_500_000_000_987_654_321, 1_234_567_890_000_000_001)


def png(seed: int) -> bytes:
    return pixzip.write_image(pixzip.from_array(model_picture(9, 12, seed)), "PNG")


def times(folder: Path, suffix: str) -> list[int]:
    return [(folder / f"{name}{suffix}").stat().st_mtime_ns for name in ("a", "x/b", "x/y/c")]


# ------------------------------------------------------------------------ times


@pytest.fixture
def dated(album: Path) -> Path:
    for name, time_ns in zip(("a", "x/b", "x/y/c"), TIMES_NS, strict=True):
        os.utime(album / f"{name}.png", ns=(time_ns, time_ns))
    return album


def test_times_are_kept_there_and_back(run: Run, dated: Path, model: Path, tmp_path: Path) -> None:
    packed, back = tmp_path / "packed", tmp_path / "back"
    line = ("compress", "-r", dated, "-o", packed, "--model", model, "--keep-times")
    assert run(*line).code == 0
    assert times(packed, ".pxz") == list(TIMES_NS)
    assert "0 done now, 3 before" in run(*line).err  # a result as old as its source is done
    assert run("decompress", "-r", packed, "-o", back, "--model", model, "--keep-times").code == 0
    assert times(back, ".png") == list(TIMES_NS)
    assert (
        run("decompress", packed / "a.pxz", "-o", back / "s.png", "--salvage", "--model", model, "--keep-times").code
        == 0
    )
    assert (back / "s.png").stat().st_mtime_ns == TIMES_NS[0]


def test_times_are_now_unless_asked_for(run: Run, dated: Path, model: Path, tmp_path: Path) -> None:
    assert run("compress", "-r", dated, "-o", tmp_path / "packed", "--model", model).code == 0
    assert min(times(tmp_path / "packed", ".pxz")) > max(TIMES_NS)


@pytest.mark.parametrize(
    ("command", "rest", "reason"),
    [
        ("compress", ("-",), "need an input file"),
        ("compress", ("{album}/a.png", "-o", "-"), "need an input file"),
        ("compress", ("{album}/a.png", "--pack", "-o", "p.pxz"), "--pack excludes"),
        ("decompress", ("-",), "needs an input file"),
        ("decompress", ("x.pxz", "-o", "-"), "needs an input file"),
    ],
)
def test_times_need_files(run: Run, album: Path, command: str, rest: tuple[str, ...], reason: str) -> None:
    done = run(command, "--keep-times", *(word.format(album=album) for word in rest))
    assert (done.code, reason in done.err) == (UsageError.exit_code, True)


# ------------------------------------------------------------------------ names


def folded(path: str | Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


@pytest.fixture
def one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk as those of Windows and macOS: letters of either case, however they are put together, are one."""
    exists = os.path.lexists

    def lexists(path: str | Path) -> bool:
        folder = Path(path).parent
        return exists(path) or (folder.is_dir() and folded(path) in map(folded, folder.iterdir()))

    monkeypatch.setattr(os.path, "lexists", lexists)


PAIRS = [("a.png", "A.png"), ("ä.png", "a\u0308.png"), ("x/c.png", "X/c.png"), ("ß.png", "SS.png")]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_disk_is_asked_whether_two_names_are_one(tmp_path: Path, one: str, other: str, one_case: None) -> None:
    assert same_file_name(tmp_path / one, tmp_path / other)
    assert same_file_name(tmp_path / "not" / "there" / one, tmp_path / "not" / "there" / other)
    assert tree(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk that tells letters apart")
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_disk_that_tells_letters_apart_says_so(tmp_path: Path, one: str, other: str) -> None:
    assert not same_file_name(tmp_path / one, tmp_path / other)
    assert tree(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk that tells letters apart, for the sources")
def test_outputs_that_a_disk_takes_as_one_are_refused_and_named(
    run: Run, album: Path, model: Path, tmp_path: Path, one_case: None
) -> None:
    (album / "A.png").write_bytes(png(5))
    for more in ((), ("--force",), ("--dry-run",)):
        done = run("compress", "-r", album, "-o", tmp_path / "packed", "--model", model, "-q", *more)
        assert (done.code, done.err.count("is also that of")) == (UsageError.exit_code, 1), done.err
        assert (
            f"pixzip: {album / 'a.png'}: output {tmp_path / 'packed' / 'a.pxz'} is also that of {album / 'A.png'}"
            in done.err
        )
    assert tree(tmp_path / "packed") == ["A.pxz", "x/b.pxz", "x/y/c.pxz"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk that tells letters apart")
def test_outputs_that_differ_in_case_are_two_where_the_disk_says_so(
    run: Run, album: Path, model: Path, tmp_path: Path
) -> None:
    (album / "A.png").write_bytes(png(5))
    assert run("compress", "-r", album, "-o", tmp_path / "packed", "--model", model).code == 0
    assert tree(tmp_path / "packed") == ["A.pxz", "a.pxz", "x/b.pxz", "x/y/c.pxz"]


def test_two_formats_of_one_name_are_refused_and_named_whatever_is_forced(
    run: Run, album: Path, model: Path, tmp_path: Path
) -> None:
    (album / "a.webp").write_bytes(pixzip.write_image(pixzip.from_array(model_picture(9, 12, 7)), "WEBP"))
    done = run("compress", "-r", album, "-o", tmp_path / "packed", "--model", model, "--force", "-q")
    assert done.code == UsageError.exit_code
    assert (
        f"pixzip: {album / 'a.webp'}: output {tmp_path / 'packed' / 'a.pxz'} is also that of {album / 'a.png'}"
        in done.err
    )
    back = pixzip.decompress((tmp_path / "packed" / "a.pxz").read_bytes(), model=model)
    assert (pixzip.to_array(back) == model_picture(9, 12, 0)).all()


def test_names_that_windows_has_not() -> None:
    for name in (
        "con",
        "CON.png",
        "aux.tar.png",
        "com1.pxz",
        "LPT9",
        "nul .png",
        "a:b.png",
        "a?.png",
        "a.",
        "b ",
        "a\1",
    ):
        assert windows_fault(name), name
    for name in ("a.png", "console.png", "com.png", "com10.png", "ä b.png", ".png", "nul-.png"):
        assert windows_fault(name) is None, name


def test_windows_is_given_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "aux.png"
    check_target(target, force=False)
    monkeypatch.setattr(files, "ON_WINDOWS", True)
    with pytest.raises(OutputError, match=r"aux\.png is that of a device"):
        check_target(target, force=True)


def test_name_that_is_too_long_is_found_before_the_work(
    run: Run, album: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixzip.api, "compress_batch", None)
    done = run("compress", album / "a.png", "-o", album / f"{'n' * 300}.pxz", "--model", model)
    assert (done.code, done.err.count("\n")) == (OutputError.exit_code, 1) and "too long" in done.err


@pytest.mark.parametrize("command", ["compress", "decompress", "verify", "info", "models"])
def test_name_that_is_too_long_for_an_input_is_one_line(run: Run, command: str) -> None:
    long = "n" * 300
    lines = [("models", "--add", long)] if command == "models" else [(command, long)]
    lines += [(command, "-r", long)] if command in ("compress", "decompress") else []
    for line in [*lines, ("compress", "x.png", "--model", long)]:
        done = run(*line)
        assert (done.code in (2, 6, 9), done.err.count("\n")) == (True, 1), done.err


def test_longest_name_is_written(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".pxz")
    check_target(target, force=False)
    with staged(target, b"x", force=False):
        pass
    assert target.read_bytes() == b"x"


# ------------------------------------------------------------------------ what is said


def test_verbose_says_how_each_file_is_coded(run: Run, album: Path, model: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    line = ("compress", "-r", album, "-o", packed, "--model", model, "-v")
    how = r"model [0-9a-f]{16}, [0-9.]+ bits/dim, [0-9.]+ s"
    said = run(*line).err
    assert len(re.findall(rf"\.png -> .*\.pxz: \d+ -> \d+ bytes, [0-9.]+ %, {how}\n", said)) == 3
    said = run(*line).err
    assert [f"{album / name}.png: done before" in said for name in ("a", "x/b", "x/y/c")] == [True] * 3
    said = run("decompress", packed / "a.pxz", "-o", tmp_path / "a.png", "--model", model, "--verbose").err
    assert re.fullmatch(rf".*a\.pxz -> .*a\.png: \d+ -> \d+ bytes, {how}\n", said)
    assert re.fullmatch(
        rf".*: pixels are as they were encoded, {how}\n", run("verify", packed / "a.pxz", "--model", model, "-v").out
    )


@pytest.mark.parametrize("command", ["compress", "decompress", "verify"])
def test_quiet_and_verbose_exclude_each_other(run: Run, command: str) -> None:
    for line in (("-q", "-v"), ("-v", "-q")):
        done = run(command, "x", *line)
        assert (done.code, done.err) == (2, "pixzip: --quiet and --verbose exclude each other\n")


def test_verify_sums_up_as_json(run: Run, album: Path, model: Path) -> None:
    assert run("compress", album / "a.png", "--model", model).code == 0
    (album / "b.pxz").write_bytes(b"none")
    done = run("verify", album, "--json", "--model", model)
    found = json.loads(done.out)
    assert (done.code, found["command"], found["files"], found["worked"], found["failed"]) == (4, "verify", 2, 1, 1)
    assert "as they were encoded" in done.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
def test_no_colours_are_written_and_no_bar_to_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    monkeypatch.setenv("TERM", kind)
    with progress.metered("photo.png", progress.Stop(), quiet=False) as meter:
        meter.part(0.0, 1.0)(0.5)
    assert bool(terminal.getvalue()) == (kind != "dumb")
    assert not re.search("\x1b\\[[0-9;]*m", terminal.getvalue())


def test_reader_that_goes_away_is_no_fault_of_ours(album: Path, model: Path) -> None:
    """As `pixzip compress - | head -c 0`."""
    line = [sys.executable, "-m", "pixzip", "--threads", "1"]
    line = [*line[:3], "compress", "-", "-o", "-", "-q", "--threads", "1", "--model", str(model)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.write((album / "a.png").read_bytes())
        process.stdin.close()
        err = process.stderr.read()
    assert process.returncode == OutputError.exit_code
    assert err == b"pixzip: standard input: cannot write to standard output: Broken pipe\n"


def test_listing_into_a_pipe_that_is_closed_says_nothing_more() -> None:
    """As `pixzip models | head -n 0`."""
    line = [sys.executable, "-m", "pixzip", "models"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        err = process.stderr.read()
    assert b"Traceback" not in err and process.returncode != 0
