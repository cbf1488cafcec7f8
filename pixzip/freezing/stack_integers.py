"""One of the paper's networks and its exponents → the integers of its frozen form (docs/model-format.md, section 7).

Exponents are a mapping from the name of an activation to its exponent: ``stream``, the residual stream;
``layer.i.input`` and ``layer.i.skip``, what a layer and its skip connection read of it; of a PixelCNN's layer
``layer.i.down`` and ``layer.i.middle``, its hidden maps; ``head.input``, ``head.one`` and ``head.two``; and
``conditioning``, the map that biases the layers of a Multi-Scale network's large part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.freezing.exponents import GATE, HIDDEN, LOGIT, SIGNED, STATE
from pixzip.freezing.quantised import GateIntegers, Integers, Rounded
from pixzip.freezing.rounding import Rounding
from pixzip.freezing.tables import Tables
from pixzip.model.stack import ARCHITECTURES, StackNetwork
from pixzip.nets.diagonal_bilstm import DiagonalBiLstm
from pixzip.nets.masked_conv import MaskedConv
from pixzip.nets.pixelcnn import PixelCnn
from pixzip.nets.pixels import ERROR_SCALE, VALUE_SCALE
from pixzip.nets.row_lstm import RowLstm
from pixzip.nets.stack import Stack, StackConfig
from pixzip.runtime.kernels import CELL_LIMIT, HIDDEN_OFFSET

Arrays = dict[str, NDArray[Any]]
Exponents = Mapping[str, int]

#: Inputs are value - 128 and coding error in one product, so on one grid: the errors' weights take up their scale.
INPUT = 6
#: Outputs may reach further than one float32 product is exact, which is then computed in parts; see Integers.of.
MOST = float(2**30 - 2**25)
#: Of an LSTM's two products the coarser one is shifted left by 5 at most, and their sum stays below 2^31.
_MOST_GATES = float(2**25 - 2**20)


def conditioning_features(layer: Any) -> int:
    """Features of the map that biases a layer, 0 for none."""
    condition = getattr(layer, "left_to_right", layer).condition
    return 0 if condition is None else int(condition.weight.shape[1])


def architecture_of(network: Stack) -> str:
    """Its name in a model file."""
    classes = (PixelCnn, RowLstm, DiagonalBiLstm)
    return next(name for name, kind in zip(ARCHITECTURES, classes, strict=True) if isinstance(network, kind))


def _array(t: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(t.detach().numpy())


def _matrix(conv: MaskedConv) -> Tensor:
    """(inputs, outputs) of the taps up to the centre, tap by tap, as a frozen product has them."""
    return conv.by_tap(conv.masked_weight().detach())


def of_inputs(matrix: Tensor, config: StackConfig) -> Tensor:
    """A matrix (taps * inputs, outputs) for inputs on one grid: value - 128, or the coding error, times 2^-INPUT."""
    if config.frame == "residual":
        scale = torch.tensor([1.0, ERROR_SCALE / VALUE_SCALE]).repeat(config.groups)
        matrix = (matrix.unflatten(0, (-1, len(scale))) * scale[:, None]).flatten(0, 1)
    return matrix


def product(name: str, q: Integers) -> Arrays:
    """The arrays of a product."""
    return {f"{name}.weight": _array(q.w.t()), f"{name}.bias": _array(q.b), f"{name}.shift": _array(q.shift)}


def _frozen(name: str, conv: MaskedConv, x: int, largest: int, out: int, rounding: Rounding) -> Arrays:
    """A product whose inputs have exponent x and are at most ``largest``."""
    by_inputs = partial(rounding.weights, conv)
    return product(name, Integers.of(_matrix(conv), conv.bias, x, largest, out, most=MOST, rounded=by_inputs))


def _conditioned(conv: MaskedConv, condition: MaskedConv | None, x: int, e: Exponents) -> tuple[Tensor, Tensor]:
    """Matrix and bias of a convolution, the conditioning map's features first; its weights take up its scale."""
    if condition is None:
        return _matrix(conv), conv.bias
    more = condition.weight.detach()[:, :, 0, 0].t() * 2.0 ** (x - e["conditioning"])
    return torch.cat([more, _matrix(conv)]), conv.bias + condition.bias


def _by_inputs(conv: MaskedConv, condition: MaskedConv | None, rounding: Rounding) -> Rounded | None:
    """How the weights of a convolution are rounded; one that is conditioned, each to the nearest."""
    return partial(rounding.weights, conv) if condition is None else None


def _pixelcnn(name: str, layer: Any, e: Exponents, rounding: Rounding) -> Iterator[Arrays]:
    yield _frozen(f"{name}.down", layer.down, e[f"{name}.input"], HIDDEN, e[f"{name}.down"], rounding)
    x, count = e[f"{name}.down"], conditioning_features(layer)
    matrix, bias = _conditioned(layer.middle, layer.condition, x, e)
    by_inputs = _by_inputs(layer.middle, layer.condition, rounding)
    q = Integers.of(matrix, bias, x, HIDDEN, e[f"{name}.middle"], most=MOST, rounded=by_inputs)
    # conditioning features are no hidden layer's: they are not held less 128
    offset = HIDDEN_OFFSET * q.w[:count].sum(0, dtype=torch.int32)
    yield product(f"{name}.middle", replace(q, b=q.b - offset))
    yield _frozen(f"{name}.up", layer.up, e[f"{name}.middle"], HIDDEN, e["stream"], rounding)


