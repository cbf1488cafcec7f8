"""The layers of pixzip.nets.layers on integers: exact forward, straight-through gradient.

Forward passes compute what a decoder computes, with the decoder's own kernels (docs/model-format.md, sections 5 and 6);
tensors between layers hold those integers divided by 2^exponent, which float32 holds exactly. Backward passes are those
of the float layers at the dequantised values: rounding counts as the identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixzip.nets.exponents import (
    GATE,
    GATE_INDEX,
    INPUT,
    LOGIT,
    STATE,
    ConvExponents,
    Exponents,
    HeadExponents,
    LstmExponents,
)
from pixzip.nets.flat_map import FlatMap
from pixzip.nets.layers import CONV_TAPS, IS_TAPS, SS_TAPS, ConvBlock, Linear, RowLstm, gather_taps
from pixzip.nets.tables import Tables
from pixzip.nets.trunk import Nats, TrunkModel
from pixzip.runtime import kernels

GRADIENT = torch.bfloat16


def to_int8(values: Tensor, exponent: int) -> Tensor:
    """sat8(floor(values * 2^exponent + 1/2))."""
    return torch.floor(values * 2.0**exponent + 0.5).clamp_(-127, 127).to(torch.int8)


def to_int32(values: Tensor, exponent: int) -> Tensor:
    """floor(values * 2^exponent + 1/2) of biases and tables."""
    return torch.floor(values.double() * 2.0**exponent + 0.5).to(torch.int32)


def round_shift(acc: Tensor, shift: int) -> Tensor:
    """floor(acc / 2^shift + 1/2) in integers, in place."""
    return acc if shift == 0 else acc.add_(1 << (shift - 1)).bitwise_right_shift_(shift)


def matmul(a: Tensor, w: Tensor) -> Tensor:
    """Exact int8 (m, k) x int8 (k, n) -> int32 (m, n), through the int8 engine where its shapes allow it."""
    if a.shape[0] > 16 and a.shape[1] % 8 == 0 and w.shape[1] % 8 == 0 and INT8_MATMUL:
        return torch._int_mm(a, w)
    return (a.float() @ w.float()).to(torch.int32)


def _int8_engine_is_exact() -> bool:
    """Whether torch's int8 product is right on extreme operands (without VNNI it saturates)."""
    a = torch.full((32, 512), -127, dtype=torch.int8)
    w = torch.full((512, 64), 127, dtype=torch.int8)
    a[1::2], w[:, 1::2] = 127, -127
    return bool((torch._int_mm(a, w) == (a.float() @ w.float()).to(torch.int32)).all())


INT8_MATMUL = _int8_engine_is_exact()


def stream_integers(x: Tensor, stream: int) -> Tensor:
    """The int16 integers that x, real values on the stream's grid, stands for."""
    return (x * 2.0**stream).to(torch.int16)


class QuantisedConvBlock(ConvBlock):
    """ConvBlock on integers; x and the result are on the stream's grid, float32."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, m: FlatMap, e: ConvExponents, stream: int
    ) -> Tensor:
        """As ConvBlock.forward, with exponents."""
        w1q, w2q = to_int8(w1, e.w1), to_int8(w2, e.w2)
        b1q, b2q = to_int32(b1, e.a + e.w1), to_int32(b2, e.h + e.w2)
        a = to_int8(x, e.a)
        hidden = torch.zeros(m.size, w1.shape[1], dtype=torch.int8)
        whole = stream_integers(x, stream)
        for lo, hi in m.chunks():
            acc = matmul(gather_taps(m, a, CONV_TAPS, lo, hi), w1q)
            kernels.rectify(acc.numpy(), b1q.numpy(), e.a + e.w1 - e.h, hidden[lo:hi].numpy())
            acc = matmul(hidden[lo:hi], w2q)
            kernels.add_stream(acc.numpy(), b2q.numpy(), e.h + e.w2 - stream, whole[lo:hi].numpy())
        out = whole.float().mul_(2.0**-stream)
        m.zero_columns(out)
        real = (a.to(GRADIENT) * 2.0**-e.a, hidden.to(GRADIENT) * 2.0**-e.h, w1q.to(GRADIENT) * 2.0**-e.w1)
        ctx.save_for_backward(*real, w2q.to(GRADIENT) * 2.0**-e.w2)
        ctx.m = m
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Straight through."""
        dx, *rest = ConvBlock.backward(ctx, grad.to(GRADIENT))
        return (None if dx is None else dx.float(), *rest, None, None)


def _real_gates(acc_is: Tensor, acc_ss: Tensor, bias: Tensor, is_left: int, ss_left: int, exponent: int) -> Tensor:
    """Values of the gates o, f, i, g for the gradient; the forward pass reads the tables."""
    pre = acc_is.float().mul_(2.0**is_left).add_(acc_ss.float(), alpha=2.0**ss_left).add_(bias.float())
    pre.mul_(2.0**-exponent)
    k = pre.shape[1] // 4
    pre[:, : 3 * k].sigmoid_()
    pre[:, 3 * k :].tanh_()
    return pre


