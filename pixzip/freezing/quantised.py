"""The layers of pixzip.nets.layers on integers: exact forward, straight-through gradient.

Forward passes compute what a decoder computes, with the decoder's own kernels (docs/model-format.md, sections 5 and 6);
tensors between layers hold those integers divided by 2^exponent, which float32 holds exactly. Backward passes are those
of the float layers at the dequantised values: rounding counts as the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixzip import shifts
from pixzip.freezing.exponents import (
    GATE,
    GATE_INDEX,
    HIDDEN,
    INPUT,
    LOGIT,
    SIGNED,
    SINGLE_PRODUCT,
    STATE,
    ConvExponents,
    Exponents,
    HeadExponents,
    LstmExponents,
    gate_exponents,
    weight_exponents,
)
from pixzip.freezing.tables import Tables
from pixzip.nets.flat_map import FlatMap
from pixzip.nets.fused import clear_cut, integer_gates, integer_softmax_nats
from pixzip.nets.layers import ConvBlock, Linear, RowLstm, gather_taps
from pixzip.nets.precision import fastest_type
from pixzip.nets.trunk import HEAD_CHUNK, Nats, TrunkModel
from pixzip.runtime import kernels
from pixzip.runtime.multiply import INTEGERS
from pixzip.runtime.trunk.layers import CONV_TAPS, IS_TAPS, SS_TAPS

#: What gradients are multiplied in; training.precision is the float phase's.
GRADIENT = fastest_type()


def power(exponent: Tensor) -> Tensor:
    """2^exponent (int32, -126 .. 127) in float32, exactly: torch.pow need not be."""
    return ((exponent + 127) << 23).view(torch.float32)


def to_int8(values: Tensor, scale: float | Tensor) -> Tensor:
    """sat8(floor(values * scale + 1/2)); scale is a power of two, or one for each column."""
    return torch.floor(values * scale + 0.5).clamp_(-127, 127).to(torch.int8)


def to_int32(values: Tensor, exponent: Tensor) -> Tensor:
    """floor(values * 2^exponent + 1/2) of biases and tables, an exponent for each column."""
    return torch.floor(values.double() * power(exponent) + 0.5).to(torch.int32)


def real_weights(q: Tensor, exponent: Tensor) -> Tensor:
    """The values that int8 weights (inputs, outputs) stand for."""
    return q.to(GRADIENT) * power(-exponent).to(GRADIENT)


#: Weights (inputs, outputs) and their exponents (outputs,) → int8.
Rounded = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Integers:
    """One product's integers: w (inputs, outputs) int8; b, shift and exponent of w (outputs,) int32."""

    w: Tensor
    b: Tensor
    shift: Tensor
    exponent: Tensor

    @staticmethod
    def of(
        w: Tensor,
        b: Tensor,
        x: int,
        largest: int,
        out: int,
        tables: Sequence[Tensor] = (),
        most: float = SINGLE_PRODUCT,
        rounded: Rounded | None = None,
    ) -> Integers:
        """Quantise weights and bias; x to out and most as in weight_exponents, tables (256, outputs) are added too.

        rounded: weights and their exponents (outputs,) → int8; without it each becomes the nearest.
        A hidden layer is held less 128, so 128 * sum(w) goes into the bias of the product it enters.
        """
        beside = b.detach().abs() + sum(table.abs().amax(0) for table in tables)
        e = weight_exponents(w, beside, x, largest, out, most)
        q, bias = rounded(w, e) if rounded else to_int8(w, power(e)), to_int32(b, x + e)
        if largest == HIDDEN:
            bias += kernels.HIDDEN_OFFSET * q.sum(0, dtype=torch.int32)
        return Integers(q, bias, x + e - out, e)

    @property
    def rounding(self) -> tuple[shifts.Ints, shifts.Ints]:
        """(addend, shift) as the kernels take them."""
        return shifts.addend(self.b.numpy(), self.shift.numpy()), self.shift.numpy()

    @property
    def real(self) -> Tensor:
        """The values that the weights stand for."""
        return real_weights(self.w, self.exponent)


def real_hidden(hidden: Tensor, exponent: int) -> Tensor:
    """The values that a hidden layer's int8, held less 128, stand for."""
    return (hidden.to(GRADIENT) + kernels.HIDDEN_OFFSET) * 2.0**-exponent


