"""docs/api.md against the code: names, keywords, defaults, bad values, fields, exit codes; planted faults are found.

Its examples run in tests/test_api.py. A table is known by the first words of its head: `keyword of` functions, `field
of` a class, `error`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import multiprocessing
import re
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import model_picture

import pixzip
import pixzip.errors
import pixzip.pillow
from pixzip.pxz.remains import Lost

TEXT = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
FUNCTIONS = {name: getattr(pixzip, name) for name in pixzip.__all__ if inspect.isfunction(getattr(pixzip, name))}
CLASSES = (pixzip.Info, pixzip.Picture, pixzip.Salvaged, Lost)
Rows = list[list[str]]


def spans(text: str) -> list[str]:
    """What stands between grave accents."""
    return re.findall(r"`([^`]+)`", text)


def words_in_code(text: str) -> set[str]:
    """Identifiers in Python blocks and between grave accents."""
    block = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
    return set(re.findall(r"[A-Za-z_]\w*", " ".join(block.findall(text) + spans(block.sub("", text)))))


def cells(line: str) -> list[str]:
    """Of one line of a table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def tables(text: str, kind: str) -> Iterator[tuple[list[str], Rows]]:
    """(names in the head's first cell, rows) of all tables of a kind; of a row's first cell the name alone."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, _, *rows = map(cells, table.splitlines())
        if head[0].startswith(kind):
            yield spans(head[0]), [[row[0].strip("`"), *row[1:]] for row in rows]


def keyword_rows(text: str) -> dict[str, dict[str, list[str]]]:
    """Function → keyword → [default, meaning, bad value], for the parameters that the function has."""
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for functions, rows in tables(text, "keyword of"):
        for name in functions:
            found[name] |= {row[0]: row[1:] for row in rows if row[0] in parameters_of(name)}
    return found


def parameters_of(name: str) -> dict[str, Any]:
    """Parameter → default, of a public function; none where there is no such function."""
    signature = inspect.signature(FUNCTIONS[name]) if name in FUNCTIONS else inspect.Signature()
    return {parameter.name: parameter.default for parameter in signature.parameters.values()}


def defaults_of(name: str) -> dict[str, Any]:
    """As parameters_of, of those that have a default."""
    return {key: default for key, default in parameters_of(name).items() if default is not inspect.Parameter.empty}


def parts_of(cls: type) -> list[str]:
    """Fields in order, then public properties and methods."""
    fields = [field.name for field in dataclasses.fields(cls)]
    return fields + [name for name in vars(cls) if not name.startswith("_") and name not in fields]


def exit_codes() -> dict[str, str]:
    """Public exception → exit code."""
    found = {name: cls for name, cls in vars(pixzip.errors).items() if inspect.isclass(cls) and name[0] != "_"}
    return {name: str(cls.exit_code) for name, cls in found.items()}


def keyword_faults(text: str) -> list[str]:
    """Keywords without a row, with another default, and rows that are no keyword's."""
    documented, faults = keyword_rows(text), []
    for name in FUNCTIONS:
        for keyword, default in defaults_of(name).items():
            if keyword not in documented[name]:
                faults.append(f"{name}: no row for {keyword}")
            elif repr(ast.literal_eval(documented[name][keyword][0].strip("`"))) != repr(default):
                faults.append(f"{name}: {keyword} has default {default!r}")
    for functions, rows in tables(text, "keyword of"):
        known = {keyword for name in functions for keyword in parameters_of(name)}
        faults += [f"{' and '.join(functions)}: no parameter {row[0]}" for row in rows if row[0] not in known]
    return faults


def faults_of(text: str) -> list[str]:
    """What the document lacks or has wrong, a line each."""
    words = words_in_code(text)
    faults = [f"{name} is not named" for name in pixzip.__all__ if name not in words]
    faults += keyword_faults(text)
    fields = {names[0]: [row[0] for row in rows] for names, rows in tables(text, "field of")}
    faults += [f"{c.__name__} has {parts_of(c)}" for c in CLASSES if fields.get(c.__name__) != parts_of(c)]
    codes = {row[0]: row[1] for _, rows in tables(text, "error") for row in rows}
    wrong = [(name, codes.get(name), code) for name, code in exit_codes().items() if codes.get(name) != code]
    faults += [f"{name} has exit code {found} in the table, {code} in the code" for name, found, code in wrong]
    return faults + [f"{name} is no error" for name in codes if name not in exit_codes()]


def test_document_has_all_names_keywords_defaults_fields_and_exit_codes() -> None:
    assert faults_of(TEXT) == []
    assert len(FUNCTIONS) > 15
    assert {"compress", "decompress", "verify", "salvage", "sample", "complete"} <= keyword_rows(TEXT).keys()


def errors_defined(source: str) -> list[str]:
    """Names of classes in a module that are those of errors."""
    return [n.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef) and n.name.endswith("Error")]


def test_all_errors_are_in_one_tree() -> None:
    package = Path(pixzip.__file__).parent
    modules = [path for path in package.rglob("*.py") if path != package / "errors.py"]
    assert len(modules) > 100
    assert {str(path): found for path in modules if (found := errors_defined(path.read_text("utf-8")))} == {}
    assert set(errors_defined((package / "errors.py").read_text("utf-8"))) == exit_codes().keys()
    assert errors_defined("class PlantedError(PixzipError):\n    pass") == ["PlantedError"]