class QuantisedRowLstm(RowLstm):
    """RowLstm on integers and tables; the result is h / 2^7, float32."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, w_is: Tensor, w_ss: Tensor, b: Tensor, m: FlatMap, e: LstmExponents, tables: Tables
    ) -> Tensor:
        """As RowLstm.forward, with exponents and tables."""
        k = w_ss.shape[1] // 4
        w_is_q, w_ss_q, b_q = to_int8(w_is, e.w_is), to_int8(w_ss, e.w_ss), to_int32(b, e.gates)
        is_shift, ss_shift = e.gates - e.a - e.w_is, e.gates - STATE - e.w_ss
        a = to_int8(x, e.a)
        h = torch.zeros(m.size, k, dtype=torch.int8)
        gates = m.empty(4 * k, GRADIENT)
        cells = torch.zeros(m.h + 1, m.row, k, dtype=torch.int32)
        for y in range(m.h):
            lo = m.guard + y * m.row
            hi = lo + m.row
            acc_is = matmul(gather_taps(m, a, IS_TAPS, lo, hi), w_is_q)
            acc_ss = matmul(gather_taps(m, h, SS_TAPS, lo, hi), w_ss_q)
            shifts = (is_shift, ss_shift, e.gates - GATE_INDEX)
            maps = (cells[y].numpy(), cells[y + 1].numpy(), h[lo:hi].numpy())
            kernels.lstm_cell(acc_is.numpy(), acc_ss.numpy(), b_q.numpy(), *shifts, tables.sigmoid, tables.tanh, *maps)
            for part in (h[lo:hi], cells[y + 1]):
                part.view(m.n, m.w + 1, k)[:, m.w].zero_()
            gates[lo:hi] = _real_gates(acc_is, acc_ss, b_q, is_shift, ss_shift, e.gates)
            gates[lo:hi].view(m.n, m.w + 1, 4 * k)[:, m.w].zero_()
        real = (a.to(GRADIENT) * 2.0**-e.a, h.to(GRADIENT) * 2.0**-STATE, gates, cells.float().mul_(2.0**-GATE))
        ctx.save_for_backward(*real, w_is_q.to(GRADIENT) * 2.0**-e.w_is, w_ss_q.to(GRADIENT) * 2.0**-e.w_ss)
        ctx.m = m
        return h.float().mul_(2.0**-STATE)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Straight through."""
        dx, *rest = RowLstm.backward(ctx, grad.to(GRADIENT))
        return (None if dx is None else dx.float(), *rest, None, None)


class QuantisedLinear(Linear):
    """Linear onto the stream's grid; x is held with exponent x_exponent, w with w_exponent."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        base: Tensor | None,
        x: Tensor,
        w: Tensor,
        b: Tensor,
        m: FlatMap,
        x_exponent: int,
        w_exponent: int,
        stream: int,
    ) -> Tensor:
        """As Linear.forward, with exponents."""
        wq, bq = to_int8(w, w_exponent), to_int32(b, x_exponent + w_exponent)
        a = to_int8(x, x_exponent)
        empty = torch.zeros(m.size, w.shape[1], dtype=torch.int16)
        whole = empty if base is None else stream_integers(base, stream)
        for lo, hi in m.chunks():
            acc = matmul(a[lo:hi], wq)
            kernels.add_stream(acc.numpy(), bq.numpy(), x_exponent + w_exponent - stream, whole[lo:hi].numpy())
        out = whole.float().mul_(2.0**-stream)
        m.zero_columns(out)
        ctx.save_for_backward(a.to(GRADIENT) * 2.0**-x_exponent, wq.to(GRADIENT) * 2.0**-w_exponent)
        ctx.m = m
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Straight through."""
        base, dx, *rest = Linear.backward(ctx, grad.to(GRADIENT))
        real = [None if d is None else d.float() for d in (base, dx)]
        return (*real, *rest, None, None, None)


@dataclass(frozen=True)
class HeadIntegers:
    """A colour head's integers: w (t, h) and v (h, 256) int8; table (colour * 256, h), b (h,) and c (256,) int32."""

    w: Tensor
    table: Tensor
    b: Tensor
    v: Tensor
    c: Tensor

    @staticmethod
    def of(p: Any, basis: Tensor, feature: int, e: HeadExponents) -> HeadIntegers:
        """Quantise the parameters of one head; each colour already known adds one table of 256 rows."""
        acc = feature + e.w
        parts = [to_int32(basis @ part, acc) for part in p["p"].split(basis.shape[1])] if p["p"].shape[0] else []
        table = torch.cat(parts) if parts else torch.zeros(0, p["b"].shape[0], dtype=torch.int32)
        v, c = to_int8(p["v"], e.v), to_int32(p["c"], e.h + e.v)
        return HeadIntegers(to_int8(p["w"], e.w), table, to_int32(p["b"], acc), v, c)


