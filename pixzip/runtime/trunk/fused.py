"""A frozen network as flat arrays, and its layers on them in compiled code: what both fast traversals execute.

The traversals differ in where neighbours stand (``Where``); everything else of a layer is here. The plain functions of
network.py compute the same, one call a product.
"""

from __future__ import annotations

import platform
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from pixzip import shifts
from pixzip.jit import address, call, inlined, inner, intrinsic
from pixzip.model.checks import Arrays
from pixzip.model.file import TrunkNetwork
from pixzip.runtime import kernels
from pixzip.runtime.multiply import OUTER_BLOCK, SLACK, Packed, pack, padded, product, whole_blocks
from pixzip.shifts import Acc, Ints

#: Positions that go through a layer together; their accumulators and operands stay in the nearest caches.
CHUNK = 192
#: (dy, dx) of the taps, as Where.bases numbers them.
TAPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))
CENTRE = 4
_CONV, _LSTM = 0, 1
# Columns of Plan.products.
_WEIGHTS, _WEIGHTS_END, _INPUTS, _OUTPUTS, _WIDTH, ADDEND, _SHIFT, _LEFT = range(8)
# Plan.places.
_KNOWN, _SIGMOID, _TANH, _EXP, _TOWARD, _END, _HEAD, _FEATURE = range(8)
# Columns of Plan.blocks.
_KIND, _FIRST, _RIGHT, _ORDINAL = range(4)
#: What a profile tells apart, as Scratch.spent numbers it.
PARTS = (
    "products",
    "gather",
    "activations",
    "hidden layers",
    "LSTM cell",
    "residual add",
    "inputs",
    "frequencies",
    "learning",
    "waiting",
    "the rest",
)
PRODUCTS, GATHER, ACTIVATIONS, HIDDEN, CELL, ADD, INPUTS, FREQUENCIES, LEARNING, WAITING, REST = range(11)
#: Bytes that copies may read beyond a map's end.
_BEYOND = 64


class Plan(NamedTuple):
    """A network for compiled code: few arrays, since each one passed on costs time to compile."""

    weights: Packed  # of all products, packed
    numbers: Ints  # addends and shifts of all products, then the tables
    products: NDArray[np.int64]  # (products, 8): where each one's parts begin, and its sizes; in order of execution
    blocks: NDArray[np.int64]  # (blocks, 4): kind, first product, shift of its activation, number among its kind
    places: NDArray[np.int64]  # of the rest in numbers, and single numbers


class Maps(NamedTuple):
    """What later positions read: one row of numbers for each place, by block or by Row LSTM layer."""

    activations: NDArray[np.int8]  # (blocks, places, t)
    states: NDArray[np.int8]  # (layers, places, s)
    cells: NDArray[np.int32]  # (layers, places, s)


class Where(NamedTuple):
    """Places of the neighbours: tap j of position r stands at bases[j] + above[r] for dy = -1, + own[r] for dy = 0."""

    bases: NDArray[np.int64]  # (5,)
    above: NDArray[np.int64]  # (m,)
    own: NDArray[np.int64]  # (m,)


class Scratch(NamedTuple):
    """One thread's space for CHUNK positions."""

    operands: NDArray[np.int8]  # (2, rows * most inputs): what a product reads; the second for hidden layers
    sums: Any  # (3, rows * most inputs or outputs): accumulators of two products, and their operand as float32
    words: NDArray[np.int32]  # (2, space for the gates of a cell, or for the weights of a row)
    stream: NDArray[np.int16]  # (CHUNK, t)
    pairs: NDArray[np.int32]  # (2, space for numbers of CHUNK positions, two in a word): factors of an outer product
    lesson: NDArray[np.int32]  # space for an outer product
    gradient: NDArray[np.int64]  # (t or h,)
    bases: NDArray[np.int64]  # (5,), of Where
    spent: NDArray[np.int64]  # cycles by part; last, when the last part ended


