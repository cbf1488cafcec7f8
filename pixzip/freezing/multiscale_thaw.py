"""The integers of a Multi-Scale network → the float network that they stand for, for further training.

Both networks as stack_thaw.py has them. The scales of the upsampling's maps are chosen like those between the products
of a head: its weights, and those by which its last map biases the large network, become larger than a new network's by
as much, all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.freezing.multiscale_integers import by_phase, kernel_of
from pixzip.freezing.reals import bias_of, excess, weights_of
from pixzip.freezing.stack_integers import INPUT, of_inputs
from pixzip.freezing.stack_thaw import conditions, new_stack, shared, thawed_stack
from pixzip.model.multiscale import MultiScaleNetwork
from pixzip.nets.multiscale import MultiScale, MultiScaleConfig


def thawed_multiscale(network: MultiScaleNetwork) -> tuple[MultiScale, dict[str, dict[str, int]]]:
    """The float network and the exponents of its activations: of ``small``, ``large`` and ``upsample``.

    Frozen with them it has the same values again, but that a bias of the upsampling, of which the file has one for each
    parity of an output's row and column, is the finest of these four for all.
    """
    with torch.no_grad():
        small, of_small = thawed_stack(network.small)
        large, of_large = thawed_stack(network.large)
        of = network.upsampling
        made = MultiScale(MultiScaleConfig(small.config, large.config, of.factor, of.features))
        made.small, made.large = small, large
        of_upsampling = _upsampling(made, network)
        of_large["conditioning"] = of_upsampling[-1]
        for condition in conditions(large):
            condition.weight.mul_(2.0 ** of_upsampling[-1])
    maps = {f"upsample.{i}": exponent for i, exponent in enumerate(of_upsampling)}
    return made, {"small": of_small, "large": of_large, "upsample": maps}


def _upsampling(made: MultiScale, network: MultiScaleNetwork) -> list[int]:
    """Fill the upsampling of ``made``, of which all else is there, in place; the exponents of its maps."""
    arrays = network.upsampling.arrays
    layers: list[Any] = list(made.upsampler.layers)
    new = [by_phase(layer.weight) for layer in layers]
    new[0] = of_inputs(new[0], made.config.small)
    sizes = [excess(weights_of(arrays, f"upsample.{i}", 0, 0), matrix) for i, matrix in enumerate(new)]
    untrained = conditions(new_stack(network.large))
    read = [excess(own.weight, other.weight) for own, other in zip(conditions(made.large), untrained, strict=True)]
    exponents = shared([*sizes, sum(read) / len(read)], INPUT, 0)
    for i, (layer, x, out) in enumerate(zip(layers, [INPUT, *exponents], exponents, strict=False)):
        weights = weights_of(arrays, f"upsample.{i}", x, out)
        if i == 0:
            weights = weights / of_inputs(torch.ones_like(weights), made.config.small)
        layer.weight.copy_(kernel_of(weights))
        layer.bias.copy_(_finest(bias_of(arrays, f"upsample.{i}", out, of_hidden=i > 0), arrays[f"upsample.{i}.shift"]))
    return exponents


def _finest(bias: Tensor, shift: NDArray[np.int32]) -> Tensor:
    """(4 features,) → (features,): of each feature's four the one on the finest grid."""
    best = torch.from_numpy(shift.reshape(4, -1).argmax(axis=0))
    return bias.view(4, -1).gather(0, best[None])[0]
