"""The trunk's tensors are all on its device: torch's device meta, whose tensors have shapes and no values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_flatten  # noqa: E402

from pixzip.coding.frame import INPUTS  # noqa: E402
from pixzip.data.settings import DataSettings  # noqa: E402
from pixzip.errors import TrainingError  # noqa: E402
from pixzip.nets import fused, layers, trunk  # noqa: E402
from pixzip.nets.trunk import Batch, TrunkConfig, TrunkModel  # noqa: E402
from pixzip.training.config import Config, TrainingSettings  # noqa: E402
from pixzip.training.processes import Processes  # noqa: E402
from pixzip.training.run import check_config  # noqa: E402

_MOVING = ("aten::_to_copy", "aten::copy_")


class _OneDevice(TorchDispatchMode):
    """Refuses every operation on tensors of several devices but those that move them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = {a.device.type for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor) and a.ndim}
        if len(found) > 1 and func._schema.name not in _MOVING:
            raise RuntimeError(f"{func._schema.name} on {sorted(found)}")
        return func(*args, **(kwargs or {}))


def _gradients(device: str) -> list[Any]:
    network = TrunkModel(TrunkConfig(8, 16, 8, 16, "clc")).to(device)
    batch = Batch(np.zeros((2, 5, 6, INPUTS), np.int8), np.zeros((2, 5, 6, 3), np.int16))
    with _OneDevice():
        nats = network.nats(batch, torch.bfloat16)
        assert nats.device.type == device
        return list(torch.autograd.grad(nats, list(network.parameters())))


def test_gradients_are_made_on_the_device_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk, "_only", lambda weights: 1.0)  # the one value that is read
    shapes = [gradient.shape for gradient in _gradients("cpu")]
    made = _gradients("meta")
    assert {gradient.device.type for gradient in made} == {"meta"}
    assert [gradient.shape for gradient in made] == shapes


def test_the_phase_on_the_integers_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = Config(TrunkConfig(8, 16, 8, 16, "clc"), TrainingSettings(quantised_steps=1), DataSettings())
    with pytest.raises(TrainingError, match="the phase on the integers runs on the CPU"):
        check_config(config, Processes(), "cuda")
    check_config(replace(config, training=TrainingSettings(quantised_steps=0)), Processes(), "cuda")


def test_a_tensor_that_is_left_on_the_cpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: sums of gradients are made on the CPU."""
    monkeypatch.setattr(trunk, "_only", lambda weights: 1.0)
    monkeypatch.setattr(layers, "zeros", lambda device, *shapes: [torch.zeros(tuple(shape)) for shape in shapes])
    with pytest.raises(RuntimeError, match=r"aten::.* on \['cpu', 'meta'\]"):
        _gradients("meta")


@pytest.mark.parametrize("weights", [(1, 2, 1), (1, math.nan, math.nan), (math.nan, 1, 1)])
def test_weights_of_the_losses_that_differ_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be equal"):
        trunk._only(torch.tensor(weights))
    assert trunk._only(torch.tensor((2.0, 2.0, 2.0))) == 2
    assert math.isnan(trunk._only(torch.tensor((math.nan, math.nan, math.nan))))


def test_the_operations_of_another_device_give_the_gradients_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16; as near to those of float64 as the fused passes are."""
    network = TrunkModel(TrunkConfig(16, 24, 8, 16, "clc"))
    rng = np.random.default_rng(0)
    walk = rng.normal(0, 2, (2, 12, 14, 3)).cumsum(axis=1).cumsum(axis=2) / 3 + 128
    batch = network.prepare(np.clip(walk, 0, 255).astype(np.uint8))

    def made(dtype: torch.dtype) -> tuple[float, list[torch.Tensor]]:
        nats = network.nats(batch, dtype)
        return nats.item(), list(torch.autograd.grad(nats, list(network.parameters())))

    exact, here = made(torch.float64), made(torch.bfloat16)
    monkeypatch.setattr(fused, "is_fused", lambda tensor: False)
    there = made(torch.bfloat16)
    assert there[0] == pytest.approx(here[0], rel=1e-3) == exact[0]
    for wanted, one, other in zip(exact[1], here[1], there[1], strict=True):
        if wanted.numel():
            scale = wanted.abs().max() + 1e-3
            assert (other - wanted).abs().max() / scale < 2 * (one - wanted).abs().max() / scale + 0.01


def test_without_gradients_the_nats_are_the_same() -> None:
    network = TrunkModel(TrunkConfig(16, 24, 8, 16, "clc"))
    batch = network.prepare(np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3)).astype(np.uint8))
    with torch.no_grad():
        alone = network.nats(batch, torch.bfloat16)
    assert alone == network.nats(batch, torch.bfloat16)
