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
class Steps:
    """Geometry of a recurrence: which cells each step computes, and what it reads of the step before it."""

    #: Offsets along the step of the state-to-state convolution.
    taps: tuple[int, ...]
    #: Of each step the cells [low, high) that lie inside the picture; the others never evolve.
    inside: tuple[tuple[int, int], ...]
    #: Whether the cells outside, and those beyond the step's ends, are the learned (h0, c0); else they are 0.
    learned_outside: bool

    @property
    def before(self) -> int:
        """Cells kept in front of the step for the taps."""
        return max(0, -min(self.taps))

    @property
    def after(self) -> int:
        """Cells kept behind the step for the taps."""
        return max(0, max(self.taps))

    def cut(self, states: Tensor, cells: tuple[int, int], tap: int = 0) -> Tensor:
        """(..., before + length + after, k) → (..., high - low, k): of cells [low, high) the neighbours at a tap."""
        return states.narrow(-2, self.before + tap + cells[0], cells[1] - cells[0])

    def neighbours(self, states: Tensor, cells: tuple[int, int]) -> Tensor:
        """Hidden states at all taps: (d, n, before + length + after, k) → (d, n * (high - low), taps * k)."""
        return torch.cat([self.cut(states, cells, tap) for tap in self.taps], dim=3).flatten(1, 2)

    def spread(self, gradient: Tensor, cells: tuple[int, int], into: Tensor) -> None:
        """Transpose of neighbours, added to ``into``."""
        parts = gradient.view(*into.shape[:2], cells[1] - cells[0], -1).split(into.shape[3], dim=3)
        for tap, part in zip(self.taps, parts, strict=True):
            self.cut(into, cells, tap).add_(part)


def _take(gradient: Tensor, live: Tensor, rest: Tensor) -> Tensor:
    """The live part (a view) of a gradient; the gradient is cleared, what is not live is added to rest."""
    taken = live.clone()
    live.zero_()
    rest.add_(gradient)
    gradient.zero_()
    return taken


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
    state of every cell before the first step. Products are in the dtype of the gates, cell states in float32 or
    float64.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, w_ss: Tensor, h0: Tensor, c0: Tensor, steps: Steps) -> Tensor:
        """See the class."""
        count, d, n, length, k4 = gates.shape
        k, dtype = k4 // 4, gates.dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        w = w_ss.to(dtype)
        hidden = gates.new_zeros(count + 1, d, n, steps.before + length + steps.after, k)
        first = hidden if steps.learned_outside else steps.cut(hidden[0], (0, length))
        first.copy_(h0[:, None, None])
        cells = torch.empty(count + 1, d, n, length, k, dtype=wide, device=gates.device)
        cells.copy_(c0[:, None, None])
        active = torch.empty(gates.shape, dtype=wide, device=gates.device)
        for s, inside in enumerate(steps.inside):
            now = slice(*inside)
            pre = torch.bmm(steps.neighbours(hidden[s], inside), w).view(d, n, -1, k4)
            step = torch.add(pre, gates[s, :, :, now], out=active[s, :, :, now])
            step[..., : 3 * k].sigmoid_()
            step[..., 3 * k :].tanh_()
            o, f, i, g = step.split(k, dim=3)
            c = torch.mul(f, cells[s, :, :, now], out=cells[s + 1, :, :, now]).addcmul_(i, g)
            torch.mul(o, c.tanh(), out=steps.cut(hidden[s + 1], inside))
        ctx.save_for_backward(hidden, cells, active, w)
        ctx.steps = steps
        return steps.cut(hidden[1:], (0, length)).clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Back-propagation through the steps; what cells outside get is summed for the learned state."""
        hidden, cells, active, w = ctx.saved_tensors
        steps: Steps = ctx.steps
        wide, everywhere = cells.dtype, (0, cells.shape[3])
        d_gates = torch.zeros(active.shape, dtype=hidden.dtype, device=active.device)
        d_w = torch.zeros(w.shape, dtype=wide, device=w.device)
        d_hidden = torch.zeros(hidden.shape[1:], dtype=wide, device=w.device)  # of the step at hand, from later ones
        d_cells = torch.zeros_like(cells[0])
        d_h0, d_c0 = torch.zeros_like(d_hidden), torch.zeros_like(d_cells)
        for s, inside in reversed(list(enumerate(steps.inside))):
            now = slice(*inside)
            steps.cut(d_hidden, everywhere).add_(grad[s])
            d_h = _take(d_hidden, steps.cut(d_hidden, inside), d_h0)
            d_c = _take(d_cells, d_cells[:, :, now], d_c0)
            d_pre = torch.empty_like(active[s, :, :, now])
            before_and_after = cells[s, :, :, now], cells[s + 1, :, :, now]
            d_cells[:, :, now] = _cell_gradient(d_h, d_c, active[s, :, :, now], before_and_after, d_pre)
            d_gates[s, :, :, now] = d_pre
            flat = d_pre.to(w.dtype).flatten(1, 2)
            d_w += torch.bmm(steps.neighbours(hidden[s], inside).transpose(1, 2), flat)
            steps.spread(torch.bmm(flat, w.transpose(1, 2)), inside, d_hidden)
        d_h0 += d_hidden
        if not steps.learned_outside:
            d_h0 = steps.cut(d_h0, everywhere)  # beyond the ends is 0, not h0
        return d_gates, d_w, d_h0.sum((1, 2)), (d_c0 + d_cells).sum((1, 2)), None
