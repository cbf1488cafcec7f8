"""A trained network and its exponents → the integers of a model file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixzip.model_file import write_model
from pixzip.nets.exponents import GATE_INDEX, INPUT, LOGIT, STATE, ConvExponents, Exponents, LstmExponents
from pixzip.nets.quantised import HeadIntegers, to_int8, to_int32
from pixzip.nets.tables import Tables
from pixzip.nets.trunk import TrunkModel


def _numpy(t: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(t.detach().numpy())


def _conv(prefix: str, p: Any, e: ConvExponents, stream: int) -> tuple[dict[str, NDArray[Any]], list[int]]:
    arrays = {
        f"{prefix}.first.weight": _numpy(to_int8(p["w1"], e.w1).t()),
        f"{prefix}.first.bias": _numpy(to_int32(p["b1"], e.a + e.w1)),
        f"{prefix}.second.weight": _numpy(to_int8(p["w2"], e.w2).t()),
        f"{prefix}.second.bias": _numpy(to_int32(p["b2"], e.h + e.w2)),
    }
    return arrays, [stream - e.a, e.a + e.w1 - e.h, e.h + e.w2 - stream]


def _lstm(prefix: str, p: Any, e: LstmExponents, stream: int) -> tuple[dict[str, NDArray[Any]], list[int]]:
    arrays = {
        f"{prefix}.is.weight": _numpy(to_int8(p["w_is"], e.w_is).t()),
        f"{prefix}.is.bias": _numpy(to_int32(p["b"], e.gates)),
        f"{prefix}.ss.weight": _numpy(to_int8(p["w_ss"], e.w_ss).t()),
        f"{prefix}.up.weight": _numpy(to_int8(p["w_up"], e.w_up).t()),
        f"{prefix}.up.bias": _numpy(to_int32(p["b_up"], STATE + e.w_up)),
    }
    left = [e.gates - e.a - e.w_is, e.gates - STATE - e.w_ss]
    return arrays, [stream - e.a, *left, e.gates - GATE_INDEX, STATE + e.w_up - stream]


def freeze(model: TrunkModel, e: Exponents, tables: Tables, info: dict[str, Any]) -> bytes:
    """Model file bytes; info (training recipe, seeds) is kept in the file and read by nobody.

    Raises ModelError where an output could leave the range in which products are exact.
    """
    c = model.config
    arrays: dict[str, NDArray[Any]] = {
        "table.sigmoid": tables.sigmoid,
        "table.tanh": tables.tanh,
        "table.exp": tables.exp,
        "input.weight": _numpy(to_int8(model.w_in, e.w_in).t()),
        "input.bias": _numpy(to_int32(model.b_in, INPUT + e.w_in)),
    }
    block_shifts = []
    for i, ((_, p), eb) in enumerate(zip(model.block_parts(), e.blocks, strict=True)):
        if isinstance(eb, ConvExponents):
            made, shifts = _conv(f"block.{i}", p, eb, e.stream)
        else:
            made, shifts = _lstm(f"block.{i}", p, eb, e.stream)
        arrays |= made
        block_shifts.append(shifts)
    head_shifts = []
    for colour, (p, eh) in enumerate(zip(model.head_parts(), e.heads, strict=True)):
        q = HeadIntegers.of(p, model.basis, e.feature, eh)
        prefix = f"head.{colour}"
        arrays[f"{prefix}.hidden.weight"], arrays[f"{prefix}.hidden.bias"] = _numpy(q.w.t()), _numpy(q.b)
        arrays[f"{prefix}.logit.weight"], arrays[f"{prefix}.logit.bias"] = _numpy(q.v.t()), _numpy(q.c)
        if colour:
            arrays[f"{prefix}.known"] = _numpy(q.table).reshape(colour, 256, c.head)
        head_shifts.append([e.feature + eh.w - eh.h, eh.h + eh.v - LOGIT])
    config = {
        "architecture": "trunk",
        "channels": c.channels,
        "hidden": c.hidden,
        "lstm": c.lstm,
        "head": c.head,
        "blocks": c.blocks,
        "shifts": {
            "input": INPUT + e.w_in - e.stream,
            "feature": e.stream - e.feature,
            "blocks": block_shifts,
            "heads": head_shifts,
        },
        "info": info,
    }
    return write_model(config, arrays)
