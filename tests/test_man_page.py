"""docs/man/pixzip.1 says what the commands' own help says, and is what its generator makes."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import click
import pytest

import pixzip
from pixzip import errors
from pixzip.cli import commands
from pixzip.commands.options import ENVIRONMENT

FOLDER = Path(__file__).parents[1] / "docs" / "man"


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_man_page", FOLDER / "make_man_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maker = _maker()
PAGE = (FOLDER / "pixzip.1").read_text(encoding="utf-8")


PINNED = re.findall(r"^click==(.*)$", (FOLDER.parents[1] / "constraints.txt").read_text(), re.MULTILINE)


@pytest.mark.skipif([version("click")] != PINNED, reason="other versions of click describe options in other words")
def test_page_is_up_to_date() -> None:
    assert maker.page() == PAGE, "python docs/man/make_man_page.py makes it anew"


def test_every_command_and_option_is_on_the_page() -> None:
    plain = PAGE.replace(r"\-", "-")
    for name, command in commands().commands.items():
        section = plain.split(f".SS \\fBpixzip {name}\\fR")[1].split(".SS ")[0]
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(text in section for text in (*option.opts, *option.secondary_opts)), (name, option.name)


def test_every_exit_code_is_on_the_page_and_in_the_readme() -> None:
    codes = {error.exit_code for error in vars(errors).values() if isinstance(error, type)} | {0, 129, 130, 143}
    status = PAGE.split(".SH EXIT STATUS")[1].split(".SH ")[0]
    assert {int(code) for code in re.findall(r"^\\fB(\d+)\\fR$", status, re.MULTILINE)} == codes
    readme = (FOLDER.parents[1] / "README.md").read_text()
    assert {int(code) for code in re.findall(r"^\| +(\d+) \|", readme, re.MULTILINE)} | {129, 143} == codes


def test_every_variable_that_pixzip_reads_is_on_the_page() -> None:
    code = "\n".join(path.read_text() for path in Path(pixzip.__file__).parent.rglob("*.py"))
    read = set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', code))
    foreign = {"XDG_DATA_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "RANK", "WORLD_SIZE", "LOCAL_RANK"}
    assert read - foreign <= {name for name, _ in ENVIRONMENT}
    assert all(rf"\fB{name}\fR" in PAGE for name, _ in ENVIRONMENT)
    assert all(name in PAGE for name in foreign if name.startswith(("XDG", "LOCAL")) and name != "LOCAL_RANK")


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_groff_takes_the_page_without_a_warning() -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Kutf8", "-Tutf8", FOLDER / "pixzip.1"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub("\x1b\\[[0-9;]*m|.\b", "", done.stdout)
    assert "EXIT STATUS" in text and "--max-memory" in text and "PIXZIP_MODELS" in text
