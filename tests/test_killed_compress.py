"""compress --delete stopped at every step of writing, or without room on the disk: no picture is lost.

bench/killed_compress.py does the same a hundred times at random moments.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import model_picture

import pixzip
from pixzip import cli


def _bench() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "killed_compress.py"
    spec = importlib.util.spec_from_file_location("killed_compress", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


bench = _bench()
SOURCES = {f"{i}.png": pixzip.write_image(pixzip.from_array(model_picture(10 + 4 * i, 9, i)), "PNG") for i in range(3)}
TWO = dict(list(SOURCES.items())[:2])

#: Runs the command in children that kill themselves at their n-th step of writing, n = 0, 1, ... to the end.
KILLED = """if True:
    import os, shutil, signal, sys
    from contextlib import contextmanager
    from itertools import count
    from pathlib import Path
    from pixzip import cli, files
    place, model, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    os.cpu_count = lambda: 1

    def compress(folder):
        return cli.main(["compress", str(folder), "--delete", "-q", "--model", model])

    class Step:
        number, wanted = 0, None

        @classmethod
        def taken(cls):
            if cls.number == cls.wanted:
                os.kill(os.getpid(), signal.SIGKILL)
            cls.number += 1

    def stepwise(function):
        def step(*arguments):
            Step.taken()
            function(*arguments)
            Step.taken()
        return step

    def write(path, data, like):
        with open(path, "xb") as file:
            file.write(data[:len(data) // 2])
            file.flush()
            Step.taken()
            file.write(data[len(data) // 2:])
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def direct(target, data, *, force, mtime_ns=None, like=()):
        write(target, data, like)
        yield target

    shutil.copytree(place / "template", place / "compiling")
    assert compress(place / "compiling") == 0  # loads all there is: forked children need no threads of their own
    files._write_durably = write
    os.fsync, os.link, os.unlink = map(stepwise, (os.fsync, os.link, os.unlink))
    if how == "direct":
        files.staged = direct
    for Step.wanted in count():
        folder = place / f"killed-{Step.wanted}"
        shutil.copytree(place / "template", folder)
        child = os.fork()
        if not child:
            os._exit(compress(folder))
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            sys.exit(os.WEXITSTATUS(status))
"""


def killed_at_every_step(place: Path, model: Path, how: str) -> list[bench.Found]:
    """Judgements of all folders, in the order of the steps; of the last one nothing was killed."""
    fill(place / "template", TWO)
    line = [sys.executable, "-c", KILLED, str(place), str(model), how]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    folders = sorted(place.glob("killed-*"), key=lambda path: int(path.name.split("-")[1]))
    return [bench.judge(folder, TWO, model) for folder in folders]


def fill(folder: Path, sources: dict[str, bytes] = SOURCES) -> None:
    folder.mkdir()
    for name, data in sources.items():
        (folder / name).write_bytes(data)


def test_no_picture_is_lost_at_whatever_step_the_writing_is_killed(model: Path, tmp_path: Path) -> None:
    judgements = killed_at_every_step(tmp_path, model, "staged")
    assert not [fault for found in judgements for fault in found.faults]
    # Half written, around fsync, link, fsync of the folder and two unlinks: 11 steps a picture.
    assert len(judgements) == 11 * len(TWO) + 1
    assert (judgements[0].sources, judgements[0].coded, judgements[0].temporary) == (2, 0, 1)
    assert (judgements[-1].sources, judgements[-1].coded, judgements[-1].temporary) == (0, 2, 0)
    assert {(found.both, found.temporary) for found in judgements} == {(0, 0), (0, 1), (1, 1), (1, 0)}


def test_a_writer_without_temporary_files_is_found_out(model: Path, tmp_path: Path) -> None:
    judgements = killed_at_every_step(tmp_path, model, "direct")
    assert any("half a file" in fault for found in judgements for fault in found.faults)


def test_judge_names_every_fault(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder)
    coded = pixzip.compress(SOURCES["1.png"], model=model)
    (folder / "1.pxz").write_bytes(coded)
    assert bench.judge(folder, SOURCES, model).faults == []
    (folder / "0.png").unlink()
    (folder / "1.png").write_bytes(SOURCES["1.png"][:-1])
    (folder / "2.pxz").write_bytes(coded)
    (folder / "x").touch()
    (folder / ".pixzip-0123456789abcdef.tmp").touch()
    found = bench.judge(folder, SOURCES, model)
    assert found.faults == ["0.png is lost", "1.png has changed", "2.pxz holds another picture", "x is left over"]
    assert (found.sources, found.coded, found.both, found.temporary) == (1, 1, 0, 1)


def test_full_disk_loses_no_picture_and_leaves_no_file(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    folder = tmp_path / "folder"
    fill(folder)
    sizes = sorted(len(pixzip.compress(data, model=model)) for data in SOURCES.values())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[1], before[1]))
    try:
        code = cli.main(["compress", str(folder), "--delete", "--model", str(model)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == pixzip.OutputError.exit_code
    assert "cannot write" in capsys.readouterr().err
    found = bench.judge(folder, SOURCES, model)
    assert (found.sources, found.coded, found.temporary, found.faults) == (1, 2, 0, [])