def _letters(network: TrunkNetwork) -> list[list[str]]:
    """Names of each block's products."""
    parts = {"c": ("first", "second"), "l": ("is", "ss", "up")}
    return [[f"block.{i}.{part}" for part in parts[kind]] for i, kind in enumerate(network.blocks)]


def backward_weights(network: TrunkNetwork, colour: int) -> NDArray[np.int8]:
    """A head's last weights (256, h) on one grid, the coarsest: what errors of logits go back through."""
    weight, shift = (network.arrays[f"head.{colour}.logit.{part}"].astype(np.int32) for part in ("weight", "shift"))
    by = (shift - shift.min())[:, None]
    return (shifts.addend(weight, by) >> by).astype(np.int8)


def make_plan(network: TrunkNetwork, engine: str) -> Plan:
    """A network's arrays in the order in which compiled code goes through them.

    Weights and numbers are the plan's own: those of the heads may be changed afterwards (learning.py).
    """
    kept = _PLANS.setdefault(network, {})
    made = kept[engine] if engine in kept else kept.setdefault(engine, _made_plan(network, engine))
    return made._replace(weights=made.weights.copy(), numbers=made.numbers.copy())


#: Plans before anything is learned, as long as their networks live: making one takes milliseconds.
_PLANS: WeakKeyDictionary[TrunkNetwork, dict[str, Plan]] = WeakKeyDictionary()


def _made_plan(network: TrunkNetwork, engine: str) -> Plan:
    back = [backward_weights(network, c) for c in range(3)]
    arrays = network.arrays | {f"head.{c}.back.weight": np.ascontiguousarray(back[c].T) for c in range(3)}
    # Coarse weights are given less 128, as hidden layers are: what that takes from the sums.
    arrays |= {f"head.{c}.back.bias": kernels.HIDDEN_OFFSET * back[c].sum(axis=0, dtype=np.int32) for c in range(3)}
    arrays |= {f"head.{c}.back.shift": np.zeros(network.head, dtype=np.int8) for c in range(3)}
    by_block = _letters(network)
    heads = [f"head.{c}.{part}" for c in range(3) for part in ("hidden", "logit")]
    backward = [f"head.{c}.back" for c in range(3)]
    names = ["input", *(name for names in by_block for name in names), *heads, *backward]
    weights: list[Packed] = []
    numbers: list[Ints] = []
    products = np.zeros((len(names), 8), dtype=np.int64)
    at = used = 0
    for row, name in zip(products, names, strict=True):
        outputs, inputs = arrays[f"{name}.weight"].shape
        weights.append(pack(arrays[f"{name}.weight"], engine))
        numbers += _numbers(arrays, name, outputs)
        row[:] = at, at + len(weights[-1]), inputs, outputs, padded(outputs), used, used + outputs, used + 2 * outputs
        at, used = at + len(weights[-1]), used + 3 * outputs
    blocks = np.zeros((len(by_block), 4), dtype=np.int64)
    for i, kind in enumerate(network.blocks):
        ordinal = network.blocks[:i].count(kind)
        first = names.index(by_block[i][0])
        blocks[i] = _LSTM if kind == "l" else _CONV, first, network.activation_shifts[i], ordinal
    known = np.concatenate([arrays["head.1.known"], arrays["head.2.known"]])  # of G by R, of B by R, of B by G
    tables = [known.reshape(-1), *(arrays[f"table.{name}"] for name in ("sigmoid", "tanh", "exp")), np.zeros(1)]
    tables.append(np.concatenate(back).reshape(-1))
    sizes = [len(known.reshape(-1)), len(tables[1]), len(tables[2]), len(tables[3]) + 1, len(tables[5])]
    places = used + np.cumsum([0, *sizes])
    packed: Any = np.concatenate(weights)
    return Plan(
        packed,
        np.concatenate([*numbers, *tables]).astype(np.int32),
        products,
        blocks,
        np.array([*places, names.index(heads[0]), network.feature_shift], dtype=np.int64),
    )


