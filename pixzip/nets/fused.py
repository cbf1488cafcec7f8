"""Elementwise passes of training on a CPU, fused: LSTM cell, its gradient, softmax with loss and gradient.

Matrix products stay with torch; between them torch would make some ten passes over memory, and these make one. They
read and write float32, or bfloat16 as its 16 bits, and compute in float32. Nothing here reaches a model's integers: the
coding path has its own arithmetic (pixzip.runtime). tests/test_fused.py holds each against torch's operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray
from torch import Tensor

from pixzip.jit import jit

Real = NDArray[np.float32]
#: Float32, or bfloat16 as its bits: compiled functions are made for each, by load and store.
Raw = Any

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Sums may be reordered and products contracted, so that loops become vector instructions; NaN stays NaN.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


def _fast(function: _Function) -> _Function:
    return jit(function, _FAST)


def _inlined(function: _Function) -> _Function:
    """As _fast, and copied into its callers before LLVM sees them.

    A function of its own would be compiled twice, alone and within its caller, with sums in different orders; a process
    that compiles would use one copy and a process that finds the caller in the cache the other.
    """
    return jit(function, _FAST, inline=True)


def part(function: _Function) -> _Function:
    """As _fast, without arrays of its own: counting references to slices would cost more than short loops do.

    In float32 a recurrence of one picture of 28×28 takes a quarter less with it, of eight of 32×32 an eighth less, of
    sixteen of 28×28 as long; the results are the same, bit for bit.
    """
    return jit(function, _FAST, arrays=False)


_HALF, _ONE, _LOG2E = np.float32(0.5), np.float32(1.0), np.float32(1.4426950408889634)
#: 2^x on 0 <= x < 1, least squares of degree 5, relative error below 1e-7.
_E0, _E1, _E2 = np.float32(0.9999999269), np.float32(0.6931529682), np.float32(0.2401545299)
_E3, _E4, _E5 = np.float32(0.05582360446), np.float32(0.008992584031), np.float32(0.001876232945)
#: tanh x = x P(x²) / Q(x²) for |x| < 7.9, the coefficients of Eigen's float tanh.
_CLAMP = np.float32(7.9053111)
_P = tuple(
    np.float32(v)
    for v in (
        4.89352455891786e-03,
        6.37261928875436e-04,
        1.48572235717979e-05,
        5.12229709037114e-08,
        -8.60467152213735e-11,
        2.00018790482477e-13,
        -2.76076847742355e-16,
    )
)
_P1, _P3, _P5, _P7, _P9, _P11, _P13 = _P
_Q0, _Q2 = np.float32(4.89352518554385e-03), np.float32(2.26843463243900e-03)
_Q4, _Q6 = np.float32(1.18534705686654e-04), np.float32(1.19825839466702e-06)


def _bitcast(source: Any, target: Any, llvm: Any) -> Any:
    """A function for compiled code that reads the bits of one 32-bit type as another."""

    def typed(_context: Any, _value: Any) -> Any:
        return target(source), lambda _c, builder, _s, args: builder.bitcast(args[0], llvm)

    return intrinsic(typed)


_as_float = _bitcast(types.uint32, types.float32, ir.FloatType())
_as_bits = _bitcast(types.float32, types.uint32, ir.IntType(32))


def load(value: Any) -> np.float32:
    """Float32 of an element of a Raw array; for compiled code."""
    raise NotImplementedError


def store(value: np.float32, like: Any) -> Any:
    """The element of a Raw array nearest to a float32, ties to even; like: any element of it. For compiled code."""
    raise NotImplementedError


@overload(load, strict=False, inline="always")
def _load(value: Any) -> Callable[[Any], Any]:
    if value == types.uint16:
        return lambda value: _as_float(np.uint32(value) << np.uint32(16))
    return lambda value: value


@overload(store, strict=False, inline="always")
def _store(value: Any, like: Any) -> Callable[[Any, Any], Any]:
    if like != types.uint16:
        return lambda value, like: value

    def nearest(value: Any, like: Any) -> Any:
        bits = _as_bits(value)
        return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    return nearest


@_inlined
def tanh(x: np.float32) -> np.float32:
    """Of a float32, to its precision."""
    x = min(max(x, -_CLAMP), _CLAMP)
    s = x * x
    p = ((((((_P13 * s + _P11) * s + _P9) * s + _P7) * s + _P5) * s + _P3) * s + _P1) * x
    return p / (((_Q6 * s + _Q4) * s + _Q2) * s + _Q0)


@_inlined
def sigmoid(x: np.float32) -> np.float32:
    """Of a float32, to its precision."""
    return tanh(x * _HALF) * _HALF + _HALF


@_inlined
def _exp(x: np.float32) -> np.float32:
    """e^x for x <= 0; 0 below about -87."""
    t = max(x * _LOG2E, np.float32(-126.0))
    whole = np.floor(t)
    f = t - whole
    power = _as_float(np.uint32(np.int32(whole) + np.int32(127)) << np.uint32(23))
    return power * (((((_E5 * f + _E4) * f + _E3) * f + _E2) * f + _E1) * f + _E0)


@_inlined
def _ordered(value: np.float32) -> np.int32:
    """An integer that is the larger the larger a float32 is: LLVM makes vectors of integer maxima only."""
    whole = np.int32(_as_bits(value))
    return whole ^ ((whole >> np.int32(31)) & np.int32(0x7FFFFFFF))


@_inlined
def _from_ordered(whole: np.int32) -> np.float32:
    return _as_float(np.uint32(whole ^ ((whole >> np.int32(31)) & np.int32(0x7FFFFFFF))))


@_fast
def _rectify(out: Raw, bias: Real) -> None:
    """max(out + bias, 0) in place; out (m, k), bias (k,)."""
    m, k = out.shape
    for p in range(m):
        for j in range(k):
            out[p, j] = store(max(load(out[p, j]) + bias[j], np.float32(0.0)), out[p, j])


@_fast
def _rectify_gradient(gradient: Raw, output: Raw, d_bias: Real) -> None:
    """Zero where the output is, in place; what is left is added to d_bias (k,)."""
    m, k = gradient.shape
    nothing = gradient.dtype.type(0)
    for p in range(m):
        for j in range(k):
            gradient[p, j] = gradient[p, j] if output[p, j] != 0 else nothing
        for j in range(k):
            d_bias[j] += load(gradient[p, j])


@_fast
def _add_columns(part: Raw, sums: Real) -> None:
    m, k = part.shape
    for p in range(m):
        for j in range(k):
            sums[j] += load(part[p, j])


@_fast
def _add(part: Raw, sums: Real) -> None:
    m, k = part.shape
    for p in range(m):
        for j in range(k):
            sums[p, j] += load(part[p, j])


@_fast
def _add_bias(out: Raw, bias: Real) -> None:
    m, k = out.shape
    for p in range(m):
        for j in range(k):
            out[p, j] = store(load(out[p, j]) + bias[j], out[p, j])


@_fast
def _add_bias_and_base(out: Raw, bias: Real, base: Raw) -> None:
    m, k = out.shape
    for p in range(m):
        for j in range(k):
            out[p, j] = store(load(out[p, j]) + bias[j] + load(base[p, j]), out[p, j])


@_fast
def _lstm_forward(pre: Raw, bias: Real, width: int, y: int, first: int, cells: Real, h: Raw, gates: Raw) -> None:
    """Equation 3 on row y, whose positions begin at first: pre (m, 4k) + bias (4k,) → cells[y + 1], h, gates.

    cells (rows + 1, m, k); h (size, k); gates (size, 4k) in order o, f, i, g. Every (width + 1)th position is the zero
    column of a FlatMap and gets zeros. Short loops over few arrays: LLVM makes no vector instructions of long ones, for
    fear that the arrays overlap.
    """
    _, m, k = cells.shape
    real = np.empty(4 * k, np.float32)
    o, f, i, g = real[:k], real[k : 2 * k], real[2 * k : 3 * k], real[3 * k :]
    ofi = real[: 3 * k]
    before, after = cells[y], cells[y + 1]
    for p in range(m):
        if p % (width + 1) == width:
            gates[first + p] = 0
            after[p] = 0
            h[first + p] = 0
            continue
        for j in range(4 * k):
            real[j] = load(pre[p, j]) + bias[j]
        for j in range(3 * k):
            ofi[j] = sigmoid(ofi[j])
        for j in range(k):
            g[j] = tanh(g[j])
        for j in range(4 * k):
            gates[first + p, j] = store(real[j], gates[first + p, j])
        for j in range(k):
            i[j] *= g[j]
        for j in range(k):
            i[j] += f[j] * before[p, j]
        for j in range(k):
            after[p, j] = i[j]
        for j in range(k):
            o[j] *= tanh(i[j])
        for j in range(k):
            h[first + p, j] = store(o[j], h[first + p, j])


@_fast
def _lstm_backward(
    gates: Raw, width: int, y: int, first: int, cells: Real, dh: Raw, dc: Real, d_pre: Raw, db: Real
) -> None:
    """Gradient of _lstm_forward: dh (size, k), dc (m, k) → d_pre (m, 4k); dc becomes that of the row above, db grows.

    The zero columns give and take nothing: their dc and d_pre are 0.
    """
    _, m, k = cells.shape
    real = np.empty(4 * k, np.float32)
    tanh_c = np.empty(k, np.float32)
    d = np.empty(k, np.float32)
    before, after = cells[y], cells[y + 1]
    for p in range(m):
        if p % (width + 1) == width:
            d_pre[p] = 0
            dc[p] = 0
            continue
        for j in range(4 * k):
            real[j] = load(gates[first + p, j])
        for j in range(k):
            d[j] = load(dh[first + p, j])
        for j in range(k):
            tanh_c[j] = tanh(after[p, j])
        for j in range(k):
            dc[p, j] += d[j] * real[j] * (_ONE - tanh_c[j] * tanh_c[j])
        for j in range(k):
            tanh_c[j] *= d[j]
        for j in range(k):
            real[j] *= (_ONE - real[j]) * tanh_c[j]
        for j in range(k):
            d[j] = dc[p, j] * real[k + j]
        for j in range(k):
            real[k + j] = d[j] * (_ONE - real[k + j]) * before[p, j]
        for j in range(k):
            i, g, e = real[2 * k + j], real[3 * k + j], dc[p, j]
            real[2 * k + j] = e * g * i * (_ONE - i)
            real[3 * k + j] = e * i * (_ONE - g * g)
        for j in range(k):
            dc[p, j] = d[j]
        for j in range(4 * k):
            db[j] += real[j]
        for j in range(4 * k):
            d_pre[p, j] = store(real[j], d_pre[p, j])


@_inlined
def _row_nats(values: Real, top: np.float32, symbol: int, d_bias: Real, gradient: Raw) -> float:
    """−log softmax of one row of logits at a symbol; its gradient is written, added to d_bias, and left in values."""
    n = values.shape[0]
    true = values[symbol] - top
    total = np.float32(0.0)
    for j in range(n):
        e = _exp(values[j] - top)
        values[j] = e
        total += e
    inverse = _ONE / total
    for j in range(n):
        values[j] *= inverse
    values[symbol] -= _ONE
    for j in range(n):
        d_bias[j] += values[j]
    for j in range(n):
        gradient[j] = store(values[j], gradient[j])
    return np.log(total) - true


@_fast
def _softmax_nats(logits: Raw, bias: Real, symbols: NDArray[np.int64], d_bias: Real) -> float:
    """Sum of −log softmax of logits (m, 256) + bias at the symbols; logits become their gradient, d_bias its sum."""
    m, n = logits.shape
    values = np.empty(n, np.float32)
    nats = 0.0
    for p in range(m):
        top = np.int32(-(2**31))
        for j in range(n):
            values[j] = load(logits[p, j]) + bias[j]
        for j in range(n):
            top = max(top, _ordered(values[j]))
        nats += _row_nats(values, _from_ordered(top), symbols[p], d_bias, logits[p])
    return nats


@_fast
def _integer_softmax_nats(
    logits: NDArray[np.int32], scale: np.float32, symbols: NDArray[np.int64], d_bias: Real, gradient: Raw
) -> float:
    """As _softmax_nats, of integer logits times scale."""
    m, n = logits.shape
    values = np.empty(n, np.float32)
    nats = 0.0
    for p in range(m):
        top = logits[p, 0]
        for j in range(n):
            top = max(top, logits[p, j])
        for j in range(n):
            values[j] = np.float32(logits[p, j]) * scale
        nats += _row_nats(values, np.float32(top) * scale, symbols[p], d_bias, gradient[p])
    return nats


@_fast
def _activated(
    acc_is: NDArray[np.int32],
    acc_ss: NDArray[np.int32],
    scale_is: Real,
    scale_ss: Real,
    bias: Real,
    width: int,
    gates: Raw,
) -> None:
    """Gates (m, 4k) of integer products (m, 4k) times the scales of their outputs (4k,), plus bias (4k,)."""
    m, k4 = gates.shape
    k = k4 // 4
    real = np.empty(k4, np.float32)
    ofi, g = real[: 3 * k], real[3 * k :]
    for p in range(m):
        if p % (width + 1) == width:
            gates[p] = 0
            continue
        for j in range(k4):
            real[j] = np.float32(acc_is[p, j]) * scale_is[j] + bias[j]
        for j in range(k4):
            real[j] += np.float32(acc_ss[p, j]) * scale_ss[j]
        for j in range(3 * k):
            ofi[j] = sigmoid(ofi[j])
        for j in range(k):
            g[j] = tanh(g[j])
        for j in range(k4):
            gates[p, j] = store(real[j], gates[p, j])


@_fast
def _add_taps(into: Raw, first: int, grad: Raw, offsets: NDArray[np.int64]) -> None:
    """Add grad[p, j] (m, taps, c) to into[first + p + offsets[j]] for all p and j; each sum is rounded once."""
    m, c = grad.shape[0], into.shape[1]
    taps = offsets.shape[0]
    real = np.empty(c, np.float32)
    for q in range(offsets.min(), m + offsets.max()):
        to = first + q
        for i in range(c):
            real[i] = load(into[to, i])
        for j in range(taps):
            p = q - offsets[j]
            if 0 <= p < m:
                for i in range(c):
                    real[i] += load(grad[p, j * c + i])
        for i in range(c):
            into[to, i] = store(real[i], into[to, i])


@_fast
def _clear_cut(gradient: Raw, held: NDArray[np.int8]) -> None:
    """Zero where held is at either end of int8."""
    m, k = gradient.shape
    nothing = gradient.dtype.type(0)
    for p in range(m):
        for j in range(k):
            inside = (held[p, j] > -128) & (held[p, j] < 127)
            gradient[p, j] = gradient[p, j] if inside else nothing


def raw(t: Tensor) -> Raw:
    """A float32 tensor as an array, a bfloat16 one as its 16-bit patterns, sharing memory."""
    return t.view(torch.int16).numpy().view(np.uint16) if t.dtype is torch.bfloat16 else t.numpy()


def is_fused(t: Tensor) -> bool:
    """Whether the compiled passes are for a tensor like this one."""
    return t.device.type == "cpu" and t.dtype in (torch.bfloat16, torch.float32)


def lstm_rows(bias: Tensor, width: int, cells: Tensor, h: Tensor, gates: Tensor) -> Callable[[Tensor, int, int], None]:
    """Equation 3 on the rows of a FlatMap, in place: a function of (pre, y, first) for row y, which begins at first.

    It fills cells[y + 1], the row's part of h and of gates, in the order o, f, i, g, from pre (m, 4k), without its bias
    (4k,) float32, and cells[y]; cells (rows + 1, m, k) float32; h (size, k); gates (size, 4k). Every (width + 1)th
    position gets zeros.
    """
    if is_fused(gates):
        fixed, maps = (bias.numpy(), width), (cells.numpy(), raw(h), raw(gates))
        return lambda pre, y, first: _lstm_forward(raw(pre), *fixed, y, first, *maps)

    def row(pre: Tensor, y: int, first: int) -> None:
        m, k = cells.shape[1:]
        pre = pre.float() + bias
        pre[:, : 3 * k].sigmoid_()
        pre[:, 3 * k :].tanh_()
        pre.view(-1, width + 1, 4 * k)[:, width].zero_()  # gates of 0 keep c and h of the zero columns at 0
        o, f, i, g = pre.split(k, dim=1)
        torch.mul(f, cells[y], out=cells[y + 1]).addcmul_(i, g)
        h[first : first + m].copy_(o * cells[y + 1].tanh())
        gates[first : first + m].copy_(pre)

    return row


def lstm_rows_gradient(
    gates: Tensor, width: int, cells: Tensor, dh: Tensor, dc: Tensor, db: Tensor
) -> Callable[[Tensor, int, int], None]:
    """Gradient of lstm_rows, in place: a function of (d_pre, y, first), to be called from the last row to the first.

    It fills d_pre (m, 4k), adds its sum to db (4k,) and makes dc (m, k) float32 that of the row above. gates and cells
    as lstm_rows left them; dh (size, k).
    """
    if is_fused(gates):
        begin, end = (raw(gates), width), (cells.numpy(), raw(dh), dc.numpy())
        sums = db.numpy()
        return lambda d_pre, y, first: _lstm_backward(*begin, y, first, *end, raw(d_pre), sums)

    def row(d_pre: Tensor, y: int, first: int) -> None:
        m, k = dc.shape
        o, f, i, g = gates[first : first + m].float().split(k, dim=1)
        d = dh[first : first + m].float().view(-1, width + 1, k)
        d[:, width] = 0
        d = d.view(-1, k)
        tanh_c = cells[y + 1].tanh()
        dc.addcmul_(d * o, 1 - tanh_c * tanh_c)
        parts = (d * tanh_c * o * (1 - o), dc * cells[y] * f * (1 - f), dc * g * i * (1 - i), dc * i * (1 - g * g))
        dc.mul_(f)
        whole = torch.cat(parts, dim=1)
        db.add_(whole.sum(0))
        d_pre.copy_(whole)

    return row


def softmax_nats(logits: Tensor, bias: Tensor, symbols: Tensor, d_bias: Tensor) -> tuple[float | Tensor, Tensor]:
    """Sum of −log softmax at symbols (m,), and its gradient (m, 256) in the type of logits, whose sum d_bias takes.

    logits (m, 256) without their bias (256,) float32; they may be overwritten.
    """
    if is_fused(logits):
        return _softmax_nats(raw(logits), bias.numpy(), symbols.numpy(), d_bias.numpy()), logits
    target = symbols[:, None]
    log_p = torch.log_softmax(logits.float() + bias, dim=1)
    nats = -log_p.gather(1, target).sum(dtype=torch.float64)
    gradient = log_p.exp_()
    gradient.scatter_add_(1, target, -torch.ones_like(target, dtype=gradient.dtype))
    d_bias += gradient.sum(0)
    return nats, gradient.to(logits.dtype)


def integer_softmax_nats(
    logits: Tensor, scale: float, symbols: Tensor, d_bias: Tensor, dtype: torch.dtype
) -> tuple[float, Tensor]:
    """As softmax_nats, of int32 logits (m, 256) times scale; dtype is the gradient's."""
    gradient = torch.empty(logits.shape, dtype=dtype)
    arrays = logits.numpy(), np.float32(scale), symbols.numpy(), d_bias.numpy(), raw(gradient)
    return _integer_softmax_nats(*arrays), gradient


