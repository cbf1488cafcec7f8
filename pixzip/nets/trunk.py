"""The default model: one trunk over earlier pixels, three colour heads (docs/model-format.md).

trunk:  inputs → linear → blocks of 'c' (masked convolution) and 'l' (Row LSTM) on a residual stream
heads:  R from the stream; G from the stream and R's coding error; B from the stream and the errors of R and G
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixzip.coding.frame import INPUTS, picture_errors, row_inputs
from pixzip.errors import TrainingError
from pixzip.model.file import MAX_BLOCKS, MAX_WIDTH
from pixzip.nets.flat_map import FlatMap
from pixzip.nets.fused import add_product, rectify, rectify_gradient, softmax_nats
from pixzip.nets.layers import ConvBlock, Linear, RowLstm, zeros

INPUT_SCALE = 1 / 32
#: Positions that go through a head at once on a CPU, whose caches hold so many.
HEAD_CHUNK = 2048
#: Positions that go through a layer or a head at once on another device, where every operation is a launch.
_DEVICE_CHUNK = 1 << 16
#: Sums of -log p over the sub-pixels of a batch: of R, of G, of B.
Nats = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class TrunkConfig:
    """Sizes of a trunk-and-heads model; multiples of 8 so that the int8 engine applies."""

    channels: int = 96
    hidden: int = 128
    lstm: int = 64
    head: int = 96
    blocks: str = "clclc"

    def __post_init__(self) -> None:
        """Refuse sizes that no model file can hold."""
        for name in ("channels", "hidden", "lstm", "head"):
            value = getattr(self, name)
            if not 8 <= value <= MAX_WIDTH or value % 8:
                raise TrainingError(f"{name} {value}: must be a multiple of 8 from 8 to {MAX_WIDTH}")
        if not 1 <= len(self.blocks) <= MAX_BLOCKS or set(self.blocks) - {"c", "l"}:
            raise TrainingError(f"blocks {self.blocks!r}: must be 1 to {MAX_BLOCKS} letters c and l")

    def macs_per_pixel(self) -> int:
        """Multiply-accumulates of one pixel, padding inputs included."""
        t, k, s, h = self.channels, self.hidden, self.lstm, self.head
        conv = 5 * t * k + k * t
        lstm = 2 * t * 4 * s + 3 * s * 4 * s + s * t
        return INPUTS * t + self.blocks.count("c") * conv + self.blocks.count("l") * lstm + 3 * (t * h + h * 256)


@dataclass(frozen=True)
class Batch:
    """inputs (n, h, w, INPUTS) int8 and errors (n, h, w, 3) int16 of n crops."""

    inputs: NDArray[np.int8]
    errors: NDArray[np.int16]


def prepare(crops: NDArray[np.uint8]) -> Batch:
    """(n, h, w, 3) pixels → network inputs and coding errors, each crop as a picture of its own."""
    n, h, w, _ = crops.shape
    inputs = np.empty((n, h, w, INPUTS), dtype=np.int8)
    errors = np.empty((n, 3, h, w), dtype=np.int16)
    for i in range(n):
        planes = np.ascontiguousarray(crops[i].transpose(2, 0, 1))
        picture_errors(planes, errors[i])
        for y in range(h):
            row_inputs(planes, errors[i], y, inputs[i, y])
    return Batch(inputs, np.ascontiguousarray(errors.transpose(0, 2, 3, 1)))


def error_basis() -> Tensor:
    """(256, 32) smooth functions of a coding error clipped to -128..127, row e + 128: what the colour tables span."""
    e = torch.arange(-128, 128, dtype=torch.float64)[:, None]
    scales = torch.tensor([0.5, 1, 2, 4, 8, 16, 32, 64], dtype=torch.float64)
    centres = torch.tensor([-48, -20, -9, -4, 4, 9, 20, 48], dtype=torch.float64)
    columns = [
        e / 32,
        e.abs() / 32,
        torch.asinh(e / 2) / 3,
        torch.asinh(e / 2).abs() / 3,
        torch.tanh(e / scales),
        torch.exp(-((e / scales) ** 2) / 2),
        torch.tanh((e - centres) / (centres.abs() / 3)),
    ]
    basis = torch.cat(columns, dim=1)
    return nn.functional.pad(basis, (0, 32 - basis.shape[1])).float()


def prior_bias() -> Tensor:
    """(256,) log of a heavy-tailed prior over coding errors mod 256, so that training starts near 4 bits/dim."""
    r = torch.arange(256, dtype=torch.float64)
    distance = torch.minimum(r, 256 - r)
    return (-1.6 * torch.log1p((distance / 2.5) ** 2) / 1.3).float()


class HeadLosses(torch.autograd.Function):
    """Sums over positions of -log softmax at the true symbols, by colour; gradients are made in the forward pass."""

    @staticmethod
    def forward(ctx, stream, m, phi, symbols, wanted, *parameters):  # type: ignore[no-untyped-def]
        """stream (size, t), a matrix of the FlatMap m; of its positions phi (n * h * w, j), of which colour c sees the
        first columns, and symbols (n * h * w, 3); returns (3,) float64. wanted: whether gradients are.

        Parameters of R, of G, of B: w (t, h); p (columns seen, h); b (h,); v (h, 256); c (256,).
        """
        x = m.unpack(stream).reshape(-1, stream.shape[1])
        dtype, heads = x.dtype, [parameters[i : i + 5] for i in range(0, len(parameters), 5)]
        seen = [phi[:, : p.shape[0]].contiguous() for _, p, *_ in heads]
        cast = [tuple(q.detach() if q.ndim == 1 else q.to(dtype) for q in head) for head in heads]
        grads = [zeros(x.device, *(q.shape for q in head)) for head in heads]
        dx = torch.empty_like(x)
        totals = torch.zeros(len(heads), dtype=torch.float64, device=x.device)
        chunk = HEAD_CHUNK if x.device.type == "cpu" else _DEVICE_CHUNK
        for lo in range(0, x.shape[0], chunk):
            s = slice(lo, lo + chunk)
            x_s, dx_s = x[s], dx[s]
            for colour, (w, p, b, v, c) in enumerate(cast):
                dw, dp, db, dv, dc = grads[colour]
                hidden = x_s @ w
                if colour:
                    hidden.addmm_(seen[colour][s], p)
                rectify(hidden, b)
                nats, d_logits = softmax_nats(hidden @ v, c, symbols[s, colour], dc)
                totals[colour] += nats
                if not wanted:
                    continue
                add_product(dv, hidden, d_logits)
                d_hidden = rectify_gradient(d_logits @ v.t(), hidden, db)
                add_product(dw, x_s, d_hidden)
                if colour:
                    add_product(dp, seen[colour][s], d_hidden)
                    dx_s.addmm_(d_hidden, w.t())
                else:
                    torch.mm(d_hidden, w.t(), out=dx_s)
        ctx.save_for_backward(dx, *(q for head in grads for q in head))
        ctx.m = m
        return totals

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        """Scale the gradients made in the forward pass, which are those of the sum. Raises ValueError for another."""
        weight = _only(grad)
        dx, *grads = ctx.saved_tensors
        return ctx.m.packed(dx, weight), None, None, None, None, *(g * weight for g in grads)


def _only(weights: Tensor) -> float:
    """The one weight of all colours' losses."""
    first, *others = weights.tolist()
    if any(weight != first and not (math.isnan(weight) and math.isnan(first)) for weight in others):
        raise ValueError(f"weights {[first, *others]} of the colours' losses: must be equal")
    return float(first)


