"""Keywords are looked at before the picture: a wrong one is a UsageError that names it, whatever the picture needs."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import model_picture
from test_api import modules_after
from tiny_stack import stack_bytes

import pixzip
from pixzip import api, codec, keywords
from pixzip.errors import UsageError
from pixzip.formats.image import Picture
from pixzip.keywords import integer

#: Stored only, whatever the model.
PALETTE = Picture(np.zeros((1, 5, 6), dtype=np.uint8), "P", 2, palette=bytes(12))
#: Keyword → what its message says is allowed.
RANGES = {
    "tile": "1 to 65535",
    "lanes": "1 to 64",
    "learning": "0 to 255",
    "threads": "1 to 1024",
    "count": "at least 1",
    "size": "at least 1",
    "from_row": "0 to 7",
    "seed": "0 to 18446744073709551615",
}
CODING, DECODING = ("tile", "lanes", "learning", "threads"), ("threads",)
TAKEN = {
    "compress": CODING,
    "compress_batch": CODING,
    "decompress": DECODING,
    "decompress_batch": DECODING,
    "verify": DECODING,
    "salvage": DECODING,
    "model_bits": ("tile", "learning", "threads"),
    "sample": ("count", "size", "seed", "threads"),
    "complete": ("count", "from_row", "seed", "threads"),
}
ON_CPU = ("salvage", "model_bits", "sample", "complete")
CASES = [(name, keyword) for name, taken in TAKEN.items() for keyword in taken]


def call(name: str, model: Path, **options: Any) -> Any:
    """A function; one that codes or decodes on a picture that no model codes."""
    function: Callable[..., Any] = getattr(pixzip, name)
    pictures: dict[str, tuple[Any, ...]] = {
        "compress": (PALETTE,),
        "compress_batch": ([PALETTE, PALETTE],),
        "model_bits": (model_picture(8, 8),),
        "sample": (),
        "complete": (model_picture(8, 8),),
    }
    given = pictures[name] if name in pictures else (pixzip.compress(PALETTE),)
    more = {"size": (4, 4)} if name == "sample" else {}
    if name == "complete":
        return function(model, *given, **options)
    return function(*given, **{"model": model, **more, **options})


def as_given(keyword: str, value: Any) -> Any:
    return (value, 4) if keyword == "size" else value


@pytest.mark.parametrize(("name", "keyword"), CASES)
def test_wrong_types_and_values_name_keyword_and_range(name: str, keyword: str, model: Path) -> None:
    for value in (2.0, "2", 1.5, b"\2", [2], np.float32(2)):
        with pytest.raises(UsageError) as caught:
            call(name, model, **{keyword: as_given(keyword, value)})
        assert str(caught.value) == f"{keyword} {value!r}: must be an integer, {RANGES[keyword]}"
    for number in (-1, *([] if RANGES[keyword].startswith("at least") else [1 << 64, 10**30])):
        with pytest.raises(UsageError) as caught:
            call(name, model, **{keyword: as_given(keyword, number)})
        assert str(caught.value) == f"{keyword} {number}: must be {RANGES[keyword]}"
    for fine in (7, np.uint8(7), np.int64(7)):
        call(name, model, **{keyword: as_given(keyword, fine)})


def test_integers_of_numpy_make_the_same_file(model: Path) -> None:
    pixels = model_picture(20, 30)
    how = {"tile": 16, "lanes": 2, "learning": 5, "threads": 2}
    by_numpy: dict[str, Any] = {key: np.uint16(value) for key, value in how.items()}
    assert pixzip.compress(pixels, model=model, **by_numpy) == pixzip.compress(pixels, model=model, **how)


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(UsageError) as caught:
        integer("tile", "9" * 1000, 1, 2)
    assert len(str(caught.value)) < 90


@pytest.mark.parametrize("size", [5, (4,), (4, 4, 3), "4x"])
def test_size_is_two_integers(size: Any, model: Path) -> None:
    with pytest.raises(UsageError, match="size "):
        pixzip.sample(model, size=size)


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("engine", ["abacus", "INT8", 8, ""])
def test_unknown_engine_is_refused_and_all_that_are_known_are_named(name: str, engine: Any, model: Path) -> None:
    on_cpu = name in ON_CPU
    allowed = "int8, float32" if on_cpu else "int8, float32, cuda, torch"
    with pytest.raises(UsageError) as caught:
        call(name, model, engine=engine)
    assert str(caught.value) == f"engine {engine!r}: must be one of {allowed}"


@pytest.mark.parametrize("name", ON_CPU)
def test_what_runs_on_the_cpu_only_refuses_devices_for_every_picture(name: str, model: Path) -> None:
    for engine in keywords.DEVICES:
        with pytest.raises(UsageError, match=f"engine '{engine}': must be one of int8, float32"):
            call(name, model, engine=engine)


def test_engine_that_the_model_or_the_machine_has_not_is_refused_for_every_picture(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = tmp_path / "paper.safetensors"
    paper.write_bytes(stack_bytes("pixelcnn"))
    for engine in keywords.DEVICES:
        with monkeypatch.context() as patch:
            patch.setattr(keywords, "find_spec", lambda name: name)
            with pytest.raises(UsageError, match=f"engine {engine}: model paper runs on the CPU only"):
                pixzip.compress(PALETTE, model=paper, engine=engine)
            patch.setattr(keywords, "find_spec", lambda name: None)
            for name in ("compress", "compress_batch", "decompress", "decompress_batch", "verify"):
                with pytest.raises(UsageError, match=f"engine {engine} needs PyTorch"):
                    call(name, model, engine=engine)
    monkeypatch.setattr("pixzip.runtime.engines.HAS_INT8", False)
    with pytest.raises(UsageError, match="the int8 engine needs"):
        pixzip.compress(PALETTE, model=model, engine="int8")


def test_device_that_is_not_there_is_refused_for_every_picture(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="torch finds no CUDA device"):
        pixzip.compress(PALETTE, model=model, engine="cuda")


def test_learning_that_the_model_cannot_is_refused_for_every_picture(tmp_path: Path) -> None:
    paper = tmp_path / "paper.safetensors"
    paper.write_bytes(stack_bytes("pixelcnn"))
    with pytest.raises(UsageError, match="model paper cannot learn from what it codes"):
        pixzip.compress(PALETTE, model=paper, learning=1)


def test_checks_that_begin_with_the_model_are_found(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_check_engine_of", lambda model, engine: None)
    monkeypatch.setattr(codec, "check_engine", lambda engine, allowed: None)
    monkeypatch.setattr(api, "check_engine", lambda engine, allowed: None)
    monkeypatch.setattr(api, "rate_of", lambda model, learning: learning)
    call("compress", model, engine="abacus", learning=999)


# ------------------------------------------------------------------------ names


@pytest.mark.parametrize("count", [1, 2])
def test_names_are_checked_for_every_number_of_images(count: int, model: Path) -> None:
    images = [PALETTE] * count
    for names in ([], ["a"] * (count + 1)):
        with pytest.raises(UsageError, match=f"{len(names)} names for {count} images"):
            pixzip.compress_batch(images, model=model, names=names)
    for name in ("", "..", "a/b", "a\nb", "x" * 256):
        with pytest.raises(UsageError, match="name b'"):
            pixzip.compress_batch(images, model=model, names=["fine"] * (count - 1) + [name])
    data = pixzip.compress_batch(images, model=model, names=["same"] * count)
    assert pixzip.picture_names(data) == (("same",) * count if count > 1 else ())


# ------------------------------------------------------------------------ stored files


def test_stored_file_decodes_without_what_models_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stored.pxz"
    file.write_bytes(pixzip.compress(PALETTE))
    code = """