def matmul(a: Tensor, w: Tensor) -> Tensor:
    """Exact int8 (m, k) x int8 (k, n) -> int32 (m, n), through the int8 engine where its shapes allow it."""
    if a.shape[0] > 16 and a.shape[1] % 8 == 0 and w.shape[1] % 8 == 0 and INT8_MATMUL:
        return torch._int_mm(a, w)
    return (a.float() @ w.float()).to(torch.int32)


def int8_engine_is_exact() -> bool:
    """Whether torch's int8 product is right on extreme operands (without VNNI it saturates)."""
    a = torch.full((32, 512), -127, dtype=torch.int8)
    w = torch.full((512, 64), 127, dtype=torch.int8)
    a[1::2], a[2::4], w[:, 1::2] = 127, -128, -127
    return bool((torch._int_mm(a, w) == (a.float() @ w.float()).to(torch.int32)).all())


#: Without instructions for products of bytes torch multiplies them one by one.
INT8_MATMUL = INTEGERS.itemsize == 1 and int8_engine_is_exact()


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
        first = Integers.of(w1, b1, e.a, SIGNED, e.h)
        second = Integers.of(w2, b2, e.h, HIDDEN, stream)
        first_rounding, second_rounding = first.rounding, second.rounding
        a = to_int8(x, 2.0**e.a)
        hidden = torch.zeros(m.size, w1.shape[1], dtype=torch.int8)
        whole = stream_integers(x, stream)
        for lo, hi in m.chunks():
            acc = matmul(gather_taps(m, a, CONV_TAPS, lo, hi), first.w)
            kernels.rectify(acc.numpy(), *first_rounding, hidden[lo:hi].numpy())
            acc = matmul(hidden[lo:hi], second.w)
            kernels.add_stream(acc.numpy(), *second_rounding, whole[lo:hi].numpy())
        out = whole.float().mul_(2.0**-stream)
        m.zero_columns(out)
        ctx.save_for_backward(a.to(GRADIENT) * 2.0**-e.a, real_hidden(hidden, e.h), first.real, second.real)
        ctx.m = m
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Straight through."""
        dx, *rest = ConvBlock.backward(ctx, grad.to(GRADIENT))
        return (None if dx is None else dx.float(), *rest, None, None)


@dataclass(frozen=True)
class GateIntegers:
    """A Row LSTM layer's integers: weights (inputs, 4k) int8; the rest (4k,) int32.

    left shifts bring each product to the grid of their sum, shift brings the sum and b to the tables' index.
    """

    w_is: Tensor
    w_ss: Tensor
    is_exponent: Tensor
    ss_exponent: Tensor
    is_left: Tensor
    ss_left: Tensor
    b: Tensor
    shift: Tensor

    @staticmethod
    def of(
        w_is: Tensor, w_ss: Tensor, b: Tensor, a: int, most: float = SINGLE_PRODUCT, rounded: Rounded | None = None
    ) -> GateIntegers:
        """Quantise the parameters of a layer whose input has exponent a; rounded, of w_is: see Integers.of."""
        e_is, e_ss = gate_exponents(w_is, w_ss, b, a, most)
        grid = torch.maximum(a + e_is, STATE + e_ss)
        lefts = (grid - a - e_is, grid - STATE - e_ss)
        q_is = rounded(w_is, e_is) if rounded else to_int8(w_is, power(e_is))
        return GateIntegers(q_is, to_int8(w_ss, power(e_ss)), e_is, e_ss, *lefts, to_int32(b, grid), grid - GATE_INDEX)

    def real_gates(self, acc_is: Tensor, acc_ss: Tensor, width: int, gates: Tensor) -> None:
        """Fill the values of the gates o, f, i, g for the gradient; the forward pass reads the tables."""
        grid = self.shift + GATE_INDEX
        scales = power(self.is_left - grid), power(self.ss_left - grid)
        integer_gates((acc_is, acc_ss), scales, self.b * power(-grid), width, gates)


class QuantisedRowLstm(RowLstm):
    """RowLstm on integers and tables; the results are h / 2^7, float32, and x."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, w_is: Tensor, w_ss: Tensor, b: Tensor, m: FlatMap, e: LstmExponents, tables: Tables
    ) -> tuple[Tensor, Tensor]:
        """As RowLstm.forward, with exponents and tables."""
        k = w_ss.shape[1] // 4
        q = GateIntegers.of(w_is, w_ss, b, e.a)
        lefts, shift = (q.is_left.numpy(), q.ss_left.numpy()), q.shift.numpy()
        addend = shifts.addend(q.b.numpy(), shift)
        a = to_int8(x, 2.0**e.a)
        h = torch.zeros(m.size, k, dtype=torch.int8)
        gates = m.empty(4 * k, GRADIENT, x.device)
        cells = torch.zeros(m.h + 1, m.row, k, dtype=torch.int32)
        for y in range(m.h):
            lo = m.guard + y * m.row
            hi = lo + m.row
            acc_is = matmul(gather_taps(m, a, IS_TAPS, lo, hi), q.w_is)
            acc_ss = matmul(gather_taps(m, h, SS_TAPS, lo, hi), q.w_ss)
            maps = (cells[y].numpy(), cells[y + 1].numpy(), h[lo:hi].numpy())
            sums = (acc_is.numpy(), acc_ss.numpy(), addend, *lefts, shift)
            kernels.lstm_cell(*sums, tables.sigmoid, tables.tanh, *maps)
            for part in (h[lo:hi], cells[y + 1]):
                part.view(m.n, m.w + 1, k)[:, m.w].zero_()
            q.real_gates(acc_is, acc_ss, m.w, gates[lo:hi])
        real = (a.to(GRADIENT) * 2.0**-e.a, h.to(GRADIENT) * 2.0**-STATE, gates, cells.float().mul_(2.0**-GATE))
        ctx.save_for_backward(*real, real_weights(q.w_is, q.is_exponent), real_weights(q.w_ss, q.ss_exponent))
        ctx.m = m
        return h.float().mul_(2.0**-STATE), x

    @staticmethod
    def backward(ctx: Any, grad: Tensor, beside: Tensor) -> tuple[Tensor | None, ...]:
        """Straight through."""
        dx, *rest = RowLstm.backward(ctx, grad.to(GRADIENT), beside.to(GRADIENT))
        return (None if dx is None else dx.float(), *rest, None, None)


