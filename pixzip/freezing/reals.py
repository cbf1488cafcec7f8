"""Integers of a model file's products → the real values that they stand for, float64.

x and out are exponents of a product's inputs and of its result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.freezing.exponents import GATE_INDEX, STATE
from pixzip.runtime.kernels import HIDDEN_OFFSET

Arrays = Mapping[str, NDArray[Any]]


def real(integers: NDArray[np.signedinteger[Any]], exponent: NDArray[np.int32] | int) -> Tensor:
    """integers / 2^exponent, float64."""
    return torch.from_numpy(np.ldexp(integers.astype(np.float64), -np.asarray(exponent)))


def weights_of(arrays: Arrays, name: str, x: int, out: int) -> Tensor:
    """Weights (inputs, outputs) of the product of this name, which takes exponent x to out."""
    return real(arrays[f"{name}.weight"].T, arrays[f"{name}.shift"] - x + out)


def bias_of(arrays: Arrays, name: str, out: int, *, of_hidden: bool = False, beside: int = 0) -> Tensor:
    """Bias (outputs,) of a product; that of a hidden layer, held less 128, has 128 times its weights in it.

    beside: how many inputs come before the hidden layer's.
    """
    bias = arrays[f"{name}.bias"].astype(np.int64)
    if of_hidden:
        bias -= HIDDEN_OFFSET * arrays[f"{name}.weight"][:, beside:].sum(axis=1, dtype=np.int64)
    return real(bias, arrays[f"{name}.shift"] + out)


def gates_of(arrays: Arrays, name: str, a: int) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM's weights (inputs, 4k), input- and state-to-state, and bias (4k,); a: the exponent of its input."""
    grid = arrays[f"{name}.is.shift"] + GATE_INDEX
    w_is = real(arrays[f"{name}.is.weight"].T, grid - a - arrays[f"{name}.is.left"])
    w_ss = real(arrays[f"{name}.ss.weight"].T, grid - STATE - arrays[f"{name}.ss.left"])
    return w_is, w_ss, real(arrays[f"{name}.is.bias"], grid)


def excess(weights: Tensor, new: Tensor) -> float:
    """By how many powers of two weights are larger than those of a new network, in the root mean square.

    0 where all are 0.
    """
    size = float(weights.square().mean())
    return math.log2(size / float(new.square().mean())) / 2 if size else 0.0