import pixzip
data = open(sys.argv[1], "rb").read()
for how in ({}, {"engine": "float32", "threads": 2, "model": "no-such-model"}, {"engine": "int8", "progress": print}):
    pixzip.decompress(data, **how), pixzip.decompress_batch(data, **how)
    pixzip.verify(data, **how), pixzip.salvage(data, **how)
"""
    assert not {"numba", "torch"} & modules_after(code, str(file))

    def looked(*_: object) -> Any:
        pytest.fail("looked for a model")

    for name in ("find_model", "load_model"):
        monkeypatch.setattr(api, name, looked)
    for function in (pixzip.decompress, pixzip.decompress_batch, pixzip.verify, pixzip.salvage):
        function(file.read_bytes(), model="no-such-model", engine="float32")


def test_model_that_is_not_there_is_refused_where_one_is_needed(model: Path) -> None:
    coded = pixzip.compress(model_picture(20, 30), model=model)
    for function in (pixzip.decompress, pixzip.decompress_batch, pixzip.verify, pixzip.salvage):
        with pytest.raises(pixzip.ModelNotFoundError, match="no-such-model"):
            function(coded, model="no-such-model")
    with pytest.raises(pixzip.ModelNotFoundError, match="no-such-model"):
        pixzip.compress(dataclasses.replace(PALETTE), model="no-such-model")


# ------------------------------------------------------------------------ messages

#: What only commands use may name their options.
COMMANDS = {"cli.py", "files.py", "model/store.py"}


def options_named(source: str) -> list[str]:
    """Options of the command line in the texts of a module, but its docstrings."""
    tree = ast.parse(source)
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    docstrings = {id(node.value) for node in documented}
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docstrings]
    return [option for text in texts if isinstance(text, str) for option in re.findall(r"--[a-z][a-z-]+", text)]


def test_messages_of_the_api_name_no_options_of_the_command_line() -> None:
    package = Path(pixzip.__file__).parent
    folders = [package / name for name in ("coding", "formats", "freezing", "model", "pxz", "runtime")]
    modules = [*package.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    assert all((package / name).is_file() for name in COMMANDS)
    modules = [path for path in modules if path.relative_to(package).as_posix() not in COMMANDS]
    assert len(modules) > 60
    assert {str(path): found for path in modules if (found := options_named(path.read_text("utf-8")))} == {}


def test_an_option_in_a_message_is_found() -> None:
    planted = 'def f():\n    """--fine"""\n    raise E(f"{1} pixels: --max-pixels raises it")'
    assert options_named(planted) == ["--max-pixels"]
