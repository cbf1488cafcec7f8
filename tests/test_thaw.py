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

from small_nets import ARCHITECTURES, crops_of, randomised  # noqa: E402

from pixzip import evaluate  # noqa: E402
from pixzip.errors import TrainingError  # noqa: E402
from pixzip.freezing.calibration import calibrated  # noqa: E402
from pixzip.freezing.exponents import Exponents  # noqa: E402
from pixzip.freezing.freeze import freeze, freeze_network  # noqa: E402
from pixzip.freezing.multiscale_integers import upsampling_of  # noqa: E402
from pixzip.freezing.multiscale_thaw import thawed_multiscale  # noqa: E402
from pixzip.freezing.stack_integers import stack_network  # noqa: E402
from pixzip.freezing.stack_thaw import thawed_stack  # noqa: E402
from pixzip.freezing.tables import make_tables  # noqa: E402
from pixzip.freezing.thaw import thawed, thawed_trunk  # noqa: E402
from pixzip.model.file import Model, find_model, load_model, shipped_models  # noqa: E402
from pixzip.model.multiscale import MultiScaleNetwork, Upsampling  # noqa: E402
from pixzip.model.stack import StackNetwork  # noqa: E402
from pixzip.nets.multiscale import MultiScaleConfig  # noqa: E402
from pixzip.nets.network import build  # noqa: E402
from pixzip.nets.trunk import TrunkConfig, TrunkModel, prepare  # noqa: E402
from pixzip.training.checkpoint import Run  # noqa: E402
from pixzip.training.config import Config, TrainingSettings, from_tables, overridden, preset_tables  # noqa: E402
from pixzip.training.start import begin_from  # noqa: E402

ROOT = Path(__file__).parent.parent
RESEARCH = ROOT / "bench" / "research"
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
    found = differing(model, *thawed_trunk(model.network))
    assert set(found) <= {"head.1.known", "head.2.known"}
    assert all(most == 1 for most in found.values())


@pytest.mark.parametrize("blocks", ["c", "l", "clcl", "cc"])
def test_so_do_those_of_any_blocks(blocks: str) -> None:
    model = random_model(blocks)
    found = differing(model, *thawed_trunk(model.network))
    assert set(found) <= {"head.1.known", "head.2.known"} and all(most == 1 for most in found.values())


@pytest.mark.parametrize("blocks", ["c", "clcl"])
def test_weights_are_as_large_as_those_that_were_frozen(blocks: str) -> None:
    """The integers are those of networks of many scales; each free one is a power of two, so within the root of it."""
    network, batch = TrunkModel(TrunkConfig(16, 24, 8, 16, blocks)), prepare(photograph()[:, :16, :16])
    exponents = calibrated(network, torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors), TABLES)
    again = thawed(load_model(freeze(network, exponents, TABLES, {}), "new"))
    sizes = dict(again.named_parameters())
    for name, p in network.named_parameters():
        if p.ndim > 1 and p.numel():
            assert 0.5 < float(sizes[name].detach().norm() / p.detach().norm()) < 2, name


@pytest.mark.parametrize(("name", "by"), [("stream", 1), ("feature", -1)])
def test_one_wrong_exponent_is_seen(name: str, by: int) -> None:
    model = random_model("clcl")
    network, exponents = thawed_trunk(model.network)
    wrong = replace(exponents, **{name: getattr(exponents, name) + by})
    assert set(differing(model, network, wrong)) - {"head.1.known", "head.2.known"}


def test_the_float_network_has_the_bits_of_the_integers() -> None:
    model, crops = find_model("default"), photograph()
    network = thawed(model)
    exact = evaluate.plane_bits(model, np.ascontiguousarray(crops.transpose(0, 3, 1, 2)), learning=0).sum()
    with torch.no_grad():
        nats = network.nats(network.prepare(crops), torch.float32).item()
    assert nats / np.log(2) == pytest.approx(exact, rel=0.01)


