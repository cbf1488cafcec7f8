"""The paper's networks equal loops over pixels written from its equations, and their gradients are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from naive_nets import Naive, deconvolve, relu

torch = pytest.importorskip("torch")

from small_nets import ARCHITECTURES, crops_of, randomised  # noqa: E402

from pixzip.nets import diagonal_bilstm  # noqa: E402
from pixzip.nets.diagonal_bilstm import DiagonalBiLstmConfig, diagonal_steps, skew, unskew  # noqa: E402
from pixzip.nets.masks import colours, weight_mask  # noqa: E402
from pixzip.nets.multiscale import MultiScaleConfig  # noqa: E402
from pixzip.nets.network import NETWORKS, build  # noqa: E402
from pixzip.nets.pixelcnn import PixelCnnConfig  # noqa: E402
from pixzip.nets.pixels import nats_of  # noqa: E402
from pixzip.nets.recurrence import Recurrence, Steps  # noqa: E402
from pixzip.nets.row_lstm import RowLstmConfig, row_steps  # noqa: E402

SMALL: dict[str, Any] = {"layers": 2, "h": 4, "head": 7}
CASES = [
    (name, {"pictures": pictures, "residual": residual, "skip": skip, "frame": frame})
    for name in ARCHITECTURES
    for pictures, residual, skip, frame in (
        ("rgb", True, True, "residual"),
        ("rgb", False, False, "raw"),
        ("gray", True, False, "residual"),
        ("binary", False, True, "raw"),
    )
]


def parameters(network: Any) -> dict[str, Any]:
    return {name: p.detach().double().numpy() for name, p in network.named_parameters()}


def outputs(network: Any, batch: Any, conditioning: Any = None) -> Any:
    """(h, w, outputs) of a batch of one picture, in float64."""
    with torch.no_grad():
        return network.outputs(batch, torch.float64, conditioning)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("name", "choices"), CASES)
def test_network_equals_loops_over_pixels(name: str, choices: dict[str, Any]) -> None:
    config = ARCHITECTURES[name](**SMALL, **choices)
    network = randomised(config)
    batch = network.prepare(crops_of(config.pictures))
    expected = Naive(parameters(network), name, config).outputs(batch.inputs[0].astype(np.float64))
    np.testing.assert_allclose(outputs(network, batch), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_layer_equals_loops_over_pixels(name: str) -> None:
    config = ARCHITECTURES[name](**{**SMALL, "h": 5})
    network = randomised(config)
    x = np.random.default_rng(1).normal(size=(5, 6, 10))
    as_map = torch.from_numpy(x).permute(2, 0, 1)[None]
    naive = Naive(parameters(network), name, config)
    for index in range(2):
        with torch.no_grad():
            got = network.layers[index](as_map)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(got, naive.layer(index, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("factor", [2, 4])
def test_multiscale_equals_loops_over_pixels(name: str, factor: int) -> None:
    part = ARCHITECTURES[name](**SMALL)
    config = MultiScaleConfig(PixelCnnConfig(**SMALL), part, factor=factor, features=3)
    network = randomised(config)
    crops = crops_of("rgb", 7, 5)
    batch, p = network.prepare(crops), parameters(network)
    np.testing.assert_array_equal(batch.small.symbols[0], crops[0, ::factor, ::factor])
    conditioning = batch.small.inputs[0].astype(np.float64)
    for i in range(factor.bit_length() - 1):
        weights = p[f"upsampler.layers.{i}.weight"], p[f"upsampler.layers.{i}.bias"]
        conditioning = deconvolve(relu(conditioning) if i else conditioning, *weights)
    large = {key[6:]: value for key, value in p.items() if key.startswith("large.")}
    expected = Naive(large, name, part).outputs(batch.large.inputs[0].astype(np.float64), conditioning[:7, :5])
    with torch.no_grad():
        got = network.logits(crops, torch.float64)[0].permute(1, 2, 0, 3).numpy().reshape(expected.shape)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


def test_multiscale_nats_are_small_nats_and_those_of_unknown_sub_pixels() -> None:
    config = MultiScaleConfig(PixelCnnConfig(**SMALL), RowLstmConfig(**SMALL), factor=2, features=3)
    network, crops = randomised(config), crops_of("rgb", 5, 4, n=2)
    batch = network.prepare(crops)
    with torch.no_grad():
        log_p = torch.log_softmax(network.logits(crops, torch.float64), dim=4).numpy()
        small = torch.log_softmax(network.small.logits(crops[:, ::2, ::2], torch.float64), dim=4).numpy()
        total = network.nats(batch, torch.float64).item()
    expected = 0.0
    for n, y, x, c in np.ndindex(crops.shape):
        value = crops[n, y, x, c]
        known = y % 2 == 0 and x % 2 == 0
        expected -= small[n, c, y // 2, x // 2, value] if known else log_p[n, c, y, x, value]
    assert total == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "choices"), CASES)
def test_nats_are_those_of_the_logits(name: str, choices: dict[str, Any]) -> None:
    config = ARCHITECTURES[name](**SMALL, **choices)
    network, crops = randomised(config), crops_of(config.pictures, n=2)
    batch = network.prepare(crops)
    symbols = crops.astype(int) - batch.predictions
    with torch.no_grad():
        logits = network.logits(crops, torch.float64).numpy()
        total = network.nats(batch, torch.float64)
    expected = 0.0
    for n, y, x, c in np.ndindex(crops.shape):
        if config.pictures == "binary":
            expected += np.log1p(np.exp(logits[n, 0, y, x] * (1 - 2 * symbols[n, y, x, c])))
        else:
            row = logits[n, c, y, x]
            expected += np.log(np.exp(row).sum()) - row[symbols[n, y, x, c] % 256]
    assert total.shape == () and total.dtype == torch.float64
    assert total.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "multiscale"])
def test_pictures_of_a_batch_do_not_mix(name: str) -> None:
    config: Any = RowLstmConfig(**SMALL) if name == "multiscale" else ARCHITECTURES[name](**SMALL, skip=True)
    if name == "multiscale":
        config = MultiScaleConfig(config, DiagonalBiLstmConfig(**SMALL), factor=2, features=3)
    network, crops = randomised(config), crops_of("rgb", 4, 6, n=3)
    with torch.no_grad():
        together = network.logits(crops, torch.float64)
        for i in range(3):
            alone = network.logits(crops[i : i + 1], torch.float64)[0]
            torch.testing.assert_close(together[i], alone, rtol=1e-12, atol=1e-12)


def test_a_seed_gives_its_weights() -> None:
    config = MultiScaleConfig(RowLstmConfig(**SMALL), DiagonalBiLstmConfig(**SMALL), factor=2, features=3)
    one, same, other = (build(config, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_bfloat16_and_float32_come_near_float64() -> None:
    for config in (*(c(**SMALL) for c in ARCHITECTURES.values()),):
        network = randomised(config)
        batch = network.prepare(crops_of("rgb", 8, 8))
        with torch.no_grad():
            exact = network.nats(batch, torch.float64).item()
            assert network.nats(batch, torch.float32).item() == pytest.approx(exact, rel=1e-5)
            assert network.nats(batch, torch.bfloat16).item() == pytest.approx(exact, rel=2e-2)


@pytest.mark.parametrize(("steps", "length"), [(row_steps(5, 4), 4), (diagonal_steps(4, 3), 4)])
def test_gradients_of_the_recurrence_equal_differences(steps: Any, length: int) -> None:
    g = torch.Generator().manual_seed(0)
    sizes = ((len(steps.inside), 2, 2, length, 12), (2, len(steps.taps) * 3, 12), (2, 3), (2, 3))
    inputs = [torch.randn(*s, dtype=torch.float64, generator=g).requires_grad_() for s in sizes]
    assert torch.autograd.gradcheck(lambda *a: Recurrence.apply(*a, steps), inputs)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (5, 1), (3, 4), (4, 3)])
def test_unskew_inverts_skew_and_rows_stand_on_the_diagonal(height: int, width: int) -> None:
    x = torch.arange(1, 2 * height * width * 2 + 1).view(2, height, width, 2).float()
    skewed = skew(x)
    assert skewed.shape == (2, height, width + height - 1, 2)
    assert torch.equal(unskew(skewed), x)
    inside = diagonal_steps(height, width).inside
    for y in range(height):
        for s in range(width + height - 1):
            expected = x[:, y, s - y] if 0 <= s - y < width else torch.zeros(2, 2)
            assert torch.equal(skewed[:, y, s], expected)
            assert (inside[s][0] <= y < inside[s][1]) == (0 <= s - y < width)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_smallest_pictures_have_bits(name: str, height: int, width: int) -> None:
    config = ARCHITECTURES[name](**SMALL)
    network = randomised(config)
    batch = network.prepare(crops_of("rgb", height, width))
    expected = Naive(parameters(network), name, config).outputs(batch.inputs[0].astype(np.float64))
    np.testing.assert_allclose(outputs(network, batch), expected, rtol=1e-10, atol=1e-10)


def test_colour_groups_are_43_43_42_of_128_and_exact_for_logits() -> None:
    assert [colours(128, 3).count(c) for c in range(3)] == [43, 43, 42]
    assert [colours(256, 3).count(c) for c in range(3)] == [86, 85, 85]
    assert colours(768, 3) == (0,) * 256 + (1,) * 256 + (2,) * 256
    assert colours(5, 1) == (0,) * 5


def test_mask_a_hides_the_own_colour_and_mask_b_does_not() -> None:
    rgb = (0, 1, 2)
    a, b = weight_mask("A", rgb, rgb, (3, 3)), weight_mask("B", rgb, rgb, (3, 3))
    assert a.shape == (3, 3, 2, 3)
    assert a[:, :, 1, 1].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert b[:, :, 1, 1].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    for mask in (a, b):
        assert bool((mask[:, :, 0] == 1).all()) and bool((mask[:, :, 1, 0] == 1).all())
        assert bool((mask[:, :, 1, 2] == 0).all())


def broken(name: str, network: Any, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Plant one fault in a network or its module."""
    module, steps = {
        "row_lstm": ("row_lstm.row_steps", row_steps),
        "diagonal_bilstm": ("diagonal_bilstm.diagonal_steps", diagonal_steps),
    }[name]

    def with_steps(change: Callable[[int, int], Steps]) -> None:
        monkeypatch.setattr(f"pixzip.nets.{module}", change)

    if fault == "cells outside the picture evolve":
        with_steps(lambda h, w: replace(steps(h, w), inside=((0, h),) * (w + h - 1)))
    elif fault == "state-to-state taps reversed":
        with_steps(lambda h, w: replace(steps(h, w), taps=steps(h, w).taps[::-1]))
    elif fault == "zeros instead of h0 outside":
        with_steps(lambda h, w: replace(steps(h, w), learned_outside=False))
    elif fault == "h0 instead of zeros beside the row":
        with_steps(lambda h, w: replace(steps(h, w), learned_outside=True))
    elif fault == "groups over all gates at once":
        for layer in network.layers:
            layer.input_to_state.mask = weight_mask("B", colours(8, 3), colours(16, 3), (1, 3))
    elif fault == "right-to-left map not shifted":
        monkeypatch.setattr(diagonal_bilstm, "shift_down", lambda x: x)


