"""pixzip.codec and pixzip.runtime: decode(encode(p)) == p, the same bytes everywhere, causality, planted faults."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_model import parts, photo, tiny_model

from pixzip import codec, shifts
from pixzip.coding.entropy import read_lanes
from pixzip.errors import FormatError, UsageError
from pixzip.model.file import Model, TrunkNetwork, load_model, write_model
from pixzip.runtime import frozen, kernels
from pixzip.runtime.multiply import HAS_INT8
from pixzip.runtime.trunk import fused, pipeline, progress, steps
from pixzip.runtime.trunk.fused import TAPS
from pixzip.runtime.trunk.layers import Layers

TORCH = importlib.util.find_spec("torch") is not None
ENGINES = ["float32", pytest.param("int8", marks=pytest.mark.skipif(not HAS_INT8, reason="no instructions for it"))]
VARIANTS = ["c", "l", "cl", "lc", "clcl"]

Pixels = NDArray[np.uint8]


def decoded(model: Model, encoded: codec.Encoded, shape: tuple[int, ...], **options: Any) -> Pixels:
    """The pixels of what codec.encode made of pixels of this shape."""
    n, c, h, w = shape
    options = {"engine": "float32"} | options
    return codec.decode(model, encoded.tiles, (n, c, h, w), **encoded.layout, **options)


def law_holds(model: Model, pixels: Pixels, decoders_model: Model | None = None, **options: Any) -> bool:
    """decode(encode(p)) == p; False where other pixels come out or the decoder refuses the payload."""
    encoded = codec.encode(model, pixels, **({"engine": "float32"} | options))
    try:
        return np.array_equal(decoded(decoders_model or model, encoded, pixels.shape), pixels)
    except FormatError:
        return False


# The law.


@st.composite
def pictures(draw: st.DrawFn) -> Pixels:
    """Noise, constants, gradients, two values: (n, c, h, w) with sides of 1 to 20."""
    n, c = draw(st.sampled_from([1, 1, 2, 5])), draw(st.sampled_from([1, 3]))
    h, w = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    shape, seed = (n, c, h, w), draw(st.integers(0, 999))
    random = np.random.default_rng(seed)
    content = draw(st.sampled_from(["noise", "constant", "gradient", "two values", "photo"]))
    if content == "noise":
        return random.integers(0, 256, shape, dtype=np.uint8)
    if content == "constant":
        return np.full(shape, draw(st.sampled_from([0, 1, 127, 128, 255])), dtype=np.uint8)
    if content == "two values":
        return random.choice(np.array([0, 255], dtype=np.uint8), shape)
    if content == "gradient":
        y, x = np.mgrid[:h, :w]
        ramp = draw(st.integers(-9, 9)) * y + draw(st.integers(-9, 9)) * x
        return np.broadcast_to(ramp % 256, shape).astype(np.uint8)
    return photo(seed, shape)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pixels=pictures(),
    blocks=st.sampled_from(VARIANTS),
    extreme=st.booleans(),
    lanes=st.integers(1, 64),
    tile=st.sampled_from([1, 5, 8, 64]),
    threads=st.sampled_from([1, 2]),
    learns=st.booleans(),
)
def test_decode_inverts_encode(
    pixels: Pixels, blocks: str, extreme: bool, lanes: int, tile: int, threads: int, learns: bool
) -> None:
    model, learning = tiny_model(1, blocks, extreme), None if learns else 0
    encoded = codec.encode(model, pixels, tile=tile, lanes=lanes, learning=learning, threads=threads, engine="float32")
    assert np.array_equal(decoded(model, encoded, pixels.shape, threads=threads), pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 300), (300, 1), (2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("blocks", VARIANTS)
def test_decode_inverts_encode_at_mean_sizes(blocks: str, size: tuple[int, int]) -> None:
    random = np.random.default_rng(2)
    assert law_holds(tiny_model(2, blocks), random.integers(0, 256, (1, 3, *size), dtype=np.uint8))
    assert law_holds(tiny_model(2, blocks), photo(2, (1, 1, *size)))


@pytest.mark.parametrize("size", [(64, 96), (96, 41)])
def test_decode_inverts_encode_on_a_larger_picture(size: tuple[int, int]) -> None:
    assert law_holds(tiny_model(3, "clcl"), photo(3, (1, 3, *size)), lanes=7)


def test_decode_inverts_encode_when_the_encoder_splits_a_block() -> None:
    assert law_holds(tiny_model(4), photo(4, (3, 3, 2, 2100)), tile=4096)  # more than 4096 positions a row


def test_pixels_may_lie_in_memory_in_any_order() -> None:
    model, pixels = tiny_model(5), photo(5, (2, 3, 7, 9))
    turned = np.ascontiguousarray(pixels.transpose(3, 2, 1, 0)[::-1])[::-1].transpose(3, 2, 1, 0)
    assert not turned.flags.c_contiguous
    assert codec.encode(model, turned, engine="float32").tiles == codec.encode(model, pixels, engine="float32").tiles


def test_row_bits_are_the_payload_to_a_few_bytes_a_lane() -> None:
    model, pixels = tiny_model(6), photo(6, (1, 3, 20, 20))
    encoded = codec.encode(model, pixels, lanes=4, engine="float32")
    assert 0 <= 8 * len(encoded.tiles[0]) - encoded.row_bits < 4 * 80


# The same bytes and pixels whatever runs beside.


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tile", [16, 64])
def test_engines_and_threads_give_the_same_bytes(engine: str, threads: int, tile: int, extreme: bool) -> None:
    model, pixels = tiny_model(7, "clcl", extreme), photo(7, (1, 3, 9, 17))
    plain = codec.encode(model, pixels, tile=tile, lanes=3, engine="float32", threads=1)
    encoded = codec.encode(model, pixels, tile=tile, lanes=3, engine=engine, threads=threads)
    assert encoded == plain
    assert np.array_equal(decoded(model, encoded, pixels.shape, engine=engine, threads=threads), pixels)


@pytest.mark.skipif(not TORCH, reason="torch is not installed")
@pytest.mark.parametrize("engine", ENGINES)
def test_the_callers_autocast_and_matmul_precision_change_nothing(engine: str) -> None:
    import torch

    model, pixels = tiny_model(8, "clcl"), photo(8, (1, 3, 12, 16))
    plain = codec.encode(model, pixels, lanes=2, engine=engine, threads=1)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
            encoded = codec.encode(model, pixels, lanes=2, engine=engine, threads=1)
            again = decoded(model, encoded, pixels.shape, engine=engine, threads=1)
    finally:
        torch.set_float32_matmul_precision(before)
    assert encoded == plain
    assert np.array_equal(again, pixels)


def test_pictures_are_coded_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.path[:0] = sys.argv[1:]\n"
        "from tiny_model import photo, tiny_model; from pixzip import codec\n"
        "m, p = tiny_model(9), photo(9, (1, 3, 9, 9)); e = codec.encode(m, p)\n"
        "assert (codec.decode(m, e.tiles, p.shape, **e.layout) == p).all()\n"
        "assert e.tiles[0].hex() == sys.stdin.read()"
    )
    model, pixels = tiny_model(9), photo(9, (1, 3, 9, 9))
    expected = codec.encode(model, pixels, engine="float32").tiles[0].hex()
    subprocess.run([sys.executable, "-c", code, *sys.path], input=expected, text=True, check=True, timeout=120)


@pytest.mark.parametrize("n", [2, 5])
def test_a_picture_in_a_block_costs_the_words_it_costs_alone(n: int) -> None:
    """Where nothing is learned: with n lanes, lane i of a block of n pictures holds all rows of picture i, no more."""
    model, pixels = tiny_model(10, "lc"), photo(10, (n, 3, 9, 7))
    together = read_lanes(codec.encode(model, pixels, lanes=n, learning=0, engine="float32").tiles[0], n)
    ends = [*together.start[1:], len(together.words)]
    for i in range(n):
        alone = read_lanes(codec.encode(model, pixels[i : i + 1], lanes=1, learning=0, engine="float32").tiles[0], 1)
        assert np.array_equal(together.words[together.start[i] : ends[i]], alone.words)


def test_a_tile_is_coded_as_a_picture_of_its_own() -> None:
    model, pixels = tiny_model(11), photo(11, (1, 3, 13, 20))
    tiles = codec.encode(model, pixels, tile=8, lanes=2, engine="float32").tiles
    corners = [(y, x) for y in (0, 8) for x in (0, 8, 16)]
    for payload, (y, x) in zip(tiles, corners, strict=True):
        alone = codec.encode(model, pixels[:, :, y : y + 8, x : x + 8], lanes=2, engine="float32")
        assert alone.tiles == (payload,)


# Rows and steps compute the same accumulators.


class Recorder:
    """Notes what Layers.logits returns, in the order of the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[NDArray[np.int64]] = []
        original = Layers.logits

        def logits(layers: Layers, colour: int, errors: NDArray[np.int16]) -> Any:
            acc = original(layers, colour, errors)
            self.calls.append(acc.astype(np.int64))
            return acc

        monkeypatch.setattr(Layers, "logits", logits)

    def by_rows(self, model: Model, pixels: Pixels) -> NDArray[np.int64]:
        """Accumulators (n, h, w, 3, 256) of the encoder's traversal of pixels (n, 3, h, w)."""
        n, _, h, w = pixels.shape
        self.calls.clear()
        frozen.plain_intervals(model.network, "float32", pixels, 3)
        return np.array(self.calls).reshape(h, 3, w, n, 256).transpose(3, 0, 2, 1, 4)


