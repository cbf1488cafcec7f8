"""Commands in README.md and docs/manifest.md run as they stand there; examples in Python give what they say."""

from __future__ import annotations

import doctest
import glob
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack, redirect_stdout
from itertools import pairwise
from pathlib import Path

import click
import pytest
from conftest import model_picture

import pixzip
from pixzip import cli
from pixzip.model_file import shipped_models

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    "default" not in [info.name for info in shipped_models()], reason="no default model is shipped"
)
#: Exit codes other than 0.
CODES = {"pixzip decompress damaged.pxz --salvage": 11}
#: They train, measure, or need a GPU: only their options are read.
READ_ONLY = ("train", "evaluate", "bench", "sample")


def shell_lines(document: str, block: str) -> list[str]:
    """The command lines of pixzip in a document's blocks of this kind, without comments."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [line.split(" # ")[0].strip() for line in re.findall(block, text, re.MULTILINE)]


README = shell_lines("README.md", r"^(pixzip .*)$")
MANIFEST = shell_lines("docs/manifest.md", r"^    (pixzip .*)$")


def test_documents_have_commands() -> None:
    assert len(README) > 25 and len(MANIFEST) == 2


class Place:
    """A folder with the inputs that a command names; nothing else is in the way of its outputs."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.pngs = [pixzip.write_image(pixzip.from_array(model_picture(9, 12, i)), "PNG") for i in range(2)]
        self.coded = [pixzip.compress(png) for png in self.pngs]

    def put(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def provide(self, word: str) -> None:
        """The file or folder that a word of a command means as an input."""
        if word in ("photo.png", "*.png"):
            self.put("photo.png", self.pngs[0])
        elif word == "photo.pxz":
            self.put(word, self.coded[0])
        elif word == "frames.pxz":
            self.put(word, pixzip.compress_batch(self.pngs, names=["0.png", "1.png"]))
        elif word == "damaged.pxz":
            data = bytearray(pixzip.compress(model_picture(48, 64), tile=32, model=self.model, embed_model=True))
            data[-9] ^= 1
            self.put(word, bytes(data))
        elif word == "mine.safetensors":
            self.put(word, self.model.read_bytes())
        elif word.rstrip("/") in ("album", "frames"):
            for i, png in enumerate(self.pngs):
                self.put(f"{word}/{i}.png", png)
        elif word in ("packed", "coded/*.pxz"):
            for i, coded in enumerate(self.coded):
                self.put(f"{word.split('/')[0]}/{i}.pxz", coded)
        elif word == "packed.jsonl":
            assert (
                cli.main(["compress", "-q", "--force", "-r", *self.album(), "--manifest", str(self.folder / word)]) == 0
            )

    def album(self) -> list[str]:
        self.provide("album")
        return [str(self.folder / "album"), "-o", str(self.folder / "packed")]


def inputs_of(line: str) -> list[str]:
    words, inputs = shlex.split(line), []
    for before, word in zip(["", *words], words, strict=False):
        if before not in ("-o", "--out", ">") and (before != "--manifest" or "verify" in words):
            inputs.append(word)
    return inputs


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a line as a shell would, within this process: globs, < and >."""
    words = shlex.split(line)[1:]
    if "<" in words:
        i = words.index("<")
        data = Path(words[i + 1]).read_bytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        del words[i : i + 2]
    with ExitStack() as redirected:
        if ">" in words:
            i = words.index(">")
            out = redirected.enter_context(open(words[i + 1], "w", encoding="utf-8"))
            redirected.enter_context(redirect_stdout(out))
            del words[i : i + 2]
        return cli.main([each for word in words for each in (sorted(glob.glob(word)) if "*" in word else [word])])


@pytest.fixture
def place(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIXZIP_MODELS", str(tmp_path / "models"))
    return Place(tmp_path, model)


@pytest.mark.parametrize("line", README)
def test_command_in_the_readme_runs(line: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)
    if words[1] in READ_ONLY or "cuda" in words:
        command = cli.commands().commands[words[1]]
        context = command.make_context(words[1], words[2:], obj=None)
        assert isinstance(context, click.Context)
        return
    for word in inputs_of(line):
        place.provide(word)
    if "coded/" in words:
        (place.folder / "coded").mkdir()
    assert run(line, monkeypatch) == CODES.get(line, 0)
    for before, word in pairwise(words):
        if before in ("-o", ">", "--manifest"):
            assert (place.folder / word).exists(), f"{line} wrote no {word}"


def test_commands_on_manifests_run_one_after_another(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.provide("album")
    assert [run(line, monkeypatch) for line in MANIFEST] == [0, 0]


@pytest.mark.skipif(shutil.which("jq") is None or shutil.which("sha256sum") is None, reason="needs jq and sha256sum")
def test_jq_makes_the_columns_of_sha256sum(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.provide("packed.jsonl")
    (line,) = shell_lines("docs/manifest.md", r"^    (cd .*)$")
    assert subprocess.run(line, shell=True, cwd=place.folder, capture_output=True).returncode == 0
    (place.folder / "packed" / "0.pxz").write_bytes(b"changed")
    assert subprocess.run(line, shell=True, cwd=place.folder, capture_output=True).returncode != 0


def test_python_in_the_document_on_manifests_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    results = doctest.testfile(str(ROOT / "docs" / "manifest.md"), module_relative=False)
    assert results.attempted > 4 and results.failed == 0
