"""A model file's integers → the float network that they stand for, so that training goes on from it.

Those of a trunk here, those of the paper's networks in stack_thaw.py and multiscale_thaw.py. The inverse of freeze.py,
but for two scales that the integers do not show: a residual stream twice as large, written by weights twice as large
and read by weights half as large, has the same integers, and so has a hidden layer between its two products. They are
chosen so that, compared with a new network's, the weights on both sides are equally large; without a Row LSTM layer the
stream is as large as a new network's.
"""

from __future__ import annotations

from typing import Any

import torch

from pixzip.freezing.exponents import (
    INPUT,
    LOGIT,
    STATE,
    ConvExponents,
    Exponents,
    HeadExponents,
    LstmExponents,
)
from pixzip.freezing.multiscale_thaw import thawed_multiscale
from pixzip.freezing.reals import bias_of, excess, gates_of, real, weights_of
from pixzip.freezing.stack_thaw import thawed_stack
from pixzip.model.file import Model, TrunkNetwork
from pixzip.model.multiscale import MultiScaleNetwork
from pixzip.model.stack import StackNetwork
from pixzip.nets.trunk import TrunkConfig, TrunkModel


def thawed(model: Model) -> Any:
    """The float network of a model."""
    if isinstance(model.network, StackNetwork):
        return thawed_stack(model.network)[0]
    if isinstance(model.network, MultiScaleNetwork):
        return thawed_multiscale(model.network)[0]
    return thawed_trunk(model.network)[0]


def thawed_trunk(network: TrunkNetwork) -> tuple[TrunkModel, Exponents]:
    """The float network and the exponents of its activations: freezing with them gives the same integers again.

    Tables of known errors come back to within 1, as they pass through fewer functions than they have entries.
    """
    with torch.no_grad():
        made, exponents = TrunkModel(_config(network)), _exponents(network)
        _fill(made, exponents, network)
    return made, exponents


def _config(network: TrunkNetwork) -> TrunkConfig:
    return TrunkConfig(network.channels, network.hidden, network.lstm, network.head, network.blocks)


def _exponents(network: TrunkNetwork) -> Exponents:
    """Exponents that the shifts allow: see the module."""
    a = [-shift for shift in network.activation_shifts]  # less the stream's
    new = TrunkModel(_config(network))
    hidden, streams = {}, []
    for i, (kind, p) in enumerate(new.block_parts()):
        name = f"block.{i}"
        if kind == "c":
            before = excess(weights_of(network.arrays, f"{name}.first", a[i], 0), p["w1"])
            hidden[i] = round((before - excess(weights_of(network.arrays, f"{name}.second", 0, 0), p["w2"])) / 2)
        else:
            read = excess(gates_of(network.arrays, name, a[i])[0], p["w_is"])
            streams.append((excess(weights_of(network.arrays, f"{name}.up", STATE, 0), p["w_up"]) - read) / 2)
    entering = excess(weights_of(network.arrays, "input", INPUT, 0), new.w_in)
    stream = round(sum(streams) / len(streams) if streams else entering)
    blocks = [
        ConvExponents(a[i] + stream, hidden[i] + stream) if kind == "c" else LstmExponents(a[i] + stream)
        for i, kind in enumerate(network.blocks)
    ]
    feature, heads = stream - network.feature_shift, []
    for colour, p in enumerate(new.head_parts()):
        before = excess(weights_of(network.arrays, f"head.{colour}.hidden", feature, 0), p["w"])
        after = excess(weights_of(network.arrays, f"head.{colour}.logit", 0, LOGIT), p["v"])
        heads.append(HeadExponents(round((before - after) / 2)))
    return Exponents(stream, feature, tuple(blocks), tuple(heads))


def _fill(made: TrunkModel, e: Exponents, network: TrunkNetwork) -> None:
    """Put the values that a model's integers stand for into a network, in place."""
    made.w_in.copy_(weights_of(network.arrays, "input", INPUT, e.stream))
    made.b_in.copy_(bias_of(network.arrays, "input", e.stream))
    for i, ((_, p), eb) in enumerate(zip(made.block_parts(), e.blocks, strict=True)):
        name = f"block.{i}"
        if isinstance(eb, ConvExponents):
            p["w1"].copy_(weights_of(network.arrays, f"{name}.first", eb.a, eb.h))
            p["b1"].copy_(bias_of(network.arrays, f"{name}.first", eb.h))
            p["w2"].copy_(weights_of(network.arrays, f"{name}.second", eb.h, e.stream))
            p["b2"].copy_(bias_of(network.arrays, f"{name}.second", e.stream, of_hidden=True))
        else:
            for key, values in zip(("w_is", "w_ss", "b"), gates_of(network.arrays, name, eb.a), strict=True):
                p[key].copy_(values)
            p["w_up"].copy_(weights_of(network.arrays, f"{name}.up", STATE, e.stream))
            p["b_up"].copy_(bias_of(network.arrays, f"{name}.up", e.stream))
    by_function = torch.linalg.pinv(made.basis.double())  # (functions, 256)
    for colour, (p, eh) in enumerate(zip(made.head_parts(), e.heads, strict=True)):
        name = f"head.{colour}"
        p["w"].copy_(weights_of(network.arrays, f"{name}.hidden", e.feature, eh.h))
        p["b"].copy_(bias_of(network.arrays, f"{name}.hidden", eh.h))
        if colour:
            known = real(network.arrays[f"{name}.known"], network.arrays[f"{name}.hidden.shift"] + eh.h)
            p["p"].copy_((by_function @ known).flatten(0, 1))
        p["v"].copy_(weights_of(network.arrays, f"{name}.logit", eh.h, LOGIT))
        p["c"].copy_(bias_of(network.arrays, f"{name}.logit", LOGIT, of_hidden=True))
