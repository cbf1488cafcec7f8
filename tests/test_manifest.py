"""--manifest: a line a picture, whole after interruptions; verify names what is missing, changed, extra."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import model_picture
from test_tree import Result, Run, album, run, tree

import pixzip
from pixzip import cli, manifest
from pixzip.commands import manifest as command
from pixzip.errors import ManifestError, UsageError
from pixzip.manifest import Record, pixels_sha256, read_manifest, write_manifest

__all__ = ["album", "run"]

CODE = ManifestError.exit_code


@pytest.fixture
def packed(run: Run, album: Path, model: Path, tmp_path: Path) -> Path:
    """The album's tree of .pxz files, beside packed.jsonl."""
    done = run("compress", "-r", album, "-o", tmp_path / "packed", "--manifest", tmp_path / "packed.jsonl", *by(model))
    assert (done.code, done.err) == (0, "")
    return tmp_path / "packed"


def by(model: Path) -> tuple[str | Path, ...]:
    return "--model", model, "-q"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lines(path: Path) -> dict[str, dict[str, str]]:
    """The objects in a manifest, by .pxz file; with nothing of pixzip's."""
    return {found["pxz"]: found for found in map(json.loads, path.read_text("ascii").splitlines())}


# ------------------------------------------------------------------------ what a manifest says


def test_manifest_has_the_digests_that_standard_tools_compute(packed: Path, album: Path) -> None:
    found = lines(packed.with_suffix(".jsonl"))
    assert list(found) == ["a.pxz", "x/b.pxz", "x/y/c.pxz"]
    for i, (name, said) in enumerate(found.items()):
        source = Path(name).with_suffix(".png")
        pam = b"P7\nWIDTH 12\nHEIGHT 9\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + model_picture(9, 12, i).tobytes()
        assert said == {
            "source": str(source),
            "source_sha256": sha256(album / source),
            "pixels_sha256": hashlib.sha256(pam).hexdigest(),
            "pxz": name,
            "pxz_sha256": sha256(packed / name),
        }
    assert tree(packed.parent) == sorted(
        [*(f"album/{name}" for name in tree(album)), *(f"packed/{name}" for name in found), "packed.jsonl"]
    )


