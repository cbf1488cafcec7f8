"""A trained network → the integers of a model file: ``freeze_network`` for any, ``freeze`` for a trunk's exponents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.errors import TrainingError
from pixzip.freezing.calibration import calibrated
from pixzip.freezing.exponents import HIDDEN, INPUT, SIGNED, STATE, ConvExponents, Exponents, LstmExponents
from pixzip.freezing.multiscale_integers import frozen_multiscale
from pixzip.freezing.quantised import GateIntegers, HeadIntegers, Integers
from pixzip.freezing.stack_calibration import calibrated as calibrated_stack
from pixzip.freezing.tables import Tables, make_tables
from pixzip.model.file import write_model
from pixzip.nets.multiscale import MultiScale
from pixzip.nets.stack import Stack
from pixzip.nets.trunk import TrunkModel, prepare

Arrays = dict[str, NDArray[Any]]


def _array(t: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(t.detach().numpy())


def _product(name: str, q: Integers) -> Arrays:
    return {f"{name}.weight": _array(q.w.t()), f"{name}.bias": _array(q.b), f"{name}.shift": _array(q.shift)}


def _conv(name: str, p: Any, e: ConvExponents, stream: int) -> Arrays:
    first = Integers.of(p["w1"], p["b1"], e.a, SIGNED, e.h)
    return _product(f"{name}.first", first) | _product(
        f"{name}.second", Integers.of(p["w2"], p["b2"], e.h, HIDDEN, stream)
    )


def _lstm(name: str, p: Any, e: LstmExponents, stream: int) -> Arrays:
    q = GateIntegers.of(p["w_is"], p["w_ss"], p["b"], e.a)
    return {
        f"{name}.is.weight": _array(q.w_is.t()),
        f"{name}.is.left": _array(q.is_left),
        f"{name}.is.bias": _array(q.b),
        f"{name}.is.shift": _array(q.shift),
        f"{name}.ss.weight": _array(q.w_ss.t()),
        f"{name}.ss.left": _array(q.ss_left),
        **_product(f"{name}.up", Integers.of(p["w_up"], p["b_up"], STATE, SIGNED, stream)),
    }


def freeze(model: TrunkModel, e: Exponents, tables: Tables, info: dict[str, Any]) -> bytes:
    """Model file bytes; info (training recipe, seeds) is kept in the file and read by nobody.

    Raises ModelError where an output could leave the range in which products are exact.
    """
    c = model.config
    arrays: Arrays = {"table.sigmoid": tables.sigmoid, "table.tanh": tables.tanh, "table.exp": tables.exp}
    arrays |= _product("input", Integers.of(model.w_in, model.b_in, INPUT, SIGNED, e.stream))
    for i, ((_, p), eb) in enumerate(zip(model.block_parts(), e.blocks, strict=True)):
        name = f"block.{i}"
        arrays |= _conv(name, p, eb, e.stream) if isinstance(eb, ConvExponents) else _lstm(name, p, eb, e.stream)
    for colour, (p, eh) in enumerate(zip(model.head_parts(), e.heads, strict=True)):
        q = HeadIntegers.of(p, model.basis, e.feature, eh)
        arrays |= _product(f"head.{colour}.hidden", q.hidden) | _product(f"head.{colour}.logit", q.logit)
        if colour:
            arrays[f"head.{colour}.known"] = _array(q.known)
    config = {
        "architecture": "trunk",
        "channels": c.channels,
        "hidden": c.hidden,
        "lstm": c.lstm,
        "head": c.head,
        "blocks": c.blocks,
        "shifts": {"blocks": [e.stream - eb.a for eb in e.blocks], "feature": e.stream - e.feature},
        "info": info,
    }
    return write_model(config, arrays)


def freeze_network(network: Any, crops: NDArray[np.uint8], info: dict[str, Any]) -> bytes:
    """Model file bytes of a trained network of any architecture, calibrated on crops (n, h, w, planes).

    info (training recipe, seeds) is kept in the file and read by nobody. Raises TrainingError for a network without an
    integer form, TrainingDataError for crops of another kind.
    """
    return frozen_and_clipped(network, crops, info)[0]


def frozen_and_clipped(network: Any, crops: NDArray[np.uint8], info: dict[str, Any]) -> tuple[bytes, dict[str, float]]:
    """As freeze_network; and of a network of the paper, of each activation the share of the crops' values that is
    clipped."""
    tables = make_tables()
    if isinstance(network, TrunkModel):
        batch = prepare(crops)
        exponents = calibrated(network, torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors), tables)
        return freeze(network, exponents, tables, info), {}
    if isinstance(network, MultiScale):
        network.prepare(crops)  # refuses crops of another kind
        config, arrays, clipped = frozen_multiscale(network, crops, tables)
        return write_model(config | {"info": info}, arrays), clipped
    if not isinstance(network, Stack):
        raise TrainingError(f"{type(network).__name__}: this network has no integer form")
    network.prepare(crops)  # refuses crops of another kind
    ready = calibrated_stack(network, crops, tables)
    return write_model(ready.config() | {"info": info}, ready.arrays(tables)), ready.clipped
