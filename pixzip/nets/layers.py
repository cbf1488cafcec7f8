"""Layers of the trunk with hand-written gradients: masked-convolution block, Row LSTM layer, colour heads with loss.

They work on FlatMap matrices in cache-sized pieces; automatic differentiation through slices would fill zero tensors of
the map's size for every tap. Maps and their gradients have zeros in a FlatMap's zero columns, which every layer leaves
there. A bias is added by the pass that follows a product: torch would first fill the product's memory with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pixzip.nets.flat_map import FlatMap
from pixzip.nets.fused import (
    add_bias,
    add_columns,
    add_product,
    add_taps,
    lstm_rows,
    lstm_rows_gradient,
    rectify,
    rectify_gradient,
)
from pixzip.runtime.trunk.layers import CONV_TAPS, IS_TAPS, SS_TAPS

#: Where the positions stand that have one as a tap of CONV_TAPS.
_AFTER = tuple((-dy, -dx) for dy, dx in CONV_TAPS)


def zeros(device: torch.device, *shapes: Sequence[int]) -> list[Tensor]:
    """float32 for sums."""
    return [torch.zeros(tuple(shape), device=device) for shape in shapes]


def gather_taps(m: FlatMap, x: Tensor, taps: tuple[tuple[int, int], ...], lo: int, hi: int) -> Tensor:
    """Neighbourhoods of positions lo..hi: (hi - lo, len(taps) * channels)."""
    offsets = [m.offset(dy, dx) for dy, dx in taps]
    return torch.cat([x[lo + o : hi + o] for o in offsets], dim=1)


def scatter_taps(m: FlatMap, grad: Tensor, taps: tuple[tuple[int, int], ...], lo: int, into: Tensor) -> None:
    """Transpose of gather_taps: add each tap's part of grad to the positions it came from."""
    add_taps(into, lo, grad, tuple(m.offset(dy, dx) for dy, dx in taps))


class ConvBlock(torch.autograd.Function):
    """x + W2 relu(W1 taps(x) + b1) + b2: a residual block with a 2×3 masked convolution (paper, figure 5 left)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, m: FlatMap) -> Tensor:
        """x (size, t); w1 (5t, k); w2 (k, t)."""
        w1c, w2c, b1, b2 = w1.to(x.dtype), w2.to(x.dtype), b1.detach(), b2.detach()
        out = m.empty(x.shape[1], x.dtype, x.device)
        hidden = m.empty(w1.shape[1], x.dtype, x.device)
        for lo, hi in m.chunks():
            torch.mm(gather_taps(m, x, CONV_TAPS, lo, hi), w1c, out=hidden[lo:hi])
            torch.mm(rectify(hidden[lo:hi], b1), w2c, out=out[lo:hi])
            add_bias(out[lo:hi], b2, x[lo:hi])
        m.zero_columns(out)
        ctx.save_for_backward(x, hidden, w1c, w2c)
        ctx.m = m
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and the four parameters.

        From the last position to the first, so that of every position those are known that have it as a tap: one
        gathering of their hidden gradients serves the products for x and for w1.
        """
        x, hidden, w1c, w2c = ctx.saved_tensors
        m: FlatMap = ctx.m
        t, k = x.shape[1], hidden.shape[1]
        by_tap = w1c.view(len(CONV_TAPS), t, k)
        back = by_tap.transpose(1, 2).reshape(-1, t)  # (taps * k, t)
        dx = torch.empty_like(grad)
        d_hidden = grad.new_empty(m.size + m.guard, k)
        d_hidden[m.size :].zero_()
        dw1, dw2, db1, db2 = zeros(x.device, (t, len(CONV_TAPS) * k), w2c.shape, (k,), (t,))
        for lo, hi in reversed(list(m.chunks())):
            d_out = grad[lo:hi]
            add_columns(d_out, db2)
            rectify_gradient(torch.mm(d_out, w2c.t(), out=d_hidden[lo:hi]), hidden[lo:hi], db1)
            # hidden has been read in order before: transposed it is read by columns
            add_product(dw2, hidden[lo:hi], d_out)
            after = gather_taps(m, d_hidden, _AFTER, lo, hi)
            add_product(dw1, x[lo:hi], after)
            torch.addmm(d_out, after, back, out=dx[lo:hi])
        m.zero_columns(dx)
        return dx, dw1.view(t, len(CONV_TAPS), k).transpose(0, 1).reshape(w1c.shape), db1, dw2, db2, None


