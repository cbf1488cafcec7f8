"""Pictures for training: every release is read, nothing unreadable is fatal, no picture is on both sides of a split."""

from __future__ import annotations

import errno
import gzip
import io
import os
import pickle
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixzip.data import cache as cache_module
from pixzip.data.cache import Pictures, content_hash, default_cache, load_pictures, pictures_of
from pixzip.data.crops import RandomCrops, ahead, as_planes, centre_crops, luma, reduced
from pixzip.data.settings import DataSettings
from pixzip.data.sources import open_source
from pixzip.data.split import held_out, load_split
from pixzip.errors import OutputError, TrainingDataError, TrainingError

Pixels = NDArray[np.uint8]


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: Pixels, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def pixels_of(pictures: Pictures) -> list[Pixels]:
    return [np.asarray(pictures[i]) for i in range(len(pictures))]


# ------------------------------------------------------------------------ releases


def python_release(folder: Path, name: str, rows: Pixels) -> None:
    (folder / name).write_bytes(pickle.dumps({b"data": rows, b"labels": [0] * len(rows), b"batch_label": b"x"}, 2))


def test_cifar10_is_read_alike_from_all_three_releases(tmp_path: Path) -> None:
    pictures = noise(5, 32, 32, 3)
    rows = pictures.transpose(0, 3, 1, 2).reshape(5, 3072)
    for name in ("strips", "binary", "python", "nested/cifar-10-batches-py"):
        (tmp_path / name).mkdir(parents=True)
    save(tmp_path / "strips" / "train-000.webp", pictures[:3].reshape(96, 32, 3), lossless=True)
    save(tmp_path / "strips" / "train-001.webp", pictures[3:].reshape(64, 32, 3), lossless=True)
    np.savez(tmp_path / "strips" / "train-index.npz", index=np.arange(5), labels=np.zeros(5))
    records = np.concatenate([np.full((5, 1), 7, np.uint8), rows], axis=1)
    (tmp_path / "binary" / "data_batch_1.bin").write_bytes(records[:2].tobytes())
    (tmp_path / "binary" / "data_batch_2.bin").write_bytes(records[2:].tobytes())
    for folder in ("python", "nested/cifar-10-batches-py"):
        python_release(tmp_path / folder, "data_batch_1", rows[:4])
        python_release(tmp_path / folder, "data_batch_2", rows[4:])
    for name in ("strips", "binary", "python", "nested"):
        found = load_pictures(f"cifar10/train:{tmp_path / name}", tmp_path / "cache")
        np.testing.assert_array_equal(np.stack(pixels_of(found)), pictures)
    with pytest.raises(TrainingDataError, match="neither strips nor the python nor the binary release"):
        open_source(f"cifar10/test:{tmp_path / 'python'}")


def test_a_python_release_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Trap()}, 2))
    with pytest.raises(TrainingDataError, match="no readable picture"):
        load_pictures(f"cifar10/test:{tmp_path}", tmp_path / "cache")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_idx_is_read(packed: bool, tmp_path: Path) -> None:
    pictures = noise(4, 6, 5)
    data = struct.pack(">4I", 0x803, 4, 6, 5) + pictures.tobytes()
    name = "t10k-images-idx3-ubyte" + (".gz" if packed else "")
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    found = load_pictures(f"mnist/test:{tmp_path}", tmp_path / "cache")
    assert (found.planes, found.levels) == (1, 256)
    np.testing.assert_array_equal(np.stack(pixels_of(found))[..., 0], pictures)


@pytest.mark.parametrize("packed", [False, True])
def test_binarised_mnist_is_read(packed: bool, tmp_path: Path) -> None:
    bits = noise(3, 784) & 1
    arrays = {part: np.packbits(bits, axis=1) if packed else bits for part in ("train", "valid", "test")}
    np.savez(tmp_path / "binarized.npz", **arrays)
    for place in (tmp_path, tmp_path / "binarized.npz"):
        found = load_pictures(f"binary-mnist/valid:{place}", tmp_path / "cache")
        assert (found.planes, found.levels) == (1, 2)
        np.testing.assert_array_equal(np.stack(pixels_of(found)).reshape(3, 784), bits)


