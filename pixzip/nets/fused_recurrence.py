"""Input-to-state maps → hidden states of a convolutional LSTM, on a CPU: Recurrence with fewer passes.

Matrix products stay with torch; all else of a step is one pass over its cells. Maps lie in memory with the pictures of
a batch side by side, (features, h, w, n), so that loops run over pictures and a product over a step's cells. Nothing is
skewed or mirrored: cell y of step s stands at the place first + s * per_step + y * per_cell

    ================  =======================  ======  =========  =========
    direction         step, cell               first   per_step   per_cell
    ================  =======================  ======  =========  =========
    Row LSTM          s = row, y = column      0       w          1
    left to right     s = column + y, y = row  0       1          w - 1
    right to left     the same, mirrored       w - 1   -1         w + 1
    ================  =======================  ======  =========  =========
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.nets.fused import Raw, Real, load, part, raw, sigmoid, store, tanh
from pixzip.nets.recurrence import Steps

_ONE = np.float32(1.0)


@dataclass(frozen=True)
class Places:
    """Where the cells of a direction's steps stand in the picture, and how many a step has, those outside included."""

    first: int
    per_step: int
    per_cell: int
    length: int

    def of(self, s: int) -> tuple[int, int]:
        """Place of cell 0 in step s, and from one cell to the next."""
        return self.first + s * self.per_step, self.per_cell


@part
def _gather(
    h: Raw, edge: Raw, taps: NDArray[np.int64], low: int, high: int, past: tuple[int, int, int, int], near: Raw
) -> None:
    """Hidden states of the neighbours of cells [low, high): h (k, places, n) → near (taps * k, high - low, n).

    past is the step before: its cells [low, high), the place of its cell 0 and from one cell to the next. The state of
    any other cell y is edge[y + number of taps]: h0, or 0.
    """
    k, _, n = h.shape
    for t in range(taps.shape[0]):
        for j in range(k):
            for y in range(low, high):
                to, cell = near[t * k + j, y - low], y + taps[t]
                if past[0] <= cell < past[1]:
                    of = h[j, past[2] + cell * past[3]]
                    for q in range(n):
                        to[q] = of[q]
                else:
                    value = edge[cell + taps.shape[0], j]
                    for q in range(n):
                        to[q] = value


@part
def _step(
    gates: Raw, pre: Raw, low: int, high: int, place: int, per_cell: int, c: Real, before: Real, h: Raw, real: Real
) -> None:
    """Equation 3 on cells [low, high), of which cell y stands at place + y * per_cell.

    gates (4k, places, n) become those after σ and tanh; pre (4k, high - low, n) is the state-to-state product; c
    (k, length, n) are the cell states, replaced; before (k, places, n) keeps what they were, h (k, places, n) gets the
    hidden states. real (4, n) is scratch.
    """
    k4, _, n = gates.shape
    k = k4 // 4
    o, f, i, g = real[0], real[1], real[2], real[3]
    for y in range(low, high):
        p = place + y * per_cell
        for j in range(k):
            one, other = gates[j, p], pre[j, y - low]
            for q in range(n):
                o[q] = sigmoid(load(one[q]) + load(other[q]))
            for q in range(n):
                one[q] = store(o[q], one[q])
            one, other = gates[k + j, p], pre[k + j, y - low]
            for q in range(n):
                f[q] = sigmoid(load(one[q]) + load(other[q]))
            for q in range(n):
                one[q] = store(f[q], one[q])
            one, other = gates[2 * k + j, p], pre[2 * k + j, y - low]
            for q in range(n):
                i[q] = sigmoid(load(one[q]) + load(other[q]))
            for q in range(n):
                one[q] = store(i[q], one[q])
            one, other = gates[3 * k + j, p], pre[3 * k + j, y - low]
            for q in range(n):
                g[q] = tanh(load(one[q]) + load(other[q]))
            for q in range(n):
                one[q] = store(g[q], one[q])
            cell, kept, to = c[j, y], before[j, p], h[j, p]
            for q in range(n):
                kept[q] = cell[q]
            for q in range(n):
                i[q] *= g[q]
            for q in range(n):
                i[q] += f[q] * kept[q]
            for q in range(n):
                cell[q] = i[q]
            for q in range(n):
                to[q] = store(o[q] * tanh(i[q]), to[q])


