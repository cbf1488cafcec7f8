"""A model file's integers → the float network that they stand for, so that training goes on from it.

The inverse of freeze.py, but for two scales that the integers do not show: a residual stream twice as large, written by
weights twice as large and read by weights half as large, has the same integers, and so has a hidden layer between its
two products. They are chosen so that, compared with a new network's, the weights on both sides are equally
large; without a Row LSTM layer the stream is as large as a new network's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.errors import TrainingError
from pixzip.freezing.exponents import (
    GATE_INDEX,
    INPUT,
    LOGIT,
    STATE,
    ConvExponents,
    Exponents,
    HeadExponents,
    LstmExponents,
)
from pixzip.model.file import Model, Network
from pixzip.nets.trunk import TrunkConfig, TrunkModel
from pixzip.runtime.kernels import HIDDEN_OFFSET


def thawed(model: Model) -> tuple[TrunkModel, Exponents]:
    """The float network of a model and the exponents of its activations: freezing with them gives its integers again.

    Tables of known errors come back to within 1, as they pass through fewer functions than they have entries. Raises
    TrainingError for another network than the default model's kind.
    """
    if not isinstance(model.network, Network):
        raise TrainingError(f"model {model.name}: only models of the default network can be trained further")
    with torch.no_grad():
        made, exponents = TrunkModel(_config(model.network)), _exponents(model.network)
        _fill(made, exponents, model.network)
    return made, exponents


def _config(network: Network) -> TrunkConfig:
    return TrunkConfig(network.channels, network.hidden, network.lstm, network.head, network.blocks)


def _real(integers: NDArray[np.signedinteger[Any]], exponent: NDArray[np.int32] | int) -> Tensor:
    """integers / 2^exponent, float64."""
    return torch.from_numpy(np.ldexp(integers.astype(np.float64), -np.asarray(exponent)))


def _weights(network: Network, name: str, x: int, out: int) -> Tensor:
    """Weights (inputs, outputs) of the product that takes exponent x to out."""
    arrays = network.arrays
    return _real(arrays[f"{name}.weight"].T, arrays[f"{name}.shift"] - x + out)


def _excess(weights: Tensor, new: Tensor) -> float:
    """By how many powers of two weights are larger than those of a new network; 0 where all are 0."""
    size = float(weights.square().mean())
    return math.log2(size / float(new.square().mean())) / 2 if size else 0.0


def _exponents(network: Network) -> Exponents:
    """Exponents that the shifts allow: see the module."""
    a = [-shift for shift in network.activation_shifts]  # less the stream's
    new = TrunkModel(_config(network))
    hidden, streams = {}, []
    for i, (kind, p) in enumerate(new.block_parts()):
        name = f"block.{i}"
        if kind == "c":
            before = _excess(_weights(network, f"{name}.first", a[i], 0), p["w1"])
            hidden[i] = round((before - _excess(_weights(network, f"{name}.second", 0, 0), p["w2"])) / 2)
        else:
            read = _excess(_gate_weights(network, name, a[i])[0], p["w_is"])
            streams.append((_excess(_weights(network, f"{name}.up", STATE, 0), p["w_up"]) - read) / 2)
    entering = _excess(_weights(network, "input", INPUT, 0), new.w_in)
    stream = round(sum(streams) / len(streams) if streams else entering)
    blocks = [
        ConvExponents(a[i] + stream, hidden[i] + stream) if kind == "c" else LstmExponents(a[i] + stream)
        for i, kind in enumerate(network.blocks)
    ]
    feature, heads = stream - network.feature_shift, []
    for colour, p in enumerate(new.head_parts()):
        before = _excess(_weights(network, f"head.{colour}.hidden", feature, 0), p["w"])
        after = _excess(_weights(network, f"head.{colour}.logit", 0, LOGIT), p["v"])
        heads.append(HeadExponents(round((before - after) / 2)))
    return Exponents(stream, feature, tuple(blocks), tuple(heads))


def _gate_weights(network: Network, name: str, a: int) -> tuple[Tensor, Tensor, Tensor]:
    """A Row LSTM layer's weights (inputs, 4k), input- and state-to-state, and bias (4k,); a: its input's exponent."""
    arrays = network.arrays
    grid = arrays[f"{name}.is.shift"] + GATE_INDEX
    w_is = _real(arrays[f"{name}.is.weight"].T, grid - a - arrays[f"{name}.is.left"])
    w_ss = _real(arrays[f"{name}.ss.weight"].T, grid - STATE - arrays[f"{name}.ss.left"])
    return w_is, w_ss, _real(arrays[f"{name}.is.bias"], grid)


def _bias(network: Network, name: str, out: int, *, of_hidden: bool = False) -> Tensor:
    """Bias (outputs,) of a product; that of a hidden layer, held less 128, has 128 times its weights in it."""
    bias = network.arrays[f"{name}.bias"].astype(np.int64)
    if of_hidden:
        bias -= HIDDEN_OFFSET * network.arrays[f"{name}.weight"].sum(axis=1, dtype=np.int64)
    return _real(bias, network.arrays[f"{name}.shift"] + out)


def _fill(made: TrunkModel, e: Exponents, network: Network) -> None:
    """Put the values that a model's integers stand for into a network, in place."""
    made.w_in.copy_(_weights(network, "input", INPUT, e.stream))
    made.b_in.copy_(_bias(network, "input", e.stream))
    for i, ((_, p), eb) in enumerate(zip(made.block_parts(), e.blocks, strict=True)):
        name = f"block.{i}"
        if isinstance(eb, ConvExponents):
            p["w1"].copy_(_weights(network, f"{name}.first", eb.a, eb.h))
            p["b1"].copy_(_bias(network, f"{name}.first", eb.h))
            p["w2"].copy_(_weights(network, f"{name}.second", eb.h, e.stream))
            p["b2"].copy_(_bias(network, f"{name}.second", e.stream, of_hidden=True))
        else:
            for key, values in zip(("w_is", "w_ss", "b"), _gate_weights(network, name, eb.a), strict=True):
                p[key].copy_(values)
            p["w_up"].copy_(_weights(network, f"{name}.up", STATE, e.stream))
            p["b_up"].copy_(_bias(network, f"{name}.up", e.stream))
    by_function = torch.linalg.pinv(made.basis.double())  # (functions, 256)
    for colour, (p, eh) in enumerate(zip(made.head_parts(), e.heads, strict=True)):
        name = f"head.{colour}"
        p["w"].copy_(_weights(network, f"{name}.hidden", e.feature, eh.h))
        p["b"].copy_(_bias(network, f"{name}.hidden", eh.h))
        if colour:
            known = _real(network.arrays[f"{name}.known"], network.arrays[f"{name}.hidden.shift"] + eh.h)
            p["p"].copy_((by_function @ known).flatten(0, 1))
        p["v"].copy_(_weights(network, f"{name}.logit", eh.h, LOGIT))
        p["c"].copy_(_bias(network, f"{name}.logit", LOGIT, of_hidden=True))
