"""The integers of one of the paper's networks → the float network that they stand for, for further training.

As thaw.py does for a trunk. What the integers do not show is the scale of the residual stream, and those of the maps
between the three products of a PixelCNN's layer and of the head. They are chosen so that, compared with a new
network's, weights on both sides are equally large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from pixzip.freezing.exponents import GATE, LOGIT, STATE
from pixzip.freezing.reals import bias_of, excess, gates_of, real, weights_of
from pixzip.freezing.stack_integers import INPUT, of_inputs
from pixzip.model.stack import StackNetwork
from pixzip.nets.masked_conv import MaskedConv
from pixzip.nets.network import NETWORKS
from pixzip.nets.stack import Stack

_SIZES = ("pictures", "frame", "layers", "h", "head", "residual", "skip")


def thawed_stack(network: StackNetwork) -> tuple[Stack, dict[str, int]]:
    """The float network and the exponents of its activations (pixzip.freezing.stack_integers).

    Frozen with them it has the same values again, some outputs' perhaps on a finer grid. The map that conditions the
    large network of a Multi-Scale one has exponent 0.
    """
    made = new_stack(network)
    with torch.no_grad():
        exponents = _exponents(made, network)
        _fill(made, exponents, network)
    return made, exponents


def new_stack(network: StackNetwork) -> Stack:
    """An untrained network of the same sizes."""
    config_class, network_class = NETWORKS[network.architecture]
    config = config_class(**{size: getattr(network, size) for size in _SIZES})
    made: Stack = network_class(config, conditioning=network.conditioning)
    return made


def conditions(network: Stack) -> list[MaskedConv]:
    """The convolutions by which the map of a Multi-Scale network biases the layers of its large one."""
    return [cast(MaskedConv, part) for name, part in network.named_modules() if name.endswith(".condition")]


def shared(sizes: Sequence[float], x: int, out: int) -> list[int]:
    """Exponents of the maps between products that follow each other, from x to out.

    sizes: by how many powers of two the weights of each, from exponent 0 to 0, are larger than a new network's. They
    become larger than these by as much, all of them.
    """
    mean, found, at = (sum(sizes) + x - out) / len(sizes), [], float(x)
    for size in sizes[:-1]:
        at += size - mean
        found.append(round(at))
    return found


def _matrix(conv: MaskedConv) -> Tensor:
    """(inputs, outputs) of the weights that count, tap by tap."""
    return conv.by_tap(conv.masked_weight())


def _chain(network: StackNetwork, names: Sequence[str], convs: Sequence[MaskedConv], x: int, out: int) -> list[int]:
    """As ``shared``, of products of these names, for which a new network has these convolutions."""
    new = [_matrix(conv) for conv in convs]  # the conditioning map's weights come before those in the file
    own = [weights_of(network.arrays, name, 0, 0)[-len(m) :] for name, m in zip(names, new, strict=True)]
    return shared([excess(w, m) for w, m in zip(own, new, strict=True)], x, out)


def _recurrent(network: StackNetwork, made: Stack, i: int) -> list[tuple[str, Any]]:
    """The LSTMs of a layer: their names and modules."""
    names = [name for name in network.recurrences if f"{name}.".startswith(f"layer.{i}.")]
    layer = made.layers[i]
    return [(name, getattr(layer, name.split(".")[2]) if name.count(".") > 1 else layer) for name in names]


def _exponents(made: Stack, network: StackNetwork) -> dict[str, int]:
    """Exponents that the shifts allow: see the module. ``made`` is a new network."""
    layers: Any = made.layers
    if made.recurrent:
        differences = []
        for i, layer in enumerate(layers):
            written = excess(weights_of(network.arrays, f"layer.{i}.up", STATE, 0), _matrix(layer.up))
            for name, part in _recurrent(network, made, i):
                gates, *_ = gates_of(network.arrays, name, -network.layer_shifts[i])
                read = excess(gates[network.conditioning :], _matrix(part.input_to_state))
                differences.append((written - read) / 2)
        stream = round(sum(differences) / len(differences))
    else:
        stream = round(excess(_first(made, network, 0), _matrix(made.first)))
    e = {"stream": stream} | ({"conditioning": 0} if network.conditioning else {})
    e |= {f"layer.{i}.input": stream - shift for i, shift in enumerate(network.layer_shifts)}
    e |= {f"layer.{i}.skip": stream - shift for i, shift in enumerate(network.skip_shifts)}
    if not made.recurrent:
        for i, layer in enumerate(layers):
            names = [f"layer.{i}.{part}" for part in ("down", "middle", "up")]
            convs = [layer.down, layer.middle, layer.up]
            between = _chain(network, names, convs, e[f"layer.{i}.input"], stream)
            e |= dict(zip(names[:2], between, strict=True))
    e["head.input"] = stream - network.head_shift
    head = made.head
    names = ["head.one", "head.two", "head.last"]
    between = _chain(network, names, [head.one, head.two, head.last], e["head.input"], LOGIT)
    return e | dict(zip(names[:2], between, strict=True))


def _first(made: Stack, network: StackNetwork, stream: int) -> Tensor:
    """Weights of the first layer; its two kinds of inputs have scales of their own (stack_integers.of_inputs)."""
    weights = weights_of(network.arrays, "first", INPUT, stream)
    return weights / of_inputs(torch.ones_like(weights), made.config)


def _set(conv: MaskedConv, weights: Tensor, bias: Tensor) -> None:
    """Give a convolution the weights (taps * inputs, outputs) that count, and its bias (outputs,)."""
    outputs, inputs, rows, columns = conv.weight.shape
    by_tap = torch.zeros(rows * columns, inputs, outputs, dtype=weights.dtype)
    by_tap[: conv.taps] = weights.view(conv.taps, inputs, outputs)
    conv.weight.copy_(by_tap.view(rows, columns, inputs, outputs).permute(3, 2, 0, 1))
    conv.bias.copy_(bias)


def _set_condition(part: Any, weights: Tensor, x: int) -> None:
    """Give ``part.condition``, if it has one, its weights (inputs, outputs), of a product with exponent x."""
    if part.condition is not None:
        _set(part.condition, weights * 2.0**-x, torch.zeros(weights.shape[1]))  # its bias is in the product's


def _fill(made: Stack, e: dict[str, int], network: StackNetwork) -> None:
    """Put the values that a network's integers stand for into ``made``, in place. A conditioning map has exponent 0."""
    arrays, layers, head = network.arrays, cast(Any, made.layers), cast(Any, made.head)
    count = network.conditioning

    def set_product(conv: MaskedConv, name: str, x: int, out: int, *, of_hidden: bool = False) -> None:
        _set(conv, weights_of(arrays, name, x, out), bias_of(arrays, name, out, of_hidden=of_hidden))

    _set(made.first, _first(made, network, e["stream"]), bias_of(arrays, "first", e["stream"]))
    for i, layer in enumerate(layers):
        name, part = f"layer.{i}", layer
        if network.skip:
            skip: Any = made.skips[i]
            set_product(skip, f"{name}.skip", e[f"{name}.skip"], e["stream"])
        if made.recurrent:
            for own, part in _recurrent(network, made, i):
                w_is, w_ss, b = gates_of(arrays, own, e[f"{name}.input"])
                _set_condition(part, w_is[:count], e[f"{name}.input"])
                _set(part.input_to_state, w_is[count:], b)
                part.state_to_state.copy_(w_ss)
                part.h0.copy_(real(arrays[f"{own}.h0"], STATE))
                part.c0.copy_(real(arrays[f"{own}.c0"], GATE))
            set_product(layer.up, f"{name}.up", STATE, e["stream"])
        else:
            x, down, middle = (e[f"{name}.{at}"] for at in ("input", "down", "middle"))
            set_product(layer.down, f"{name}.down", x, down, of_hidden=True)
            weights = weights_of(arrays, f"{name}.middle", down, middle)
            _set_condition(layer, weights[:count], down)
            bias = bias_of(arrays, f"{name}.middle", middle, of_hidden=True, beside=count)
            _set(layer.middle, weights[count:], bias)
            set_product(layer.up, f"{name}.up", middle, e["stream"], of_hidden=True)
    grids = [e["head.input"], e["head.one"], e["head.two"], LOGIT]
    for conv, x, out in zip(("one", "two", "last"), grids, grids[1:], strict=False):
        set_product(getattr(head, conv), f"head.{conv}", x, out, of_hidden=True)
