"""Without PyTorch and constriction: a process that cannot import them decodes, codes, verifies, serves Pillow, to the
same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import model_picture
from PIL import Image

import pixzip
from pixzip.model.file import shipped_models

GOLDEN = Path(__file__).parent / "golden"

#: sitecustomize.py, which every Python process runs first: torch and what comes with it are not found, as where it is
#: not installed.
HIDE = """if True:
    import sys
    from importlib.machinery import PathFinder

    class Without:
        invalidate_caches = PathFinder.invalidate_caches

        @staticmethod
        def find_spec(name, path=None, target=None):
            hidden = name.partition(".")[0] in ("torch", "safetensors", "triton", "constriction")
            return None if hidden else PathFinder.find_spec(name, path, target)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Without
    sys.path[:0] = PATHS
"""
#: Every way to code and decode, in one such process.
ALL_WAYS = """if True:
    import hashlib, io, os, sys
    os.cpu_count = lambda: 1
    try:
        import torch
    except ModuleNotFoundError:
        pass
    else:
        sys.exit("torch can be imported")
    try:
        import constriction
    except ModuleNotFoundError:
        pass
    else:
        sys.exit("constriction can be imported")
    import pixzip, pixzip.pillow
    from PIL import Image
    photo, golden, expected, model = sys.argv[1:]
    data = pixzip.compress(open(photo, "rb").read(), model=model)
    picture = pixzip.decompress(data, model=model)
    assert pixzip.write_image(picture, "PNG") == pixzip.write_image(pixzip.read_image(open(photo, "rb").read()), "PNG")
    pixzip.verify(data, model=model)
    out = io.BytesIO()
    Image.open(photo).save(out, "PXZ", model=model)
    opened = Image.open(io.BytesIO(out.getvalue()))
    opened.model = model
    assert opened.tobytes() == Image.open(photo).tobytes()
    assert pixzip.decompress(open(golden, "rb").read()).same_pixels(pixzip.read_image(open(expected, "rb").read()))
    try:
        pixzip.compress(open(photo, "rb").read(), model=model, engine="cuda")
    except pixzip.UsageError as error:
        assert "needs PyTorch" in str(error), error
    else:
        sys.exit("cuda without torch")
    assert not {"torch", "triton", "safetensors"} & sys.modules.keys()
    print(hashlib.sha256(data).hexdigest(), hashlib.sha256(out.getvalue()).hexdigest())
"""


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes that have no torch."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(HIDE.replace("PATHS", repr([path for path in sys.path if path])))
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(model_picture(24, 32)).save(path)
    return path


@pytest.mark.skipif("default" not in [info.name for info in shipped_models()], reason="no default model is shipped")
def test_golden_file_file_and_pillow_without_torch(without: dict[str, str], photo: Path, model: Path) -> None:
    """The same digest by the API and by Pillow, there and here."""
    golden = GOLDEN / "photo-64x48.2.pxz"
    arguments = [str(photo), str(golden), str(GOLDEN / "photo-64x48.png"), str(model)]
    done = subprocess.run(
        [sys.executable, "-c", ALL_WAYS, *arguments], env=without, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    here = hashlib.sha256(pixzip.compress(photo.read_bytes(), model=model, threads=1)).hexdigest()
    assert done.stdout.split() == [here, here]


def test_a_pipe_of_processes_without_torch_gives_the_same_digest(
    without: dict[str, str], photo: Path, model: Path, tmp_path: Path
) -> None:
    """`compress - | tee | decompress -`, real processes and pipes, against the command line's file and the API."""
    line = [sys.executable, "-m", "pixzip"]
    how = ["-q", "--threads", "1", "--model", str(model)]
    packed = tmp_path / "piped.pxz"
    with photo.open("rb") as source:
        compress = subprocess.Popen([*line, "compress", "-", *how], stdin=source, stdout=subprocess.PIPE, env=without)
        tee = subprocess.Popen(["tee", packed], stdin=compress.stdout, stdout=subprocess.PIPE)
        decompress = subprocess.Popen(
            [*line, "decompress", "-", "-o", str(tmp_path / "back.png"), *how], stdin=tee.stdout, env=without
        )
        for process in (compress, tee):
            assert process.stdout is not None
            process.stdout.close()
        assert [process.wait() for process in (compress, tee, decompress)] == [0, 0, 0]
    by_file = tmp_path / "file.pxz"
    subprocess.run([*line, "compress", str(photo), "-o", str(by_file), *how], env=without, check=True)
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (packed, by_file)}
    assert digests == {hashlib.sha256(pixzip.compress(photo.read_bytes(), model=model, threads=1)).hexdigest()}
    assert np.array_equal(np.asarray(Image.open(tmp_path / "back.png")), np.asarray(Image.open(photo)))


def test_what_needs_torch_says_so_in_one_line(without: dict[str, str], tmp_path: Path) -> None:
    for words in (["train", "--data", "x", "--out", "run"], ["evaluate", "default", "x"]):
        done = subprocess.run(
            [sys.executable, "-m", "pixzip", *words],
            env=without,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert "torch" in done.stderr.lower()


def test_torch_is_indeed_hidden(without: dict[str, str]) -> None:
    for module in ("torch", "torch.nn", "safetensors.torch"):
        done = subprocess.run([sys.executable, "-c", f"import {module}"], env=without, capture_output=True, text=True)
        assert done.returncode == 1 and "No module named" in done.stderr
