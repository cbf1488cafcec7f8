"""Layers of the trunk with hand-written gradients: masked-convolution block, Row LSTM layer, colour heads with loss.

They work on FlatMap matrices in cache-sized pieces; automatic differentiation through slices would fill zero tensors of
the map's size for every tap.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixzip.nets.flat_map import FlatMap
from pixzip.nets.fused import add_taps, lstm_cell, lstm_cell_gradient, relu_gradient

#: (dy, dx) taps of a masked convolution on features (mask B, cut to slope 2): own position last.
CONV_TAPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))
#: Taps of the Row LSTM's input-to-state convolution (3×1, mask B) and of its state-to-state convolution (3×1).
IS_TAPS = ((0, -1), (0, 0))
SS_TAPS = ((-1, -1), (-1, 0), (-1, 1))


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
        w1c, b1c, w2c, b2c = (p.to(x.dtype) for p in (w1, b1, w2, b2))
        out = m.empty(x.shape[1], x.dtype)
        hidden = m.empty(w1.shape[1], x.dtype)
        for lo, hi in m.chunks():
            torch.addmm(b1c, gather_taps(m, x, CONV_TAPS, lo, hi), w1c, out=hidden[lo:hi])
            torch.addmm(b2c, hidden[lo:hi].relu_(), w2c, out=out[lo:hi])
            out[lo:hi] += x[lo:hi]
        m.zero_columns(out)
        ctx.save_for_backward(x, hidden, w1c, w2c)
        ctx.m = m
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and the four parameters."""
        x, hidden, w1c, w2c = ctx.saved_tensors
        m: FlatMap = ctx.m
        dx = grad.clone()
        m.zero_columns(dx)
        grad = dx.clone()
        dw1, dw2 = torch.zeros(w1c.shape), torch.zeros(w2c.shape)
        db1, db2 = torch.zeros(w1c.shape[1]), torch.zeros(w2c.shape[1])
        for lo, hi in m.chunks():
            d_out = grad[lo:hi]
            dw2 += hidden[lo:hi].t() @ d_out
            db2 += d_out.sum(0)
            d_hidden = relu_gradient(d_out @ w2c.t(), hidden[lo:hi])
            # The product turns its left operand: the narrower one there costs less.
            dw1 += (d_hidden.t() @ gather_taps(m, x, CONV_TAPS, lo, hi)).t()
            db1 += d_hidden.sum(0)
            scatter_taps(m, d_hidden @ w1c.t(), CONV_TAPS, lo, dx)
        m.zero_columns(dx)
        return dx, dw1, db1, dw2, db2, None


class RowLstm(torch.autograd.Function):
    """Hidden states of a Row LSTM layer (paper, section 3.1 and equation 3); gates in the order o, f, i, g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_is: Tensor, w_ss: Tensor, b: Tensor, m: FlatMap) -> Tensor:
        """x (size, t); w_is (2t, 4k); w_ss (3k, 4k); returns h (size, k), zero before the first row."""
        k = w_ss.shape[1] // 4
        w_is_c, w_ss_c, b_c = (p.to(x.dtype) for p in (w_is, w_ss, b))
        gates = m.empty(4 * k, x.dtype)
        h = m.empty(k, x.dtype)
        cells = torch.zeros(m.h + 1, m.row, k)
        for y in range(m.h):
            lo = m.guard + y * m.row
            hi = lo + m.row
            pre = torch.addmm(b_c, gather_taps(m, x, IS_TAPS, lo, hi), w_is_c)
            pre.addmm_(gather_taps(m, h, SS_TAPS, lo, hi), w_ss_c)
            lstm_cell(pre, m.w, cells[y], cells[y + 1], h[lo:hi], gates[lo:hi])
        ctx.save_for_backward(x, h, gates, cells, w_is_c, w_ss_c)
        ctx.m = m
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Back-propagation through the rows; weight gradients in one product per row."""
        x, h, gates, cells, w_is_c, w_ss_c = ctx.saved_tensors
        m: FlatMap = ctx.m
        k = h.shape[1]
        dh = grad.clone()
        dx = torch.zeros_like(x)
        dc = torch.zeros(m.row, k)
        d_gates = torch.empty(m.row, 4 * k, dtype=x.dtype)
        dw_is, dw_ss, db = torch.zeros(w_is_c.shape), torch.zeros(w_ss_c.shape), torch.zeros(4 * k)
        for y in reversed(range(m.h)):
            lo = m.guard + y * m.row
            hi = lo + m.row
            lstm_cell_gradient(gates[lo:hi], m.w, cells[y], cells[y + 1], dh[lo:hi], dc, d_gates, db)
            dw_ss += gather_taps(m, h, SS_TAPS, lo, hi).t() @ d_gates
            dw_is += gather_taps(m, x, IS_TAPS, lo, hi).t() @ d_gates
            scatter_taps(m, d_gates @ w_ss_c.t(), SS_TAPS, lo, dh)
            scatter_taps(m, d_gates @ w_is_c.t(), IS_TAPS, lo, dx)
        m.zero_columns(dx)
        return dx, dw_is, dw_ss, db, None


class Linear(torch.autograd.Function):
    """base + x W + b over a FlatMap, base optional."""

    @staticmethod
    def forward(ctx: Any, base: Tensor | None, x: Tensor, w: Tensor, b: Tensor, m: FlatMap) -> Tensor:
        """x (size, k); w (k, t); base and result (size, t)."""
        w_c, b_c = w.to(x.dtype), b.to(x.dtype)
        out = m.empty(w.shape[1], x.dtype)
        for lo, hi in m.chunks():
            torch.addmm(b_c, x[lo:hi], w_c, out=out[lo:hi])
            if base is not None:
                out[lo:hi] += base[lo:hi]
        m.zero_columns(out)
        ctx.save_for_backward(x, w_c)
        ctx.m = m
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of base, x, w and b."""
        x, w_c = ctx.saved_tensors
        m: FlatMap = ctx.m
        grad = grad.clone()
        m.zero_columns(grad)
        need_x = ctx.needs_input_grad[1]
        dx = m.empty(x.shape[1], x.dtype) if need_x else None
        dw, db = torch.zeros(w_c.shape), torch.zeros(w_c.shape[1])
        for lo, hi in m.chunks():
            dw += x[lo:hi].t() @ grad[lo:hi]
            db += grad[lo:hi].sum(0)
            if dx is not None:
                torch.mm(grad[lo:hi], w_c.t(), out=dx[lo:hi])
        return (grad if ctx.needs_input_grad[0] else None), dx, dw, db, None
