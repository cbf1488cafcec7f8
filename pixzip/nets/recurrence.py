"""Input-to-state map → hidden states of a convolutional LSTM, step by step (paper, equation 3), gradients by hand.

A step is a row (Row LSTM) or a column of the skewed map (Diagonal BiLSTM). Its positions are computed together from
the hidden states of the step before at a few taps along the step, and from the cell states at the same position::

    o, f, i = sigmoid(K_ss * h[s-1] + K_is * x[s])     g = tanh(K_ss * h[s-1] + K_is * x[s])
    c[s] = f c[s-1] + i g                              h[s] = o tanh(c[s])

Automatic differentiation would keep every intermediate of every step and fill a map of zeros for every slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepShape:
    """What a step reads of the step before it, and where its positions end."""

    #: Offsets along the step of the state-to-state convolution.
    taps: tuple[int, ...]
    #: Whether the hidden state beyond the step's ends is the learned h0 (else it is 0).
    learned_ends: bool

    @property
    def before(self) -> int:
        """Positions kept in front of the step for the taps."""
        return max(0, -min(self.taps))

    @property
    def after(self) -> int:
        """Positions kept behind the step for the taps."""
        return max(0, max(self.taps))


def _neighbours(h: Tensor, shape: StepShape, length: int) -> Tensor:
    """Hidden states at the taps: h (n, before + length + after, k) → (n * length, taps * k)."""
    parts = [h[:, shape.before + tap : shape.before + tap + length] for tap in shape.taps]
    return torch.cat(parts, dim=2).flatten(0, 1)


def _spread(d_neighbours: Tensor, shape: StepShape, n: int, length: int) -> Tensor:
    """Transpose of _neighbours: (n * length, taps * k) → (n, before + length + after, k)."""
    parts = d_neighbours.view(n, length, len(shape.taps), -1).unbind(2)
    total = d_neighbours.new_zeros(n, shape.before + length + shape.after, parts[0].shape[2])
    for tap, part in zip(shape.taps, parts, strict=True):
        total[:, shape.before + tap : shape.before + tap + length] += part
    return total


class Recurrence(torch.autograd.Function):
    """Hidden states (steps, n, length, k) from is gates (steps, n, length, 4k), in the order o, f, i, g.

    w_ss (taps * k, 4k); h0 and c0 (k,) are the learned state before the first step and, where ``inside``
    (steps, length) is False, of every position: those cells lie outside the picture and are never evolved. Products
    are in the dtype of the gates, cell states in float32 or float64.
    """

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, w_ss: Tensor, h0: Tensor, c0: Tensor, inside: Tensor | None, shape: StepShape
    ) -> Tensor:
        """See the class."""
        steps, n, length, k4 = gates.shape
        k, dtype = k4 // 4, gates.dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        w, h_first, c_first = w_ss.to(dtype), h0.to(dtype), c0.to(wide)
        hidden = gates.new_zeros(steps + 1, n, shape.before + length + shape.after, k)
        states = hidden[:, :, shape.before : shape.before + length]
        (hidden if shape.learned_ends else states[0]).copy_(h_first)
        cells = torch.empty(steps + 1, n, length, k, dtype=wide, device=gates.device)
        cells[0] = c_first
        active = torch.empty(steps, n, length, k4, dtype=dtype, device=gates.device)
        for s in range(steps):
            pre = torch.mm(_neighbours(hidden[s], shape, length), w).view(n, length, k4)
            pre = (pre + gates[s]).to(wide)
            pre[..., : 3 * k].sigmoid_()
            pre[..., 3 * k :].tanh_()
            o, f, i, g = pre.split(k, dim=2)
            torch.mul(f, cells[s], out=cells[s + 1]).addcmul_(i, g)
            h = o * cells[s + 1].tanh()
            if inside is not None:
                outside = ~inside[s][:, None]  # (length, 1)
                cells[s + 1] = torch.where(outside, c_first, cells[s + 1])
                h = torch.where(outside, h_first.to(wide), h)
            states[s + 1] = h
            active[s] = pre
        ctx.save_for_backward(hidden, cells, active, w, *(() if inside is None else (inside,)))
        ctx.shape = shape
        return states[1:].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Back-propagation through the steps, one product per step for each of w_ss and the state before."""
        hidden, cells, active, w, *rest = ctx.saved_tensors
        inside: Tensor | None = rest[0] if rest else None
        shape: StepShape = ctx.shape
        steps, n, length, k4 = active.shape
        k, wide = k4 // 4, cells.dtype
        d_gates = torch.empty_like(active)
        d_w = torch.zeros(w.shape, dtype=wide, device=w.device)
        d_h0 = torch.zeros(k, dtype=wide, device=w.device)
        d_c0 = torch.zeros_like(d_h0)
        d_c = torch.zeros(n, length, k, dtype=wide, device=w.device)
        d_state = torch.zeros_like(d_c)  # what step s + 1 asks of the hidden states of step s
        d_pre = torch.empty(n, length, k4, dtype=wide, device=w.device)
        for s in reversed(range(steps)):
            d_h = d_state + grad[s]
            if inside is not None:
                outside = (~inside[s][:, None]).to(wide)
                d_h0 += (d_h * outside).sum((0, 1))
                d_c0 += (d_c * outside).sum((0, 1))
                d_h, d_c = d_h * (1 - outside), d_c * (1 - outside)
            o, f, i, g = active[s].to(wide).split(k, dim=2)
            d_o, d_f, d_i, d_g = d_pre.split(k, dim=2)
            tanh_c = cells[s + 1].tanh()
            d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
            torch.mul(d_h * tanh_c, o * (1 - o), out=d_o)
            torch.mul(d_c * cells[s], f * (1 - f), out=d_f)
            torch.mul(d_c * g, i * (1 - i), out=d_i)
            torch.mul(d_c * i, 1 - g * g, out=d_g)
            d_c = d_c * f
            d_gates[s] = d_pre
            flat = d_gates[s].view(n * length, k4)
            d_w += torch.mm(_neighbours(hidden[s], shape, length).t(), flat)
            d_before = _spread(torch.mm(flat, w.t()), shape, n, length).to(wide)
            d_state = d_before[:, shape.before : shape.before + length]
            if shape.learned_ends:
                d_h0 += d_before.sum((0, 1)) - d_state.sum((0, 1))
        d_h0 += d_state.sum((0, 1))
        d_c0 += d_c.sum((0, 1))
        return d_gates, d_w, d_h0, d_c0, None, None