def test_a_text_that_lacks_one_name_fails() -> None:
    for name in [*pixzip.__all__, "TrainingError", "TrainingDataError"]:
        planted = re.sub(rf"\b{name}\b", "something", TEXT)
        assert any(name in fault for fault in faults_of(planted)), name


def test_a_text_that_lacks_one_keyword_fails() -> None:
    for keyword in sorted({keyword for name in FUNCTIONS for keyword in defaults_of(name)}):
        planted = re.sub(rf"^\| `{keyword}` \|.*\n", "", TEXT, flags=re.M)
        assert f"no row for {keyword}" in "\n".join(faults_of(planted))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("| `tile` | `1024`", "| `tile` | `512`", "tile has default 1024"),
        ("| `strip` | `False`", "| `strip` | `None`", "strip has default False"),
        ("| `lanes` |", "| `lames` |", "no parameter lames"),
        ("| `names` |", "| `labels` |", "no row for names"),
        ("| `low_bytes` |", "| `bytes` |", "low_bytes"),
        ("| `whole` |", "| `all` |", "whole"),
        ("| `LimitError` | 8 |", "| `LimitError` | 9 |", "LimitError has exit code 9"),
        ("| `ManifestError` | 12 |", "| `OtherError` | 12 |", "OtherError is no error"),
    ],
)
def test_planted_faults_are_found(old: str, new: str, fault: str) -> None:
    assert old in TEXT
    assert fault in "\n".join(faults_of(TEXT.replace(old, new)))


# ------------------------------------------------------------------------ bad values

#: Keyword → values of the right type that are refused, for a picture of 8 x 8 pixels.
BAD: dict[str, list[Any]] = {
    "model": ["no-such-model", "damaged"],  # the latter stands for a file
    "tile": [0, 65536],
    "lanes": [0, 65],
    "learning": [-1, 256],
    "threads": [0, 1025],
    "engine": ["abacus"],
    "max_pixels": [63],
    "max_memory": [1 << 20],
    "max_work": [10**6],
    "names": [["a"], ["a", "b/c"], ["a", ""]],
    "count": [0],
    "size": [(0, 8), (8, 4097)],
    "from_row": [-1, 8],
    "seed": [-1, 1 << 64],
    "temperature": [0, 101, "hot"],
}
CASES = [(name, keyword) for name, rows in keyword_rows(TEXT).items() for keyword in rows]


def call(name: str, model: Path, options: dict[str, Any]) -> None:
    """A function, on a picture of 8 x 8 pixels where it takes one."""
    pixels = model_picture(8, 8)
    options = ({"model": model, "threads": 1} if name not in ("read_image", "picture_names") else {}) | options
    if name == "sample":
        pixzip.sample(**{"size": (8, 8)} | options)
    elif name == "complete":
        pixzip.complete(**{"picture": pixels} | options)
    elif name == "read_image":
        pixzip.read_image(pixzip.write_image(pixzip.from_array(pixels), "PNG"), **options)
    elif name == "compress_batch":
        pixzip.compress_batch([pixels, pixels], **options)
    elif name in ("compress", "model_bits"):
        FUNCTIONS[name](pixels, **options)
    else:
        FUNCTIONS[name](pixzip.compress(pixels, model=model, threads=1), **options)


@pytest.mark.parametrize(("name", "keyword"), CASES)
def test_a_bad_value_is_the_error_that_the_document_says(
    name: str, keyword: str, model: Path, model_bytes: bytes, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(model_bytes[:-1])
    call(name, model, {})
    raised = set()
    for value in BAD.get(keyword, []):
        with pytest.raises(pixzip.PixzipError) as error:
            call(name, model, {keyword: damaged if value == "damaged" else value})
        raised.add(error.type.__name__)
    assert raised == set(spans(keyword_rows(TEXT)[name][keyword][2]))


def test_pillow_saves_with_the_keywords_that_the_document_says() -> None:
    assert set(pixzip.pillow._ARGUMENTS) == defaults_of("compress_batch").keys() - {"allow_jpeg", "strip"}
    assert set(pixzip.pillow._PACKETS) <= words_in_code(TEXT)


# ------------------------------------------------------------------------ calls side by side


def test_calls_from_several_threads_give_the_same_files_and_pictures(model: Path) -> None:
    pictures = [pixzip.from_array(model_picture(20, 24, seed)) for seed in range(6)]
    compress = partial(pixzip.compress, model=model, tile=16, threads=2)
    alone = [compress(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(compress, pictures))
        decoded = list(pool.map(partial(pixzip.decompress, model=model), files))
    assert files == alone
    assert all(after.same_pixels(before) for before, after in zip(pictures, decoded, strict=True))


def test_calls_results_and_errors_go_between_processes(model: Path) -> None:
    picture = pixzip.from_array(model_picture(20, 24))
    data = pixzip.compress(picture, model=model)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(pixzip.compress, picture, model=model).result() == data
        assert pool.submit(pixzip.decompress, data, model=model).result().same_pixels(picture)
        assert pool.submit(pixzip.inspect, data).result() == pixzip.inspect(data)
        assert pool.submit(pixzip.salvage, data, model=model).result().whole
        with pytest.raises(pixzip.FormatError, match="truncated") as error:
            pool.submit(pixzip.decompress, data[:-1], model=model).result()
    assert error.value.exit_code == 4
