"""int8 activations × int8 weights → exact accumulators, inside compiled functions: one tile of outputs at a time.

Three kinds, told apart by the type of the packed weights. The engine called int8 is the first where the processor has
an instruction for it, else the second:

    int8      quads: four products of bytes are added to each 32-bit sum, without saturation. x86's VNNI multiplies
              unsigned by signed: activations are given 128 more, and the sums start at -128 * sum(w). ARM's dot
              product multiplies signed numbers.
    int16     pairs: two products of 16-bit numbers are added to each 32-bit sum, on any x86-64 (PMADDWD).
    float32   one product; exact, since every sum stays below 2^24 (docs/model-format.md, section 3).

Packed weights of (outputs, inputs), blocks of BLOCK outputs one after another:

    int8      BLOCK int32 starts, then for every 4 inputs BLOCK * 4 bytes, the 4 of one output side by side
    int16     BLOCK int32 zeros, then for every 2 inputs BLOCK * 2 numbers, the 2 of one output side by side
    float32   BLOCK zeros, then for every input BLOCK numbers
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import overload
from numpy.typing import NDArray

from pixzip.jit import address, call, inner, intrinsic, jit


def _features() -> dict[str, bool]:
    """Of the processor that numba compiles for: this one, or the one in NUMBA_CPU_FEATURES."""
    named: str | None = vars(config)["CPU_FEATURES"]
    if named is None:
        return dict(llvmlite.binding.get_host_cpu_features())
    return {word[1:]: word[0] == "+" for word in named.split(",") if word}


#: Beginnings of the names of ARM processors that LLVM knows to have dot products; as features it never lists them.
ARM_DOT = (
    *("apple-m", "ampere", "neoverse-", "cortex-x", "cortex-a55", "cortex-a75", "cortex-a76", "cortex-a77"),
    *("cortex-a78", "cortex-a710", "cortex-a715", "cortex-a720"),
)


def _dot_product() -> bool:
    """Whether numba compiles for an ARM processor with the instruction."""
    name: str = vars(config)["CPU_NAME"] or llvmlite.binding.get_host_cpu_name()
    return _FEATURES.get("dotprod", False) or (_ARM and name.startswith(ARM_DOT))


_FEATURES = _features()
_X86, _ARM = (llvmlite.binding.get_process_triple().startswith(kind) for kind in ("x86_64", ("aarch64", "arm64")))
_AVX512 = all(_FEATURES.get(f, False) for f in ("avx512f", "avx512vl", "avx512bw"))
_VNNI = (_AVX512 and _FEATURES.get("avx512vnni", False)) or _FEATURES.get("avxvnni", False)
_QUADS = _VNNI or _dot_product()
#: Whether this processor has integer instructions for products: the engine called int8.
HAS_INT8 = _QUADS or _X86
#: Packed weights of that engine.
INTEGERS = np.dtype(np.int8 if _QUADS else np.int16)
#: What a sum begins with, times its weights: VNNI's activations are 128 more than they should be.
_START = -128 if _VNNI else 0
#: Numbers of 32 bits in a vector register; outputs of a tile; its rows, so that all its sums stay in registers.
_VECTOR = 16 if _AVX512 else 8 if _FEATURES.get("avx2", False) else 4
BLOCK = 2 * _VECTOR
_ROWS = 12 if _VECTOR == 16 else 4
_FEW_ROWS = 4
#: Rows that a product may read and write beyond those asked for.
SLACK = _ROWS

Packed = NDArray[np.int8] | NDArray[np.int16] | NDArray[np.float32]

_BYTE, _SHORT, _WORD, _LONG = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def padded(outputs: int) -> int:
    """Width of a product's accumulators: outputs rounded up to whole blocks."""
    return -(-outputs // BLOCK) * BLOCK


def pack(weight: NDArray[np.int8], engine: str) -> Packed:
    """Weights (outputs, inputs) as the product reads them; inputs a multiple of 4, one dimension."""
    outputs, inputs = weight.shape
    full = np.zeros((padded(outputs), inputs), dtype=np.int8)
    full[:outputs] = weight
    blocks = full.reshape(-1, BLOCK, inputs)
    if engine == "float32":
        packed = np.zeros((len(blocks), 1 + inputs, BLOCK), dtype=np.float32)
        packed[:, 1:] = blocks.transpose(0, 2, 1)
        return packed.reshape(-1)
    return np.concatenate([_starts(blocks).view(INTEGERS), _side_by_side(blocks)], axis=1).reshape(-1)


def _starts(blocks: NDArray[np.int8]) -> NDArray[np.int32]:
    """What the sums of blocks (n, BLOCK, inputs) begin with: (n, BLOCK)."""
    return (_START * blocks.sum(axis=2, dtype=np.int32)).astype("<i4")


def _side_by_side(blocks: NDArray[np.int8]) -> NDArray[Any]:
    """Blocks (n, BLOCK, inputs) as the instructions read them: (n, inputs * BLOCK)."""
    together = 4 // INTEGERS.itemsize
    parts = blocks.reshape(len(blocks), BLOCK, -1, together).transpose(0, 2, 1, 3)
    return parts.astype(INTEGERS).reshape(len(blocks), -1)


def _dot_quads(builder: Any, total: Any, a: Any, w: Any) -> Any:
    """total + the products of 4 bytes each: x86 a unsigned, w signed; ARM both signed."""
    if _VNNI:
        return call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * _VECTOR}", total.type, [total, a, w])
    kind = ir.VectorType(_BYTE, 4 * _VECTOR)
    bytes_of = [builder.bitcast(x, kind) for x in (a, w)]
    return call(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", total.type, [total, *bytes_of])


def _dot_pairs(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """total + the products of two 16-bit numbers each, signed: vectors of 32-bit words."""
    if _AVX512 and _VNNI:
        return call(builder, "llvm.x86.avx512.vpdpwssd.512", total.type, [total, a, b])
    if _X86:
        name = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}[_VECTOR]
        kind = ir.VectorType(_SHORT, 2 * _VECTOR)
        pair = [builder.bitcast(x, kind) for x in (a, b)]
        return builder.add(total, call(builder, f"llvm.x86.{name}", total.type, pair))
    sixteen = ir.Constant(a.type, [16] * _VECTOR)

    def halves(pair: Any) -> tuple[Any, Any]:
        return builder.ashr(builder.shl(pair, sixteen), sixteen), builder.ashr(pair, sixteen)

    for one, other in zip(halves(a), halves(b), strict=True):
        total = builder.add(total, builder.mul(one, other))
    return total


def _dot_float32(builder: Any, total: Any, a: Any, w: Any) -> Any:
    """total + a * w."""
    return builder.fadd(total, builder.fmul(a, w, flags=("contract",)), flags=("contract",))


#: Each kind's step of a sum, and the type of its sums.
_DOTS: dict[str, tuple[Callable[..., Any], Any]] = {
    "int8": (_dot_quads, _WORD),
    "int16": (_dot_pairs, _WORD),
    "float32": (_dot_float32, ir.FloatType()),
}


def _write_tile(module: Any, rows: int, kind: str) -> Any:
    """A function of a module that computes a tile of sums (rows, BLOCK).

    Its arguments: address and row stride (bytes) of a, address of w, steps, address and row stride of out. It is not
    inlined, so that there is one copy, however many products call it.
    """
    name = f"pixzip_tile_{rows}_{kind}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_LONG] * 6), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    entry, loop, done = (function.append_basic_block() for _ in range(3))
    builder = ir.IRBuilder(entry)
    a, a_stride, w, depth, out, out_stride = function.args
    dot, element = _DOTS[kind]
    vector, size = ir.VectorType(element, _VECTOR), 4 * _VECTOR

    def constant(value: int) -> Any:
        return ir.Constant(_LONG, value)

    def pointer(base: Any, offset: Any, kind: Any) -> Any:
        return builder.inttoptr(builder.add(base, offset), kind.as_pointer())

    starts = [builder.load(pointer(w, constant(j * size), vector), align=4) for j in range(2)]
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_LONG)
    totals = [[builder.phi(vector) for _ in starts] for _ in range(rows)]
    here = builder.add(w, builder.mul(builder.add(k, constant(1)), constant(2 * size)))
    weights = [builder.load(pointer(here, constant(j * size), vector), align=4) for j in range(2)]
    sums = []
    for r in range(rows):
        at = builder.add(builder.mul(a_stride, constant(r)), builder.mul(k, constant(4)))
        one = builder.load(pointer(a, at, element), align=1)
        if kind == "int8" and _VNNI:  # 128 more in each byte
            one = builder.xor(one, ir.Constant(_WORD, 0x80808080))
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), one, ir.Constant(_WORD, 0))
        picks = ir.Constant(ir.VectorType(_WORD, _VECTOR), [0] * _VECTOR)
        spread = builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), picks)
        sums.append([dot(builder, totals[r][j], spread, weights[j]) for j in range(2)])
    following = builder.add(k, constant(1))
    k.add_incoming(constant(0), entry)
    k.add_incoming(following, loop)
    for r in range(rows):
        for j in range(2):
            totals[r][j].add_incoming(starts[j], entry)
            totals[r][j].add_incoming(sums[r][j], loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
    builder.position_at_end(done)
    for r in range(rows):
        row = builder.add(out, builder.mul(out_stride, constant(r)))
        for j in range(2):
            builder.store(sums[r][j], pointer(row, constant(j * size), vector), align=4)
    builder.ret_void()
    return function


def _tile(rows: int, kind: str) -> Any:
    """The function of _write_tile, for compiled callers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.call(_write_tile(builder.module, rows, kind), arguments)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing: Any, a: Any, a_stride: Any, w: Any, depth: Any, out: Any, out_stride: Any) -> Any:
        return types.void(*[types.int64] * 6), generate

    return tile


_int8_tile, _int8_few = _tile(_ROWS, "int8"), _tile(_FEW_ROWS, "int8")
_int16_tile, _int16_few = _tile(_ROWS, "int16"), _tile(_FEW_ROWS, "int16")
_float32_tile, _float32_few = _tile(_ROWS, "float32"), _tile(_FEW_ROWS, "float32")


@inner
def _int8_product(
    source: NDArray[np.int8], weights: NDArray[np.int8], rows: int, inputs: int, real: Any, acc: NDArray[np.int32]
) -> None:
    a, w, out = address(source), address(weights), address(acc)
    depth, width = inputs // 4, acc.shape[1]
    for j in range(0, width, BLOCK):
        r = 0
        while r + _ROWS <= rows:
            _int8_tile(a + r * inputs, inputs, w, depth, out + 4 * (r * width + j), 4 * width)
            r += _ROWS
        while r < rows:
            _int8_few(a + r * inputs, inputs, w, depth, out + 4 * (r * width + j), 4 * width)
            r += _FEW_ROWS
        w += BLOCK * (4 + inputs)


@inner
def _int16_product(
    source: NDArray[np.int8], weights: NDArray[np.int16], rows: int, inputs: int, real: Any, acc: NDArray[np.int32]
) -> None:
    values, wide = source.reshape(-1), real.view(np.int16)
    for i in range(rows * inputs):
        wide[i] = values[i]
    a, w, out = address(real), address(weights), address(acc)
    depth, width = inputs // 2, acc.shape[1]
    for j in range(0, width, BLOCK):
        r = 0
        while r + _ROWS <= rows:
            _int16_tile(a + 2 * r * inputs, 2 * inputs, w, depth, out + 4 * (r * width + j), 4 * width)
            r += _ROWS
        while r < rows:
            _int16_few(a + 2 * r * inputs, 2 * inputs, w, depth, out + 4 * (r * width + j), 4 * width)
            r += _FEW_ROWS
        w += 2 * BLOCK * (2 + inputs)


@inner
def _float32_product(
    source: NDArray[np.int8],
    weights: NDArray[np.float32],
    rows: int,
    inputs: int,
    real: NDArray[np.float32],
    acc: NDArray[np.float32],
) -> None:
    values = source.reshape(-1)
    for i in range(rows * inputs):
        real[i] = values[i]
    a, w, out = address(real), address(weights), address(acc)
    width = acc.shape[1]
    for j in range(0, width, BLOCK):
        r = 0
        while r + _ROWS <= rows:
            _float32_tile(a + 4 * r * inputs, 4 * inputs, w, inputs, out + 4 * (r * width + j), 4 * width)
            r += _ROWS
        while r < rows:
            _float32_few(a + 4 * r * inputs, 4 * inputs, w, inputs, out + 4 * (r * width + j), 4 * width)
            r += _FEW_ROWS
        w += 4 * BLOCK * (1 + inputs)


def product(source: Any, weights: Any, rows: int, inputs: int, real: Any, acc: Any) -> None:
    """acc[:rows] = source[:rows] @ weights.T, for compiled callers.

    source is (rows, inputs) int8, acc (rows, padded outputs) int32, or float32 where the weights are; both have SLACK
    rows more behind them in memory. real: space for (rows + SLACK) * inputs numbers of 32 bits, unused by quads.
    """
    raise TypeError("product is for compiled callers; runtime.engines.multiply for others")


@overload(product)
def _choose_product(source: Any, weights: Any, rows: Any, inputs: Any, real: Any, acc: Any) -> Any:
    chosen = {types.int8: _int8_product, types.int16: _int16_product}.get(weights.dtype, _float32_product)

    def implementation(source: Any, weights: Any, rows: Any, inputs: Any, real: Any, acc: Any) -> None:
        chosen(source, weights, rows, inputs, real, acc)

    return implementation


#: Rows and vectors of a tile of an outer product.
_OUTER_ROWS = 8
_OUTER_VECTORS = 2 if _VECTOR == 16 else 1
#: Columns of an outer product come in multiples of this.
OUTER_BLOCK = _OUTER_VECTORS * _VECTOR


@intrinsic
def _outer_tile(typing: Any, a: Any, a_stride: Any, b: Any, b_stride: Any, depth: Any, out: Any, stride: Any) -> Any:
    """out (_OUTER_ROWS, OUTER_BLOCK) = sum over depth of a[d]ᵀ b[d], pairs of 16-bit numbers as words; bytes apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.call(_write_outer(builder.module), arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


def _write_outer(module: Any) -> Any:
    """A function of a module that computes a tile of an outer product: see _outer_tile."""
    name = "pixzip_outer"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_LONG] * 7), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    entry, loop, done = (function.append_basic_block() for _ in range(3))
    builder = ir.IRBuilder(entry)
    a, a_stride, b, b_stride, depth, out, out_stride = function.args
    vector, size = ir.VectorType(_WORD, _VECTOR), 4 * _VECTOR

    def pointer(base: Any, offset: int, kind: Any) -> Any:
        return builder.inttoptr(builder.add(base, ir.Constant(_LONG, offset)), kind.as_pointer())

    builder.branch(loop)
    builder.position_at_end(loop)
    d, at_a, at_b = (builder.phi(_LONG) for _ in range(3))
    totals = [[builder.phi(vector) for _ in range(_OUTER_VECTORS)] for _ in range(_OUTER_ROWS)]
    columns = [builder.load(pointer(at_b, j * size, vector), align=4) for j in range(_OUTER_VECTORS)]
    undefined, picks = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0] * _VECTOR)
    sums = []
    for r in range(_OUTER_ROWS):
        first = builder.insert_element(undefined, builder.load(pointer(at_a, 4 * r, _WORD), align=4), _zero())
        spread = builder.shuffle_vector(first, undefined, picks)
        sums.append([_dot_pairs(builder, total, spread, c) for total, c in zip(totals[r], columns, strict=True)])
    following = builder.add(d, ir.Constant(_LONG, 1))
    nothing = ir.Constant(vector, [0] * _VECTOR)
    for phi, start, then in (
        (d, ir.Constant(_LONG, 0), following),
        (at_a, a, builder.add(at_a, a_stride)),
        (at_b, b, builder.add(at_b, b_stride)),
    ):
        phi.add_incoming(start, entry)
        phi.add_incoming(then, loop)
    for r in range(_OUTER_ROWS):
        for total, then in zip(totals[r], sums[r], strict=True):
            total.add_incoming(nothing, entry)
            total.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
    builder.position_at_end(done)
    for r in range(_OUTER_ROWS):
        row = builder.add(out, builder.mul(out_stride, ir.Constant(_LONG, r)))
        for j in range(_OUTER_VECTORS):
            builder.store(sums[r][j], pointer(row, j * size, vector), align=4)
    builder.ret_void()
    return function