def test_a_run_begins_with_a_model_by_name_or_file(tmp_path: Path) -> None:
    model = find_model("default")
    own = Run.new(Config(TrunkConfig(128, 160, 80, 128, "clclclc"), TrainingSettings(init="default")), {})
    begin_from(own, "default")
    weights = dict(thawed(model).named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in own.network.named_parameters())
    assert own.start == hashlib.sha256(model.data).hexdigest()[:32]
    small = random_model("cl")
    (tmp_path / "small.safetensors").write_bytes(small.data)
    larger = Run.new(Config(TrunkConfig(24, 24, 16, 24, "clc"), TrainingSettings()), {})
    begin_from(larger, str(tmp_path / "small.safetensors"))
    crops = photograph()[:, :16, :16]
    nats = [n.nats(n.prepare(crops), torch.float32).item() for n in (thawed(small), larger.network)]
    assert nats[1] == pytest.approx(nats[0], rel=1e-6)


def test_what_no_run_can_begin_with_is_refused(tmp_path: Path) -> None:
    run = Run.new(Config(TrunkConfig(16, 16, 8, 16, "cl"), TrainingSettings()), {})
    with pytest.raises(TrainingError, match=r"training\.init: no model named defualt \(there are: .*default"):
        begin_from(run, "defualt")
    with pytest.raises(
        TrainingError, match=r"default: weights of another network: model\.channels 16: must be at least"
    ):
        begin_from(run, "default")
    with pytest.raises(TrainingError, match=r"mnist-pixelcnn\.safetensors: weights of another network: .*architecture"):
        begin_from(run, str(RESEARCH / "mnist-pixelcnn.safetensors"))
    with pytest.raises(TrainingError, match=r"training\.init: no model named .* and no such file"):
        begin_from(run, str(tmp_path))  # a folder
    (tmp_path / "neither").write_text("neither")
    with pytest.raises(TrainingError, match=r"training\.init: model neither: file of 7 bytes"):
        begin_from(run, str(tmp_path / "neither"))


# ------------------------------------------------------------------------ the paper's networks


def stood_for(network: StackNetwork | Upsampling) -> dict[str, Any]:
    """Arrays of a frozen network as real numbers: an output whose weights fit a finer grid may have it."""
    arrays, found = network.arrays, {}
    for name, array in arrays.items():
        product, _, part = name.rpartition(".")
        values = array.astype(np.float64)
        shift = arrays.get(f"{product}.shift", arrays.get(f"{product.removesuffix('ss')}is.shift"))
        if part == "weight" and shift is not None:
            left = arrays.get(f"{product}.left", np.zeros_like(shift))
            values = np.ldexp(values, (left - shift.astype(np.int32))[:, None])
        elif part == "bias":
            values = np.ldexp(values, -shift.astype(np.int32))
        elif part in ("shift", "left"):
            continue
        found[name] = values
    return found


def others(network: StackNetwork, made: Any, exponents: dict[str, int]) -> set[str]:
    """Names of what is not the same when the float network is frozen with these exponents."""
    again = stack_network(made, exponents, TABLES)
    sizes = {
        key for key in ("layer_shifts", "skip_shifts", "head_shift") if getattr(again, key) != getattr(network, key)
    }
    was, now = stood_for(network), stood_for(again)
    return sizes | {name for name in was if not np.array_equal(was[name], now[name])}


def others_of_multiscale(network: MultiScaleNetwork, made: Any, exponents: dict[str, dict[str, int]]) -> set[str]:
    """As ``others``; a bias of the upsampling, on four grids in the file, is the finest one: within a step of each."""
    found = set()
    for part, (own, again) in {"small": (network.small, made.small), "large": (network.large, made.large)}.items():
        found |= {f"{part}.{name}" for name in others(own, again, exponents[part])}
    arrays = network.upsampling.arrays
    now = stood_for(upsampling_of(made, list(exponents["upsample"].values())))
    for name, was in stood_for(network.upsampling).items():
        step = np.ldexp(1.0, -arrays[name.replace("bias", "shift")]) if name.endswith("bias") else 0
        found |= {name} if (abs(was - now[name]) > step).any() else set()
    return found