@part
def _step_back(
    gates: Raw,
    grad: Raw,
    d_near: Raw,
    taps: NDArray[np.int64],
    later: tuple[int, int],
    low: int,
    high: int,
    place: int,
    per_cell: int,
    before: Real,
    d_c: Real,
    d_pre: Raw,
    real: Real,
) -> None:
    """Gradient of _step: gates become those of what entered them, and d_pre (4k, high - low, n) gets them too.

    The gradient of h is grad (k, places, n) and what the cells later[0] <= y < later[1] of the next step give their
    neighbours, d_near (taps * k, cells, n). d_c (k, length, n) goes from the states of the step to those before it.
    """
    k4, _, n = gates.shape
    k = k4 // 4
    o, f, i, g, dh, tanh_c = real[0], real[1], real[2], real[3], real[4], real[5]
    for y in range(low, high):
        p = place + y * per_cell
        for j in range(k):
            one = grad[j, p]
            for q in range(n):
                dh[q] = load(one[q])
            for t in range(taps.shape[0]):
                if later[0] <= y - taps[t] < later[1]:
                    one = d_near[t * k + j, y - taps[t] - later[0]]
                    for q in range(n):
                        dh[q] += load(one[q])
            one = gates[j, p]
            for q in range(n):
                o[q] = load(one[q])
            one = gates[k + j, p]
            for q in range(n):
                f[q] = load(one[q])
            one = gates[2 * k + j, p]
            for q in range(n):
                i[q] = load(one[q])
            one = gates[3 * k + j, p]
            for q in range(n):
                g[q] = load(one[q])
            c, dc = before[j, p], d_c[j, y]
            for q in range(n):
                tanh_c[q] = f[q] * c[q]
            for q in range(n):
                tanh_c[q] = tanh(tanh_c[q] + i[q] * g[q])
            for q in range(n):
                dc[q] += dh[q] * o[q] * (_ONE - tanh_c[q] * tanh_c[q])
            for q in range(n):
                o[q] *= (_ONE - o[q]) * tanh_c[q] * dh[q]
            for q in range(n):
                dh[q] = (_ONE - f[q]) * dc[q] * c[q]
            for q in range(n):
                tanh_c[q] = (_ONE - g[q] * g[q]) * i[q] * dc[q]
            for q in range(n):
                i[q] *= (_ONE - i[q]) * dc[q] * g[q]
            for q in range(n):
                dc[q] *= f[q]
            for q in range(n):
                f[q] *= dh[q]
            one, other = gates[j, p], d_pre[j, y - low]
            for q in range(n):
                one[q] = store(o[q], one[q])
            for q in range(n):
                other[q] = one[q]
            one, other = gates[k + j, p], d_pre[k + j, y - low]
            for q in range(n):
                one[q] = store(f[q], one[q])
            for q in range(n):
                other[q] = one[q]
            one, other = gates[2 * k + j, p], d_pre[2 * k + j, y - low]
            for q in range(n):
                one[q] = store(i[q], one[q])
            for q in range(n):
                other[q] = one[q]
            one, other = gates[3 * k + j, p], d_pre[3 * k + j, y - low]
            for q in range(n):
                one[q] = store(tanh_c[q], one[q])
            for q in range(n):
                other[q] = one[q]


@part
def _edge_back(d_near: Raw, taps: NDArray[np.int64], low: int, high: int, past: tuple[int, int], d_edge: Real) -> None:
    """Transpose of _gather where it takes from edge: d_near (taps * k, high - low, n) summed to d_edge."""
    n, k = d_near.shape[2], d_edge.shape[1]
    for t in range(taps.shape[0]):
        for y in range(low, high):
            cell = y + taps[t]
            if not past[0] <= cell < past[1]:
                for j in range(k):
                    of, total = d_near[t * k + j, y - low], np.float32(0)
                    for q in range(n):
                        total += load(of[q])
                    d_edge[cell + taps.shape[0], j] += total


class FusedRecurrence(torch.autograd.Function):
    """Hidden states (k, h * w, n) of one direction from its input-to-state map (4k, h * w, n), of one type.

    w_ss (taps * k, 4k), h0 and c0 (k,), steps: as Recurrence has them. The map must not be used afterwards: its memory
    is.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, w_ss: Tensor, h0: Tensor, c0: Tensor, steps: Steps, places: Places) -> Tensor:
        """See the class."""
        k4, count, n = gates.shape
        k, taps, w = k4 // 4, np.array(steps.taps), w_ss.to(gates.dtype)
        edge = gates.new_zeros(places.length + 2 * len(taps), k)  # states of cells outside, those beyond the ends too
        (edge if steps.learned_outside else edge[len(taps) : -len(taps)]).copy_(h0)
        c = c0[:, None, None].float().repeat(1, places.length, n)
        before, h, real = torch.empty(k, count, n), gates.new_empty(k, count, n), np.empty((4, n), np.float32)
        nears, past = [], (0, 0, 0, 0)
        for s, inside in enumerate(steps.inside):
            near = gates.new_empty(len(taps) * k, inside[1] - inside[0], n)
            _gather(raw(h), raw(edge), taps, *inside, past, raw(near))
            pre = torch.mm(w.t(), near.flatten(1)).view(k4, -1, n)
            _step(raw(gates), raw(pre), *inside, *places.of(s), c.numpy(), before.numpy(), raw(h), real)
            nears.append(near)
            past = (*inside, *places.of(s))
        ctx.save_for_backward(gates, before, w, *nears)
        ctx.steps, ctx.places = steps, places
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Back-propagation through the steps; what cells outside get is summed for the learned state."""
        gates, before, w, *nears = ctx.saved_tensors
        steps, places, gates, grad = ctx.steps, ctx.places, gates.clone(), grad.contiguous()
        k, _, n = before.shape
        taps, real = np.array(steps.taps), np.empty((6, n), np.float32)
        d_c, d_w, later = torch.zeros(k, places.length, n), torch.zeros(w.shape), (0, 0)
        d_edge = torch.zeros(places.length + 2 * len(taps), k)
        d_near = nears[0]  # of no cells yet
        for s, inside in reversed(list(enumerate(steps.inside))):
            d_pre = gates.new_empty(4 * k, inside[1] - inside[0], n)
            (low, high), (place, per_cell) = inside, places.of(s)
            cells = low, high, place, per_cell
            given = raw(grad), raw(d_near), taps, later
            _step_back(raw(gates), *given, *cells, before.numpy(), d_c.numpy(), raw(d_pre), real)
            d_w += torch.mm(nears[s].flatten(1), d_pre.flatten(1).t())
            d_near = torch.mm(w, d_pre.flatten(1)).view(len(taps) * k, -1, n)
            past = steps.inside[s - 1] if s else (0, 0)
            _edge_back(raw(d_near), taps, low, high, past, d_edge.numpy())
            later = inside
        d_h0 = d_edge if steps.learned_outside else d_edge[len(taps) : -len(taps)]  # beyond the ends is 0, not h0
        return gates, d_w, d_h0.sum(0), d_c.sum((1, 2)), None, None
