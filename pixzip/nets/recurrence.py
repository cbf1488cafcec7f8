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

    def cut(self, states: Tensor, tap: int, length: int) -> Tensor:
        """(..., before + length + after, k) → (..., length, k): of each position the one at a tap."""
        return states.narrow(-2, self.before + tap, length)


def _neighbours(hidden: Tensor, shape: StepShape, length: int) -> Tensor:
    """Hidden states at the taps: (d, n, before + length + after, k) → (d, n * length, taps * k)."""
    return torch.cat([shape.cut(hidden, tap, length) for tap in shape.taps], dim=3).flatten(1, 2)


def _spread(d_neighbours: Tensor, shape: StepShape, into: Tensor) -> Tensor:
    """Transpose of _neighbours: (d, n * length, taps * k) → into (d, n, before + length + after, k), overwritten."""
    into.zero_()
    d, n, positions, k = into.shape
    length = positions - shape.before - shape.after
    parts = d_neighbours.view(d, n, length, -1).split(k, dim=3)
    for tap, part in zip(shape.taps, parts, strict=True):
        shape.cut(into, tap, length).add_(part)
    return into


def _cell_gradient(d_h: Tensor, d_c: Tensor, gates: Tensor, cells: tuple[Tensor, Tensor], out: Tensor) -> Tensor:
    """Equation 3 backwards, of one step: gradients of its gates into out; returns that of the cells before it.

    d_h and d_c are of the step's hidden and cell states; gates (d, n, length, 4k) are o, f, i, g; cells those before
    and after the step.
    """
    k = gates.shape[3] // 4
    o, f, i, g = gates.split(k, dim=3)
    tanh_c = cells[1].tanh()
    d_c = d_c + torch.ops.aten.tanh_backward(d_h * o, tanh_c)
    torch.mul(d_h, tanh_c, out=out[..., :k])
    torch.mul(d_c, cells[0], out=out[..., k : 2 * k])
    torch.mul(d_c, g, out=out[..., 2 * k : 3 * k])
    sigmoids, tangent = out[..., : 3 * k], out[..., 3 * k :]
    torch.ops.aten.sigmoid_backward(sigmoids, gates[..., : 3 * k], grad_input=sigmoids)
    torch.ops.aten.tanh_backward(d_c * i, g, grad_input=tangent)
    return d_c * f


class Recurrence(torch.autograd.Function):
    """Hidden states (steps, d, n, length, k) of d independent directions from gates (steps, d, n, length, 4k).

    gates is the input-to-state map, in the order o, f, i, g. w_ss (d, taps * k, 4k); h0 and c0 (d, k) are the learned
    state before the first step and, where ``inside`` (steps, length) is False, of every cell: those lie outside the
    picture and never evolve. Products are in the dtype of the gates, cell states in float32 or float64.
    """

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, w_ss: Tensor, h0: Tensor, c0: Tensor, inside: Tensor | None, shape: StepShape
    ) -> Tensor:
        """See the class."""
        steps, d, n, length, k4 = gates.shape
        k, dtype = k4 // 4, gates.dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        w, h_first, c_first = w_ss.to(dtype), h0.to(dtype)[:, None, None], c0.to(wide)[:, None, None]
        hidden = gates.new_zeros(steps + 1, d, n, shape.before + length + shape.after, k)
        states = shape.cut(hidden, 0, length)
        (hidden if shape.learned_ends else states[0]).copy_(h_first)
        cells = torch.empty(steps + 1, d, n, length, k, dtype=wide, device=gates.device)
        cells[0] = c_first
        active = torch.empty(gates.shape, dtype=wide, device=gates.device)
        outside = None if inside is None else (~inside[:, :, None]).to(wide)  # (steps, length, 1)
        for s in range(steps):
            pre = torch.bmm(_neighbours(hidden[s], shape, length), w).view(d, n, length, k4)
            step = torch.add(pre, gates[s], out=active[s])
            step[..., : 3 * k].sigmoid_()
            step[..., 3 * k :].tanh_()
            if outside is not None:
                step[..., : 3 * k].mul_(1 - outside[s])  # o, f and i: nothing flows through
            o, f, i, g = step.split(k, dim=3)
            torch.mul(f, cells[s], out=cells[s + 1]).addcmul_(i, g)
            torch.mul(o, cells[s + 1].tanh(), out=states[s + 1])
            if outside is not None:
                cells[s + 1].addcmul_(outside[s], c_first)
                states[s + 1].addcmul_(outside[s].to(dtype), h_first)
        ctx.save_for_backward(hidden, cells, active, w, *(() if outside is None else (outside,)))
        ctx.shape = shape
        return states[1:].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Back-propagation through the steps; what outside cells get is summed for the learned state."""
        hidden, cells, active, w, *rest = ctx.saved_tensors
        outside: Tensor | None = rest[0] if rest else None
        shape: StepShape = ctx.shape
        length = cells.shape[3]
        d_gates = torch.empty(active.shape, dtype=hidden.dtype, device=active.device)
        d_pre = torch.empty_like(active[0])
        d_w = torch.zeros(w.shape, dtype=cells.dtype, device=w.device)
        d_padded = torch.zeros(hidden.shape[1:], dtype=cells.dtype, device=w.device)
        d_h0, d_c0, d_c = d_padded.clone(), torch.zeros_like(cells[0]), torch.zeros_like(cells[0])
        for s in reversed(range(active.shape[0])):
            d_h = shape.cut(d_padded, 0, length) + grad[s]
            if outside is not None:
                shape.cut(d_h0, 0, length).addcmul_(d_h, outside[s])
                d_c0.addcmul_(d_c, outside[s])
            d_c = _cell_gradient(d_h, d_c, active[s], (cells[s], cells[s + 1]), d_pre)
            d_gates[s] = d_pre
            flat = d_gates[s].flatten(1, 2)
            d_w += torch.bmm(_neighbours(hidden[s], shape, length).transpose(1, 2), flat)
            _spread(torch.bmm(flat, w.transpose(1, 2)), shape, d_padded)
            if shape.learned_ends:
                d_h0[:, :, : shape.before] += d_padded[:, :, : shape.before]
                d_h0[:, :, shape.before + length :] += d_padded[:, :, shape.before + length :]
        shape.cut(d_h0, 0, length).add_(shape.cut(d_padded, 0, length))
        return d_gates, d_w, d_h0.sum((1, 2)), (d_c0 + d_c).sum((1, 2)), None, None