def test_small_imagenet_is_read_from_arrays_and_from_folders(tmp_path: Path) -> None:
    pictures = noise(3, 8, 8, 3)
    rows = pictures.transpose(0, 3, 1, 2).reshape(3, -1)
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz" / "train_data_batch_1.npz", data=rows[:2], labels=np.zeros(2))
    np.savez(tmp_path / "npz" / "train_data_batch_2.npz", data=rows[2:], labels=np.zeros(1))
    np.savez(tmp_path / "npz" / "val_data.npz", data=pictures)
    for i, picture in enumerate(pictures):
        save(tmp_path / "folders" / "train_8x8" / f"{i}.png", picture)
        save(tmp_path / "folders" / "valid_8x8" / f"{i}.png", picture)
    for text in ("train:npz", "valid:npz", "train:folders", "valid:folders"):
        part, name = text.split(":")
        found = load_pictures(f"imagenet/{part}:{tmp_path / name}", tmp_path / "cache")
        np.testing.assert_array_equal(np.stack(pixels_of(found)), pictures)


@pytest.mark.data
def test_the_data_sets_at_hand_are_read(tmp_path: Path) -> None:
    root = Path(os.environ.get("PIXZIP_DATA", ""))
    if not (root / "cifar10").is_dir():
        pytest.skip("PIXZIP_DATA names no folder with cifar10 and mnist")
    assert len(load_pictures(f"cifar10/test:{root / 'cifar10'}", tmp_path)) == 9977
    assert len(load_pictures(f"binary-mnist/test:{root / 'mnist'}", tmp_path)) == 10000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", "nowhere: no such folder, and not of the form DATASET/PART:PLACE"),
        ("cifar/train:{}", "unknown data set cifar/train, the nearest is cifar10/train"),
        ("mnist/test:{}", r"mnist/test: no t10k-images\?idx3-ubyte\* in "),
        ("mnist/test:{}/x", "mnist/test: no such folder or file"),
    ],
)
def test_places_without_the_data_are_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=message):
        open_source(text.format(tmp_path))


# ------------------------------------------------------------------------ the cache


def damaged_files(folder: Path) -> int:
    """One file of each kind of damage; returns how many."""
    png = io.BytesIO()
    Image.fromarray(noise(30, 30, 3)).save(png, "PNG")
    data = png.getvalue()
    files = {
        "notes.txt": b"not a picture",
        "empty.png": b"",
        "cut.png": data[:200],
        "flipped.png": data[:60] + bytes([data[60] ^ 255]) + data[61:],
        "cut.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
        "huge.png": data[:16] + struct.pack(">II", 60000, 60000) + data[24:],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    links = {"gone.png": "nowhere", "round.png": "round.png"}
    for name, target in links.items():
        (folder / name).symlink_to(folder / target)
    (folder / "again").symlink_to(folder)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "fifo")
    return len(files) + len(links)


