"""pixzip models --add: a checked model in the user's folder, listed, found by its digest; who is warned of what."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import model_picture
from test_tree import Run, run

import pixzip
from pixzip.errors import ModelError, ModelNotFoundError, OutputError, UsageError
from pixzip.model import file as model_file
from pixzip.model import store as model_store
from pixzip.model.file import MAX_BYTES, added_folder, find_model
from pixzip.pxz.container import DIGEST_BYTES

__all__ = ["run"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models, which is not there yet."""
    monkeypatch.setenv("PIXZIP_MODELS", str(tmp_path / "data" / "models"))
    return tmp_path / "data" / "models"


def short(data: bytes) -> str:
    return hashlib.sha256(data).digest()[:DIGEST_BYTES].hex()


def test_added_model_is_named_listed_and_decodes(
    run: Run, folder: Path, model: Path, model_bytes: bytes, tmp_path: Path
) -> None:
    data = pixzip.compress(model_picture(24, 32), model=model)
    file = tmp_path / "photo.pxz"
    file.write_bytes(data)
    assert run("decompress", file).code == ModelNotFoundError.exit_code
    done = run("models", "--add", model)
    assert (done.code, done.err) == (0, "")
    assert all(word in done.out for word in ("calm", short(model_bytes), str(folder / "calm.safetensors")))
    assert [path.name for path in folder.iterdir()] == ["calm.safetensors"]
    assert done.out in run("models").out
    assert run("decompress", file).code == 0
    assert np.array_equal(
        pixzip.to_array(pixzip.read_image(file.with_suffix(".png").read_bytes())), model_picture(24, 32)
    )
    assert find_model("calm").data == model_bytes  # --model calm
    assert pixzip.inspect(data).model_name == "calm"
    listed = [json.loads(line) for line in run("models", "--json").out.splitlines()]
    assert [(found["name"], found["ships"]) for found in listed][-1] == ("calm", False)
    assert listed[-1]["sha256"] == hashlib.sha256(model_bytes).hexdigest() and listed[-1]["bytes"] == len(model_bytes)


def test_long_names_stay_apart_from_the_digest(run: Run, folder: Path, model: Path, model_bytes: bytes) -> None:
    assert run("models", "--add", model, "--name", "a-name-of-some-length").out.split()[:2] == [
        "a-name-of-some-length",
        short(model_bytes),
    ]


def test_same_model_is_added_once(run: Run, folder: Path, model: Path) -> None:
    first = run("models", "--add", model)
    again = run("models", "--add", model, "--name", "other-name")
    assert (again.code, again.out) == (0, first.out)
    assert again.err == f"{model} is the model calm, which was there before\n"
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("name", ["calm", "CALM"])
def test_name_of_another_model_is_refused(
    run: Run, folder: Path, model: Path, other_model: Path, model_bytes: bytes, other_model_bytes: bytes, name: str
) -> None:
    assert run("models", "--add", model).code == 0
    done = run("models", "--add", other_model, "--name", name)
    assert (done.code, done.out, done.err.count("\n")) == (UsageError.exit_code, "", 1)
    assert f"calm is the model with digest {short(model_bytes)}, this one has {short(other_model_bytes)}" in done.err
    assert (folder / "calm.safetensors").read_bytes() == model_bytes
    assert run("models", "--add", other_model).code == 0


def test_names_of_shipped_models_are_taken_and_they_come_first(
    run: Run, folder: Path, model: Path, other_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixzip.model.file.models_folder", lambda: model.parent)
    assert "--name gives it another name" in run("models", "--add", other_model, "--name", "calm").err
    assert "was there before" in run("models", "--add", model).err and not folder.exists()
    folder.mkdir(parents=True)
    (folder / "calm.safetensors").write_bytes(other_model.read_bytes())  # by hand
    assert find_model("calm").data == model.read_bytes()


@pytest.mark.parametrize("kind", ["truncated", "longer", "text", "empty", "folder", "absent", "huge"])
def test_what_is_no_model_is_refused_in_a_line(
    run: Run, folder: Path, model_bytes: bytes, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.safetensors"
    datas = {"truncated": model_bytes[:-1], "longer": model_bytes + b"\0", "text": b"no model at all", "empty": b""}
    if kind == "folder":
        file.mkdir()
    elif kind == "huge":
        monkeypatch.setattr(model_store, "MAX_BYTES", len(model_bytes) - 1)
        file.write_bytes(model_bytes)
    elif kind != "absent":
        file.write_bytes(datas[kind])
    done = run("models", "--add", file)
    errors = {"folder": UsageError, "absent": ModelNotFoundError}
    assert (done.code, done.out, done.err.count("\n")) == (errors.get(kind, ModelError).exit_code, "", 1)
    assert str(file) in done.err and not folder.exists()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "x.safetensors", "con", "ä"])
def test_names_are_plain(run: Run, folder: Path, model: Path, name: str) -> None:
    done = run("models", "--add", model, "--name", name)
    assert (done.code, "up to 64 letters" in done.err) == (UsageError.exit_code, True)
    assert not folder.exists()