@pytest.mark.parametrize(
    ("mode", "depth", "head", "tail"),
    [
        ("L", 1, "DEPTH 1\nMAXVAL 1\nTUPLTYPE GRAYSCALE", b""),
        ("LA", 16, "DEPTH 2\nMAXVAL 65535\nTUPLTYPE GRAYSCALE_ALPHA", b""),
        ("RGBA", 8, "DEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA", b""),
        ("RGB", 16, "DEPTH 3\nMAXVAL 65535\nTUPLTYPE RGB", b""),
        ("L", 8, "DEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE", b"\0\7"),
        ("P", 2, "DEPTH 1\nMAXVAL 3\nTUPLTYPE GRAYSCALE", bytes(range(12))),
        ("P", 2, "DEPTH 1\nMAXVAL 3\nTUPLTYPE GRAYSCALE\n# PALETTE 12", bytes(range(12)) + b"\0\x80"),
    ],
)
def test_pixels_are_digested_as_a_pam_file(
    mode: str, depth: int, head: str, tail: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = len(mode) if mode != "P" else 1
    pixels = np.random.default_rng(1).integers(0, 2**depth, (5, 7, c)).astype(np.uint16 if depth == 16 else np.uint8)
    palette, transparency = (tail[:12], tail[12:]) if mode == "P" else (b"", tail)
    picture = pixzip.Picture(np.moveaxis(pixels, 2, 0).copy(), mode, depth, palette, transparency)
    raw = pixels.astype(">u2").tobytes() if depth == 16 else pixels.tobytes()
    expected = hashlib.sha256(f"P7\nWIDTH 7\nHEIGHT 5\n{head}\nENDHDR\n".encode() + raw + tail).hexdigest()
    assert pixels_sha256(picture) == expected
    monkeypatch.setattr(manifest, "_SAMPLES_AT_ONCE", 2 * 7 * c)  # blocks of two rows, and a rest
    assert pixels_sha256(picture) == expected


def test_palettes_and_transparencies_are_told_apart() -> None:
    planes, entries = np.zeros((1, 2, 2), np.uint8), bytes(range(16))
    parts = [(n, t) for n in (6, 9, 12) for t in range(n // 3 + 1)]  # 9 and 3 bytes are 12 and none
    pictures = [pixzip.Picture(planes, "P", 2, entries[:n], entries[n : n + t]) for n, t in parts]
    pictures += [pixzip.Picture(planes, "L", 2, b"", key) for key in (b"", b"\0\1")]
    assert len({pixels_sha256(picture) for picture in pictures}) == len(pictures)


def test_any_name_goes_through_a_line() -> None:
    digest = "0" * 64
    records = [Record(name, digest, digest, name + "x", digest) for name in ("ä/b", "a\nb", "\udcff", '"\\', " ")]
    data = write_manifest(records)
    assert sorted(records, key=lambda record: record.pxz) == read_manifest(data)
    assert data.isascii() and data.count(b"\n") == len(records)


GOOD = write_manifest([Record("a", "1" * 64, "2" * 64, "a.pxz", "3" * 64)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no manifest\n", "line 1: not a JSON object"),
        (GOOD + b"[]\n", "line 2: must be an object with source"),
        (GOOD + GOOD, "line 2: a second line for a.pxz"),
        (GOOD[:-1], "cut off"),
        (GOOD.replace(b"1" * 64, b"1" * 63), "source_sha256 is '1111"),
        (GOOD.replace(b"2" * 64, b"G" * 64), "64 hexadecimal digits"),
        (GOOD.replace(b'"a"', b"7"), "source is 7: must be text"),
        (GOOD.replace(b'"source"', b'"sauce"'), "must be an object"),
        (b"[" * 100_000 + b"\n", "not a JSON object"),
    ],
)
def test_manifest_that_is_none_is_refused(
    run: Run, album: Path, model: Path, tmp_path: Path, data: bytes, reason: str
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(data)
    (tmp_path / "a.pxz").touch()
    for line in (("compress", "-r", album, "-o", tmp_path / "out"), ("verify", tmp_path / "a.pxz")):
        done = run(*line, "--manifest", path, *by(model))
        assert (done.code, done.err.count("\n")) == (UsageError.exit_code, 1)
        assert done.err.startswith(f"pixzip: manifest {path}: ") and reason in done.err
    assert path.read_bytes() == data and not (tmp_path / "out").exists()


# ------------------------------------------------------------------------ whole, whatever happened before


@pytest.mark.parametrize("delete", [False, True])
def test_interrupted_run_leaves_no_manifest_and_the_next_a_whole_one(
    run: Run, album: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delete: bool
) -> None:
    whole = tmp_path / "whole.jsonl"
    assert run("compress", "-r", album, "-o", tmp_path / "whole", "--manifest", whole, *by(model)).code == 0
    line = ("compress", "-r", album, "-o", tmp_path / "packed", "--manifest", tmp_path / "m", *by(model))
    line += ("--delete",) if delete else ()
    add, seen = command.Manifest.add, []

    def interrupted(self: command.Manifest, file: str, *rest: object) -> None:
        seen.append(file)
        if len(seen) == 3:  # its .pxz file is there, its line is not
            os.kill(os.getpid(), signal.SIGTERM)
        add(self, file, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(command.Manifest, "add", interrupted)
        assert run(*line).code == 143
    part = tmp_path / "m.part"
    assert (tmp_path / "m").exists() is False and len(lines(part)) == 2
    assert tree(tmp_path / "packed") == ["a.pxz", "x/b.pxz", "x/y/c.pxz"]
    part.write_bytes(part.read_bytes() + b'{"source": "x/y')  # as a kill while writing leaves it
    assert run(*line).code == 0
    assert (tmp_path / "m").read_bytes() == whole.read_bytes() and not part.exists()
    assert tree(album) == [".hidden/d.png", *([] if delete else ["a.png", "x/b.png"]), "x/notes.md"] + (
        [] if delete else ["x/y/c.png"]
    )


def test_without_its_part_a_manifest_would_lose_lines_of_deleted_sources(
    run: Run, album: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("compress", "-r", album, "-o", tmp_path / "packed", "--manifest", tmp_path / "m", *by(model), "--delete")

    def interrupted(path: Path, data: bytes) -> None:
        if b"x/b" in data:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("pixzip.files.append_durably", interrupted)
        assert run(*line).code == 143
    assert run(*line).code == 0
    assert list(lines(tmp_path / "m")) == ["x/b.pxz", "x/y/c.pxz"]


#: Runs the command in children that kill themselves at their n-th step of writing, n = 0, 1, ... to the end; after each
#: one that is left alone.
KILLED = """if True:
    import os, shutil, signal, sys
    from itertools import count
    from pathlib import Path
    from pixzip import cli
    place, model = Path(sys.argv[1]), sys.argv[2]
    os.cpu_count = lambda: 1

    def compress(folder):
        manifest = str(folder / "packed.jsonl")
        words = ["compress", "-r", str(folder / "album"), "-o", str(folder / "packed"), "--manifest", manifest]
        return cli.main([*words, "--delete", "-q", "--model", model])

    class Step:
        number, wanted = 0, None

    def stepwise(function):
        def step(*arguments):
            if Step.number == Step.wanted:
                os.kill(os.getpid(), signal.SIGKILL)
            Step.number += 1
            function(*arguments)
        return step

    def run_child(wanted, folder):
        Step.wanted = wanted
        child = os.fork()
        if not child:
            os._exit(compress(folder))
        return os.waitpid(child, 0)[1]

    shutil.copytree(place / "template", place / "whole")
    assert compress(place / "whole") == 0  # loads all there is: forked children need no threads of their own
    os.fsync, os.link, os.unlink, os.replace = map(stepwise, (os.fsync, os.link, os.unlink, os.replace))
    for wanted in count():
        folder = place / f"killed-{wanted}"
        shutil.copytree(place / "template", folder)
        if not os.WIFSIGNALED(run_child(wanted, folder)):
            break
        run_child(None, folder)
"""


def test_manifest_is_whole_at_whatever_step_a_command_was_killed(album: Path, model: Path, tmp_path: Path) -> None:
    album.rename(tmp_path / "was")
    (tmp_path / "template" / "album").mkdir(parents=True)
    for i in range(2):
        (tmp_path / "template" / "album" / f"{i}.png").write_bytes((tmp_path / "was" / "a.png").read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(model)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    folders = [tmp_path / "whole", *tmp_path.glob("killed-*")]
    # fsync, link, fsync of the folder, unlink; two of the line's file and folder; unlink of the source: 7 a picture.
    # Then fsync, replace, fsync of the folder, two unlinks. One was left alone.
    assert len(folders) == 1 + 7 * 2 + 5 + 1
    for folder in folders:
        assert tree(folder / "packed")[-2:] == ["0.pxz", "1.pxz"]  # there may be a hidden temporary file before them
        assert (folder / "packed.jsonl").read_bytes() == (tmp_path / "whole" / "packed.jsonl").read_bytes()
        assert not (folder / "packed.jsonl.part").exists() and tree(folder / "album") == []


def test_manifest_of_results_that_were_there_before_is_the_same(
    run: Run, album: Path, packed: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed.with_suffix(".jsonl")
    before = path.read_bytes()
    line = ("compress", "-r", album, "-o", packed, "--manifest", path, *by(model))
    path.unlink()
    monkeypatch.setattr(pixzip.api, "compress_batch", None)
    monkeypatch.setattr(pixzip.api, "decompress_batch", None)  # nothing is decoded: the checksum in the file is enough
    assert run(*line).code == 0 and path.read_bytes() == before
    monkeypatch.setattr(command, "pixels_sha256", None)  # nor looked at, where files have the digests of their line
    assert run(*line).code == 0 and path.read_bytes() == before


def test_result_of_another_picture_gets_no_line(run: Run, album: Path, packed: Path, model: Path) -> None:
    (packed / "a.pxz").write_bytes((packed / "x" / "b.pxz").read_bytes())
    path = packed.with_suffix(".jsonl")
    path.unlink()
    done = run("compress", "-r", album, "-o", packed, "--manifest", path, *by(model))
    assert done.code == 5 and "a.png: its .pxz file holds other pixels" in done.err
    assert list(lines(path)) == ["x/b.pxz", "x/y/c.pxz"]


def test_files_that_fail_have_no_line_and_new_ones_are_added(
    run: Run, album: Path, model: Path, tmp_path: Path
) -> None:
    whole = (album / "x" / "b.png").read_bytes()
    (album / "x" / "b.png").write_bytes(b"no image")
    line = ("compress", "-r", album, "-o", tmp_path / "packed", "--manifest", tmp_path / "m.jsonl", *by(model))
    assert run(*line).code == 3
    assert list(lines(tmp_path / "m.jsonl")) == ["a.pxz", "x/y/c.pxz"]
    (album / "x" / "b.png").write_bytes(whole)
    assert run(*line).code == 0
    assert list(lines(tmp_path / "m.jsonl")) == ["a.pxz", "x/b.pxz", "x/y/c.pxz"]


def test_command_that_does_nothing_writes_no_manifest(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    assert run("compress", tmp_path / "a.png", "--manifest", tmp_path / "m", *by(model)).code == 3
    assert tree(tmp_path) == ["a.png"]


def test_full_disk_spares_the_old_manifest(
    run: Run, album: Path, packed: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed.with_suffix(".jsonl")
    before = path.read_bytes()

    def full(*anything: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = run("compress", "-r", album, "-o", packed, "--manifest", path, *by(model))
    assert (done.code, path.read_bytes()) == (9, before)
    assert f"cannot write {path}: No space left on device" in done.err


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (("-", "--manifest", "m"), "need an input file"),
        (("{album}/a.png", "-o", "-", "--manifest", "m"), "need an input file"),
        (("{album}/a.png", "--pack", "-o", "p.pxz", "--manifest", "m"), "--pack excludes"),
        (("{album}/a.png", "--manifest", "no/folder/m"), "no folder"),
        (("{album}/a.png", "--manifest", "{album}"), "is not a regular file"),
        (("{album}/a.png", "--manifest", "{album}/a.pxz"), "is also that of the manifest"),
    ],
)
def test_wrong_usage_is_refused(run: Run, album: Path, line: tuple[str, ...], reason: str) -> None:
    done = run("compress", "-q", *(word.format(album=album) for word in line))
    assert (done.code in (2, 9), reason in done.err, done.err.count("\n")) == (True, True, 1), done.err
    assert not Path("m").exists()


def test_dry_run_writes_no_manifest(run: Run, album: Path, tmp_path: Path) -> None:
    assert run("compress", "-r", album, "-o", tmp_path / "p", "--manifest", tmp_path / "m", "--dry-run").code == 0
    assert tree(tmp_path) == [f"album/{name}" for name in tree(album)]


# ------------------------------------------------------------------------ verify


def verify(run: Run, packed: Path, model: Path, *more: str) -> Result:
    return run("verify", "-r", packed, "--manifest", packed.with_suffix(".jsonl"), "--model", model, *more)


def test_untouched_tree_is_as_its_manifest_says(run: Run, packed: Path, model: Path) -> None:
    done = verify(run, packed, model)
    assert (done.code, done.out.count("file and pixels as the manifest says")) == (0, 3)
    assert json.loads(verify(run, packed, model, "--json", "-q").out)["worked"] == 3


def test_everything_that_differs_is_named(run: Run, packed: Path, model: Path, other_model: Path) -> None:
    def one_fault(file: Path, *reasons: str) -> None:
        done = verify(run, packed, model, "-q")
        assert (done.code, done.err.count("\n")) == (CODE, 1), done.err
        assert done.err.startswith(f"pixzip: {file}: ") and all(reason in done.err for reason in reasons), done.err

    b = packed / "x" / "b.pxz"
    data, a_data = b.read_bytes(), (packed / "a.pxz").read_bytes()
    b.unlink()
    one_fault(b, "missing")
    b.write_bytes(a_data)
    one_fault(b, "changed: SHA-256 ", f"in the manifest {hashlib.sha256(data).hexdigest()}", "; pixels: SHA-256")
    b.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    one_fault(b, "changed: ", "CRC")
    b.write_bytes(b"no .pxz file")
    one_fault(b, "changed: ", "not a .pxz file")
    b.write_bytes(pixzip.compress(model_picture(9, 12, 1), model=model, embed_model=True))
    one_fault(b, "changed: ", "its pixels are those of the manifest")
    b.write_bytes(pixzip.compress(model_picture(9, 12, 1), model=other_model))
    one_fault(b, "changed: ", "no model with digest")
    b.write_bytes(data)
    (packed / "extra.pxz").write_bytes(a_data)
    one_fault(packed / "extra.pxz", "extra")
    (packed / "extra.pxz").unlink()
    path = packed.with_suffix(".jsonl")
    said = lines(path)["x/b.pxz"]["pixels_sha256"]
    path.write_text(path.read_text().replace(said, "0" * 64))
    one_fault(b, f"pixels: SHA-256 {said}, in the manifest {'0' * 64}")


def test_a_tree_of_which_all_is_gone_is_missing(run: Run, packed: Path, model: Path) -> None:
    for name in tree(packed):
        (packed / name).unlink()
    done = verify(run, packed, model)
    assert done.err.count("missing: ") == 3


def test_several_files_without_r_are_named_as_on_the_command_line(
    run: Run, album: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    names = ["album/a.png", "./album/x/b.png"]
    assert run("compress", *names, "-o", "out", "--manifest", "m", *by(model)).code == 0
    assert [(said["source"], name) for name, said in lines(Path("m")).items()] == [
        ("album/a.png", "out/a.pxz"),
        ("album/x/b.png", "out/b.pxz"),
    ]
    assert run("verify", "out", "--manifest", "m", *by(model)).code == 0
    assert run("verify", "out/a.pxz", "--manifest", "m", *by(model)).code == 0  # b.pxz is there, and not asked for
    Path("out/b.pxz").unlink()
    done = run("verify", "out/a.pxz", "--manifest", "m", *by(model))
    assert (done.code, done.err) == (CODE, "pixzip: out/b.pxz: missing: it is in the manifest and not there\n")


def test_manifest_reaches_no_file_outside_the_tree(run: Run, packed: Path, model: Path) -> None:
    path = packed.with_suffix(".jsonl")
    for outside in ("../a.pxz", "/a.pxz"):
        path.write_text(path.read_text().replace('"a.pxz"', json.dumps(outside)))
        done = verify(run, packed, model)
        assert done.code == UsageError.exit_code and "is not below a folder" in done.err
        path.write_text(path.read_text().replace(json.dumps(outside), '"a.pxz"'))


def test_manifest_and_standard_input_exclude_each_other(run: Run, packed: Path) -> None:
    done = run("verify", "-", "--manifest", packed.with_suffix(".jsonl"))
    assert (done.code, "--manifest needs input files" in done.err) == (2, True)
    assert cli.main(["verify", "-r", str(packed / "a.pxz"), "--manifest", str(packed.with_suffix(".jsonl"))]) == 2
