"""A trained Multi-Scale network and sample pictures → the integers of its frozen form (docs/model-format.md, 10).

Activations of the upsampling get the exponents of least squared error; those of both networks are calibrated as each
alone is, the large one beside the integers of the map that conditions it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.freezing.exponents import HIDDEN, SIGNED, best_exponent
from pixzip.freezing.quantised import Integers
from pixzip.freezing.stack_calibration import Conditioning, calibrated
from pixzip.freezing.stack_integers import (
    INPUT,
    MOST,
    Arrays,
    of_inputs,
    product,
    stack_network,
)
from pixzip.freezing.tables import Tables
from pixzip.model.multiscale import BESIDE, MULTISCALE, Upsampling
from pixzip.nets.multiscale import MultiScale, picked
from pixzip.runtime.stack.multiscale import conditioning_map

#: Row or column of a 4×4 kernel, of stride 2 and padding 1, that an output of this parity has for an input beside it.
_KERNEL = {(0, 0): 1, (0, BESIDE[0]): 3, (1, 0): 2, (1, BESIDE[1]): 0}


def _matrix(weight: Tensor) -> Tensor:
    """(inputs, features, 4, 4) → (4 inputs, 4 features): taps (0, 0), (0, x), (y, 0), (y, x); outputs by parity."""
    phases = []
    for py, px in np.ndindex(2, 2):
        taps = [weight[:, :, _KERNEL[py, dy], _KERNEL[px, dx]] for dy in (0, BESIDE[py]) for dx in (0, BESIDE[px])]
        phases.append(torch.cat(taps))
    return torch.cat(phases, dim=1)


def _upsampling(network: MultiScale, small: NDArray[np.uint8]) -> tuple[Upsampling, int, Tensor]:
    """The products, the exponent of the map they make, and the float network's map of small pictures."""
    config = network.config
    inputs = torch.from_numpy(network.small.prepare(small).inputs).permute(0, 3, 1, 2)
    arrays: Arrays = {}
    x, held, exponent = inputs, SIGNED, INPUT
    layers: list[Any] = list(network.upsampler.layers)
    with torch.no_grad():
        for i, layer in enumerate(layers):
            matrix = _matrix(layer.weight.detach())
            if i == 0:
                matrix = of_inputs(matrix, config.small)
            x, last = layer(x), i == len(layers) - 1
            x = x if last else torch.relu(x)
            out = best_exponent(x, SIGNED if last else HIDDEN)
            q = Integers.of(matrix, layer.bias.detach().repeat(4), exponent, held, out, most=MOST)
            arrays |= product(f"upsample.{i}", q)
            held, exponent = HIDDEN, out
    return Upsampling(config.factor, config.features, arrays), exponent, x


def frozen_multiscale(
    network: MultiScale, crops: NDArray[np.uint8], tables: Tables
) -> tuple[dict[str, Any], Arrays, dict[str, float]]:
    """Configuration and arrays of the frozen form, calibrated on crops (n, h, w, planes); shares of clipped values."""
    config, small_crops = network.config, picked(crops, network.config.factor)
    of_small = calibrated(network.small, small_crops, tables)
    products, exponent, real = _upsampling(network, small_crops)
    height, width = crops.shape[1:3]
    planes = np.ascontiguousarray(small_crops.transpose(0, 3, 1, 2))
    small = stack_network(of_small.network, of_small.exponents, tables, of_small.rounding)
    integers = conditioning_map(small, products, planes, height, width)
    given = Conditioning(real[:, :, :height, :width], integers, exponent)
    of_large = calibrated(network.large, crops, tables, given)
    arrays = {f"small.{name}": array for name, array in small.arrays.items()}
    arrays |= products.arrays
    arrays |= {f"large.{name}": array for name, array in of_large.arrays(tables).items()}
    made = {
        "architecture": MULTISCALE,
        "factor": config.factor,
        "features": config.features,
        "small": of_small.config(),
        "large": of_large.config(),
    }
    both = {"small": of_small, "large": of_large}
    clipped = {f"{part}.{name}": share for part, of in both.items() for name, share in of.clipped.items()}
    return made, arrays, clipped
