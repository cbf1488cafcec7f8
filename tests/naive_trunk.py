"""The trunk as loops over pixels, in float64, written from docs/model-format.md and the paper's equation 3."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
#: (dy, dx) of a convolution block, the pixel itself last.
TAPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))


def naive_conv(x: Array, w1: Any, b1: Any, w2: Any, b2: Any) -> Array:
    """The convolution block, pixel by pixel, in float64: x (h, w, t)."""
    h, w, t = x.shape
    out = np.empty_like(x)
    for y in range(h):
        for xx in range(w):
            taps = []
            for dy, dx in TAPS:
                inside = y + dy >= 0 and 0 <= xx + dx < w
                taps.append(x[y + dy, xx + dx] if inside else np.zeros(t))
            hidden = np.maximum(np.concatenate(taps) @ w1 + b1, 0)
            out[y, xx] = x[y, xx] + hidden @ w2 + b2
    return out


def naive_row_lstm(x: Array, w_is: Any, w_ss: Any, b: Any) -> Array:
    """Equation 3 of the paper, pixel by pixel, in float64: x (h, w, t) → h (h, w, k)."""
    height, width, _ = x.shape
    k = w_ss.shape[1] // 4
    state, cell = np.zeros((height, width, k)), np.zeros((height, width, k))

    def at(a: Array, y: int, xx: int) -> Array:
        return a[y, xx] if y >= 0 and 0 <= xx < width else np.zeros(a.shape[2])

    for y in range(height):
        for xx in range(width):
            i_s = np.concatenate([at(x, y, xx - 1), at(x, y, xx)]) @ w_is
            s_s = np.concatenate([at(state, y - 1, xx + d) for d in (-1, 0, 1)]) @ w_ss
            pre = i_s + s_s + b
            o, f, i = (1 / (1 + np.exp(-pre[j * k : (j + 1) * k])) for j in range(3))
            g = np.tanh(pre[3 * k :])
            cell[y, xx] = f * at(cell, y - 1, xx) + i * g
            state[y, xx] = o * np.tanh(cell[y, xx])
    return state


def naive_logits(model: Any, inputs: Array, known: Array) -> Array:
    """Logits (3, h, w, 256) of a TrunkModel; inputs (h, w, channels) int8, known (h, w, 64) what G and B are given."""
    p = {name: q.detach().double().numpy() for name, q in model.named_parameters()}
    x = inputs / 32 @ p["w_in"] + p["b_in"]
    for i, kind in enumerate(model.config.blocks):
        own = {name.split(".")[2]: q for name, q in p.items() if name.startswith(f"blocks.{i}.")}
        if kind == "c":
            x = naive_conv(x, own["w1"], own["b1"], own["w2"], own["b2"])
        else:
            x = x + naive_row_lstm(x, own["w_is"], own["w_ss"], own["b"]) @ own["w_up"] + own["b_up"]
    logits = []
    for c in range(3):
        own = {name.split(".")[2]: q for name, q in p.items() if name.startswith(f"heads.{c}.")}
        hidden = np.maximum(x @ own["w"] + known[:, :, : 32 * c] @ own["p"] + own["b"], 0)
        logits.append(hidden @ own["v"] + own["c"])
    return np.stack(logits)
