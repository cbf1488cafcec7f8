"""The trunk's tensors are all on its device: torch's device meta, whose tensors have shapes and no values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_flatten  # noqa: E402

from pixzip.data.settings import DataSettings  # noqa: E402
from pixzip.errors import TrainingError  # noqa: E402
from pixzip.frame import INPUTS  # noqa: E402
from pixzip.nets import layers, trunk  # noqa: E402
from pixzip.nets.trunk import Batch, TrunkConfig, TrunkModel  # noqa: E402
from pixzip.training.config import Config, TrainingSettings  # noqa: E402
from pixzip.training.loop import check_config  # noqa: E402
from pixzip.training.processes import Processes  # noqa: E402

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