class QuantisedLinear(Linear):
    """Linear onto the stream's grid; x is held with exponent x_exponent."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        base: Tensor | None,
        x: Tensor,
        w: Tensor,
        b: Tensor,
        m: FlatMap,
        x_exponent: int,
        stream: int,
    ) -> Tensor:
        """As Linear.forward, with exponents."""
        q = Integers.of(w, b, x_exponent, SIGNED, stream)
        rounding = q.rounding
        a = to_int8(x, 2.0**x_exponent)
        empty = torch.zeros(m.size, w.shape[1], dtype=torch.int16)
        whole = empty if base is None else stream_integers(base, stream)
        for lo, hi in m.chunks():
            acc = matmul(a[lo:hi], q.w)
            kernels.add_stream(acc.numpy(), *rounding, whole[lo:hi].numpy())
        out = whole.float().mul_(2.0**-stream)
        m.zero_columns(out)
        ctx.save_for_backward(a.to(GRADIENT) * 2.0**-x_exponent, q.real)
        ctx.m = m
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Straight through."""
        base, dx, *rest = Linear.backward(ctx, grad.to(GRADIENT))
        real = [None if d is None else d.float() for d in (base, dx)]
        return (*real, *rest, None, None)


@dataclass(frozen=True)
class HeadIntegers:
    """A colour head's integers: both products, and known (colours, 256, h) int32, what each known error adds."""

    hidden: Integers
    known: Tensor
    logit: Integers

    @staticmethod
    def of(p: Any, basis: Tensor, feature: int, e: HeadExponents) -> HeadIntegers:
        """Quantise the parameters of one head; each colour already known adds one table of 256 rows."""
        tables = [basis @ part for part in p["p"].detach().split(basis.shape[1])] if p["p"].shape[0] else []
        hidden = Integers.of(p["w"], p["b"], feature, SIGNED, e.h, tables)
        known = torch.zeros(len(tables), basis.shape[0], p["b"].shape[0], dtype=torch.int32)
        for colour, table in enumerate(tables):
            known[colour] = to_int32(table, feature + hidden.exponent)
        return HeadIntegers(hidden, known, Integers.of(p["v"], p["c"], e.h, HIDDEN, LOGIT))


def head_logits(x: Tensor, errors: Tensor, q: HeadIntegers) -> tuple[Tensor, Tensor]:
    """Hidden layer (m, h) int8, held less 128, and logits * 2^6 (m, 256) int32.

    x (m, t) int8; errors (colours, m) int16: coding errors of the colours before this one.
    """
    hidden = torch.empty(x.shape[0], q.hidden.b.shape[0], dtype=torch.int8)
    acc, (addend, shift) = matmul(x, q.hidden.w).numpy(), q.hidden.rounding
    if errors.shape[0]:
        kernels.rectify_known(acc, addend, q.known.numpy(), errors.numpy(), shift, hidden.numpy())
    else:
        kernels.rectify(acc, addend, shift, hidden.numpy())
    logits = matmul(hidden, q.logit.w).add_(torch.from_numpy(q.logit.rounding[0]))
    return hidden, logits.bitwise_right_shift_(q.logit.shift)


