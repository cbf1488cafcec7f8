"""What shells, file(1) and desktops are told of pixzip: completion, docs/pixzip.magic, docs/pixzip-mime.xml."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.shell_completion import get_completion_class

import pixzip
import pixzip.pillow
from pixzip.cli import commands
from pixzip.pxz.container import MAGIC

DOCS = Path(__file__).parents[1] / "docs"


def unescaped(text: str) -> bytes:
    return text.encode("ascii").decode("unicode_escape").encode("latin-1")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_written_for_every_shell_that_the_readme_names(shell: str) -> None:
    environment = os.environ | {"_PIXZIP_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-m", "pixzip"], env=environment, capture_output=True, text=True)
    if shell == "bash" and "Bash" in done.stderr:
        pytest.skip("click asks bash for its version, and there is none")
    assert done.returncode == 0 and "_PIXZIP_COMPLETE" in done.stdout


def test_completion_knows_commands_and_options() -> None:
    environment = os.environ | {"_PIXZIP_COMPLETE": "zsh_complete", "COMP_WORDS": "pixzip comp", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "pixzip"], env=environment, capture_output=True, text=True)
    assert {"compress", "complete"} <= set(done.stdout.split("\n"))
    environment |= {"COMP_WORDS": "pixzip decompress --sal", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-m", "pixzip"], env=environment, capture_output=True, text=True)
    assert "--salvage" in done.stdout.split("\n")


@pytest.mark.parametrize(
    ("words", "current"),
    [
        ("compress ph", "ph"),
        ("decompress ph", "ph"),
        ("verify ph", "ph"),
        ("info ph", "ph"),
        ("compress x.png -o ph", "ph"),
        ("compress x.png --model ph", "ph"),
        ("compress x.png --manifest ph", "ph"),
        ("verify x.pxz --manifest ph", "ph"),
        ("models --add ph", "ph"),
        ("sample ph", "ph"),
        ("complete default ph", "ph"),
        ("evaluate ph", "ph"),
        ("freeze ph", "ph"),
        ("bench ph", "ph"),
        ("train --config ph", "ph"),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_leaves_names_of_files_to_the_shell(
    shell: str, words: str, current: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"pixzip {words}"
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", current if shell == "fish" else str(len(line.split()) - 1))
    completion = get_completion_class(shell)
    assert completion is not None
    found = completion(commands(), {}, "pixzip", "_PIXZIP_COMPLETE").complete().replace("\n", ",")
    assert found.startswith({"bash": f"file,{current}", "zsh": f"file,{current}", "fish": f"file,{current}"}[shell])


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_names_of_files_by_its_own_means(tmp_path: Path) -> None:
    """The line of README.md for ~/.bashrc, then what bash does at a tab."""
    script = tmp_path / "pixzip"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m pixzip "$@"\n')
    script.chmod(0o755)
    tab = """
        eval "$(_PIXZIP_COMPLETE=bash_source pixzip)"
        compopt() { printf '%s ' compopt "$@"; }
        COMP_WORDS=(pixzip $1) COMP_CWORD=$2
        _pixzip_completion pixzip
        echo "${COMPREPLY[*]}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(Path(pixzip.__file__).parents[1])}
    for words, said in (("compress ph", "compopt -o default"), ("decompress --sal", "--salvage"), ("comp", "compress")):
        line = ["bash", "-c", tab, "bash", words, str(len(words.split()))]
        done = subprocess.run(line, env=environment, capture_output=True, text=True)
        assert said in done.stdout, done.stderr


def test_magic_and_type_are_those_of_the_format() -> None:
    lines = [line.split("\t") for line in (DOCS / "pixzip.magic").read_text().splitlines() if line[0] != "#"]
    assert lines[0][:2] == ["0", "string"] and unescaped(lines[0][2]) == MAGIC
    assert lines[1] == ["!:mime", pixzip.pillow.MIME]
    root = ElementTree.parse(DOCS / "pixzip-mime.xml").getroot()
    name = re.sub(r"mime-info$", "", root.tag)
    kind = root.find(f"{name}mime-type")
    match, glob = root.find(f".//{name}match"), root.find(f".//{name}glob")
    assert kind is not None and match is not None and glob is not None
    assert (kind.get("type"), glob.get("pattern")) == (pixzip.pillow.MIME, "*.pxz")
    assert unescaped(match.get("value") or "") == MAGIC


def test_fields_of_the_magic_file_stand_where_it_says() -> None:
    """An interpreter of the few kinds of line that the file has."""
    data = pixzip.compress_batch([np.full((3, 5), i, dtype=np.uint16) for i in range(2)])
    said = ""
    for line in (DOCS / "pixzip.magic").read_text().splitlines():
        if not line.startswith(">"):
            continue
        offset, kind, test, message = line[1:].split("\t")
        (value,) = struct.unpack_from({"ubyte": "<B", "ulelong": "<I"}[kind], data, int(offset))
        if test == "x" or (test[0] == ">" and value > int(test[1:])) or test == str(value):
            said += " " + message.replace("%u", str(value))
    assert said.replace(" \\b", "") == f", version {data[8]}, 5 x 3, 2 pictures, gray, 16 bits a sample"


@pytest.mark.skipif(shutil.which("file") is None, reason="needs file(1)")
def test_file_describes_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "x.pxz"
    path.write_bytes(pixzip.compress(np.zeros((3, 5), dtype=np.uint8)))
    done = subprocess.run(["file", "-b", "-m", DOCS / "pixzip.magic", path], capture_output=True, text=True)
    assert done.stdout.startswith("pixzip lossless image, version 2, 5 x 3, gray, 8 bits a sample")