class TrunkModel(nn.Module):
    """Trainable default model; loss() gives nats summed over sub-pixels.

    With ``recompute`` the blocks keep only their inputs for the backward pass, which computes the rest again.
    """

    recompute = False

    def __init__(self, config: TrunkConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        g = torch.Generator().manual_seed(seed)
        t, k, s, h = config.channels, config.hidden, config.lstm, config.head

        def weight(rows: int, columns: int, gain: float = 1.0) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=g) * gain / math.sqrt(rows))

        def bias(columns: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(columns))

        self.w_in, self.b_in = weight(INPUTS, t), bias(t)
        self.blocks = nn.ModuleList()
        for kind in config.blocks:
            if kind == "c":
                parts = {"w1": weight(5 * t, k, 1.4), "b1": bias(k), "w2": weight(k, t, 0.5), "b2": bias(t)}
            else:
                gates = bias(4 * s)
                gates.data[s : 2 * s] = 1.0
                parts = {"w_is": weight(2 * t, 4 * s), "w_ss": weight(3 * s, 4 * s), "b": gates}
                parts |= {"w_up": weight(s, t, 0.5), "b_up": bias(t)}
            self.blocks.append(nn.ParameterDict(parts))
        self.heads = nn.ModuleList()
        for colour in range(3):
            known = nn.Parameter(0.1 * torch.randn(32 * colour, h, generator=g))
            parts = {"w": weight(t, h, 1.4), "b": bias(h), "p": known}
            parts |= {"v": weight(h, 256, 0.3), "c": nn.Parameter(prior_bias())}
            self.heads.append(nn.ParameterDict(parts))
        self.basis: Tensor
        self.register_buffer("basis", error_basis(), persistent=False)

    def block_parts(self) -> list[tuple[str, nn.ParameterDict]]:
        """(kind, parameters) of each block, in order."""
        return [(kind, cast(nn.ParameterDict, p)) for kind, p in zip(self.config.blocks, self.blocks, strict=True)]

    def head_parts(self) -> list[nn.ParameterDict]:
        """Parameters of the heads of R, G and B."""
        return [cast(nn.ParameterDict, p) for p in self.heads]

    def hidden_matrices(self) -> dict[str, int]:
        """Parameters that are matrices between layers, by name; how many matrices stand side by side in each."""
        names = [name for name, _ in self.named_parameters() if name.split(".")[-1] in ("w", "w1", "w2", "w_up")]
        gates = [name for name, _ in self.named_parameters() if name.split(".")[-1] in ("w_is", "w_ss")]
        return dict.fromkeys(names, 1) | dict.fromkeys(gates, 4)

    def _block(self, x: Tensor, kind: str, p: nn.ParameterDict, m: FlatMap) -> Tensor:
        """The stream after one block."""
        if kind == "c":
            return ConvBlock.apply(x, p["w1"], p["b1"], p["w2"], p["b2"], m)
        state, x = RowLstm.apply(x, p["w_is"], p["w_ss"], p["b"], m)
        return Linear.apply(x, state, p["w_up"], p["b_up"], m)

    def stream(self, inputs: Tensor, m: FlatMap, dtype: torch.dtype) -> Tensor:
        """Residual stream after the last block. inputs (n, h, w, INPUTS) int8; result (size, channels)."""
        x = Linear.apply(None, m.pack(inputs, dtype) * INPUT_SCALE, self.w_in, self.b_in, m)
        for kind, p in self.block_parts():
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(self._block, x, kind, p, m, use_reentrant=False)
            else:
                x = self._block(x, kind, p, m)
        return x

    def prepare(self, crops: NDArray[np.uint8]) -> Batch:
        """See Network.prepare. Raises TrainingError for crops of other than three planes."""
        if crops.shape[3] != 3:
            raise TrainingError(f"the trunk codes three planes, the crops have {crops.shape[3]}: set data.planes to 3")
        return prepare(crops)

    def nats(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """See Network.nats."""
        parts = self.loss(torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors), dtype)
        return parts[0] + parts[1] + parts[2]

    def loss(self, inputs: Tensor, errors: Tensor, dtype: torch.dtype) -> Nats:
        """Nats of R, G and B, summed over a batch. inputs (n, h, w, INPUTS) int8; errors (n, h, w, 3) int16."""
        n, h, w, _ = inputs.shape
        device = self.w_in.device
        inputs, errors = inputs.to(device), errors.to(device)
        m = FlatMap(n, h, w) if device.type == "cpu" else FlatMap(n, h, w, _DEVICE_CHUNK)
        stream = self.stream(inputs, m, dtype)
        e = errors.reshape(-1, 3).long()
        symbols = e & 255
        known = e.clamp(-128, 127) + 128
        basis = self.basis.to(dtype)
        phi = torch.cat([basis[known[:, 0]], basis[known[:, 1]]], dim=1)
        parameters = [p[name] for p in self.head_parts() for name in ("w", "p", "b", "v", "c")]
        nats = HeadLosses.apply(stream, m, phi, symbols, torch.is_grad_enabled(), *parameters)
        return nats[0], nats[1], nats[2]
