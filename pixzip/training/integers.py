"""A trained network ↔ the integers of its decoder.

The one place where training meets pixzip.freezing.quantised. The default network can be trained on its integers; the
networks of the paper are frozen as the float phase leaves them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixzip.data.crops import Pixels, RandomCrops
from pixzip.freezing.calibration import calibrated, observe
from pixzip.freezing.exponents import HIDDEN, ConvExponents, Exponents
from pixzip.freezing.freeze import freeze, frozen_and_clipped
from pixzip.freezing.quantised import quantised_loss
from pixzip.freezing.tables import make_tables
from pixzip.nets.trunk import Batch, Nats, TrunkModel

TABLES = make_tables()
#: Crops that calibration looks at, drawn with a seed of their own.
_CALIBRATION_CROPS = 24


def has_integers(network: Any) -> bool:
    """Whether the network can be trained on its integers."""
    return isinstance(network, TrunkModel)


def calibration_crops(crops: RandomCrops) -> Pixels:
    """Crops of a seed of their own (n, h, w, planes), which exponents are chosen from."""
    return crops.reseeded(1).batch(0, 0, range(_CALIBRATION_CROPS))


def frozen_untuned(network: Any, crops: Pixels, info: dict[str, Any]) -> tuple[bytes, dict[str, float]]:
    """The model file of a network as the float phase leaves it, calibrated on crops (n, h, w, planes).

    And the share of the values of each layer that are clipped, on those crops.
    """
    return frozen_and_clipped(network, crops, info)


def calibrate(network: Any, batch: Batch) -> Exponents:
    """The exponents of a network's integers, from a sample."""
    return calibrated(network, torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors), TABLES)


def integer_nats(network: Any, batch: Batch, exponents: Exponents) -> Tensor:
    """As Network.nats, of the integers, with gradients straight through the rounding."""
    parts = integer_colour_nats(network, batch, exponents)
    return parts[0] + parts[1] + parts[2]


def integer_colour_nats(network: Any, batch: Batch, exponents: Exponents) -> Nats:
    """The parts of integer_nats, of R, G and B."""
    return quantised_loss(network, torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors), exponents, TABLES)


def frozen(network: Any, exponents: Exponents, info: dict[str, Any]) -> bytes:
    """The model file."""
    return freeze(network, exponents, TABLES, info)


def saturation(network: Any, batch: Batch, exponents: Exponents) -> dict[str, float]:
    """Share of the values of each layer that lie beyond its grid and are clipped, of activations in a sample.

    Counted on the float network's activations at the calibrated exponents; weights are named ``weight ...``.
    """
    seen = observe(network, torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors))
    found = {"stream": _beyond(seen["stream"].reshape(-1), exponents.stream, 32767)}
    found["feature"] = _beyond(seen["feature"], exponents.feature, 127)
    for i, e in enumerate(exponents.blocks):
        found[f"block.{i}.a"] = _beyond(seen[f"block.{i}.a"], e.a, 127)
        if isinstance(e, ConvExponents):
            found[f"block.{i}.h"] = _beyond(seen[f"block.{i}.h"], e.h, HIDDEN)
    for c, head in enumerate(exponents.heads):
        found[f"head.{c}.h"] = _beyond(seen[f"head.{c}.h"], head.h, HIDDEN)
    return found


def _beyond(values: Tensor, exponent: int, most: int) -> float:
    return float((values.abs() * 2.0**exponent >= most + 0.5).float().mean())