def _recurrence(name: str, part: Any, x: int, e: Exponents, rounding: Rounding) -> Arrays:
    """An LSTM's gates and learned state; ``part`` is a Row LSTM layer or one direction of a diagonal one."""
    matrix, bias = _conditioned(part.input_to_state, part.condition, x, e)
    by_inputs = _by_inputs(part.input_to_state, part.condition, rounding)
    q = GateIntegers.of(matrix, part.state_to_state, bias, x, _MOST_GATES, by_inputs)
    h0 = torch.floor(part.h0.detach() * 2.0**STATE + 0.5).clamp(-127, 127).to(torch.int8)
    c0 = torch.floor(part.c0.detach() * 2.0**GATE + 0.5).clamp(-CELL_LIMIT, CELL_LIMIT).to(torch.int32)
    return {
        f"{name}.is.weight": _array(q.w_is.t()),
        f"{name}.is.left": _array(q.is_left),
        f"{name}.is.bias": _array(q.b),
        f"{name}.is.shift": _array(q.shift),
        f"{name}.ss.weight": _array(q.w_ss.t()),
        f"{name}.ss.left": _array(q.ss_left),
        f"{name}.h0": _array(h0),
        f"{name}.c0": _array(c0),
    }


def _row_lstm(name: str, layer: Any, e: Exponents, rounding: Rounding) -> Iterator[Arrays]:
    yield _recurrence(name, layer, e[f"{name}.input"], e, rounding)
    yield _frozen(f"{name}.up", layer.up, STATE, SIGNED, e["stream"], rounding)


def _diagonal(name: str, layer: Any, e: Exponents, rounding: Rounding) -> Iterator[Arrays]:
    for direction in ("left_to_right", "right_to_left"):
        yield _recurrence(f"{name}.{direction}", getattr(layer, direction), e[f"{name}.input"], e, rounding)
    yield _frozen(f"{name}.up", layer.up, STATE, 2 * SIGNED, e["stream"], rounding)


def stack_arrays(network: Stack, e: Exponents, tables: Tables, rounding: Rounding | None = None) -> Arrays:
    """All arrays of the frozen form; rounding: what is known of the inputs of its 1×1 products."""
    rounding = rounding or Rounding({})
    arrays: Arrays = {"table.sigmoid": tables.sigmoid, "table.tanh": tables.tanh, "table.exp": tables.exp}
    first = Integers.of(
        of_inputs(_matrix(network.first), network.config),
        network.first.bias,
        INPUT,
        SIGNED,
        e["stream"],
        most=MOST,
        rounded=partial(rounding.weights, network.first) if network.config.frame == "raw" else None,
    )
    arrays |= product("first", first)
    layers = {"pixelcnn": _pixelcnn, "row_lstm": _row_lstm, "diagonal_bilstm": _diagonal}
    for i, layer in enumerate(network.layers):
        name = f"layer.{i}"
        if network.config.skip:
            skip: Any = network.skips[i]
            arrays |= _frozen(f"{name}.skip", skip, e[f"{name}.skip"], SIGNED, e["stream"], rounding)
        for part in layers[architecture_of(network)](name, layer, e, rounding):
            arrays |= part
    head = network.head
    grids = (e["head.input"], e["head.one"], e["head.two"], LOGIT)
    for i, (name, conv) in enumerate((("one", head.one), ("two", head.two), ("last", head.last))):
        arrays |= _frozen(f"head.{name}", conv, grids[i], HIDDEN, grids[i + 1], rounding)
    return arrays


def stack_config(network: Stack, e: Exponents) -> dict[str, Any]:
    """The configuration of the frozen form."""
    c, layers = network.config, range(network.config.layers)
    return {
        "architecture": architecture_of(network),
        **{key: getattr(c, key) for key in ("pictures", "frame", "layers", "h", "head", "residual", "skip")},
        "shifts": {
            "layers": [e["stream"] - e[f"layer.{i}.input"] for i in layers],
            "skips": [e["stream"] - e[f"layer.{i}.skip"] for i in layers] if c.skip else [],
            "head": e["stream"] - e["head.input"],
        },
    }


def stack_network(network: Stack, e: Exponents, tables: Tables, rounding: Rounding | None = None) -> StackNetwork:
    """The frozen form in memory, as a model file's reader makes it, but unchecked."""
    config = stack_config(network, e)
    shifts = config.pop("shifts")
    return StackNetwork(
        **config,
        layer_shifts=tuple(shifts["layers"]),
        skip_shifts=tuple(shifts["skips"]),
        head_shift=shifts["head"],
        arrays=stack_arrays(network, e, tables, rounding),
        conditioning=conditioning_features(network.layers[0]),
    )
