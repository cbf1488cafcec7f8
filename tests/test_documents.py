"""Every command in README.md, docs/ and the models' cards: it runs, or its options and files are those that exist.

Commands of pixzip that need no placeholder, data set, GPU or minutes of training run here, with a small model in the
place of the default one. Of all others the command line is parsed by the command's own parser and the files of the
repository that it names are looked for. What docs/training.md calls the first model is trained in
tests/test_training_command.py; the examples in Python of README.md and docs/api.md run in tests/test_api.py.
"""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import pytest
from conftest import calm_parts, model_picture
from PIL import Image

import pixzip
from pixzip import cli
from pixzip.manifest import Record, pixels_sha256, sha256, write_manifest
from pixzip.model.file import write_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
for _folder in ("docs", "models", "examples", "bench/research"):
    DOCUMENTS += sorted((ROOT / _folder).glob("*.md"))
#: First words that make a line of an indented or fenced block a command.
PROGRAMS = ("pixzip", "python", "python3", "pip", "torchrun", "mount", "export", ".venv/bin/pip", ".venv/bin/python")
#: Of the system: nothing of ours to check.
SYSTEM = ("mount", "export")
#: A word that stands for something: RUN, FILE.toml, KODAK/05.png, HOST:29500, binary-mnist/test:MNIST.
_PLACEHOLDER = re.compile(r"\b[A-Z][A-Z0-9]{2,}\b|^\.\.\.$|\[")
#: Commands without placeholder that are not run: a GPU, data sets, a training of minutes.
NOT_RUN = ("--device cuda", "pixzip train", "pixzip bench kodak")


@dataclass(frozen=True)
class Command:
    """One command of a document; whole: it stands in a block of its own, else within a sentence."""

    document: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.document}: {' '.join(self.words)}"


def blocks(text: str) -> list[str]:
    """Lines of fenced and indented blocks, continued lines joined; outputs in Python prompts are left out."""
    fenced = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.M | re.S)
    indented = re.findall(r"^(?: {4}.*\n?)+", text, re.M)
    return [line.strip() for block in fenced + indented for line in block.replace("\\\n", " ").splitlines()]


def commands_in(path: Path) -> list[Command]:
    """Every command of a document, in blocks and in sentences."""
    text = path.read_text(encoding="utf-8")
    name = str(path.relative_to(ROOT))
    found = []
    for line in blocks(text):
        for part in line.split(" && "):
            words = tuple(shlex.split(part, comments=True)) if part.split(" ")[0] in PROGRAMS else ()
            found += [Command(name, words, whole=True)] if words else []
    for span in re.findall(r"`((?:pixzip|python|pip) [^`]+)`", text):
        found.append(Command(name, tuple(shlex.split(span)), whole=False))
    return found


COMMANDS = list(dict.fromkeys(command for path in DOCUMENTS for command in commands_in(path)))


def group() -> click.Group:
    """pixzip's commands."""
    return cli._pixzip


def script(path: str) -> click.Command:
    """The click command of a script in bench/."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")  # as Python does for the script that it runs
        patch.setitem(sys.modules, spec.name, module)  # where dataclasses look for it
        spec.loader.exec_module(module)
    found: click.Command = module.main
    return found


def parse(command: click.Command, words: list[str], *, whole: bool) -> None:
    """Raise what the command's own parser raises: of a fragment for unknown options, of a whole one for all words."""
    words = [word for word in words if word != "..."]
    context = click.Context(command, info_name=command.name)
    command.make_parser(context).parse_args(list(words))
    if whole:
        command.make_context(command.name, list(words))


def check_pixzip(words: list[str], *, whole: bool) -> None:
    """The words behind `pixzip`."""
    name, *rest = (word for word in words if word not in ("<", ">"))
    if name.startswith("-"):
        parse(group(), [name, *rest], whole=False)
        return
    name = "compress" if name == "COMMAND" else name
    command = group().get_command(click.Context(group()), name)
    assert command is not None, f"no command {name}"
    elided = "..." in rest or "--help" in rest
    parse(command, rest, whole=whole and not elided)
    if name == "train":
        check_settings(rest)