class QuantisedHeadLoss(torch.autograd.Function):
    """Nats of one colour from integer logits; gradients straight through, made in the forward pass."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, known_errors, phi, symbols, w, p, b, v, c, q: HeadIntegers, exponents: Exponents, colour, wanted
    ):
        """x (m, t) on the stream's grid; known_errors (colours, m); phi (m, j) their basis functions; symbols (m,).

        wanted: whether gradients are.
        """
        e, feature = exponents.heads[colour], exponents.feature
        w_real, v_real = q.hidden.real, q.logit.real
        grads = [torch.zeros(part.shape) for part in (w, p, b, v, c)]
        dx = torch.empty_like(x)
        total = torch.zeros((), dtype=torch.float64)
        for lo in range(0, x.shape[0], HEAD_CHUNK):
            s = slice(lo, lo + HEAD_CHUNK)
            a = to_int8(x[s], 2.0**feature)
            hidden, logits = head_logits(a, known_errors[:, s].contiguous(), q)
            nats, d_logits = integer_softmax_nats(logits, 2.0**-LOGIT, symbols[s], grads[4], GRADIENT)
            total += nats
            if not wanted:
                continue
            grads[3] += real_hidden(hidden, e.h).t() @ d_logits
            d_hidden = clear_cut(d_logits @ v_real.t(), hidden)
            grads[2] += d_hidden.sum(0)
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


def entering_stream(model: TrunkModel, inputs: Tensor, m: FlatMap, e: Exponents) -> Tensor:
    """Residual stream before the first block, of inputs (n, h, w, INPUTS) int8: (size, channels)."""
    real = m.pack(inputs, torch.float32) * 2.0**-INPUT
    return QuantisedLinear.apply(None, real, model.w_in, model.b_in, m, INPUT, e.stream)


def after_block(model: TrunkModel, i: int, x: Tensor, m: FlatMap, e: Exponents, tables: Tables) -> Tensor:
    """Residual stream after block i, from that before it."""
    (_, p), eb = model.block_parts()[i], e.blocks[i]
    if isinstance(eb, ConvExponents):
        return QuantisedConvBlock.apply(x, p["w1"], p["b1"], p["w2"], p["b2"], m, eb, e.stream)
    h, x = QuantisedRowLstm.apply(x, p["w_is"], p["w_ss"], p["b"], m, eb, tables)
    return QuantisedLinear.apply(x, h, p["w_up"], p["b_up"], m, STATE, e.stream)


def quantised_stream(model: TrunkModel, inputs: Tensor, m: FlatMap, e: Exponents, tables: Tables) -> Tensor:
    """Residual stream after the last block, as TrunkModel.stream."""
    x = entering_stream(model, inputs, m, e)
    for i in range(len(model.config.blocks)):
        x = after_block(model, i, x, m, e, tables)
    return x


def head_nats(model: TrunkModel, stream: Tensor, errors: Tensor, e: Exponents, colour: int) -> Tensor:
    """Nats of one colour, summed over a batch, from the last residual stream at its positions (n * h * w, channels)."""
    flat, p = errors.reshape(-1, 3), model.head_parts()[colour]
    known = flat[:, :colour].long().clamp(-128, 127) + 128
    phi = model.basis.to(GRADIENT)[known].flatten(1)
    by_colour = flat.t()[:colour].contiguous()
    q = HeadIntegers.of(p, model.basis, e.feature, e.heads[colour])
    args = (stream, by_colour, phi, flat[:, colour].long() & 255, p["w"], p["p"], p["b"], p["v"], p["c"])
    nats: Tensor = QuantisedHeadLoss.apply(*args, q, e, colour, torch.is_grad_enabled())
    return nats


def quantised_loss(model: TrunkModel, inputs: Tensor, errors: Tensor, e: Exponents, tables: Tables) -> Nats:
    """Nats of R, G and B, summed over a batch, as TrunkModel.loss but from the integers a decoder has."""
    n, h, w, _ = inputs.shape
    m = FlatMap(n, h, w)
    stream = m.unpack(quantised_stream(model, inputs, m, e, tables)).reshape(-1, model.config.channels)
    red, green, blue = (head_nats(model, stream, errors, e, colour) for colour in range(3))
    return red, green, blue