def test_unreadable_files_are_counted_and_named_never_fatal(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for i in range(2):
        save(folder / "inner" / f"{i}.png", noise(20, 30, 3, seed=i))
    count = damaged_files(folder)
    said: list[str] = []
    found = load_pictures(str(folder), tmp_path / "cache", said.append)
    assert list(found.names) == ["inner/0.png", "inner/1.png"]
    assert len(found.unreadable) == count
    assert said[-1].startswith(f"{folder}: {count} of {count + 2} files could not be read: cut.jpg (")
    assert said[-1].endswith(f"and {count - 3} more")
    np.testing.assert_array_equal(found[1], noise(20, 30, 3, seed=1))


def test_folders_that_may_not_be_read_are_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    save(folder / "0.png", noise(20, 30, 3))
    save(folder / "closed" / "1.png", noise(20, 30, 3, seed=1))
    save(folder / "unsearchable" / "2.png", noise(20, 30, 3, seed=2))
    scandir, status = os.scandir, Path.stat

    def refuses(path: Any = ".") -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def unknown(path: Path, **options: Any) -> os.stat_result:
        if path.name == "2.png":
            raise PermissionError(13, "Permission denied", str(path))
        return status(path, **options)

    monkeypatch.setattr(os, "scandir", refuses)
    monkeypatch.setattr(Path, "stat", unknown)
    (folder / "unsearchable" / "2.png").write_bytes(b"")
    found = load_pictures(str(folder), tmp_path / "cache")
    assert list(found.names) == ["0.png"]
    assert sorted(text.split(" ")[0] for text in found.unreadable) == ["2.png", "closed"]


def test_pictures_are_decoded_once_and_found_again_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a" / "x.png", noise(9, 9, 3))
    save(tmp_path / "a" / "y.webp", noise(9, 9, 3, seed=1), lossless=True)
    write = cache_module._write

    def unfinished(source: Any, folder: Path) -> None:
        write(source, folder)
        assert [p.name for p in (tmp_path / "cache").iterdir() if not p.name.startswith(".")] == []

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "_write", unfinished)
        first = load_pictures(str(tmp_path / "a"), tmp_path / "cache")
    assert not first.pixels.flags.writeable
    (tmp_path / "a").rename(tmp_path / "b")
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "_build", None)
        again = load_pictures(str(tmp_path / "b"), tmp_path / "cache")
    assert again.digest == first.digest
    save(tmp_path / "b" / "x.png", noise(9, 9, 3, seed=2))
    changed = load_pictures(str(tmp_path / "b"), tmp_path / "cache")
    assert changed.digest != first.digest and len(list((tmp_path / "cache").iterdir())) == 2