def _numbers(arrays: Arrays, name: str, outputs: int) -> list[Ints]:
    """Addend, right shift and left shift of a product; zeros where it has none."""
    nothing = np.zeros(outputs, dtype=np.int32)
    left = arrays[f"{name}.left"].astype(np.int32) if f"{name}.left" in arrays else nothing
    if f"{name}.shift" not in arrays:
        return [nothing, nothing, left]
    shift = arrays[f"{name}.shift"].astype(np.int32)
    return [shifts.addend(arrays[f"{name}.bias"], shift), shift, left]


def make_maps(network: TrunkNetwork, places: int) -> Maps:
    """Maps of zeros."""

    def zeros(kinds: str, width: int, dtype: type) -> NDArray[Any]:
        count = sum(network.blocks.count(kind) for kind in kinds)
        size = count * places * width
        return np.zeros(size + _BEYOND, dtype=dtype)[:size].reshape(count, places, width)

    return Maps(
        zeros("cl", network.channels, np.int8), zeros("l", network.lstm, np.int8), zeros("l", network.lstm, np.int32)
    )


def make_scratch(plan: Plan) -> Scratch:
    """Space for the largest product of a network."""
    rows = CHUNK + SLACK
    inputs, width = int(plan.products[:, _INPUTS].max()), int(plan.products[:, _WIDTH].max())
    head = int(plan.products[plan.places[_HEAD], _OUTPUTS])
    widest = max(head, channels(plan))
    dtype = np.float32 if plan.weights.dtype == np.float32 else np.int32
    return Scratch(
        np.zeros((2, rows * inputs + _BEYOND), dtype=np.int8),
        np.zeros((3, rows * max(inputs, width)), dtype=dtype),
        np.zeros((2, max(256, int(plan.products[:, _OUTPUTS].max()))), dtype=np.int32),
        np.zeros((CHUNK, channels(plan)), dtype=np.int16),
        np.zeros((2, CHUNK // 2 * max(256, widest) + OUTER_BLOCK), dtype=np.int32),
        np.zeros(max(256, head) * whole_blocks(widest), dtype=np.int32),
        np.zeros(widest, dtype=np.int64),
        np.zeros(len(TAPS), dtype=np.int64),
        np.zeros(len(PARTS) + 1, dtype=np.int64),
    )


def channels(plan: Plan) -> int:
    """Width of the stream."""
    return int(plan.products[0, _OUTPUTS])


@intrinsic
def _copy(typing: Any, target: Any, source: Any, size: Any) -> Any:
    """Copy size > 0 bytes between addresses, 32 at a time: up to 31 more are read and written behind them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source, size = arguments
        vector, long = ir.VectorType(ir.IntType(8), 32), ir.IntType(64)
        entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        at = builder.phi(long)
        at.add_incoming(ir.Constant(long, 0), entry)
        value = builder.load(builder.inttoptr(builder.add(source, at), vector.as_pointer()), align=1)
        builder.store(value, builder.inttoptr(builder.add(target, at), vector.as_pointer()), align=1)
        following = builder.add(at, ir.Constant(long, 32))
        at.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, size), loop, done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@intrinsic
def _cycles(typing: Any) -> Any:
    """The processor's cycle counter, 0 where programs may not read one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        long = ir.IntType(64)
        if platform.machine() not in ("x86_64", "AMD64"):
            return ir.Constant(long, 0)
        return call(builder, "llvm.readcyclecounter", long, [])

    return types.int64(), generate


@inner
def lap(spent: NDArray[np.int64], part: int) -> None:
    """The time since the last lap, if there was one, went into this part."""
    now = _cycles()
    if spent[-1] != 0:
        spent[part] += now - spent[-1]
    spent[-1] = now


@inner
def _gather(map: NDArray[np.int8], where: Where, first: int, last: int, source: NDArray[np.int8]) -> None:
    """Put taps first .. last - 1 side by side: source (m, (last - first) * width).

    A copy that goes beyond its tap is written over by the next one; behind source there is room for the last.
    """
    width = map.shape[1]
    target, start = address(source), address(map)
    for r in range(where.own.shape[0]):
        for j in range(first, last):
            place = where.bases[j] + (where.above[r] if j < 3 else where.own[r])
            _copy(target, start + place * width, width)
            target += width


@inlined
def multiply(plan: Plan, p: int, source: NDArray[np.int8], rows: int, scratch: Scratch, space: int) -> Acc:
    """Product p of the first rows of source: accumulators (rows, padded outputs), in scratch.sums[space]."""
    parts = plan.products[p]
    acc = scratch.sums[space, : rows * parts[_WIDTH]].reshape(rows, parts[_WIDTH])
    product(source, packed(plan, p), rows, parts[_INPUTS], scratch.sums[2], acc)
    lap(scratch.spent, PRODUCTS)
    return acc


@inlined
def operand(plan: Plan, p: int, rows: int, space: NDArray[np.int8]) -> NDArray[np.int8]:
    """The input of product p in space: (rows, inputs)."""
    inputs = plan.products[p, _INPUTS]
    return space[: rows * inputs].reshape(rows, inputs)


@inlined
def numbers(plan: Plan, p: int, part: int) -> Ints:
    """Addends, right or left shifts of product p: (outputs,)."""
    start = plan.products[p, part]
    return plan.numbers[start : start + plan.products[p, _OUTPUTS]]


@inlined
def table(plan: Plan, which: int) -> Ints:
    """A table of the model."""
    return plan.numbers[plan.places[which] : plan.places[which + 1]]


@inner
def start(plan: Plan, scratch: Scratch, x: NDArray[np.int16]) -> None:
    """Input layer on scratch.operands[0] → the stream x (m, t)."""
    acc = multiply(plan, 0, scratch.operands[0], x.shape[0], scratch, 0)
    kernels.start_stream(acc, numbers(plan, 0, ADDEND), numbers(plan, 0, _SHIFT), x)
    lap(scratch.spent, ADD)


@inner
def block(plan: Plan, b: int, x: NDArray[np.int16], where: Where, maps: Maps, scratch: Scratch) -> None:
    """Run block b on the stream x (m, t) of m positions; their activations, states and cells are written to maps."""
    shift, map = plan.blocks[b, _RIGHT], maps.activations[b]
    for r in range(x.shape[0]):
        kernels.activate_row(x, r, shift, map, where.bases[CENTRE] + where.own[r])
    lap(scratch.spent, ACTIVATIONS)
    p = plan.blocks[b, _FIRST]
    if plan.blocks[b, _KIND] == _CONV:
        _conv(plan, p, x.shape[0], where, map, scratch)
        p += 1
    else:
        layer = plan.blocks[b, _ORDINAL]
        _lstm(plan, p, x.shape[0], where, map, maps.states[layer], maps.cells[layer], scratch)
        p += 2
    acc = multiply(plan, p, scratch.operands[1], x.shape[0], scratch, 0)
    kernels.add_stream(acc, numbers(plan, p, ADDEND), numbers(plan, p, _SHIFT), x)
    lap(scratch.spent, ADD)


@inner
def _conv(plan: Plan, p: int, m: int, where: Where, map: NDArray[np.int8], scratch: Scratch) -> None:
    """Masked-convolution block up to its hidden layer, which is left in scratch.operands[1]."""
    _gather(map, where, 0, 5, scratch.operands[0])
    lap(scratch.spent, GATHER)
    acc = multiply(plan, p, scratch.operands[0], m, scratch, 0)
    hidden = operand(plan, p + 1, m, scratch.operands[1])
    kernels.rectify(acc, numbers(plan, p, ADDEND), numbers(plan, p, _SHIFT), hidden)
    lap(scratch.spent, HIDDEN)


@inner
def _lstm(
    plan: Plan,
    p: int,
    m: int,
    where: Where,
    map: NDArray[np.int8],
    states: NDArray[np.int8],
    cells: NDArray[np.int32],
    scratch: Scratch,
) -> None:
    """Row LSTM layer up to its states, which are left in scratch.operands[1] too."""
    _gather(map, where, 3, 5, scratch.operands[0])
    lap(scratch.spent, GATHER)
    acc_is = multiply(plan, p, scratch.operands[0], m, scratch, 0)
    _gather(states, where, 0, 3, scratch.operands[0])
    lap(scratch.spent, GATHER)
    acc_ss = multiply(plan, p + 1, scratch.operands[0], m, scratch, 1)
    addend, shift = numbers(plan, p, ADDEND), numbers(plan, p, _SHIFT)
    is_left, ss_left = numbers(plan, p, _LEFT), numbers(plan, p + 1, _LEFT)
    sigmoid, tanh = table(plan, _SIGMOID), table(plan, _TANH)
    up = operand(plan, p + 2, m, scratch.operands[1])
    gates, arguments = scratch.words[0], scratch.words[1]
    for r in range(m):
        own, above = where.bases[CENTRE] + where.own[r], where.bases[1] + where.above[r]
        rounding = (addend, is_left, ss_left, shift, sigmoid, tanh)
        kernels.lstm_row(acc_is, acc_ss, r, *rounding, cells, above, cells, own, up, gates, arguments)
        for j in range(up.shape[1]):
            states[own, j] = up[r, j]
    lap(scratch.spent, CELL)


@inner
def features(plan: Plan, x: NDArray[np.int16], out: NDArray[np.int8]) -> None:
    """The stream as the heads' common input: x, out (m, t)."""
    kernels.activate(x, plan.places[_FEATURE], out)


@inlined
def logits(plan: Plan, colour: int, features: NDArray[np.int8], errors: NDArray[np.int16], scratch: Scratch) -> Acc:
    """Last product of a colour head before bias and shift: (m, 256).

    features (m, t), SLACK rows more behind them; errors (3, m): this pixel's coding errors, read for colours before.
    """
    p, m = plan.places[_HEAD] + 2 * colour, features.shape[0]
    acc = multiply(plan, p, features, m, scratch, 0)
    hidden = operand(plan, p + 1, m, scratch.operands[1])
    addend, shift = numbers(plan, p, ADDEND), numbers(plan, p, _SHIFT)
    if colour == 0:
        kernels.rectify(acc, addend, shift, hidden)
    else:
        known = table(plan, _KNOWN).reshape(3, 256, hidden.shape[1])
        kernels.rectify_known(acc, addend, known[colour - 1 : 2 * colour - 1], errors, shift, hidden)
    lap(scratch.spent, HIDDEN)
    return multiply(plan, p + 1, scratch.operands[1], m, scratch, 0)


@inlined
def logit_rounding(plan: Plan, colour: int) -> tuple[Ints, Ints, Ints]:
    """Addend and right shift (256,) of a head's last product, and the table of exp with a 0 behind."""
    p = logit(plan, colour)
    return numbers(plan, p, ADDEND), numbers(plan, p, _SHIFT), table(plan, _EXP)


@inlined
def logit(plan: Plan, colour: int) -> int:
    """Number of a head's last product; its first one is the one before."""
    return plan.places[_HEAD] + 2 * colour + 1


@inlined
def back(plan: Plan, colour: int) -> int:
    """Number of the product that takes a head's logits back to its hidden units."""
    return plan.places[_HEAD] + 6 + colour


@inlined
def backward(plan: Plan, colour: int) -> tuple[Ints, Ints]:
    """What is added to the accumulators of back(), and the weights (256, h) toward each symbol."""
    h = plan.products[plan.places[_HEAD], _OUTPUTS]
    size = 256 * h
    start = plan.places[_TOWARD] + colour * size
    return numbers(plan, back(plan, colour), ADDEND), plan.numbers[start : start + size].reshape(256, h)


@inlined
def packed(plan: Plan, p: int) -> Packed:
    """The weights of product p, as multiply.pack orders them."""
    return plan.weights[plan.products[p, _WEIGHTS] : plan.products[p, _WEIGHTS_END]]


@inlined
def row_space(scratch: Scratch) -> NDArray[np.int32]:
    """Space for the 256 weights of a row."""
    return scratch.words[0]