FAULTS = [
    ("diagonal_bilstm", "cells outside the picture evolve"),
    ("diagonal_bilstm", "zeros instead of h0 outside"),
    ("diagonal_bilstm", "state-to-state taps reversed"),
    ("diagonal_bilstm", "right-to-left map not shifted"),
    ("row_lstm", "state-to-state taps reversed"),
    ("row_lstm", "h0 instead of zeros beside the row"),
    ("row_lstm", "groups over all gates at once"),
]


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_equality_with_loops_catches(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ARCHITECTURES[name](**SMALL)
    network = randomised(config)
    batch = network.prepare(crops_of("rgb"))
    expected = Naive(parameters(network), name, config).outputs(batch.inputs[0].astype(np.float64))
    broken(name, network, monkeypatch, fault)
    assert np.abs(outputs(network, batch) - expected).max() > 1e-3


def test_every_network_is_entered_by_name() -> None:
    assert set(NETWORKS) == {"trunk", *ARCHITECTURES, "multiscale"}
    for name, config_class in ARCHITECTURES.items():
        assert NETWORKS[name][0] is config_class


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_sum_in_one_pass_is_the_sum_of_all_terms_and_so_is_its_gradient(name: str) -> None:
    network = randomised(ARCHITECTURES[name](layers=1, h=6, head=8))
    batch = network.prepare(crops_of("rgb", 4, 5, 3))

    def value_and_gradient(total: torch.Tensor) -> tuple[float, torch.Tensor]:
        network.zero_grad()
        (total / 7).backward()
        return float(total.detach()), torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    one, fast = value_and_gradient(network.nats(batch, torch.bfloat16))
    all_terms, plain = value_and_gradient(network.sub_pixel_nats(batch, torch.bfloat16).sum())
    assert one == pytest.approx(all_terms, rel=1e-5)
    assert float((fast - plain).norm() / plain.norm()) < 0.01


def test_logits_lie_pixel_by_pixel_and_nats_stay_with_their_sub_pixels() -> None:
    given = torch.randn(3, 768, 4, 5, generator=torch.Generator().manual_seed(6))
    symbols = torch.randint(0, 256, (3, 4, 5, 3), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    expected = nats_of(given, symbols, "rgb")
    assert float(expected[2, 1, 3, 1]) == pytest.approx(
        float(-torch.log_softmax(given[2, 256:512, 1, 3], 0)[int(symbols[2, 1, 3, 1])]), rel=1e-6
    )
    for order in ((0, 2, 3, 1), (2, 3, 0, 1)):
        laid = given.permute(order).contiguous().permute([order.index(axis) for axis in range(4)])
        torch.testing.assert_close(nats_of(laid, symbols, "rgb"), expected)


def test_nats_are_float64_sums_of_float32_terms() -> None:
    given = torch.zeros(1, 768, 2, 2, dtype=torch.bfloat16)
    each = nats_of(given, torch.zeros(1, 2, 2, 3, dtype=torch.uint8), "rgb")
    assert each.dtype == torch.float32 and each.shape == (1, 2, 2, 3)
    assert each.numpy() == pytest.approx(np.log(256))