def test_a_failed_decoding_leaves_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a" / "x.png", noise(9, 9, 3))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write the cache .*: No space left on device"):
        load_pictures(str(tmp_path / "a"), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def flipped(file: Path) -> None:
    """One bit: of a pixel, an offset, a name."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [cut, emptied, flipped, Path.unlink])
@pytest.mark.parametrize("name", ["pixels.bin", "index.npz", "about.json"])
def test_a_damaged_cache_is_made_again(name: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.png", noise(9, 9, 3))
    load_pictures(str(tmp_path / "a"), tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    damage(folder / name)
    said: list[str] = []
    again = load_pictures(str(tmp_path / "a"), tmp_path / "cache", said.append)
    assert said[0].startswith(f"{folder} is damaged (") and said[0].endswith("): made again")
    np.testing.assert_array_equal(again[0], noise(9, 9, 3))
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [folder.name]


def test_what_a_killed_process_left_in_the_cache_is_deleted_when_it_is_old(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.png", noise(9, 9, 3))
    old, new, another = f".{0:032x}-{0:08x}.tmp", f".{0:032x}-{1:08x}.tmp", ".of-another-program.tmp"
    for name, age_s in ((old, 200_000), (new, 0), (another, 200_000)):
        left = tmp_path / "cache" / name
        left.mkdir(parents=True)
        (left / "pixels.bin").write_bytes(b"x")
        for path in (left / "pixels.bin", left):
            os.utime(path, (time.time() - age_s,) * 2)
    load_pictures(str(tmp_path / "a"), tmp_path / "cache")
    assert sorted(p.name for p in (tmp_path / "cache").iterdir() if p.name.startswith(".")) == [new, another]


def test_a_picture_that_the_system_failed_to_read_is_there_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network share that is away for a moment; but what can never be read is not tried at every start."""
    save(tmp_path / "a" / "x.png", noise(9, 9, 3))
    save(tmp_path / "a" / "y.png", noise(9, 9, 3, seed=1))
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    opened = Image.open

    def fails(path: Path, *rest: Any) -> Any:
        if path.name == "y.png":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return opened(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", fails)
        first = load_pictures(str(tmp_path / "a"), tmp_path / "cache")
    assert list(first.names) == ["x.png"] and len(first.unreadable) == 2
    said: list[str] = []
    assert list(load_pictures(str(tmp_path / "a"), tmp_path / "cache", said.append).names) == ["x.png", "y.png"]
    assert said[0].endswith(" lacks files that could not be read then: made again")
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "_build", None)
        assert len(load_pictures(str(tmp_path / "a"), tmp_path / "cache")) == 2


def test_a_damaged_cache_that_cannot_be_replaced_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to another user."""
    save(tmp_path / "a" / "x.png", noise(9, 9, 3))
    load_pictures(str(tmp_path / "a"), tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    flipped(folder / "pixels.bin")
    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: path == folder or rmtree(path, **options))
    with pytest.raises(OutputError, match=r"the cache .* is damaged and cannot be replaced: pixels.bin is not what"):
        load_pictures(str(tmp_path / "a"), tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [folder.name]


def test_the_high_bytes_of_deep_gray_are_taken_and_numbers_that_are_no_samples_refused(tmp_path: Path) -> None:
    deep = np.random.default_rng(3).integers(0, 65536, (8, 9)).astype(np.uint16)
    folder = tmp_path / "a"
    folder.mkdir()
    Image.fromarray(deep).save(folder / "gray.png")
    Image.fromarray(deep).save(folder / "gray.tif")
    Image.fromarray(deep.astype(np.float32)).save(folder / "real.tif")
    Image.fromarray(deep.astype(np.int32) << 8).save(folder / "wide.tif")
    found = load_pictures(str(folder), tmp_path / "cache")
    assert list(found.names) == ["gray.png", "gray.tif"] and found.gray.all()
    assert sorted(name.split(" ")[0] for name in found.unreadable) == ["real.tif", "wide.tif"]
    for i in range(2):
        np.testing.assert_array_equal(found[i], np.repeat((deep >> 8)[:, :, None], 3, axis=2))


def test_a_cache_among_the_pictures_is_refused(tmp_path: Path) -> None:
    """Every start would find more files, and cache them all again."""
    save(tmp_path / "a" / "x.png", noise(9, 9, 3))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for cache in (tmp_path / "a" / "cache", tmp_path / "link" / "cache", tmp_path / "a"):
        with pytest.raises(TrainingDataError, match=r"the cache .* lies among the pictures of .*: choose another"):
            load_pictures(str(tmp_path / "a"), cache)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.png"]
    assert len(load_pictures(str(tmp_path / "a"), tmp_path / "a-cache")) == 1


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingDataError, match="no readable picture in"):
        load_pictures(str(tmp_path / "empty"), tmp_path / "cache")


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXZIP_CACHE", "/somewhere")
    assert default_cache() == Path("/somewhere")
    monkeypatch.delenv("PIXZIP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_cache() == Path("/caches/pixzip")


# ------------------------------------------------------------------------ the split


def test_the_split_depends_on_each_pictures_content_alone() -> None:
    pictures = [noise(4, 4, 3, seed=i) for i in range(200)]
    train, out = held_out(pictures_of(*pictures), 0.2)
    assert len(train) + len(out) == 200 and 20 < len(out) < 60
    assert not set(train.hashes) & set(out.hashes)
    _, fewer = held_out(pictures_of(*pictures[::-2]), 0.2)
    assert set(fewer.hashes) == set(out.hashes) & {content_hash(p) for p in pictures[::-2]}


def test_of_a_few_pictures_one_is_held_out() -> None:
    pictures = [noise(4, 4, 3, seed=i) for i in range(3)]
    train, out = held_out(pictures_of(*pictures, pictures[0]), 1e-6)
    least = min(content_hash(p) for p in pictures)
    assert set(out.hashes) == {least} and len(train) + len(out) == 4 and least not in train.hashes


def test_a_picture_in_both_folders_is_left_out_of_training(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "train" / f"{i}.png", noise(8, 8, 3, seed=i))
    save(tmp_path / "judge" / "other-name.webp", noise(8, 8, 3, seed=1), lossless=True)
    settings = DataSettings(train=str(tmp_path / "train"), validation=str(tmp_path / "judge"))
    said: list[str] = []
    train, out = load_split(settings, tmp_path / "cache", said.append)
    assert (len(train), len(out)) == (2, 1)
    assert said[-1] == "1 training pictures are validation pictures too: left out of training"


def test_crops_do_not_depend_on_the_names_of_files(tmp_path: Path) -> None:
    drawn = []
    for folder, order in (("a", range(8)), ("b", [5, 2, 7, 0, 1, 6, 3, 4])):
        for name, i in enumerate(order):
            save(tmp_path / folder / f"{name}.png", noise(9, 9, 3, seed=i))
        settings = DataSettings(train=str(tmp_path / folder), validation_share=0.3, crop=8, planes=3)
        train, out = load_split(settings, tmp_path / "cache")
        drawn.append((RandomCrops(train, settings, 0).batch(0, 0, range(30)), list(out.hashes)))
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    assert drawn[0][1] == drawn[1][1]


def test_a_split_with_an_empty_side_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.png", noise(8, 8, 3))
    settings = DataSettings(train=str(tmp_path / "a"), validation_share=0.0)
    with pytest.raises(TrainingDataError, match=r"no validation picture: 1 pictures in .*validation_share"):
        load_split(settings, tmp_path / "cache")
    with pytest.raises(TrainingDataError, match="no train picture: "):
        load_split(replace(settings, validation=settings.train), tmp_path / "cache")
    with pytest.raises(TrainingDataError, match="no training pictures named: --data FOLDER"):
        load_split(replace(settings, train=""), tmp_path / "cache")


# ------------------------------------------------------------------------ crops

SETTINGS = DataSettings(crop=4, validation_crop=4, planes=3)


def test_crops_depend_on_seed_attempt_step_and_place_only() -> None:
    crops = RandomCrops(pictures_of(noise(30, 30, 3)), SETTINGS, 1)
    whole = crops.batch(0, 5, range(6))
    np.testing.assert_array_equal(np.concatenate([crops.batch(0, 5, range(4)), crops.batch(0, 5, range(4, 6))]), whole)
    feed = ahead(lambda step: crops.batch(0, step, range(6)), 4)
    next(feed)
    np.testing.assert_array_equal(next(feed), whole)
    feed.close()
    others = [crops.batch(0, 6, range(6)), crops.batch(1, 5, range(6)), crops.reseeded(1).batch(0, 5, range(6))]
    assert all((other != whole).any() for other in others)


def test_pictures_are_drawn_by_their_number_of_crop_positions() -> None:
    small, large = np.full((5, 5, 3), 1, np.uint8), np.full((13, 13, 3), 2, np.uint8)
    crops = RandomCrops(pictures_of(small, large, np.full((3, 90, 3), 3, np.uint8)), SETTINGS, 0)
    values = [int(crops.crop(0, 0, i)[0, 0, 0]) for i in range(2000)]
    assert 3 not in values
    equal = RandomCrops(pictures_of(*(np.full((4, 4, 3), i, np.uint8) for i in range(3))), SETTINGS, 0)
    assert {int(equal.crop(0, 0, i)[0, 0, 0]) for i in range(50)} == {0, 1, 2}
    assert np.mean(np.array(values) == 1) == pytest.approx(4 / 104, abs=0.02)


def orientations_seen(kind: str) -> int:
    crops = RandomCrops(pictures_of(noise(4, 4, 3)), replace(SETTINGS, orientations=kind), 0)
    return len({crops.crop(0, 0, i).tobytes() for i in range(200)})


def test_crops_come_in_the_orientations_asked_for() -> None:
    assert [orientations_seen(kind) for kind in ("all", "mirror", "none")] == [8, 2, 1]


@pytest.mark.parametrize("share", ["grain_share", "chroma_share"])
def test_aged_crops_are_as_many_as_their_share_says(share: str) -> None:
    pictures = pictures_of(noise(20, 20, 3))
    plain, aged = RandomCrops(pictures, SETTINGS, 0), RandomCrops(pictures, replace(SETTINGS, **{share: 0.5}), 0)
    changed = [bool((plain.crop(0, 0, i) != aged.crop(0, 0, i)).any()) for i in range(80)]
    assert 25 <= sum(changed) <= 55
    with pytest.raises(TrainingError, match=share):
        replace(SETTINGS, **{share: 1.5})


def test_gray_and_permuted_crops() -> None:
    pictures = pictures_of(noise(20, 20, 3))
    gray = RandomCrops(pictures, replace(SETTINGS, gray_share=1.0), 0).crop(0, 0, 0)
    assert (gray == gray[..., :1]).all()
    plain = RandomCrops(pictures, SETTINGS, 0)
    permuted = RandomCrops(pictures, replace(SETTINGS, permute_share=1.0), 0)
    orders = set()
    for i in range(60):
        a, b = plain.crop(0, 0, i), permuted.crop(0, 0, i)
        orders.add(tuple(next(k for k in range(3) if (b[..., c] == a[..., k]).all()) for c in range(3)))
    assert len(orders) == 6


def test_reduced_crops_are_box_averages_and_small_pictures_are_not_reduced() -> None:
    picture = noise(8, 12, 3)
    means = picture.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(reduced(picture, 2), np.floor(means + 0.5))
    settings = replace(SETTINGS, scales=(2,), orientations="none")
    crop = RandomCrops(pictures_of(noise(8, 8, 3)), settings, 0).crop(0, 0, 0)
    np.testing.assert_array_equal(crop, reduced(noise(8, 8, 3), 2))
    crop = RandomCrops(pictures_of(noise(4, 4, 3)), settings, 0).crop(0, 0, 0)
    np.testing.assert_array_equal(crop, noise(4, 4, 3))


def test_planes_become_what_the_network_reads() -> None:
    colour, gray = noise(4, 4, 3), noise(4, 4, 1)
    np.testing.assert_array_equal(as_planes(colour, 1)[..., 0], luma(colour))
    np.testing.assert_array_equal(luma(colour), np.asarray(Image.fromarray(colour).convert("L")))
    np.testing.assert_array_equal(as_planes(gray, 3), np.repeat(gray, 3, axis=2))


def test_validation_looks_at_the_middle_of_the_first_pictures_by_content() -> None:
    pictures = [noise(6, 8, 3, seed=i) for i in range(5)]
    found = centre_crops(pictures_of(*pictures), replace(SETTINGS, validation_pictures=2))
    first = sorted(pictures, key=content_hash)[:2]
    np.testing.assert_array_equal(found, [p[1:5, 2:6] for p in first])


def test_pictures_smaller_than_the_crop_are_refused_with_their_size() -> None:
    pictures = pictures_of(noise(3, 9, 3), noise(2, 9, 3))
    with pytest.raises(TrainingDataError, match=r"no training picture of at least 4 x 4 .* largest shorter side is 3"):
        RandomCrops(pictures, SETTINGS, 0)
    with pytest.raises(TrainingDataError, match="no validation picture of at least 4 x 4"):
        centre_crops(pictures, SETTINGS)


@pytest.mark.parametrize(
    "wrong", [{"crop": 0}, {"planes": 2}, {"scales": ()}, {"scales": (0,)}, {"gray_share": 2}, {"orientations": "any"}]
)
def test_settings_that_no_crop_can_follow_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=r"^data\."):
        replace(SETTINGS, **wrong)