def check_settings(words: list[str]) -> None:
    """A preset that exists; settings that the configuration has."""
    pytest.importorskip("torch")
    from pixzip.training.config import from_tables, overridden, preset_tables

    options = list(pairwise(words))
    named = dict(options)
    if "NAME" in named.values() or "--config" in named:
        return
    tables = overridden(preset_tables(named.get("--preset", "default")), [v for k, v in options if k == "--set"])
    if "--init" in named:
        tables["training"]["init"] = named["--init"]
    from_tables(tables)


def check_files(words: tuple[str, ...]) -> None:
    """Files of the repository that a command names."""
    for word in words:
        if word.startswith(("bench/", "examples/", "models/", "docs/")) and not _PLACEHOLDER.search(word):
            assert (ROOT / word).exists(), f"no file {word}"


def check(command: Command) -> None:
    """Raise unless a command could run where its placeholders stand for something."""
    program, *rest = command.words
    program = program.removeprefix(".venv/bin/")
    check_files(command.words)
    if program in SYSTEM:
        return
    if program == "pixzip":
        check_pixzip(rest, whole=command.whole)
    elif program in ("python", "python3"):
        check_python(rest)
    elif program == "pip":
        check_pip(rest)
    else:
        assert program in ("torchrun", "pytest"), program
        if program == "torchrun":
            assert rest[rest.index("-m") + 1] == "pixzip"
            check_pixzip(rest[rest.index("-m") + 2 :], whole=False)


def check_python(words: list[str]) -> None:
    if words[0] == "-m":
        assert words[1] == "venv"
    elif words[0].startswith("bench/") and Path(words[0]).stem != "network_sizes":  # which has no options
        if Path(words[0]).stem in ("formats",):
            pytest.importorskip("png")
        parse(script(words[0]), [word for word in words[1:] if not word.startswith("[")], whole=False)
    else:
        assert (ROOT / words[0]).is_file()


def check_pip(words: list[str]) -> None:
    """Extras that the project has; other packages by name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words[1:]:
        for extra in re.findall(r"\.\[(.*)\]", word):
            assert set(extra.split(",")) <= extras.keys()
    if "-c" in words:
        assert (ROOT / words[words.index("-c") + 1]).is_file()


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_has_the_options_and_files_that_exist(command: Command) -> None:
    check(command)


def test_commands_are_found_and_planted_faults_are_too(tmp_path: Path) -> None:
    assert len(COMMANDS) > 60
    assert {command.document for command in COMMANDS} >= {"README.md", "docs/training.md", "docs/robustness.md"}
    for line in (
        "pixzip compress photo.png --no-such-option",
        "pixzip no-such-command",
        "pixzip decompress photo.pxz -o",
        "pixzip compress photo.png --tile 0",
        "pixzip train --preset no-such-preset --data pictures --out run",
        "pixzip train --preset small --set training.no_such_key=1 --data pictures --out run",
        "python bench/no_such_file.py",
        "python bench/memory.py PICTURE --no-such-option",
        "pip install '.[no-such-extra]'",
        "torchrun -m pixzip train --no-such-option",
    ):
        with pytest.raises((click.ClickException, pixzip.PixzipError, AssertionError, FileNotFoundError)):
            check(Command("planted", tuple(shlex.split(line)), whole=True))


# ------------------------------------------------------------------------ running


def runs(command: Command) -> bool:
    """Whether a command runs here."""
    line = " ".join(command.words)
    is_ours = command.words[0] == "pixzip" and command.whole
    return is_ours and not any(map(_PLACEHOLDER.search, command.words)) and not any(n in line for n in NOT_RUN)


RUN = [command for command in COMMANDS if runs(command)]
#: Commands that take image files; the others take .pxz files.
OF_IMAGES = ("compress", "bench", "evaluate", "complete", "sample")


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(model_picture(24, 32, seed))


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, which says that it was trained on pictures of 8 x 8."""
    config, arrays = calm_parts()
    path = tmp_path_factory.mktemp("sized") / "default.safetensors"
    path.write_bytes(write_model({**config, "info": {"data": {"crop": 8}}}, arrays))
    return path


