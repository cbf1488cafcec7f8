"""Freezing the paper's networks: masks, taps and state arrive where the document has them; the loss stays."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from small_nets import ARCHITECTURES, crops_of, randomised  # noqa: E402

from pixzip import codec  # noqa: E402
from pixzip.errors import TrainingDataError, TrainingError  # noqa: E402
from pixzip.evaluate import plane_bits  # noqa: E402
from pixzip.freezing.freeze import freeze_network  # noqa: E402
from pixzip.freezing.stack_calibration import (  # noqa: E402
    calibrated,
    divergence,
    first_exponents,
    log_probabilities,
)
from pixzip.freezing.stack_integers import stack_network  # noqa: E402
from pixzip.freezing.tables import make_tables  # noqa: E402
from pixzip.model.file import load_model  # noqa: E402
from pixzip.nets.multiscale import MultiScaleConfig  # noqa: E402
from pixzip.nets.network import build  # noqa: E402
from pixzip.nets.trunk import TrunkConfig  # noqa: E402
from pixzip.runtime.stack import layers, rows  # noqa: E402
from pixzip.training import finish  # noqa: E402
from pixzip.training.checkpoint import Run  # noqa: E402
from pixzip.training.config import Config, TrainingSettings  # noqa: E402
from pixzip.training.workers import torch_threads  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def photo_crops(pictures: str, count: int, side: int, seed: int) -> Any:
    """Crops (n, side, side, planes) of the example photograph; binary ones are its brighter half."""
    photo = np.asarray(Image.open(Path(__file__).parent.parent / "examples" / "photo.png"))
    random = np.random.default_rng(seed)
    corners = random.integers(0, (photo.shape[0] - side, photo.shape[1] - side), (count, 2))
    crops = np.stack([photo[y : y + side, x : x + side] for y, x in corners])
    if pictures == "rgb":
        return crops
    gray = crops[..., 1:2]
    return np.ascontiguousarray(gray if pictures == "gray" else (gray > 110).astype(np.uint8))


def trained(config: Any, steps: int = 60) -> Any:
    """A network after so many steps."""
    network = build(config, 1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    crops = photo_crops(config.pictures, 64, 12, seed=2)
    for step in range(steps):
        some = crops[8 * (step % 8) : 8 * (step % 8) + 8]
        loss = network.nats(network.prepare(some), torch.float32) / some.size
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def float_bits(network: Any, crops: Any) -> float:
    """Bits/dim of the float network."""
    with torch.no_grad():
        return float(network.nats(network.prepare(crops), torch.float32)) / np.log(2) / crops.size


@pytest.mark.parametrize(
    ("pictures", "frame", "skip"),
    [("rgb", "raw", False), ("rgb", "residual", True), ("gray", "raw", True), ("binary", "raw", False)],
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_frozen_loss_is_near_the_float_one_and_the_file_near_both(
    architecture: str, pictures: str, frame: str, skip: bool
) -> None:
    config = ARCHITECTURES[architecture](pictures=pictures, frame=frame, layers=2, h=12, head=24, skip=skip)
    network, crops = trained(replace(config, residual=not skip)), photo_crops(pictures, 12, 16, seed=3)
    model = load_model(freeze_network(network, photo_crops(pictures, 4, 16, seed=4), {}), "trained")
    pixels = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    real, frozen = float_bits(network, crops), plane_bits(model, pixels).sum() / pixels.size
    assert abs(frozen / real - 1) < 0.01
    assert real < {"rgb": 7.9, "gray": 7.9, "binary": 0.9}[pictures]  # it has learned something
    depth = 1 if pictures == "binary" else 8
    encoded = codec.encode(model, pixels, depth=depth, lanes=1, engine="float32")
    assert 8 * len(encoded.tiles[0]) / pixels.size == pytest.approx(frozen, rel=0.002, abs=64 / pixels.size)


@pytest.mark.parametrize("frame", ["raw", "residual"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_frozen_logits_follow_the_float_ones(architecture: str, frame: str) -> None:
    """Of a network with every parameter at work, at every place: what a tap, a scale or a learned state moves shows.

    Compared is what differs between pixels, without each logit's mean, which is mostly the last bias.
    """
    network = randomised(ARCHITECTURES[architecture](frame=frame, layers=2, h=16, head=40, skip=True), 5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".h0"):
                parameter.clamp_(-0.9, 0.9)  # as a hidden state is
            if name.endswith(".c0"):
                parameter.mul_(4)
            if name == "head.last.weight":
                parameter.mul_(10)  # far over the logits' own rounding
    random = np.random.default_rng(6)
    crops = np.clip(random.normal(128, 12, (8, 5, 4, 3)), 0, 255).astype(np.uint8)  # coding errors are not cut
    frozen = stack_network(network, first_exponents(network, crops), make_tables())
    pixels = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    found = np.empty((5, 3, 4, 8, 256))

    def visit(y: int, colour: int, acc: Any, symbols: Any) -> None:
        addend, shift, _ = layers.logit_row(frozen, colour)
        found[y, colour] = (((acc + addend) >> shift) / 64).reshape(4, 8, 256)

    rows.traverse(frozen, "float32", pixels, 3, visit)
    with torch.no_grad():
        expected = network.logits(crops).double().numpy().transpose(2, 1, 3, 0, 4)  # (h, planes, w, n, 256)
    expected, found = (x - expected.mean(axis=(0, 2, 3), keepdims=True) for x in (expected, found))
    error = np.sqrt(((found - expected) ** 2).mean(axis=(1, 3, 4)))  # of each place
    assert error.max() < 0.12 * expected.std()  # rounding gives up to 0.1; a state on another grid 0.13 to 0.9


def test_calibration_brings_the_frozen_network_nearer() -> None:
    network = trained(ARCHITECTURES["pixelcnn"](pictures="gray", layers=1, h=8, head=12))
    crops = photo_crops("gray", 4, 16, seed=4)
    planes, log_p = np.ascontiguousarray(crops.transpose(0, 3, 1, 2)), log_probabilities(network, crops)
    first = first_exponents(network, crops)
    far = first | {name: value - 3 for name, value in first.items() if name.startswith("head")}
    distances = []
    ready = calibrated(network, crops, make_tables())
    for e in (ready.exponents, first, far):
        frozen = stack_network(ready.network, e, make_tables(), ready.rounding)
        distances.append(divergence(frozen, "float32", planes, log_p))
    assert 0 < distances[0] <= distances[1] < distances[2]
    assert distances[0] / planes.size < 0.01


def test_one_function_freezes_a_trunk_too() -> None:
    network = build(TrunkConfig(channels=8, hidden=8, lstm=8, head=8, blocks="cl"), 1)
    model = load_model(freeze_network(network, photo_crops("rgb", 2, 16, seed=4), {"recipe": 1}), "trunk")
    assert model.info == {"recipe": 1}
    pixels = photo_crops("rgb", 1, 9, seed=5).transpose(0, 3, 1, 2)
    encoded = codec.encode(model, pixels, engine="float32")
    again = codec.decode(model, encoded.tiles, pixels.shape, **encoded.layout)
    assert np.array_equal(again, pixels)


def test_freezing_is_repeatable() -> None:
    network = randomised(ARCHITECTURES["diagonal_bilstm"](layers=1, h=6, head=8), 7)
    crops = crops_of("rgb", 6, 6, 2)
    assert freeze_network(network, crops, {}) == freeze_network(network, crops, {})


def test_what_cannot_be_frozen_is_refused() -> None:
    network = randomised(ARCHITECTURES["pixelcnn"](layers=1, h=6, head=8), 8)
    with pytest.raises(TrainingDataError, match="rgb pictures"):
        freeze_network(network, crops_of("gray"), {})
    with pytest.raises(TrainingError, match="Linear: this network has no integer form"):
        freeze_network(torch.nn.Linear(1, 1), crops_of("rgb", 4, 4), {})


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "multiscale"])
def test_a_run_on_a_device_is_frozen_on_the_cpu(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is torch's meta, whose tensors have no values: anything that is computed there cannot be frozen."""
    config: Any = ARCHITECTURES.get(architecture, ARCHITECTURES["pixelcnn"])(pictures="gray", layers=1, h=6, head=8)
    if architecture == "multiscale":
        config = MultiScaleConfig(config, config, factor=2, features=4)
    crops = crops_of("gray", 6, 6, 2)
    run = Run.new(Config(config, TrainingSettings(quantised_steps=0)), {})
    wanted = finish.frozen(run, lambda: crops)
    here = copy.deepcopy(run.network)
    run.network.to("meta")
    with pytest.raises((NotImplementedError, RuntimeError)):
        freeze_network(run.network, crops, {})
    monkeypatch.setattr(type(run.network), "cpu", lambda network: vars(network).update(vars(here)))
    assert finish.frozen(run, lambda: crops) == wanted