def integer_gates(
    products: tuple[Tensor, Tensor], scales: tuple[Tensor, Tensor], bias: Tensor, width: int, gates: Tensor
) -> None:
    """Fills gates (m, 4k), in the order o, f, i, g, from two int32 products (m, 4k) on one row of a FlatMap.

    scales and bias (4k,) float32 give the values that the integers stand for. Every (width + 1)th position gets zeros.
    """
    acc_is, acc_ss = (product.numpy() for product in products)
    scale_is, scale_ss = (scale.numpy() for scale in scales)
    _activated(acc_is, acc_ss, scale_is, scale_ss, bias.numpy(), width, raw(gates))


def add_taps(into: Tensor, first: int, grad: Tensor, offsets: tuple[int, ...]) -> None:
    """Add part j of grad (m, taps * c) to rows first + offsets[j], ... of into (size, c), for every tap j, in place.

    Offsets may overlap; rows between them are left as they are. On a CPU a sum over taps is rounded once.
    """
    if is_fused(grad) and into.is_contiguous() and grad.is_contiguous():
        _add_taps(raw(into), first, raw(grad), np.array(offsets))
        return
    for offset, part in zip(offsets, grad.split(into.shape[1], dim=1), strict=True):
        into[first + offset : first + offset + part.shape[0]] += part


