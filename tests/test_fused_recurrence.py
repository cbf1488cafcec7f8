"""The recurrence in passes of ours equals torch's operations, values and gradients, in every direction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_nets import ARCHITECTURES, crops_of, randomised  # noqa: E402

from pixzip.nets import masked_conv  # noqa: E402
from pixzip.nets.diagonal_bilstm import diagonal_steps, skew, unskew  # noqa: E402
from pixzip.nets.fused_recurrence import FusedRecurrence, Places  # noqa: E402
from pixzip.nets.recurrence import Recurrence  # noqa: E402
from pixzip.nets.row_lstm import row_steps  # noqa: E402

#: Distance of results from those in float64; bfloat16's roundings are 2^-9 of a value.
NEAR = {torch.bfloat16: 0.02, torch.float32: 1e-6}
CASES = [
    (way, n, height, width, k)
    for way in ("rows", "left to right", "right to left")
    for n, height, width, k in ((1, 1, 1, 2), (3, 1, 6, 3), (2, 6, 1, 3), (5, 4, 7, 4), (70, 6, 4, 2))
]


def fused(way: str, gates: Any, own: tuple[Any, Any, Any], **change: Any) -> Any:
    """(n, h, w, 4k) → (n, h, w, k) by FusedRecurrence."""
    n, height, width, _ = gates.shape
    steps = row_steps(height, width) if way == "rows" else diagonal_steps(height, width)
    places = {
        "rows": Places(0, width, 1, width),
        "left to right": Places(0, 1, width - 1, height),
        "right to left": Places(width - 1, -1, width + 1, height),
    }[way]
    steps, places = replace(steps, **change.get("steps", {})), replace(places, **change.get("places", {}))
    maps = gates.permute(3, 1, 2, 0).flatten(1, 2).clone()  # (4k, h * w, n)
    out = FusedRecurrence.apply(maps, *own, steps, places)
    return out.view(-1, height, width, n).permute(3, 1, 2, 0)


def plain(way: str, gates: Any, own: tuple[Any, Any, Any]) -> Any:
    """The same by Recurrence, skewed and mirrored."""
    height, width = gates.shape[1:3]
    w_ss, h0, c0 = (v.unsqueeze(0) for v in own)
    if way == "rows":
        rows = gates.permute(1, 0, 2, 3).unsqueeze(1)
        return Recurrence.apply(rows, w_ss, h0, c0, row_steps(height, width)).squeeze(1).permute(1, 0, 2, 3)
    mirror = (lambda x: x.flip(2)) if way == "right to left" else (lambda x: x)
    columns = skew(mirror(gates)).permute(2, 0, 1, 3).unsqueeze(1)
    states = Recurrence.apply(columns, w_ss, h0, c0, diagonal_steps(height, width)).squeeze(1)
    return mirror(unskew(states.permute(1, 2, 0, 3)))


def operands(way: str, n: int, height: int, width: int, k: int) -> tuple[Any, ...]:
    """gates, w_ss, h0, c0 and a gradient, in float64, as bfloat16 has them."""
    g = torch.Generator().manual_seed(n * height * width)
    taps = 3 if way == "rows" else 2
    sizes = ((n, height, width, 4 * k), (taps * k, 4 * k), (k,), (k,), (n, height, width, k))
    return tuple(torch.randn(size, generator=g).bfloat16().double() for size in sizes)


def run(function: Any, dtype: Any, values: tuple[Any, ...], **change: Any) -> list[Any]:
    """Hidden states, and gradients of gates, w_ss, h0 and c0; parameters are float32 where the maps are bfloat16."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    gates = values[0].to(dtype, copy=True).requires_grad_()
    own = tuple(v.to(wide, copy=True).requires_grad_() for v in values[1:4])
    out = function(gates, own, **change)
    out.backward(values[4].to(dtype))
    return [v.detach().double() for v in (out, gates.grad, *(v.grad for v in own))]


def distances(way: str, values: tuple[Any, ...], dtype: Any, **change: Any) -> list[float]:
    """Distance of each result from what plain operations give, over its norm."""
    expected = run(lambda *a: plain(way, *a), torch.float64, values)
    got = run(lambda *a, **c: fused(way, *a, **c), dtype, values, **change)
    return [float((a - b).norm() / b.norm()) for a, b in zip(got, expected, strict=True)]


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize(("way", "n", "height", "width", "k"), CASES)
def test_states_and_gradients_are_those_of_plain_operations(
    way: str, n: int, height: int, width: int, k: int, dtype: Any
) -> None:
    worst = distances(way, operands(way, n, height, width, k), dtype)
    assert max(worst[:3]) < NEAR[dtype], worst
    assert max(worst[3:]) < 5 * NEAR[dtype], worst  # sums over all cells, whose terms nearly cancel


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("rows", {"steps": {"taps": (1, 0, -1)}}),
    ("rows", {"steps": {"learned_outside": True}}),
    ("left to right", {"steps": {"taps": (0, -1)}}),
    ("left to right", {"steps": {"learned_outside": False}}),
    ("right to left", {"places": {"first": 0, "per_step": 1, "per_cell": 6}}),
]


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize(("way", "fault"), FAULTS)
def test_the_comparison_finds(way: str, fault: dict[str, Any], dtype: Any) -> None:
    worst = distances(way, operands(way, 5, 4, 7, 4), dtype, **fault)
    assert worst[0] > 0.1, worst


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("name", ["row_lstm", "diagonal_bilstm"])
@pytest.mark.parametrize("n", [1, 3])
def test_networks_take_it_and_have_the_gradients_of_float64(
    name: str, n: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, distances_ = [], []
    forward = FusedRecurrence.forward
    monkeypatch.setattr(FusedRecurrence, "forward", staticmethod(lambda *given: (calls.append(1), forward(*given))[1]))
    for seed in range(4):  # of some a ReLU is off in one of both
        network = randomised(ARCHITECTURES[name](layers=2, h=4, head=7, skip=True), seed)
        batch, gradients = network.prepare(crops_of("rgb", 5, 6, n=n)), []
        for each in (torch.float64, dtype):
            network.zero_grad()
            network.nats(batch, each).backward()
            gradients.append(torch.cat([p.grad.double().flatten() for p in network.parameters()]))
        distances_.append(float((gradients[1] - gradients[0]).norm() / gradients[0].norm()))
    assert len(calls) == 4 * (2 if name == "row_lstm" else 4)
    assert min(distances_) < NEAR[dtype], distances_


def test_batch_last_maps_keep_their_values_and_pointwise_convolutions_their_results() -> None:
    g = torch.Generator().manual_seed(0)
    conv = masked_conv.MaskedConv("B", (0, 0, 1), (0, 1), g)
    x = torch.randn(3, 3, 4, 5, generator=g)
    last = masked_conv.batch_last(x)
    assert torch.equal(last, x) and masked_conv.is_batch_last(last) and not masked_conv.is_batch_last(x)
    out = conv(last)
    assert masked_conv.is_batch_last(out)
    np.testing.assert_allclose(out.detach().numpy(), conv(x).detach().numpy(), rtol=1e-5, atol=1e-6)
