"""Freezing a network of the paper: weights whose errors cancel, features on grids alike; the function stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_nets import ARCHITECTURES, crops_of, randomised  # noqa: E402

from pixzip.freezing import equalisation  # noqa: E402
from pixzip.freezing.rounding import Rounding, gathered, rounded  # noqa: E402
from pixzip.freezing.stack_calibration import calibrated, divergence, log_probabilities, reaches  # noqa: E402
from pixzip.freezing.stack_integers import stack_network  # noqa: E402
from pixzip.freezing.tables import make_tables  # noqa: E402
from pixzip.nets.masked_conv import MaskedConv  # noqa: E402
from pixzip.nets.masks import colours  # noqa: E402
from pixzip.nets.multiscale import MultiScaleConfig  # noqa: E402

#: Kernel → its mask, as the networks have them.
KERNELS: list[tuple[Any, tuple[int, int]]] = [
    ("B", (1, 1)),
    ("A", (7, 7)),
    ("B", (3, 3)),
    ("B", (1, 3)),
    ("all", (1, 1)),
]


def correlated(count: int, seed: int) -> Any:
    """Inputs (m, count) >= 0 that share most of what they are, as features after a ReLU do."""
    g = torch.Generator().manual_seed(seed)
    shared = 3 + torch.rand(count, generator=torch.Generator().manual_seed(99))
    return torch.relu(
        shared * (1 + 0.1 * torch.randn(2000, 1, generator=g)) + 0.3 * torch.randn(2000, count, generator=g)
    )


def test_errors_cancel_on_inputs_of_the_kind_that_was_seen() -> None:
    w, scale = torch.randn(40, 30, generator=torch.Generator().manual_seed(1)), torch.full((30,), 16.0)
    seen, fresh = correlated(40, 2), correlated(40, 3)
    made = rounded(w, scale, seen.double().t() @ seen.double() / len(seen))
    nearest = torch.round(w * scale)
    assert made.dtype == torch.int8 and float((made - w * scale).abs().max()) > 0.5
    errors = [float((fresh @ (q.float() / scale - w)).norm()) for q in (made, nearest)]
    assert errors[0] < errors[1] / 5


def test_what_leaves_the_grid_is_cut_and_made_up_for() -> None:
    w, seen = torch.tensor([[200.0], [3.0]]), torch.ones(10, 2, dtype=torch.float64)
    made = rounded(w, torch.ones(1), seen.t() @ seen / 10)
    assert made[:, 0].tolist() == [127, 76]


@pytest.mark.parametrize(("mask", "kernel"), KERNELS)
def test_windows_and_matrix_are_the_convolution(mask: Any, kernel: tuple[int, int]) -> None:
    g = torch.Generator().manual_seed(4)
    conv = MaskedConv(mask, colours(5, 3), colours(7, 3), g, kernel=kernel).double()
    x = torch.randn(2, 5, 4, 6, generator=g, dtype=torch.float64)
    product = conv.by_tap(conv.masked_weight()).t() @ conv.windows(x) + conv.bias[:, None]
    torch.testing.assert_close(product, conv(x).movedim(1, 0).flatten(1))


@pytest.mark.parametrize(("mask", "kernel"), KERNELS)
def test_hidden_weights_stay_zero(mask: Any, kernel: tuple[int, int]) -> None:
    g = torch.Generator().manual_seed(5)
    conv = MaskedConv(mask, colours(5, 3), colours(7, 3), g, kernel=kernel)
    with gathered(conv) as rounding:
        conv(1 + torch.rand(3, 5, 8, 8, generator=g))
    matrix, exponent = conv.by_tap(conv.masked_weight()).detach(), torch.full((7,), 6, dtype=torch.int32)
    made = rounding.weights(conv, matrix, exponent)
    assert not made[conv.by_tap(conv.mask) == 0].any()
    assert rounding.weights(conv, matrix, exponent) is made
    assert not torch.equal(made, Rounding({}).weights(conv, matrix, exponent))


def network_of(name: str, *, seed: int = 3, **sizes: Any) -> Any:
    return randomised(ARCHITECTURES[name](**{"layers": 2, "h": 6, "head": 9} | sizes), seed=seed)


def same_function(network: Any, crops: Any) -> bool:
    """Whether the equalised network has the logits of the network, in float64."""
    equal = equalisation.equalised(network, reaches(network, crops)).double()
    logits = [net.logits(crops, torch.float64) for net in (network.double(), equal)]
    return torch.allclose(*logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [{}, {"skip": True}, {"residual": False}, {"frame": "residual", "skip": True}])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_equalised_network_is_the_same_function(name: str, sizes: dict[str, Any]) -> None:
    network = network_of(name, **sizes)
    crops = crops_of("rgb", 6, 7, n=2)
    assert same_function(network, crops)
    before = reaches(network.float(), crops)
    after = reaches(equalisation.equalised(network, before), crops)
    alive = before["head.two"] > 0.01 * before["head.two"].max()
    spread = [float(reach["head.two"][alive].log().std()) for reach in (before, after)]
    assert spread[1] == pytest.approx((1 - equalisation.SHARE) * spread[0], rel=0.01)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_reader_that_is_forgotten_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equalisation, "_stream_readers", lambda layer: iter(()))
    assert not same_function(network_of(name), crops_of("rgb", 6, 7, n=2))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_conditioned_network_is_the_same_function(name: str) -> None:
    part = ARCHITECTURES[name](layers=2, h=6, head=9)
    network = randomised(MultiScaleConfig(part, part, factor=2, features=5), seed=2)
    crops = crops_of("rgb", 6, 8, n=2)
    batch = network.prepare(crops)
    with torch.no_grad():
        given = network.conditioning(batch, torch.float32)
        large = network.large

        class Given:
            real = given

        equal = equalisation.equalised(large, reaches(large, crops, Given()))  # type: ignore[arg-type]
        outputs = [net.outputs(batch.large, torch.float32, given) for net in (large, equal)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_feature_that_reaches_far_does_not_spoil_the_others(name: str) -> None:
    network, crops, tables = network_of(name, h=9, head=12), crops_of("rgb", 12, 12, n=4), make_tables()
    with torch.no_grad():  # the same function, with one feature of the stream sixty times as large
        factors = torch.ones(18)
        factors[5] = 60.0
        readers = [reader for layer in network.layers for reader in equalisation._stream_readers(layer)]
        equalisation._rescale(
            [network.first, *(layer.up for layer in network.layers)], [*readers, network.head.one], factors
        )
    planes, log_p = np.ascontiguousarray(crops.transpose(0, 3, 1, 2)), log_probabilities(network, crops)
    ready = calibrated(network, crops, tables)
    plain = stack_network(network, ready.exponents, tables)
    mended = stack_network(ready.network, ready.exponents, tables, ready.rounding)
    distances = [divergence(frozen, "float32", planes, log_p) / planes.size for frozen in (mended, plain)]
    assert distances[0] < distances[1] / 2