def plain_and_compiled_agree(
    model: Model, pixels: Pixels, engine: str = "float32", threads: int = 1, compiled: Model | None = None
) -> bool:
    """Whether the plain traversal, that of the encoder and that of the decoder see the same frequencies."""
    compiled = compiled or model
    plain = frozen.plain_intervals(model.network, engine, pixels, 3)
    if not np.array_equal(plain, pipeline.intervals(compiled.network, engine, pixels, 3, threads=threads)):
        return False
    n, _, h, w = pixels.shape
    lanes = read_lanes(codec.block_payload(*plain, n, 3, model), 3)
    try:
        return np.array_equal(steps.decode_block(compiled.network, engine, lanes, (n, h, w), 3, None, threads), pixels)
    except FormatError:
        return False


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("blocks", VARIANTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_compiled_traversals_agree_with_the_plain_one(engine: str, blocks: str, extreme: bool) -> None:
    model = tiny_model(12, blocks, extreme)
    for shape, threads in (((1, 3, 11, 7), 1), ((2, 3, 4, 9), 2), ((1, 3, 6, 1), 3), ((3, 3, 1, 5), 2)):
        assert plain_and_compiled_agree(model, photo(12, shape), engine, threads)


@pytest.mark.parametrize("sizes", [{"channels": 40, "hidden": 8, "lstm": 24, "head": 72}, {"channels": 8, "lstm": 64}])
def test_widths_need_not_fill_vectors(sizes: dict[str, int]) -> None:
    assert plain_and_compiled_agree(tiny_model(12, "clc", **sizes), photo(12, (2, 3, 9, 8)), threads=2)


@pytest.mark.parametrize("engine", ENGINES)
def test_steps_and_rows_longer_than_a_chunk(engine: str) -> None:
    pixels = photo(12, (100, 3, 6, 12))  # up to 600 positions a step and 1200 a row; a chunk has 192
    assert plain_and_compiled_agree(tiny_model(12, "lc"), pixels, engine, threads=2)


def test_plain_accumulators_are_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photo(12, (1, 3, 11, 7))
    for blocks in VARIANTS:
        by_rows = Recorder(monkeypatch).by_rows(tiny_model(12, blocks), pixels)
        assert len(np.unique(by_rows.reshape(-1, 256), axis=0)) > pixels.size // 3


# Causality.


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("blocks", VARIANTS)
def test_a_sub_pixel_changes_no_row_up_to_its_own_and_does_change_later_ones(
    blocks: str, extreme: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, model = Recorder(monkeypatch), tiny_model(13, blocks, extreme)
    h, w = 4, 6
    pixels = photo(13, (1, 3, h, w))
    before = recorder.by_rows(model, pixels).reshape(-1, 256)  # raster order, R G B within a pixel
    left, frequency = in_raster_order(model, pixels)
    for j in range(len(before)):
        y, x, c = np.unravel_index(j, (h, w, 3))
        changed = pixels.copy()
        changed[0, c, y, x] ^= 0x95
        after = recorder.by_rows(model, changed).reshape(-1, 256)
        assert np.array_equal(after[: j + 1], before[: j + 1])
        if not extreme and (c, x) != (2, w - 1):  # the first pixel of a row does not see the end of the row above
            assert not np.array_equal(after[j + 1], before[j + 1])
        left_after, frequency_after = in_raster_order(model, changed)
        assert np.array_equal(left_after[:j], left[:j])
        assert np.array_equal(frequency_after[:j], frequency[:j])
        assert left_after[j] != left[j]


def in_raster_order(model: Model, pixels: Pixels) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """(left, f) of all true symbols of one picture."""
    left, frequency = frozen.plain_intervals(model.network, "float32", pixels, 3)  # (h, 3, w)
    return left.transpose(0, 2, 1).reshape(-1), frequency.transpose(0, 2, 1).reshape(-1)


def test_every_input_edge_reaches_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pixels one convolution block sees, found by perturbation, are those of docs/model-format.md."""
    recorder, model = Recorder(monkeypatch), tiny_model(14, "c")
    pixels = photo(14, (1, 3, 9, 15))
    y, x = 6, 7
    before = recorder.by_rows(model, pixels)[0, y, x, 0]
    seen = set()
    for ny in range(y + 1):
        for nx in range(15):
            changed = pixels.copy()
            changed[0, :, ny, nx] ^= 0x95
            if not np.array_equal(recorder.by_rows(model, changed)[0, y, x, 0], before):
                seen.add((ny - y, nx - x))
    taps = {(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0)}
    reach = {-3: (-3, 3), -2: (-3, 3), -1: (-3, 1), 0: (-3, -1)}
    window = {(dy, dx) for dy, (low, high) in reach.items() for dx in range(low, high + 1)}
    allowed = {(ty + dy, tx + dx) for ty, tx in taps for dy, dx in window}
    # Errors look one pixel further than the windows: the predictions of the neighbours read theirs.
    assert window - {(0, -1)} <= seen | {(0, -1)}
    assert seen <= allowed
    assert {(-4, 4), (-4, -4), (0, -4), (-1, 1)} <= seen


# Planted faults: each must break the agreement. The unharmed model is tried first.


def patch_argument(module: Any, function: str, at: int, change: Callable[[Any], Any]) -> Callable[..., None]:
    """A compiled traversal gets one changed argument."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(module, function)

        def changed(*arguments: Any) -> None:
            values = list(arguments)
            values[at] = change(values[at])
            original(*values)

        monkeypatch.setattr(module, function, changed)

    return patch


def right_tap_moved(taps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tap (-1, 1) reads (-1, 2)."""
    assert taps.tolist() == [list(tap) for tap in TAPS]
    return taps + [[0, int((dy, dx) == (-1, 1))] for dy, dx in TAPS]


def patch_kernel(name: str, change: Callable[[list[Any]], None]) -> Callable[[pytest.MonkeyPatch], None]:
    """One kernel gets changed arguments in the plain traversal."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(kernels, name)

        def changed(*arguments: Any) -> None:
            values = list(arguments)
            change(values)
            original(*values)

        monkeypatch.setattr(kernels, name, changed)

    return patch


def rounding_down(at: int, shift_at: int) -> Callable[[list[Any]], None]:
    """Takes half away from the operand at this place, so that the kernel rounds down."""

    def change(values: list[Any]) -> None:
        half = (1 << values[shift_at]) >> 1
        values[at] = (values[at].astype(np.int32) - half).astype(values[at].dtype)

    return change


def next_output(*places: int) -> Callable[[list[Any]], None]:
    """Gives each output the numbers of the output after it."""

    def change(values: list[Any]) -> None:
        for at in places:
            values[at] = np.roll(values[at], -1)

    return change


def swapped(one: int, other: int) -> Callable[[list[Any]], None]:
    """Exchanges two arguments."""

    def change(values: list[Any]) -> None:
        values[one], values[other] = values[other], values[one]

    return change


FAULTS = {
    "mask of the encoder": patch_argument(pipeline, "encode_row", 5, right_tap_moved),
    "mask of the decoder": patch_argument(steps, "code_steps", 7, right_tap_moved),
    "stale edge": patch_argument(steps, "code_steps", 12, lambda ended: 1 << 40),
    "rounding of the input layer": patch_kernel("start_stream", rounding_down(0, 2)),
    "rounding of the stream": patch_kernel("add_stream", rounding_down(0, 2)),
    "rounding of activations": patch_kernel("activate", rounding_down(0, 1)),
    "rounding of hidden layers": patch_kernel("rectify", rounding_down(0, 2)),
    "rounding of known errors": patch_kernel("rectify_known", rounding_down(0, 4)),
    "shifts of the input layer": patch_kernel("start_stream", next_output(2)),
    "shifts of the stream": patch_kernel("add_stream", next_output(2)),
    "shifts of hidden layers": patch_kernel("rectify", next_output(2)),
    "shifts of known errors": patch_kernel("rectify_known", next_output(4)),
}
LSTM_FAULTS = {
    "rounding of gates": patch_kernel("lstm_cell", rounding_down(2, 5)),
    "shifts of gates": patch_kernel("lstm_cell", next_output(2, 5)),
    "left shifts of input-to-state": patch_kernel("lstm_cell", next_output(3)),
    "left shifts of state-to-state": patch_kernel("lstm_cell", next_output(4)),
    "left shifts exchanged": patch_kernel("lstm_cell", swapped(3, 4)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("blocks", ["c", "l", "lc"])
def test_a_planted_fault_breaks_the_law(blocks: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = tiny_model(15, blocks), photo(15, (1, 3, 8, 9))
    assert plain_and_compiled_agree(model, pixels)
    FAULTS[fault](monkeypatch)
    assert not plain_and_compiled_agree(model, pixels)


@pytest.mark.parametrize("fault", LSTM_FAULTS)
@pytest.mark.parametrize("blocks", ["l", "lc"])
def test_a_fault_planted_in_the_lstm_cell_breaks_the_law(
    blocks: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pixels = tiny_model(15, blocks), photo(15, (1, 3, 8, 9))
    LSTM_FAULTS[fault](monkeypatch)
    assert not plain_and_compiled_agree(model, pixels)


@pytest.mark.parametrize("module", [steps, pipeline])
def test_threads_that_do_not_wait_break_the_law(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread reads rows of the other, so either order is wrong; the right one may come about by chance."""
    model, pixels = tiny_model(15, "lc"), photo(15, (1, 3, 64, 64))
    assert plain_and_compiled_agree(model, pixels, threads=2)
    monkeypatch.setattr(module, "counters", lambda count: progress.counters(count) + (1 << 40))
    assert not all(plain_and_compiled_agree(model, pixels, threads=2) for _ in range(20))


@pytest.mark.parametrize(("module", "function"), [(steps, "code_steps"), (pipeline, "encode_row")])
@pytest.mark.parametrize("failing", [0, 1])
def test_a_thread_that_fails_ends_all(
    module: Any, function: str, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pixels = tiny_model(15, "lc"), photo(15, (1, 3, 20, 20))
    learning = 8 if module is steps else 0
    encoded = codec.encode(model, pixels, lanes=2, learning=learning, engine="float32")
    original, main = getattr(module, function), threading.get_ident()

    def fails(*arguments: Any) -> None:
        if (threading.get_ident() == main) == (failing == 0):
            raise MemoryError("no more")
        original(*arguments)

    monkeypatch.setattr(module, function, fails)
    with pytest.raises(MemoryError, match="no more"):
        codec.encode(model, pixels, lanes=2, learning=learning, engine="float32", threads=2)
    if module is steps:
        with pytest.raises(MemoryError, match="no more"):
            decoded(model, encoded, pixels.shape, threads=2)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("lanes", [1, 2, 5, 16])
def test_threads_and_lanes_need_not_divide_each_other(threads: int, lanes: int) -> None:
    assert law_holds(tiny_model(15, "lc"), photo(15, (1, 3, 23, 30)), lanes=lanes, threads=threads)


def test_hidden_layers_use_eight_bits() -> None:
    acc = np.arange(-300, 701, dtype=np.int32)[:, None]
    out, nothing = np.empty(acc.shape, dtype=np.int8), np.zeros(1, dtype=np.int32)
    kernels.rectify(acc, nothing, nothing, out)
    assert np.array_equal(out[:, 0], np.clip(np.arange(-300, 701), 0, 255) - 128)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_each_output_is_shifted_by_its_own_shift(dtype: type) -> None:
    """Kernels against Python integers, at the largest accumulators and all shifts."""
    random = np.random.default_rng(19)
    shift = np.arange(25, dtype=np.int32)
    bias = random.integers(-(2**20), 2**20, 25).astype(np.int32)
    acc = random.integers(-(2**24) + 2**20, 2**24 - 2**20, (40, 25)).astype(dtype)
    x = random.integers(-32767, 32768, acc.shape).astype(np.int16)
    exact = [
        [(int(a) + int(b) + (2**s >> 1)) >> s for a, b, s in zip(row, bias, range(25), strict=True)] for row in acc
    ]
    addend = shifts.addend(bias, shift)
    added, started, hidden = x.copy(), np.empty_like(x), np.empty(x.shape, dtype=np.int8)
    kernels.add_stream(acc, addend, shift, added)
    kernels.start_stream(acc, addend, shift, started)
    kernels.rectify(acc, addend, shift, hidden)
    assert np.array_equal(added, np.clip(np.array(exact) + x, -32767, 32767))
    assert np.array_equal(started, np.clip(exact, -32767, 32767))
    assert np.array_equal(hidden, np.clip(exact, 0, 255) - 128)


def table_changed(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Model:
    """The model of seed 16, with one table changed."""
    config, arrays = parts(16, "lc")
    arrays[name] = change(arrays[name])
    return load_model(write_model(config, arrays), "changed")


def one_entry(index: int, by: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Adds `by` to one entry."""

    def change(table: NDArray[Any]) -> NDArray[Any]:
        table = table.copy()
        table[index] += by
        return table

    return change


@pytest.mark.parametrize("name", ["table.sigmoid", "table.tanh", "table.exp"])
def test_a_table_shifted_by_one_entry_breaks_the_law(name: str) -> None:
    pixels = photo(16, (1, 3, 12, 12))
    assert law_holds(tiny_model(16, "lc"), pixels)
    other = table_changed(name, lambda table: np.concatenate([table[1:], table[-1:]]))
    assert not law_holds(tiny_model(16, "lc"), pixels, other)


@pytest.mark.parametrize(
    ("name", "index", "by"),
    [("table.sigmoid", 0, 40), ("table.sigmoid", 2047, -40), ("table.tanh", 1023, 40), ("table.exp", 0, 1)],
)
def test_one_wrong_table_entry_breaks_the_law(name: str, index: int, by: int) -> None:
    pixels = photo(16, (1, 3, 12, 12))
    assert not law_holds(tiny_model(16, "lc"), pixels, table_changed(name, one_entry(index, by)))


def test_one_wrong_weight_breaks_the_law() -> None:
    config, arrays = parts(16, "lc")
    for name in (name for name in list(arrays) if name.endswith(".weight")):
        weight = arrays[name].copy()
        weight[:, 3] -= np.int8(1)
        other = load_model(write_model(config, arrays | {name: weight}), "changed")
        assert not law_holds(tiny_model(16, "lc"), photo(16, (1, 3, 12, 12)), other), name


# Refusals.


@pytest.mark.parametrize(
    "options", [{"lanes": 0}, {"lanes": 65}, {"lanes": -1}, {"tile": 0}, {"tile": -5}, {"tile": 65536}], ids=str
)
def test_encoder_refuses_options_that_no_header_can_hold(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        codec.encode(tiny_model(17), photo(17, (1, 3, 3, 3)), engine="float32", **options)


def test_decoder_refuses_payloads_with_symbols_left_over_or_missing() -> None:
    model, pixels = tiny_model(17), photo(17, (1, 3, 6, 6))
    payload = codec.encode(model, pixels, lanes=1, engine="float32").tiles[0]
    for shape in ((1, 3, 6, 5), (1, 3, 5, 6), (1, 1, 6, 6)):
        with pytest.raises(FormatError, match="lane 0 ends in state"):
            codec.decode(model, [payload], shape, tile=64, lanes=1, learning=8, engine="float32")


def test_decoder_refuses_another_number_of_tiles() -> None:
    model, pixels = tiny_model(17), photo(17, (1, 3, 6, 6))
    encoded = codec.encode(model, pixels, lanes=1, engine="float32")
    with pytest.raises(FormatError, match="2 tiles, a picture of this size has 1"):
        codec.decode(model, encoded.tiles * 2, pixels.shape, **encoded.layout)


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(st.integers(0, 2**32 - 1), max_size=60),
    lanes=st.integers(1, 3),
    colours=st.sampled_from([1, 3]),
    learning=st.sampled_from([0, 8, 255]),
)
def test_decoder_survives_garbage(words: list[int], lanes: int, colours: int, learning: int) -> None:
    """Random words give FormatError, or pixels that encode to those words."""
    counts = [len(words) // lanes] * (lanes - 1)
    counts.append(len(words) - sum(counts))
    payload = bytes(counts) + np.array(words, dtype="<u4").tobytes()
    model, shape = tiny_model(18, "c"), (1, colours, 3, 3)
    try:
        pixels = codec.decode(model, [payload], shape, tile=64, lanes=lanes, learning=learning, engine="float32")
    except FormatError:
        return
    again = codec.encode(model, pixels, tile=64, lanes=lanes, learning=learning, engine="float32")
    assert again.tiles == (payload,)


def test_a_plan_is_made_once_is_the_callers_own_and_goes_with_its_network() -> None:
    network = load_model(write_model(*parts(3)), "alone").network
    assert isinstance(network, TrunkNetwork)
    one = fused.make_plan(network, "float32")
    before = one.weights.copy(), one.numbers.copy()
    one.weights[:], one.numbers[:] = 1, 1  # as learning.py may
    again = fused.make_plan(network, "float32")
    assert again.products is one.products
    assert all(np.array_equal(a, b) for a, b in zip(before, (again.weights, again.numbers), strict=True))
    gone = weakref.ref(network)
    del network, one, again
    gc.collect()
    assert gone() is None
