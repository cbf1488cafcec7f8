"""A model's integers as a float network: frozen again they are the same, and training goes on from them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from pixzip import evaluate  # noqa: E402
from pixzip.errors import TrainingError  # noqa: E402
from pixzip.freezing.calibration import calibrated  # noqa: E402
from pixzip.freezing.exponents import Exponents  # noqa: E402
from pixzip.freezing.freeze import freeze  # noqa: E402
from pixzip.freezing.tables import make_tables  # noqa: E402
from pixzip.freezing.thaw import thawed  # noqa: E402
from pixzip.model.file import Model, find_model, load_model, shipped_models  # noqa: E402
from pixzip.nets.trunk import TrunkConfig, TrunkModel, prepare  # noqa: E402
from pixzip.training.checkpoint import Run  # noqa: E402
from pixzip.training.config import Config, TrainingSettings  # noqa: E402
from pixzip.training.start import begin_from  # noqa: E402

ROOT = Path(__file__).parent.parent
TABLES = make_tables()


def photograph() -> np.ndarray[Any, Any]:
    """(1, 64, 64, 3) pixels of a photograph."""
    with Image.open(ROOT / "examples" / "photo.png") as image:
        return np.asarray(image.convert("RGB"))[None, 100:164, 100:164]


def random_model(blocks: str, seed: int = 0) -> Model:
    """A model of random weights and biases, of which the last block adds nothing."""
    network, crops = TrunkModel(TrunkConfig(16, 24, 8, 16, blocks), seed), photograph()[:, :16, :16]
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.05 * torch.randn(p.shape, generator=g)
        for kind, p in network.block_parts()[-1:]:
            p["w2" if kind == "c" else "w_up"].zero_()
    batch = prepare(crops)
    exponents = calibrated(network, torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors), TABLES)
    return load_model(freeze(network, exponents, TABLES, {}), "random")


def differing(model: Model, network: TrunkModel, exponents: Exponents) -> dict[str, int]:
    """Arrays of a model that are others when a network is frozen, and by how much at most."""
    again = load_model(freeze(network, exponents, TABLES, {}), "again").network
    pairs = {name: (of.astype(np.int64), again.arrays[name]) for name, of in model.network.arrays.items()}
    return {name: int(abs(a - b).max()) for name, (a, b) in pairs.items() if (a != b).any()}


@pytest.mark.parametrize("name", [info.name for info in shipped_models()])
def test_the_integers_of_a_shipped_model_come_back(name: str) -> None:
    model = find_model(name)
    found = differing(model, *thawed(model))
    assert set(found) <= {"head.1.known", "head.2.known"}
    assert all(most == 1 for most in found.values())


@pytest.mark.parametrize("blocks", ["c", "l", "clcl", "cc"])
def test_so_do_those_of_any_blocks(blocks: str) -> None:
    model = random_model(blocks)
    found = differing(model, *thawed(model))
    assert set(found) <= {"head.1.known", "head.2.known"} and all(most == 1 for most in found.values())


@pytest.mark.parametrize("blocks", ["c", "clcl"])
def test_weights_are_as_large_as_those_that_were_frozen(blocks: str) -> None:
    """The integers are those of networks of many scales; each free one is a power of two, so within the root of it."""
    network, batch = TrunkModel(TrunkConfig(16, 24, 8, 16, blocks)), prepare(photograph()[:, :16, :16])
    exponents = calibrated(network, torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors), TABLES)
    again, _ = thawed(load_model(freeze(network, exponents, TABLES, {}), "new"))
    sizes = dict(again.named_parameters())
    for name, p in network.named_parameters():
        if p.ndim > 1 and p.numel():
            assert 0.5 < float(sizes[name].detach().norm() / p.detach().norm()) < 2, name


@pytest.mark.parametrize(("name", "by"), [("stream", 1), ("feature", -1)])
def test_one_wrong_exponent_is_seen(name: str, by: int) -> None:
    model = random_model("clcl")
    network, exponents = thawed(model)
    wrong = replace(exponents, **{name: getattr(exponents, name) + by})
    assert set(differing(model, network, wrong)) - {"head.1.known", "head.2.known"}


def test_the_float_network_has_the_bits_of_the_integers() -> None:
    model, crops = find_model("default"), photograph()
    network, _ = thawed(model)
    exact = evaluate.model_bits(model, np.ascontiguousarray(crops.transpose(0, 3, 1, 2)), learning=0).sum()
    with torch.no_grad():
        nats = network.nats(network.prepare(crops), torch.float32).item()
    assert nats / np.log(2) == pytest.approx(exact, rel=0.01)


def test_a_run_begins_with_a_model_by_name_or_file(tmp_path: Path) -> None:
    model = find_model("default")
    own = Run.new(Config(TrunkConfig(128, 160, 80, 128, "clclclc"), TrainingSettings(init="default")), {})
    begin_from(own, "default")
    weights = dict(thawed(model)[0].named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in own.network.named_parameters())
    assert own.start == hashlib.sha256(model.data).hexdigest()[:32]
    small = random_model("cl")
    (tmp_path / "small.safetensors").write_bytes(small.data)
    larger = Run.new(Config(TrunkConfig(24, 24, 16, 24, "clc"), TrainingSettings()), {})
    begin_from(larger, str(tmp_path / "small.safetensors"))
    crops = photograph()[:, :16, :16]
    nats = [n.nats(n.prepare(crops), torch.float32).item() for n in (thawed(small)[0], larger.network)]
    assert nats[1] == pytest.approx(nats[0], rel=1e-6)


def test_what_no_run_can_begin_with_is_refused(tmp_path: Path) -> None:
    run = Run.new(Config(TrunkConfig(16, 16, 8, 16, "cl"), TrainingSettings()), {})
    with pytest.raises(TrainingError, match=r"training\.init: no model named defualt \(there are: .*default"):
        begin_from(run, "defualt")
    with pytest.raises(
        TrainingError, match=r"default: weights of another network: model\.channels 16: must be at least"
    ):
        begin_from(run, "default")
    with pytest.raises(TrainingError, match="mnist-pixelcnn: only models of the default network can be trained"):
        begin_from(run, str(ROOT / "bench" / "research" / "mnist-pixelcnn.safetensors"))
    with pytest.raises(TrainingError, match=r"training\.init: no model named .* and no such file"):
        begin_from(run, str(tmp_path))  # a folder
    (tmp_path / "neither").write_text("neither")
    with pytest.raises(TrainingError, match=r"training\.init: model neither: file of 7 bytes"):
        begin_from(run, str(tmp_path / "neither"))