class RowLstm(torch.autograd.Function):
    """Hidden states of a Row LSTM layer (paper, section 3.1 and equation 3); gates in the order o, f, i, g.

    It hands on the stream that it reads: so what is added to it later gives its gradient back through here, where that
    of the layer is added in the same pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_is: Tensor, w_ss: Tensor, b: Tensor, m: FlatMap) -> tuple[Tensor, Tensor]:
        """x (size, t); w_is (2t, 4k); w_ss (3k, 4k); returns h (size, k), zero before the first row, and x."""
        k = w_ss.shape[1] // 4
        w_is_c, w_ss_c, b = w_is.to(x.dtype), w_ss.to(x.dtype), b.detach()
        gates = m.empty(4 * k, x.dtype, x.device)
        h = m.empty(k, x.dtype, x.device)
        cells = torch.empty(m.h + 1, m.row, k, device=x.device)
        cells[0].zero_()
        row = lstm_rows(b, m.w, cells, h, gates)
        for first, last in m.row_groups():
            several = gather_taps(m, x, IS_TAPS, m.guard + first * m.row, m.guard + last * m.row) @ w_is_c
            for y, pre in enumerate(several.split(m.row), first):
                lo = m.guard + y * m.row
                pre.addmm_(m.adjacent(h, lo + m.offset(*SS_TAPS[0]), m.row, len(SS_TAPS)), w_ss_c)
                row(pre, y, lo)
        ctx.save_for_backward(x, h, gates, cells, w_is_c, w_ss_c)
        ctx.m = m
        return h, x

    @staticmethod
    def backward(ctx: Any, grad: Tensor, beside: Tensor) -> tuple[Tensor | None, ...]:
        """Back-propagation through the rows; what is no recurrence in products of several rows."""
        x, h, gates, cells, w_is_c, w_ss_c = ctx.saved_tensors
        m: FlatMap = ctx.m
        k = h.shape[1]
        dh = grad.clone()
        dx = beside.clone()
        dc, dw_is, dw_ss, db = zeros(x.device, (m.row, k), w_is_c.shape, w_ss_c.shape, (4 * k,))
        row = lstm_rows_gradient(gates, m.w, cells, dh, dc, db)
        for first, last in reversed(list(m.row_groups())):
            several = x.new_empty((last - first) * m.row, 4 * k)
            for y, d_gates in reversed(list(enumerate(several.split(m.row), first))):
                lo = m.guard + y * m.row
                row(d_gates, y, lo)
                scatter_taps(m, d_gates @ w_ss_c.t(), SS_TAPS, lo, dh)
            lo, hi = m.guard + first * m.row, m.guard + last * m.row
            add_product(dw_ss, gather_taps(m, h, SS_TAPS, lo, hi), several)
            add_product(dw_is, gather_taps(m, x, IS_TAPS, lo, hi), several)
            scatter_taps(m, several @ w_is_c.t(), IS_TAPS, lo, dx)
        m.zero_columns(dx)
        return dx, dw_is, dw_ss, db, None


class Linear(torch.autograd.Function):
    """base + x W + b over a FlatMap, base optional."""

    @staticmethod
    def forward(ctx: Any, base: Tensor | None, x: Tensor, w: Tensor, b: Tensor, m: FlatMap) -> Tensor:
        """x (size, k); w (k, t); base and result (size, t)."""
        w_c, b = w.to(x.dtype), b.detach()
        out = m.empty(w.shape[1], x.dtype, x.device)
        for lo, hi in m.chunks():
            torch.mm(x[lo:hi], w_c, out=out[lo:hi])
            add_bias(out[lo:hi], b, None if base is None else base[lo:hi])
        m.zero_columns(out)
        ctx.save_for_backward(x, w_c)
        ctx.m = m
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of base, x, w and b."""
        x, w_c = ctx.saved_tensors
        m: FlatMap = ctx.m
        need_x = ctx.needs_input_grad[1]
        dx = m.empty(x.shape[1], x.dtype, x.device) if need_x else None
        dw, db = zeros(x.device, w_c.shape, (w_c.shape[1],))
        for lo, hi in m.chunks():
            add_product(dw, x[lo:hi], grad[lo:hi])
            add_columns(grad[lo:hi], db)
            if dx is not None:
                torch.mm(grad[lo:hi], w_c.t(), out=dx[lo:hi])
        return (grad if ctx.needs_input_grad[0] else None), dx, dw, db, None
