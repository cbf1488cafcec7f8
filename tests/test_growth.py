"""A grown trunk computes what the smaller one did, and all that is new in it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from naive_trunk import naive_logits  # noqa: E402

from pixzip.errors import TrainingError  # noqa: E402
from pixzip.nets import growth  # noqa: E402
from pixzip.nets.growth import grown  # noqa: E402
from pixzip.nets.trunk import TrunkConfig, TrunkModel, prepare  # noqa: E402

SMALL = TrunkConfig(channels=16, hidden=24, lstm=8, head=16, blocks="cl")
LARGER = {"channels": 24, "hidden": 40, "lstm": 16, "head": 32, "blocks": "clcl"}
ALL = TrunkConfig(**LARGER)  # type: ignore[arg-type]


def model(seed: int = 0) -> TrunkModel:
    """A network with random biases, so that no path is dead."""
    made = TrunkModel(SMALL, seed)
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in made.parameters():
            p += 0.2 * torch.randn(p.shape, generator=g)
    return made


def crops() -> Any:
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(0, 9, (1, 6, 5, 3)).cumsum(axis=2) + 120, 0, 255).astype(np.uint8)


def logits(network: TrunkModel) -> Any:
    """In float64 (3, h, w, 256), of any known colours."""
    batch = prepare(crops())
    known = np.random.default_rng(1).normal(size=(6, 5, 64))
    return naive_logits(network, batch.inputs[0], known)


def nats(network: TrunkModel) -> float:
    return float(network.nats(network.prepare(crops()), torch.float32).item())


@pytest.mark.parametrize("field", [*LARGER, "all"])
def test_a_grown_network_computes_the_same_logits(field: str) -> None:
    small = model()
    large = grown(small, ALL if field == "all" else replace(SMALL, **{field: LARGER[field]}), 3)
    np.testing.assert_allclose(logits(large), logits(small), rtol=0, atol=1e-12)
    assert nats(large) == pytest.approx(nats(small), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("w_in", 0, 20),  # into a new channel
        ("blocks.0.w2", 3, 20),
        ("blocks.0.w2", 30, 0),  # out of a new unit
        ("blocks.1.w_up", 10, 0),
        ("blocks.1.w_ss", 10, 0),
        ("blocks.2.w2", 0, 0),  # out of a new block
        ("blocks.3.w_up", 0, 0),
        ("heads.1.v", 20, 7),
    ],
)
def test_one_new_weight_that_is_not_zero_breaks_the_equality(name: str, row: int, column: int) -> None:
    small = model()
    large = grown(small, ALL, 3)
    with torch.no_grad():
        weight = dict(large.named_parameters())[name]
        assert weight[row, column] == 0
        weight[row, column] = 0.5
    assert np.abs(logits(large) - logits(small)).max() > 1e-3


def test_weights_that_do_not_keep_to_their_taps_and_gates_break_the_equality(monkeypatch: pytest.MonkeyPatch) -> None:
    def contiguous(side: Any, count: int, old: TrunkConfig, new: TrunkConfig) -> Any:
        return torch.arange(count) < (side.parts * getattr(old, side.size) if side.size else count)

    small = model()
    monkeypatch.setattr(growth._Side, "kept", contiguous)
    assert np.abs(logits(grown(small, ALL, 3)) - logits(small)).max() > 1e-3


def test_everything_new_learns() -> None:
    large = grown(model(), ALL, 3)
    before = {name: p.detach().clone() for name, p in large.named_parameters()}
    optimiser = torch.optim.SGD(large.parameters(), lr=1e-3)
    for _ in range(3):  # what reads new channels, which are 0 at first, moves from the second step on
        optimiser.zero_grad()
        large.nats(large.prepare(crops()), torch.float32).backward()
        optimiser.step()
    basis_rows = large.basis.abs().amax(0) > 0
    for name, p in large.named_parameters():
        moved = (p.detach() != before[name]).reshape(-1, p.shape[-1])
        if name.endswith(".p"):
            moved = moved[basis_rows.repeat(len(moved) // len(basis_rows))]
        if moved.numel():
            assert moved.float().mean() > 0.75, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 8}, "channels 8: must be at least 16, which the weights are of"),
        ({"lstm": 8, "head": 8}, "head 8: must be at least 16"),
        ({"blocks": "lcl"}, "blocks 'lcl': must begin with 'cl', the blocks that the weights are of"),
        ({"blocks": "c"}, "blocks 'c': must begin with 'cl'"),
    ],
)
def test_smaller_networks_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        grown(model(), replace(ALL, **change))


def test_every_parameter_of_a_trunk_has_its_sides() -> None:
    assert {growth._kind(name) for name, _ in model().named_parameters()} == set(growth._SIDES)