def rectify(out: Tensor, bias: Tensor) -> Tensor:
    """max(out + bias, 0), in place; out (m, k), bias (k,) float32."""
    if is_fused(out):
        _rectify(raw(out), bias.numpy())
        return out
    return out.add_(bias).relu_()


def rectify_gradient(gradient: Tensor, output: Tensor, d_bias: Tensor) -> Tensor:
    """gradient (m, k), in place 0 where the rectified output is; its sum is added to d_bias (k,) float32."""
    if is_fused(gradient):
        _rectify_gradient(raw(gradient), raw(output), d_bias.numpy())
        return gradient
    gradient.masked_fill_(output == 0, 0)
    d_bias += gradient.sum(0, dtype=torch.float32)
    return gradient


def add_columns(part: Tensor, sums: Tensor) -> None:
    """sums (k,) float32 += the sums of the columns of part (m, k), in place."""
    if is_fused(part):
        _add_columns(raw(part), sums.numpy())
    else:
        sums += part.sum(0, dtype=torch.float32)


def add_product(sums: Tensor, a: Tensor, b: Tensor) -> None:
    """sums (i, j) float32 += aᵀ b, in place; a (m, i), b (m, j)."""
    if a.dtype is sums.dtype:
        sums.addmm_(a.t(), b)
    elif is_fused(a):
        _add(raw(a.t() @ b), sums.numpy())
    else:
        sums += a.t() @ b


def add_bias(out: Tensor, bias: Tensor, base: Tensor | None) -> None:
    """out (m, k) += bias (k,) float32 + base (m, k), if there is one, in place."""
    if not is_fused(out):
        out += bias.to(out.dtype) if base is None else base + bias.to(out.dtype)
    elif base is None:
        _add_bias(raw(out), bias.numpy())
    else:
        _add_bias_and_base(raw(out), bias.numpy(), raw(base))


def clear_cut(gradient: Tensor, held: Tensor) -> Tensor:
    """gradient (m, k), in place 0 where the hidden layer, int8 held less 128, was cut at 0 or at its top."""
    _clear_cut(raw(gradient), held.numpy())
    return gradient
