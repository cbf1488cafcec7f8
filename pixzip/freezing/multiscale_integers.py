"""A trained Multi-Scale network and sample pictures → the integers of its frozen form (docs/model-format.md, 10).

Activations of the upsampling get the exponents of least squared error; those of both networks are calibrated as each
alone is, the large one beside the integers of the map that conditions it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def _places() -> Iterator[list[tuple[int, int]]]:
    """Row and column of the kernel for taps (0, 0), (0, x), (y, 0), (y, x); by an output's parity in rows, columns."""
    for py, px in np.ndindex(2, 2):
        yield [(_KERNEL[py, dy], _KERNEL[px, dx]) for dy in (0, BESIDE[py]) for dx in (0, BESIDE[px])]


def by_phase(kernel: Tensor) -> Tensor:
    """(inputs, features, 4, 4) → (4 inputs, 4 features): inputs tap by tap, outputs parity by parity."""
    return torch.cat([torch.cat([kernel[:, :, y, x] for y, x in taps]) for taps in _places()], dim=1)


def kernel_of(matrix: Tensor) -> Tensor:
    """(4 inputs, 4 features) → (inputs, features, 4, 4), the inverse of by_phase."""
    blocks = matrix.unflatten(0, (4, -1)).unflatten(2, (4, -1))  # tap, input, parity, feature
    kernel = matrix.new_zeros(*blocks.shape[1::2], 4, 4)
    for phase, taps in enumerate(_places()):
        for tap, (y, x) in enumerate(taps):
            kernel[:, :, y, x] = blocks[tap, :, phase]
    return kernel


def _map_and_exponents(network: MultiScale, small: NDArray[np.uint8]) -> tuple[Tensor, list[int]]:
    """The float network's conditioning map of small pictures, and exponents of least squared error of its layers."""
    x = torch.from_numpy(network.small.prepare(small).inputs).permute(0, 3, 1, 2)
    exponents, last = [], len(network.upsampler.layers) - 1
    with torch.no_grad():
        for i, layer in enumerate(network.upsampler.layers):
            x = layer(x) if i == last else torch.relu(layer(x))
            exponents.append(best_exponent(x, SIGNED if i == last else HIDDEN))
    return x, exponents


def upsampling_of(network: MultiScale, exponents: Sequence[int]) -> Upsampling:
    """The products of the frozen form, given the exponents of the maps that they make."""
    arrays: Arrays = {}
    layers: list[Any] = list(network.upsampler.layers)
    for i, (layer, x, out) in enumerate(zip(layers, [INPUT, *exponents], exponents, strict=False)):
        matrix = by_phase(layer.weight.detach())
        if i == 0:
            matrix = of_inputs(matrix, network.config.small)
        bias = layer.bias.detach().repeat(4)
        q = Integers.of(matrix, bias, x, HIDDEN if i else SIGNED, out, most=MOST)
        arrays |= product(f"upsample.{i}", q)
    return Upsampling(network.config.factor, network.config.features, arrays)


def frozen_multiscale(
    network: MultiScale, crops: NDArray[np.uint8], tables: Tables
) -> tuple[dict[str, Any], Arrays, dict[str, float]]:
    """Configuration and arrays of the frozen form, calibrated on crops (n, h, w, planes); shares of clipped values."""
    config, small_crops = network.config, picked(crops, network.config.factor)
    of_small = calibrated(network.small, small_crops, tables)
    real, exponents = _map_and_exponents(network, small_crops)
    products = upsampling_of(network, exponents)
    height, width = crops.shape[1:3]
    planes = np.ascontiguousarray(small_crops.transpose(0, 3, 1, 2))
    small = stack_network(of_small.network, of_small.exponents, tables, of_small.rounding)
    integers = conditioning_map(small, products, planes, height, width)
    given = Conditioning(real[:, :, :height, :width], integers, exponents[-1])
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