@pytest.fixture(scope="module")
def stages(sized: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders with what the documents' commands take: image files, and the .pxz files of the same names."""
    images, packed = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("packed")
    for name in ("photo", "other", "album/a", "album/inner/b", "pictures/one", "pictures/two", "digit", "one"):
        for folder in (images / name, packed / name):
            folder.parent.mkdir(parents=True, exist_ok=True)
        photo(len(name)).save(images / f"{name}.png")
        (packed / f"{name}.pxz").write_bytes(pixzip.compress(photo(len(name)), threads=1, model=sized))
    for name in ("digit", "one"):  # of two colours; an output
        (images / f"{name}.png").unlink()
    photo().convert("1").save(images / "digit.png")
    (images / "frames").mkdir()
    for i in range(3):
        photo(i).save(images / "frames" / f"{i}.png")
    several = [np.asarray(photo(i)) for i in range(3)]
    names = [f"{i}.png" for i in range(3)]
    (packed / "frames.pxz").write_bytes(pixzip.compress_batch(several, names=names, threads=1, model=sized))
    for folder in ("coded", "packed/inner"):
        (packed / folder).mkdir(parents=True)
        shutil.copy(packed / "photo.pxz", packed / folder / "photo.pxz")
    coded, pixels = (packed / "photo.pxz").read_bytes(), pixels_sha256(pixzip.from_pil(photo(len("photo"))))
    record = Record("inner/photo.png", sha256(b""), pixels, "inner/photo.pxz", sha256(coded))
    (packed / "packed.jsonl").write_bytes(write_manifest([record]))
    shutil.copy(sized, packed / "mine.safetensors")
    (images / "coded").mkdir()
    damaged = bytearray(pixzip.compress(photo(), tile=16, threads=1, model=sized))
    damaged[-9] ^= 1
    (packed / "damaged.pxz").write_bytes(damaged)
    for folder in (images, packed):
        (folder / "run").mkdir()
        shutil.copy(sized, folder / "run" / "model.safetensors")
        (folder / "bench").symlink_to(ROOT / "bench")
    return images, packed


def expanded(words: tuple[str, ...], folder: Path) -> tuple[list[str], dict[str, str]]:
    """What a shell makes of the words: names for patterns, and the files that < and > name."""
    made: list[str] = []
    streams: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word in ("<", ">"):
            streams[word] = next(rest)
        elif "*" in word:
            made += sorted(str(path.relative_to(folder)) for path in folder.glob(word))
        else:
            made.append(word)
    return made, streams


@pytest.fixture
def small_default(sized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model in the place of those that ship; one thread."""
    (tmp_path / "models").mkdir()
    shutil.copy(sized, tmp_path / "models" / "default.safetensors")
    monkeypatch.setattr("pixzip.model.file.models_folder", lambda: tmp_path / "models")
    monkeypatch.setattr("os.cpu_count", lambda: 1)


@pytest.mark.usefixtures("small_default")
@pytest.mark.parametrize("command", RUN, ids=str)
def test_command_runs(
    command: Command,
    stages: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    if command.words[1] == "evaluate":
        pytest.importorskip("torch")
    folder = tmp_path / "stage"
    shutil.copytree(stages[command.words[1] not in OF_IMAGES], folder, symlinks=True)
    monkeypatch.chdir(folder)
    words, streams = expanded(command.words[1:], folder)
    if "<" in streams:
        data = io.BytesIO((folder / streams["<"]).read_bytes())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    before = everything(folder)
    code = cli.main(words)
    captured = capsysbinary.readouterr()
    assert code == (11 if "--salvage" in words else 0), captured.err.decode()
    if ">" in streams:
        (folder / streams[">"]).write_bytes(captured.out)
    made = everything(folder) - before
    says = words[0] in ("info", "verify", "models", "evaluate")
    assert bool(captured.out) if says else bool(made) or bool(captured.out)
    for path in made:
        if path.suffix == ".pxz":
            pixzip.verify(path.read_bytes(), threads=1)
        elif path.suffix in (".png", ".webp"):
            Image.open(path).load()


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_all_commands_of_readme_run_but_those_that_take_a_gpu_or_minutes() -> None:
    readme = [command for command in COMMANDS if command.document == "README.md" and command.whole]
    ours = [command for command in readme if command.words[0] == "pixzip"]
    left = [" ".join(command.words) for command in ours if not runs(command)]
    assert left == [
        "pixzip decompress coded/*.pxz --device cuda",
        "pixzip train --preset small --data pictures --out run",
    ]


def test_training_that_readme_names_is_the_one_that_runs_in_the_tests() -> None:
    lines = {" ".join(command.words) for command in COMMANDS if command.document == "docs/training.md"}
    assert "pixzip train --preset small --data pictures --out run" in lines