@pytest.mark.parametrize("path", sorted(RESEARCH.glob("*.safetensors")), ids=lambda path: path.stem)
def test_the_integers_of_a_research_model_come_back(path: Path) -> None:
    network = load_model(path.read_bytes(), path.stem).network
    if isinstance(network, MultiScaleNetwork):
        assert others_of_multiscale(network, *thawed_multiscale(network)) == set()
    else:
        assert isinstance(network, StackNetwork)
        assert others(network, *thawed_stack(network)) == set()


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize(("pictures", "frame", "skip"), [("rgb", "residual", True), ("gray", "raw", False)])
def test_so_do_those_of_any_of_the_papers_networks(architecture: str, pictures: str, frame: str, skip: bool) -> None:
    config = ARCHITECTURES[architecture](pictures, frame, layers=2, h=6, head=9, skip=skip, residual=not skip)
    frozen = load_model(freeze_network(randomised(config), crops_of(pictures, n=2), {}), "random").network
    assert isinstance(frozen, StackNetwork)
    network, exponents = thawed_stack(frozen)
    assert network.config == config and others(frozen, network, exponents) == set()
    for name in exponents:
        wrong = exponents | {name: exponents[name] - 1}
        assert others(frozen, network, wrong), name


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_so_do_those_of_multiscale_networks(architecture: str) -> None:
    part = ARCHITECTURES[architecture]("rgb", "residual", layers=2, h=6, head=9, skip=True)
    config = MultiScaleConfig(factor=4, features=5, small=part, large=part)
    frozen = load_model(freeze_network(randomised(config), crops_of("rgb", n=2), {}), "random").network
    assert isinstance(frozen, MultiScaleNetwork)
    network, exponents = thawed_multiscale(frozen)
    assert network.config == config and others_of_multiscale(frozen, network, exponents) == set()
    for of, values in exponents.items():
        for name in values:
            wrong = exponents | {of: values | {name: values[name] - 1}}
            assert others_of_multiscale(frozen, network, wrong), f"{of} {name}"


@pytest.mark.parametrize(
    "name", ["mnist-row-lstm", "mnist-pixelcnn", "mnist-diagonal-7x16", "cifar10-small-multiscale"]
)
def test_the_float_network_of_a_research_model_has_its_bits(name: str) -> None:
    model = load_model((RESEARCH / f"{name}.safetensors").read_bytes(), name)
    with Image.open(ROOT / "tests" / "golden" / "research" / f"{name}.four.png") as image:
        side = image.width
        crops = np.asarray(image).astype(np.uint8).reshape(4, side, side, -1)
    exact = evaluate.plane_bits(model, np.ascontiguousarray(crops.transpose(0, 3, 1, 2)), learning=0).sum()
    with torch.no_grad():
        nats = (network := thawed(model)).nats(network.prepare(crops), torch.float32).item()
    assert nats / np.log(2) == pytest.approx(exact, rel=0.01)


def test_weights_of_the_papers_networks_are_as_large_as_those_that_were_frozen() -> None:
    """In all: features of a map were scaled to need a grid alike, which moves weights from one product to the next."""
    for make in ARCHITECTURES.values():
        network = build(make("gray", layers=2, h=8, head=8))
        frozen = load_model(freeze_network(network, crops_of("gray", 8, 8, 2), {}), "new").network
        assert isinstance(frozen, StackNetwork)
        sizes = dict(thawed_stack(frozen)[0].named_parameters())
        for name, p in network.named_parameters():
            if p.ndim > 1:
                assert 0.3 < float(sizes[name].detach().norm() / p.detach().norm()) < 3, name


@pytest.mark.parametrize(
    ("name", "preset", "changes"),
    [
        ("mnist-diagonal-1x32", "mnist-diagonal-1x32", "skip=false"),
        (
            "cifar10-small-multiscale",
            "imagenet64-multiscale",
            "small.layers=3 small.h=32 small.head=64 small.skip=false "
            "large.layers=3 large.h=32 large.head=64 large.residual=true large.skip=false",
        ),
    ],
)
def test_a_run_begins_with_a_model_of_the_papers_networks(name: str, preset: str, changes: str) -> None:
    path = RESEARCH / f"{name}.safetensors"
    model = thawed(load_model(path.read_bytes(), path.stem))
    run = Run.new(from_tables(overridden(preset_tables(preset), [f"model.{change}" for change in changes.split()])), {})
    begin_from(run, str(path))
    weights = dict(model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in run.network.named_parameters())