def test_failure_leaves_nothing(run: Run, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*anything: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = run("models", "--add", model)
    assert (done.code, done.err.count("\n")) == (OutputError.exit_code, 1)
    assert list(folder.iterdir()) == []


UNREADABLE = {
    "folder": "not a regular file",
    "dangling": "No such file or directory",
    "loop": "Too many levels of symbolic links",
    "pipe": "not a regular file",
    "huge": f"file of {MAX_BYTES + 1} bytes, allowed {MAX_BYTES}",
}


def make_unreadable(path: Path, kind: str) -> None:
    """Something in the folder of models that no search can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(MAX_BYTES + 1)
    else:
        path.symlink_to(path if kind == "loop" else path.with_name("nowhere"))


def matters_only_where_needed(folder: Path, model: Path) -> bool:
    """Whether models that ship, that were added, and files are found beside a file that cannot be read, by any way."""
    try:
        for wanted in ("default", "calm", model, str(model)):
            find_model(wanted)
        coded = pixzip.compress(model_picture(24, 32), model=model, threads=1)
        assert pixzip.inspect(coded).model_name == "calm"
        return pixzip.decompress(coded, threads=1).height == 24
    except ModelError:
        return False


@pytest.mark.parametrize("kind", UNREADABLE)
def test_file_that_cannot_be_read_matters_only_where_it_is_needed(
    run: Run, folder: Path, model: Path, other_model: Path, kind: str
) -> None:
    make_unreadable(folder / "bad.safetensors", kind)
    (folder / "calm.safetensors").write_bytes(model.read_bytes())
    assert matters_only_where_needed(folder, model)
    reason = UNREADABLE[kind]
    with pytest.raises(ModelError, match=f"bad.safetensors: cannot be read: {reason}"):
        find_model("bad")
    foreign = pixzip.compress(model_picture(24, 32), model=other_model, threads=1)
    assert pixzip.inspect(foreign).model_name is None
    with pytest.raises(ModelNotFoundError, match=rf"bad.safetensors \(cannot be read: {reason}\)"):
        pixzip.decompress(foreign)
    with pytest.raises(ModelNotFoundError, match="no model named nothing"):
        find_model("nothing")
    done = run("models")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].split(None, 2) == [
        "bad",
        "unreadable",
        f"{folder / 'bad.safetensors'}: {reason}",
    ]
    listed = [json.loads(line) for line in run("models", "--json").out.splitlines()]
    bad = {"name": "bad", "file": str(folder / "bad.safetensors"), "ships": False, "unreadable": reason}
    assert listed[-1] == bad and listed[-2]["name"] == "calm"
    added = run("models", "--add", other_model, "--name", "bad")
    assert (added.code, added.err.count("\n")) == (UsageError.exit_code, 1)
    assert "--name gives another name" in added.err


def test_a_search_that_fails_at_one_file_is_found(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_unreadable(folder / "bad.safetensors", "dangling")
    (folder / "calm.safetensors").write_bytes(model.read_bytes())
    lenient = model_file._models_in

    def strict(folder: Path) -> list[model_file.ModelInfo]:
        if any(isinstance(found, model_file.UnreadableModel) for found in lenient(folder)):
            raise ModelError("cannot be read")
        return lenient(folder)

    monkeypatch.setattr(model_file, "_models_in", strict)
    assert not matters_only_where_needed(folder, model)


def test_a_path_is_never_a_name(folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path("fast"), Path("./fast")):
        with pytest.raises(ModelNotFoundError, match="no such model file: fast"):
            find_model(path)
    with pytest.raises(ModelNotFoundError, match=r"no model named \./fast"):
        find_model("./fast")
    (tmp_path / "fast").write_bytes(model.read_bytes())
    for file in (Path("fast"), Path("./fast"), "./fast", str(tmp_path / "fast")):
        assert find_model(file).data == model.read_bytes()
    assert find_model("fast").data != model.read_bytes()


def test_folder_is_the_users_own_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIXZIP_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert added_folder() == Path("/data/pixzip/models")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert added_folder() == Path("/home/someone/.local/share/pixzip/models")


def test_name_needs_add(run: Run) -> None:
    assert "--name is that of a model to --add" in run("models", "--name", "x").err


# ------------------------------------------------------------------------ the warning


def warned(err: str) -> bool:
    return "warning: only the model " in err


def test_compress_warns_of_a_model_that_files_need(
    run: Run, folder: Path, model: Path, model_bytes: bytes, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(pixzip.write_image(pixzip.from_array(model_picture(24, 32)), "PNG"))
    line = ("compress", photo, "--force", "--model")
    done = run(*line, model)
    assert warned(done.err) and short(model_bytes) in done.err and "--embed-model" in done.err
    assert not warned(run(*line, model, "-q").err)
    assert not warned(run(*line, model, "--embed-model").err)
    assert not warned(run(*line, "default").err)
    assert warned(run(*line, model, "--pack", "-o", tmp_path / "packed.pxz").err)
    assert run("models", "--add", model).code == 0
    assert warned(run(*line, "calm").err)  # elsewhere it is not found
    photo.write_bytes(pixzip.write_image(pixzip.from_array(np.zeros((9, 9), dtype=np.uint16)), "PNG"))
    assert not warned(run(*line, model).err)  # stored: no model is needed


def test_warning_comes_once(run: Run, model: Path, tmp_path: Path) -> None:
    for i in range(3):
        photo = tmp_path / f"{i}.png"
        photo.write_bytes(pixzip.write_image(pixzip.from_array(model_picture(9, 12, i)), "PNG"))
    assert run("compress", tmp_path, "--model", model).err.count("warning: only") == 1
