"""Training: it learns, resumes bit for bit, and ends with a model file that codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from pixzip import codec
from pixzip.cli import main
from pixzip.data import RandomCrops, load_pictures
from pixzip.errors import TrainingDataError, TrainingError
from pixzip.model_file import find_model
from pixzip.nets.trunk import TrunkConfig
from pixzip.train import Run, TrainConfig, train

TINY = TrainConfig(
    model=TrunkConfig(16, 16, 8, 16, "cl"),
    steps=24,
    decay=8,
    warmup=4,
    quantised_steps=8,
    crop=16,
    batch=4,
    validate_every=100,
    save_every=10,
    validation_crop=16,
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of smooth noise, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        walk = rng.normal(0, 2, (40, 48, 3)).cumsum(axis=0).cumsum(axis=1) / 3 + 128
        Image.fromarray(np.clip(walk, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_training_learns_and_its_model_codes(photos: Path, tmp_path: Path) -> None:
    train(TINY, photos, photos, tmp_path / "run")
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert rows[0].startswith("step,") and rows[-1].startswith("32,")
    report = json.loads((tmp_path / "run" / "report.json").read_text())["validation_bits_per_dim"]
    assert report["quantised"] < 7
    assert report["quantised"] == pytest.approx(report["float"], rel=0.02)
    model = find_model(tmp_path / "run" / "model.safetensors")
    pixels = load_pictures(photos)[0].transpose(2, 0, 1)[None]
    coded = codec.encode(model, pixels, engine="float32")
    again = codec.decode(model, coded.tiles, pixels.shape, tile=coded.tile, lanes=coded.lanes, engine="float32")
    np.testing.assert_array_equal(again, pixels)


def test_a_resumed_run_ends_with_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    train(TINY, photos, photos, tmp_path / "whole")
    crops = RandomCrops(load_pictures(photos), TINY.crop, TINY.batch, TINY.seed, TINY.gray_share)
    for stop in (11, 24, 27):
        folder = tmp_path / f"stopped-{stop}"
        folder.mkdir()
        run = Run.new(TINY)
        sample = None
        for batch in crops.from_step(0):
            if run.done == stop:
                break
            if run.done >= TINY.steps and run.exponents is None:
                run.calibrate(crops)
            sample = run.step(batch)
        assert sample is not None
        run.save(folder)
        train(TINY, photos, photos, folder)
        same = (tmp_path / "whole" / "model.safetensors").read_bytes()
        assert (folder / "model.safetensors").read_bytes() == same


def test_a_run_may_be_prolonged_before_its_decay_begins() -> None:
    longer = replace(TINY, steps=200)
    assert [TINY.rate_at(s) for s in range(16)] == [longer.rate_at(s) for s in range(16)]
    assert TINY.rate_at(23) < TINY.rate_at(17) < TINY.rate_at(15) == TINY.rate


def test_a_checkpoint_of_another_network_is_refused(photos: Path, tmp_path: Path) -> None:
    run = Run.new(TINY)
    run.save(tmp_path)
    other = Run.new(replace(TINY, model=TrunkConfig(16, 16, 8, 24, "cl")))
    with pytest.raises(TrainingError, match="another network"):
        other.load(tmp_path / "last.safetensors")


def test_a_loss_that_is_not_finite_stops_the_run(photos: Path) -> None:
    import torch

    run = Run.new(TINY)
    with torch.no_grad():
        run.model.w_in[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="loss is nan in step 0"):
        run.step(RandomCrops(load_pictures(photos), 16, 2, 0).batch(0))


def test_batches_depend_on_seed_and_step_only(photos: Path) -> None:
    pictures = load_pictures(photos)
    first = RandomCrops(pictures, 16, 3, seed=1)
    again = next(iter(RandomCrops(pictures, 16, 3, seed=1).from_step(5)))
    np.testing.assert_array_equal(first.batch(5).inputs, again.inputs)
    assert (first.batch(6).inputs != again.inputs).any()


def test_folders_without_usable_pictures_are_refused(tmp_path: Path, photos: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TrainingDataError, match="no readable picture"):
        load_pictures(empty)
    with pytest.raises(TrainingDataError, match="at least 64 x 64"):
        RandomCrops(load_pictures(photos), 64, 1, 0)


def test_gray_crops_have_three_equal_planes(photos: Path) -> None:
    colour = RandomCrops(load_pictures(photos), 16, 4, seed=2).batch(0).errors
    gray = RandomCrops(load_pictures(photos), 16, 4, seed=2, gray_share=1.0).batch(0).errors
    assert (colour[..., 1:] != 0).any()
    assert (gray[..., 1:] == 0).all() and (gray[..., 0] != 0).any()


def test_train_command_makes_a_model_and_goes_on(photos: Path, tmp_path: Path) -> None:
    sizes: dict[str, int | str] = {
        "steps": 6,
        "decay": 2,
        "quantised-steps": 4,
        "batch": 2,
        "crop": 16,
        "blocks": "cl",
        "threads": 1,
    }
    sizes |= {"channels": 16, "hidden": 16, "lstm": 8, "head": 16}
    common = ["train", "--photos", str(photos), "--validation", str(photos), "--out", str(tmp_path / "run")]
    common += [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    with pytest.raises(TrainingDataError, match="of at least 128"):
        _train_in_process(common)
    large = tmp_path / "large"
    large.mkdir()
    Image.fromarray(np.full((130, 140, 3), 90, np.uint8)).save(large / "a.png")
    common[4] = str(large)
    assert main(common) == 0
    first = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert main(common) == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == first


def _train_in_process(arguments: list[str]) -> None:
    """The train command with its errors left to the caller."""
    from pixzip.cli import _pixzip

    _pixzip.main(arguments, standalone_mode=False)


@pytest.mark.parametrize("option", [["--blocks", "cx"], ["--channels", "20"], ["--head", "2048"]])
def test_train_command_refuses_impossible_sizes(
    option: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["train", "--photos", str(photos), "--validation", str(photos), "--out", str(tmp_path / "r"), *option])
    error = capsys.readouterr().err
    assert code == TrainingError.exit_code
    assert error.startswith(f"pixzip: {option[0][2:]} ") and error.count("\n") == 1
    assert not (tmp_path / "r").exists()