def head_logits(x: Tensor, errors: Tensor, q: HeadIntegers, feature: int, e: HeadExponents) -> tuple[Tensor, Tensor]:
    """Hidden layer (m, h) int8 and logits * 2^6 (m, 256) int32.

    x (m, t) int8; errors (colours, m) int16: coding errors of the colours before this one.
    """
    hidden = torch.empty(x.shape[0], q.b.shape[0], dtype=torch.int8)
    acc, bias, shift = matmul(x, q.w).numpy(), q.b.numpy(), feature + e.w - e.h
    if errors.shape[0]:
        known = q.table.view(-1, 256, q.b.shape[0])
        kernels.rectify_known(acc, bias, known.numpy(), errors.numpy(), shift, hidden.numpy())
    else:
        kernels.rectify(acc, bias, shift, hidden.numpy())
    return hidden, round_shift(matmul(hidden, q.v).add_(q.c), e.h + e.v - LOGIT)


class QuantisedHeadLoss(torch.autograd.Function):
    """Nats of one colour from integer logits; gradients straight through, made in the forward pass."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, known_errors, phi, symbols, w, p, b, v, c, q: HeadIntegers, exponents: Exponents, colour, chunk
    ):
        """x (m, t) on the stream's grid; known_errors (colours, m); phi (m, j) their basis functions; symbols (m,)."""
        e, feature = exponents.heads[colour], exponents.feature
        w_real, v_real = q.w.to(GRADIENT) * 2.0**-e.w, q.v.to(GRADIENT) * 2.0**-e.v
        grads = [torch.zeros(part.shape) for part in (w, p, b, v, c)]
        dx = torch.empty_like(x)
        total = torch.zeros((), dtype=torch.float64)
        for lo in range(0, x.shape[0], chunk):
            s = slice(lo, lo + chunk)
            a = to_int8(x[s], feature)
            hidden, logits = head_logits(a, known_errors[:, s].contiguous(), q, feature, e)
            target = symbols[s][:, None]
            log_p = torch.log_softmax(logits.float().mul_(2.0**-LOGIT), dim=1)
            total -= log_p.gather(1, target).sum(dtype=torch.float64)
            d_logits = log_p.exp_()
            d_logits.scatter_add_(1, target, -torch.ones_like(target, dtype=d_logits.dtype))
            grads[4] += d_logits.sum(0)
            d_logits = d_logits.to(GRADIENT)
            grads[3] += (hidden.to(GRADIENT) * 2.0**-e.h).t() @ d_logits
            d_hidden = (d_logits @ v_real.t()).mul_((hidden > 0) & (hidden < 127))
            grads[2] += d_hidden.sum(0, dtype=torch.float32)
            grads[0] += (a.to(GRADIENT) * 2.0**-feature).t() @ d_hidden
            if colour:
                grads[1] += phi[s].t() @ d_hidden
            dx[s] = d_hidden @ w_real.t()
        ctx.save_for_backward(dx, *grads)
        return total

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        """Scale the gradients made in the forward pass."""
        scale = float(grad)
        dx, dw, dp, db, dv, dc = (g * scale for g in ctx.saved_tensors)
        return dx, None, None, None, dw, dp, db, dv, dc, None, None, None, None


def quantised_stream(model: TrunkModel, inputs: Tensor, m: FlatMap, e: Exponents, tables: Tables) -> Tensor:
    """Residual stream after the last block, as TrunkModel.stream."""
    real = m.pack(inputs, torch.float32) * 2.0**-INPUT
    x = QuantisedLinear.apply(None, real, model.w_in, model.b_in, m, INPUT, e.w_in, e.stream)
    for (_, p), eb in zip(model.block_parts(), e.blocks, strict=True):
        if isinstance(eb, ConvExponents):
            x = QuantisedConvBlock.apply(x, p["w1"], p["b1"], p["w2"], p["b2"], m, eb, e.stream)
        else:
            h = QuantisedRowLstm.apply(x, p["w_is"], p["w_ss"], p["b"], m, eb, tables)
            x = QuantisedLinear.apply(x, h, p["w_up"], p["b_up"], m, STATE, eb.w_up, e.stream)
    return x


def quantised_loss(model: TrunkModel, inputs: Tensor, errors: Tensor, e: Exponents, tables: Tables) -> Nats:
    """Nats of R, G and B, summed over a batch, as TrunkModel.loss but from the integers a decoder has."""
    n, h, w, _ = inputs.shape
    m = FlatMap(n, h, w)
    stream = m.unpack(quantised_stream(model, inputs, m, e, tables)).reshape(-1, model.config.channels)
    flat = errors.reshape(-1, 3).long()
    symbols, known = flat & 255, flat.clamp(-128, 127) + 128
    by_colour = errors.reshape(-1, 3).t().contiguous()
    basis = model.basis.to(GRADIENT)
    phi = torch.cat([basis[known[:, 0]], basis[known[:, 1]]], dim=1)
    width = model.basis.shape[1]
    nats = []
    for colour, p in enumerate(model.head_parts()):
        q = HeadIntegers.of(p, model.basis, e.feature, e.heads[colour])
        seen = phi[:, : width * colour].contiguous()
        args = (stream, by_colour[:colour], seen, symbols[:, colour], p["w"], p["p"], p["b"], p["v"], p["c"])
        nats.append(QuantisedHeadLoss.apply(*args, q, e, colour, 4096))
    return nats[0], nats[1], nats[2]