def _zero() -> Any:
    return ir.Constant(_WORD, 0)


@jit
def whole_blocks(columns: int) -> int:
    """Columns of an outer product rounded up to whole tiles."""
    return -(-columns // OUTER_BLOCK) * OUTER_BLOCK


@inner
def outer(a: NDArray[np.int32], h: int, b: NDArray[np.int32], t: int, depth: int, out: NDArray[np.int32]) -> None:
    """out = sum over depth > 0 rows of aᵀ b, where each word is a pair of 16-bit numbers to be multiplied.

    a (depth * h,) and b (depth * t,) hold rows one after another, b OUTER_BLOCK more; out (h, whole_blocks(t)), h a
    multiple of 8. Columns of out from t on are of no use.
    """
    at_a, at_b, at_out = address(a), address(b), address(out)
    across = out.shape[1]
    for j in range(0, h, _OUTER_ROWS):
        for k in range(0, across, OUTER_BLOCK):
            _outer_tile(at_a + 4 * j, 4 * h, at_b + 4 * k, 4 * t, depth, at_out + 4 * (j * across + k), 4 * across)


@inner
def _store_int8(weights: NDArray[np.int8], output: int, inputs: int, row: NDArray[np.int32]) -> None:
    block, at = output // BLOCK, output % BLOCK
    start = block * BLOCK * (4 + inputs)
    total = np.int32(0)
    for k in range(inputs):
        total += row[k]
    for quad in range(inputs // 4):
        to = start + (quad + 1) * 4 * BLOCK + 4 * at
        for k in range(4):
            weights[to + k] = row[4 * quad + k]
    total *= np.int32(_START)
    for byte in range(4):
        weights[start + 4 * at + byte] = np.int8((total >> np.int32(8 * byte)) & 255)


@inner
def _store_int16(weights: NDArray[np.int16], output: int, inputs: int, row: NDArray[np.int32]) -> None:
    block, at = output // BLOCK, output % BLOCK
    start = block * BLOCK * (2 + inputs)
    for pair in range(inputs // 2):
        to = start + (pair + 1) * 2 * BLOCK + 2 * at
        for k in range(2):
            weights[to + k] = row[2 * pair + k]


@inner
def _store_float32(weights: NDArray[np.float32], output: int, inputs: int, row: NDArray[np.int32]) -> None:
    start = output // BLOCK * BLOCK * (1 + inputs) + output % BLOCK
    for k in range(inputs):
        weights[start + (k + 1) * BLOCK] = row[k]


def store_row(weights: Any, output: int, inputs: int, row: Any) -> None:
    """Replace one output's weights in packed ones by row[:inputs], int32 from -127 to 127; for compiled callers."""
    raise TypeError("store_row is for compiled callers")


@overload(store_row)
def _choose_store(weights: Any, output: Any, inputs: Any, row: Any) -> Any:
    chosen = {types.int8: _store_int8, types.int16: _store_int16}.get(weights.dtype, _store_float32)

    def implementation(weights: Any, output: Any, inputs: Any, row: Any) -> None:
        chosen(weights, output, inputs, row)

    return implementation
