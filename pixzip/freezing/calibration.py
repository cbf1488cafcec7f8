"""A float network and sample crops → the exponents of its integer form."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pixzip.freezing.exponents import Exponents, calibrate
from pixzip.freezing.quantised import after_block, entering_stream, head_nats
from pixzip.freezing.tables import Tables
from pixzip.nets.flat_map import FlatMap
from pixzip.nets.layers import ConvBlock, Linear, RowLstm, gather_taps
from pixzip.nets.trunk import INPUT_SCALE, TrunkModel
from pixzip.runtime.trunk.layers import CONV_TAPS


def observe(model: TrunkModel, inputs: Tensor, errors: Tensor) -> dict[str, Tensor]:
    """Activations of a batch, in float32: what exponents.calibrate asks for."""
    seen: dict[str, Tensor] = {}
    n, h, w, _ = inputs.shape
    m = FlatMap(n, h, w)
    with torch.no_grad():
        x = Linear.apply(None, m.pack(inputs, torch.float32) * INPUT_SCALE, model.w_in, model.b_in, m)
        largest = x.abs().max()
        for i, (kind, p) in enumerate(model.block_parts()):
            seen[f"block.{i}.a"] = x[m.guard :]
            if kind == "c":
                taps = gather_taps(m, x, CONV_TAPS, m.guard, m.size)
                seen[f"block.{i}.h"] = torch.relu(taps @ p["w1"] + p["b1"])
                x = ConvBlock.apply(x, p["w1"], p["b1"], p["w2"], p["b2"], m)
            else:
                state, x = RowLstm.apply(x, p["w_is"], p["w_ss"], p["b"], m)
                x = Linear.apply(x, state, p["w_up"], p["b_up"], m)
            largest = torch.maximum(largest, x.abs().max())
        seen["stream"], seen["feature"] = largest, m.unpack(x).reshape(-1, x.shape[1])
        e = errors.reshape(-1, 3).long().clamp(-128, 127) + 128
        phi = torch.cat([model.basis[e[:, 0]], model.basis[e[:, 1]]], dim=1)
        for colour, p in enumerate(model.head_parts()):
            seen[f"head.{colour}.h"] = torch.relu(
                seen["feature"] @ p["w"] + phi[:, : p["p"].shape[0]] @ p["p"] + p["b"]
            )
    return seen


def calibrated(model: TrunkModel, inputs: Tensor, errors: Tensor, tables: Tables) -> Exponents:
    """Exponents of a trained float model from sample crops: those of least squared error, then improved by the loss.

    Squared error keeps the few large values whole; the loss would mostly rather cut them and see small ones finer. The
    exponents are gone through in the order of execution, so what comes before one is computed once.
    """
    best = calibrate(model.config.blocks, observe(model, inputs, errors))
    n, h, w, _ = inputs.shape
    m, every = FlatMap(n, h, w), range(3)

    def nats(e: Exponents, x: Tensor, first: int, colours: Iterable[int]) -> dict[int, float]:
        """Of each colour, from the stream before block ``first``."""
        for i in range(first, len(e.blocks)):
            x = after_block(model, i, x, m, e, tables)
        stream = m.unpack(x).reshape(-1, x.shape[1])
        return {colour: head_nats(model, stream, errors, e, colour).item() for colour in colours}

    with torch.no_grad():
        x, at = entering_stream(model, inputs, m, best), 0
        least = nats(best, x, at, every)
        for path in best.paths():
            group, i, _ = path
            first, colours = (i if group == "blocks" else len(best.blocks)), ([i] if group == "heads" else every)
            for j in range(at, first):
                x = after_block(model, j, x, m, best, tables)
            at = first
            for by in (1, -1):
                while (changed := best.changed(path, by)) is not None:
                    now = nats(changed, x, first, colours)
                    if sum(now.values()) >= sum(least[colour] for colour in colours):
                        break
                    best, least = changed, least | now
    return best
