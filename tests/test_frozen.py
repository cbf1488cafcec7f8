"""Frozen networks of the paper: rows == steps == plain integers, causal to the bit, the law, planted faults."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_decoder import PaperTile, read_model
from tiny_model import photo
from tiny_stack import ARCHITECTURES, stack_model, stack_parts

from pixzip import codec
from pixzip.coding.frame import predict
from pixzip.coding.schedule import first_row, last_row, number_of_steps
from pixzip.errors import FormatError, UsageError
from pixzip.evaluate import plane_bits
from pixzip.model.file import Model, load_model, write_model
from pixzip.model.stack import PLANES, Product, StackNetwork, read_paper
from pixzip.runtime import kernels, maps
from pixzip.runtime.multiply import HAS_INT8
from pixzip.runtime.stack import layers, products, rows, steps
from pixzip.runtime.stack.inputs import picture_inputs
from pixzip.shifts import Ints

ENGINES = ["float32", pytest.param("int8", marks=pytest.mark.skipif(not HAS_INT8, reason="no instructions for it"))]
#: Kinds of pictures, frames and connections; each occurs with every architecture.
KINDS: dict[str, dict[str, Any]] = {
    "rgb": {},
    "rgb residual": {"frame": "residual", "skip": True},
    "rgb plain": {"residual": False},
    "gray": {"pictures": "gray", "skip": True, "residual": False},
    "gray residual": {"pictures": "gray", "frame": "residual"},
    "binary": {"pictures": "binary"},
}

Pixels = NDArray[np.uint8]


def pixels_for(kind: str, shape: tuple[int, int, int], seed: int = 1) -> Pixels:
    """Pictures (n, planes, h, w) of a kind."""
    pictures = KINDS[kind].get("pictures", "rgb")
    n, h, w = shape
    pixels = photo(seed, (n, PLANES[pictures], h, w))
    return np.random.default_rng(seed).integers(0, 2, pixels.shape, np.uint8) if pictures == "binary" else pixels


def depth_of(kind: str) -> int:
    return 1 if kind == "binary" else 8


def by_rows(network: StackNetwork, pixels: Pixels, engine: str = "float32") -> NDArray[np.int64]:
    """Accumulators (n, h, w, planes, logits) of the encoder's traversal."""
    n, planes, h, w = pixels.shape
    seen: list[Ints] = []
    rows.traverse(network, engine, pixels, planes, lambda y, colour, acc, symbols: seen.append(acc.copy()))
    return np.array(seen).astype(np.int64).reshape(h, planes, w, n, -1).transpose(3, 0, 2, 1, 4)


def by_steps(network: StackNetwork, pixels: Pixels, engine: str = "float32") -> NDArray[np.int64]:
    """The same of the decoder's, which is told the symbols; it must arrive at the pixels."""
    n, planes, h, w = pixels.shape
    slope, symbols = network.slope_at(w), picture_inputs(network, pixels)[1]
    out = np.full((n, h, w, planes, network.outputs // planes), np.iinfo(np.int64).min)

    def take(step: int, first: int, colour: int, acc: Ints) -> NDArray[np.int16]:
        y, i = np.divmod(first + np.arange(len(acc)), n)
        out[i, y, step - slope * y, colour] = acc
        return symbols[i, colour, y, step - slope * y]

    assert np.array_equal(steps.traverse(network, engine, (n, h, w), planes, take), pixels)
    assert out.min() > np.iinfo(np.int64).min  # every sub-pixel had its turn
    return out


def by_loops(model: Model, pixels: Pixels) -> NDArray[np.int64]:
    """Logits (n, h, w, planes, logits) in plain Python integers, written from docs/model-format.md."""
    n, planes, h, w = pixels.shape
    integers = read_model(model.data)
    symbols = picture_inputs(model.network, pixels)[1]
    out = np.empty((n, h, w, planes, model.network.outputs // planes), dtype=np.int64)
    for i in range(n):
        tile = PaperTile(integers, h, w)
        for y, x, colour in np.ndindex(h, w, planes):
            out[i, y, x, colour] = tile.logits(colour, y, x)
            tile.set_value(colour, y, x, int(symbols[i, colour, y, x]), gray=False)
    return out


def logits(network: StackNetwork, accumulators: NDArray[np.int64]) -> NDArray[np.int64]:
    """Accumulators → logits, both (..., planes, logits)."""
    shift = network.arrays["head.last.shift"].astype(np.int64).reshape(network.planes, -1)
    bias = network.arrays["head.last.bias"].astype(np.int64).reshape(network.planes, -1)
    return accumulators + bias + (1 << shift >> 1) >> shift


# Rows, steps and plain loops.


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_and_steps_and_loops_compute_the_same(architecture: str, kind: str, extreme: bool) -> None:
    model = stack_model(architecture, 3, extreme, **KINDS[kind])
    pixels = pixels_for(kind, (1, 4, 6))
    found = by_rows(model.network, pixels)
    assert np.array_equal(found, by_steps(model.network, pixels))
    assert np.array_equal(logits(model.network, found), by_loops(model, pixels))
    distinct = len(np.unique(found.reshape(-1, found.shape[-1]), axis=0))
    assert distinct > found[..., 0].size // 8  # the network is alive


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (1, 9, 1), (3, 2, 2), (2, 7, 3), (2, 3, 13), (5, 5, 5)])
@pytest.mark.parametrize("kind", ["rgb residual", "gray", "binary"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_and_steps_agree_at_every_size(architecture: str, kind: str, shape: tuple[int, int, int]) -> None:
    network, pixels = stack_model(architecture, 4, **KINDS[kind]).network, pixels_for(kind, shape)
    assert np.array_equal(by_rows(network, pixels), by_steps(network, pixels))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_layer_and_five_agree_with_loops(architecture: str) -> None:
    for count in (1, 5):
        model = stack_model(architecture, 5, layers=count, h=3, head=3)
        pixels = pixels_for("rgb", (1, 5, 4))
        assert np.array_equal(logits(model.network, by_steps(model.network, pixels)), by_loops(model, pixels))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pictures_of_a_batch_do_not_mix(architecture: str) -> None:
    network, pixels = stack_model(architecture, 6).network, pixels_for("rgb", (3, 5, 6))
    together = by_steps(network, pixels)
    for i in range(3):
        assert np.array_equal(together[i : i + 1], by_rows(network, pixels[i : i + 1]))


@pytest.mark.skipif(not HAS_INT8, reason="no instructions for it")
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_engines_agree(architecture: str, extreme: bool) -> None:
    network, pixels = stack_model(architecture, 7, extreme).network, pixels_for("rgb", (2, 5, 6))
    expected = by_rows(network, pixels)
    assert np.array_equal(by_rows(network, pixels, "int8"), expected)
    assert np.array_equal(by_steps(network, pixels, "int8"), expected)


# Wide products.


@pytest.mark.parametrize("inputs", [1024, 1100, 2048, 4096])
def test_a_product_beyond_float32_is_exact(inputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights 127 and all inputs near 127: the sum passes 2^24, where float32 has even integers only."""
    network = one_product_network(inputs, np.full((3, inputs), 127, dtype=np.int8))
    product = Product("wide", inputs, 3, "all")
    features = np.full((40, inputs), 127, dtype=np.int8)
    features[np.arange(40), np.arange(40)] = np.arange(40)  # odd and even sums
    expected = features.astype(np.int64) @ network.arrays["wide.weight"].T.astype(np.int64)
    assert (expected.max() >= 1 << 24) == (inputs > 1040)
    assert np.array_equal(multiplied(network, product, features), expected)
    monkeypatch.setattr(products, "exact_pieces", lambda weight, largest: [slice(0, weight.shape[1])])
    assert np.array_equal(multiplied(network, product, features), expected) == (inputs <= 1040)


def one_product_network(inputs: int, weight: NDArray[np.int8]) -> StackNetwork:
    arrays = {"wide.weight": weight, "wide.shift": np.zeros(3, np.int8), "wide.bias": np.zeros(3, np.int32)}
    return StackNetwork("row_lstm", "gray", "raw", 1, inputs, 3, True, False, arrays=arrays)


def multiplied(network: StackNetwork, product: Product, features: NDArray[np.int8]) -> Ints:
    part = products.PartProduct(network, product, (0, 1), "float32", len(features), products.Buffers())
    return part(own=features).copy()


def test_pieces_of_a_product_are_exact_and_whole() -> None:
    weight = np.random.default_rng(8).choice(np.array([-127, 127, 1], dtype=np.int8), (5, 5000))
    pieces = products.exact_pieces(weight, 254)
    assert [p.start for p in pieces[1:]] == [p.stop for p in pieces[:-1]]
    assert (pieces[0].start, pieces[-1].stop) == (0, 5000)
    reach = [254 * np.abs(weight[:, p].astype(int)).sum(axis=1).max() for p in pieces]
    assert max(reach) < 1 << 24 <= min(reach[:-1]) + 254 * 127


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_coding_needs_no_torch(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    model, pixels = stack_model(architecture, 3), pixels_for("rgb", (3, 5, 6))
    coded = codec.encode(model, pixels, lanes=2)
    again = codec.decode(model, coded.tiles, pixels.shape, **coded.layout)
    assert np.array_equal(again, pixels)


def wide_model(h: int) -> Model:
    """A Row LSTM of one layer whose input-to-state sums pass 2^24 and count to the last unit.

    All but 2 features of its input are 127 or -127 whatever the picture, all weights of those 127 or -127 of the same
    signs; the gates' biases take off what they add up to, and the shifts behind them are such that a unit is felt.
    """
    config, arrays = stack_parts("row_lstm", 9, pictures="gray", layers=1, h=h, head=8)
    random = np.random.default_rng(h)
    sign = random.choice([-1, 1], 2 * h)
    fixed = np.arange(2 * h) >= 2
    arrays["first.weight"][fixed], arrays["first.shift"][fixed] = 0, 0
    arrays["first.bias"][fixed] = 32767 * sign[fixed]
    weight = random.integers(-1, 2, (4 * h, 2, 2 * h))
    weight[:, :, fixed] = 127 * sign[fixed]
    arrays["layer.0.is.weight"] = weight.reshape(4 * h, 4 * h).astype(np.int8)
    arrays["layer.0.is.bias"][:] = (-127 * 127 * 2 * fixed.sum() << 4) + random.integers(-999, 1000, 4 * h)
    arrays["layer.0.ss.weight"] = (random.random((4 * h, 3 * h)) < 0.002).astype(np.int8)
    for name, value in (("is.shift", 0), ("is.left", 4), ("ss.left", 0)):
        arrays[f"layer.0.{name}"][:] = value
    arrays["layer.0.up.shift"] -= 4
    config["shifts"]["head"] = 0
    return load_model(write_model(config, arrays), f"wide-{h}")


@pytest.mark.parametrize("h", [384, 512])
def test_the_papers_widest_layers_are_exact(h: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = wide_model(h), pixels_for("gray", (1, 2, 3))
    assert 127 * 127 * 4 * h > 1 << 24
    expected = by_loops(model, pixels)
    for engine in ["float32", *(["int8"] if HAS_INT8 else [])]:
        assert np.array_equal(logits(model.network, by_rows(model.network, pixels, engine)), expected)
        assert np.array_equal(logits(model.network, by_steps(model.network, pixels, engine)), expected)
    monkeypatch.setattr(products, "exact_pieces", lambda weight, largest: [slice(0, weight.shape[1])])
    assert not np.array_equal(logits(model.network, by_rows(model.network, pixels)), expected)


def copied(network: StackNetwork, arrays: dict[str, Any]) -> Any:
    """A network's fields with other arrays, unchecked."""
    names = [f for f in StackNetwork.__dataclass_fields__ if f != "arrays"]
    return {name: getattr(network, name) for name in names} | {"arrays": arrays}


# Order.


@pytest.mark.parametrize("width", [1, 2, 4, 5, 40])
def test_slopes_follow_from_the_edges(width: int) -> None:
    assert stack_model("pixelcnn").network.slope_at(width) == 4
    assert stack_model("row_lstm").network.slope_at(width) == 4
    assert stack_model("diagonal_bilstm").network.slope_at(width) == max(4, width)


def test_an_edge_that_looks_ahead_is_refused() -> None:
    class LooksAhead(StackNetwork):
        def _products(self) -> Any:
            yield Product("first", 3, 10, "A", ((-1, 0), (0, 1)))

    with pytest.raises(ValueError, match="looks ahead"):
        LooksAhead("pixelcnn", "rgb", "raw", 1, 5, 5, True, False).slope_at(9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_reads_finished_steps_only(architecture: str) -> None:
    """Every edge leads to an earlier step, and a slope smaller by one would not do."""
    network, h, w = stack_model(architecture).network, 5, 9
    slope = network.slope_at(w)
    for s, right in ((slope, True), (slope - 1, False)):
        assert all(s * dy + k < 0 for dy, k in network.edges(w)) == right
    pixels = sum(
        last_row(t, h, slope) - first_row(t, w, slope) + 1
        for t in range(number_of_steps(h, w, slope))
        if last_row(t, h, slope) >= first_row(t, w, slope)
    )
    assert pixels == h * w


# Causality.


def seen_by_coder(network: StackNetwork, pixels: Pixels) -> NDArray[np.int64]:
    """Of each sub-pixel of one picture, in order: its prediction and its logits."""
    found = logits(network, by_rows(network, pixels))[0]  # (h, w, planes, logits)
    predictions = np.zeros((*found.shape[:3], 1), dtype=np.int64)
    if network.frame == "residual":
        for y, x, c in np.ndindex(found.shape[:3]):
            predictions[y, x, c] = predict(pixels[0], c, y, x)
    both = np.concatenate([predictions, found], axis=3)
    return both.reshape(-1, both.shape[-1])


def leaks(network: StackNetwork, pixels: Pixels) -> tuple[int, int]:
    """Change each sub-pixel j: how often a prediction or logit of i <= j changes, and how often one of i > j."""
    _, planes, h, w = pixels.shape
    before = seen_by_coder(network, pixels)
    early = late = 0
    for j, (y, x, c) in enumerate(np.ndindex(h, w, planes)):
        changed = pixels.copy()
        changed[0, c, y, x] ^= 1 if network.pictures == "binary" else 0x95
        differs = (seen_by_coder(network, changed) != before).any(axis=1)
        early, late = early + int(differs[: j + 1].sum()), late + int(differs[j + 1 :].sum())
    return early, late


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_sub_pixel_changes_nothing_up_to_its_own(architecture: str, kind: str, extreme: bool) -> None:
    network = stack_model(architecture, 10, extreme, **KINDS[kind]).network
    early, late = leaks(network, pixels_for(kind, (1, 4, 5), seed=10))
    assert early == 0
    assert extreme or late > 60


@pytest.mark.parametrize(("layers", "seed"), [(1, 21), (3, 22), (5, 23)])
@pytest.mark.parametrize("kind", ["rgb", "rgb residual"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nor_at_other_depths(architecture: str, kind: str, layers: int, seed: int) -> None:
    network = stack_model(architecture, seed, **{"layers": layers, "h": 7} | KINDS[kind]).network
    early, late = leaks(network, pixels_for(kind, (1, 3, 5), seed))
    assert early == 0 and late > 60


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_green_sees_red_and_blue_sees_both(architecture: str) -> None:
    network, pixels = stack_model(architecture, 11).network, pixels_for("rgb", (1, 3, 4))
    before = by_rows(network, pixels)[0, 1, 2]
    for colour in range(3):
        changed = pixels.copy()
        changed[0, colour, 1, 2] ^= 0x95
        differs = (by_rows(network, changed)[0, 1, 2] != before).any(axis=1)
        assert differs.tolist() == [colour < later for later in range(3)]


def test_fields_are_those_of_the_paper() -> None:
    """One layer: PixelCNN a neighbourhood, Row LSTM a triangle, Diagonal BiLSTM everything above and left."""
    for architecture in ARCHITECTURES:
        network = stack_model(architecture, 12, pictures="gray", layers=1, h=8, head=8).network
        pixels = pixels_for("gray", (1, 8, 15), seed=12)
        target, seen = (6, 7), set()
        before = by_rows(network, pixels)[0][target]
        for y, x in np.ndindex(8, 15):
            changed = pixels.copy()
            changed[0, 0, y, x] ^= 0x95
            if not np.array_equal(by_rows(network, changed)[0][target], before):
                seen.add((y - target[0], x - target[1]))
        window = {(dy, dx) for dy in range(-3, 1) for dx in range(-3, 4) if (dy, dx) < (0, 0)}
        reached = {
            "pixelcnn": {(0, 0), (0, -1), (-1, -1), (-1, 0), (-1, 1)},
            "row_lstm": {(-d, dx) for d in range(7) for dx in range(-d - 1, d + 1)},
            "diagonal_bilstm": {(dy, dx) for dy in range(-6, 1) for dx in range(-7, 8) if (dy, dx) <= (0, 0)},
        }[architecture]
        field = {(a + c, b + d) for a, b in reached for c, d in window}
        inside = {(dy, dx) for dy, dx in field if dy >= -6 and -7 <= dx <= 7}
        assert seen <= inside
        assert len(seen) > 0.8 * len(inside)  # distant cells may not reach an integer


# The law.


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    architecture=st.sampled_from(ARCHITECTURES),
    kind=st.sampled_from(list(KINDS)),
    extreme=st.booleans(),
    n=st.sampled_from([1, 1, 2, 5]),
    h=st.integers(1, 13),
    w=st.integers(1, 13),
    content=st.sampled_from(["noise", "constant", "photo"]),
    lanes=st.integers(1, 64),
    tile=st.sampled_from([1, 5, 8, 64]),
    engine=st.sampled_from(["float32", "int8"] if HAS_INT8 else ["float32"]),
    threads=st.sampled_from([1, 2]),
)
def test_decode_inverts_encode(
    architecture: str,
    kind: str,
    extreme: bool,
    n: int,
    h: int,
    w: int,
    content: str,
    lanes: int,
    tile: int,
    engine: str,
    threads: int,
) -> None:
    model = stack_model(architecture, 13, extreme, **KINDS[kind])
    pixels = pixels_for(kind, (n, h, w), seed=h * w)
    if content == "noise":
        pixels = np.random.default_rng(w).integers(0, 1 << depth_of(kind), pixels.shape, np.uint8)
    if content == "constant":
        pixels[:] = (1 << depth_of(kind)) - 1
    options = {"depth": depth_of(kind), "lanes": lanes, "tile": tile, "threads": threads}
    encoded = codec.encode(model, pixels, engine=engine, **options)
    assert encoded.tiles == codec.encode(model, pixels, engine="float32", **options).tiles
    n, c, h, w = pixels.shape
    assert np.array_equal(
        codec.decode(model, encoded.tiles, (n, c, h, w), engine=engine, **options, learning=0), pixels
    )


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("sure_of", [-(2**20), -1000, 1000, 2**20])
def test_a_binary_model_may_be_sure(sure_of: int, value: int) -> None:
    """One symbol has all but 1 of 2^24, rightly or wrongly."""
    config, arrays = stack_parts("pixelcnn", 19, pictures="binary")
    arrays["head.last.weight"][:], arrays["head.last.shift"][:], arrays["head.last.bias"][:] = 0, 0, sure_of
    model = load_model(write_model(config, arrays), "sure")
    pixels = np.full((1, 1, 9, 8), value, dtype=np.uint8)
    pixels[0, 0, 4, 4] ^= 1
    encoded = codec.encode(model, pixels, depth=1, lanes=2, engine="float32")
    options = {"depth": 1, "engine": "float32"} | encoded.layout
    assert np.array_equal(codec.decode(model, encoded.tiles, (1, 1, 9, 8), **options), pixels)


@pytest.mark.parametrize("kind", ["rgb", "rgb residual"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_network_for_colours_codes_gray_pictures(architecture: str, kind: str) -> None:
    model, pixels = stack_model(architecture, 14, **KINDS[kind]), photo(14, (2, 1, 6, 7))
    encoded = codec.encode(model, pixels, lanes=2, engine="float32")
    again = codec.decode(model, encoded.tiles, (2, 1, 6, 7), **encoded.layout, engine="float32")
    assert np.array_equal(again, pixels)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tile_is_coded_as_a_picture_of_its_own(architecture: str) -> None:
    model, pixels = stack_model(architecture, 15), photo(15, (1, 3, 9, 14))
    tiles = codec.encode(model, pixels, tile=6, lanes=2, engine="float32").tiles
    corners = [(y, x) for y in (0, 6) for x in (0, 6, 12)]
    for payload, (y, x) in zip(tiles, corners, strict=True):
        assert codec.encode(model, pixels[:, :, y : y + 6, x : x + 6], lanes=2, engine="float32").tiles == (payload,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_payload_bits_are_row_bits_and_row_bits_are_model_bits(architecture: str, kind: str) -> None:
    model, pixels = stack_model(architecture, 16, **KINDS[kind]), pixels_for(kind, (1, 20, 20))
    pixels = np.random.default_rng(16).integers(0, 1 << depth_of(kind), pixels.shape, np.uint8)
    encoded = codec.encode(model, pixels, depth=depth_of(kind), lanes=2, engine="float32")
    assert 0 <= 8 * len(encoded.tiles[0]) - encoded.row_bits < 2 * 80
    expected = plane_bits(model, pixels).sum()
    # a row gives each symbol at least 2^-24: where the model is sure of another, that is less than the model's bits
    assert expected * 0.9 < encoded.row_bits < expected * 1.01 + 1


def test_a_binary_row_is_the_sigmoid_of_its_logit() -> None:
    from tiny_model import tables

    from pixzip.coding.frequencies import binary_bits, binary_intervals

    values = np.array([-5000, -1024, -640, -64, -1, 0, 1, 33, 640, 1023, 1024, 5000], dtype=np.int32)[:, None]
    zeros = np.zeros(1, dtype=np.int32)
    for symbol in (0, 1):
        left, f, bits = np.zeros(12, np.uint32), np.zeros(12, np.uint32), np.zeros(12)
        symbols = np.full(12, symbol, dtype=np.int16)
        binary_intervals(values, zeros, zeros, tables()["table.exp"], symbols, left, f)
        binary_bits(values, zeros, zeros, symbols, bits)
        p = 1 / (1 + np.exp(-(2 * symbol - 1) * values[:, 0] / 64))
        assert np.allclose(bits, -np.log2(p), atol=1e-9)
        assert np.abs(f / 2**24 - p).max() < 4e-7
        assert np.array_equal(left, np.zeros(12) if symbol == 0 else 2**24 - f.astype(np.int64))
        assert f.min() >= 1


# Pictures of another kind.


def test_pictures_of_another_kind_are_refused() -> None:
    gray, binary = (stack_model("pixelcnn", 1, **KINDS[kind]) for kind in ("gray", "binary"))
    colour = photo(1, (1, 3, 4, 4))
    for model, pixels, depth in ((gray, colour, 8), (binary, colour, 8), (binary, colour[:, :1], 8)):
        with pytest.raises(UsageError, match="one plane"):
            codec.encode(model, pixels, depth=depth, engine="float32")
        with pytest.raises(FormatError, match="one plane"):
            codec.decode(model, [b"\0"], pixels.shape, depth=depth, tile=64, lanes=1, learning=0, engine="float32")
    with pytest.raises(UsageError, match="sample"):
        codec.encode(binary, colour[:, :1], depth=1, engine="float32")
    with pytest.raises(UsageError, match="one plane"):
        plane_bits(binary, colour)


# Planted faults: each must make the two traversals differ, or differ from the plain loops.


def faulty(architecture: str, kind: str, seed: int) -> bool:
    """Whether rows, steps and loops disagree."""
    model = stack_model(architecture, seed, **KINDS[kind])
    pixels = pixels_for(kind, (1, 5, 6), seed)
    try:
        found = by_rows(model.network, pixels)
        if not np.array_equal(found, by_steps(model.network, pixels)):
            return True
    except AssertionError:
        return True
    return not np.array_equal(logits(model.network, found), by_loops(model, pixels))


def tap_moved(view: type, at: tuple[int, int], by: tuple[int, int]) -> Callable[[pytest.MonkeyPatch], None]:
    """Reads of one tap go to another."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = view.at  # type: ignore[attr-defined]

        def moved(self: Any, name: str, dy: int, dx: int) -> Any:
            return original(self, name, *(by if (dy, dx) == at else (dy, dx)))

        monkeypatch.setattr(view, "at", moved)

    return patch


def map_not_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right-to-left map is read in its own row, which is what stood there two rows ago."""
    original = maps.RowView.at

    def at(self: Any, name: str, dy: int, dx: int) -> Any:
        return original(self, name, 0 if name.endswith("whole_row") else dy, dx)

    monkeypatch.setattr(maps.RowView, "at", at)


def row_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The column right of the picture keeps what stood there."""
    monkeypatch.setattr(maps.StepMaps, "begin_step", lambda self, step: self._write_above(step))


def nothing_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row above the first is not written."""
    monkeypatch.setattr(maps.StepMaps, "_write_above", lambda self, step: None)


def groups_rounded_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder cuts colours at floor(c F / G) in the place of ceil."""
    original = products.colour_starts

    def starts(features: int, groups: int) -> list[int]:
        return [colour * features // groups for colour in range(groups + 1)]

    def each_colour(network: StackNetwork) -> Any:
        monkeypatch.setattr(products, "colour_starts", starts)
        return original_parts(network)

    original_parts = steps.each_colour
    assert original(8, 3) != starts(8, 3)
    monkeypatch.setattr(steps, "each_colour", each_colour)


def gates_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A colour's outputs are taken from the gates g, i, f, o."""
    original = products.output_rows

    def output_rows(product: Product, part: products.Part, groups: int) -> NDArray[np.int64]:
        chosen = original(product, part, groups)
        return chosen.reshape(product.gates, -1)[::-1].reshape(-1) if product.gates > 1 else chosen

    monkeypatch.setattr(products, "output_rows", output_rows)


def rounding_down(name: str, at: int, shift_at: int) -> Callable[[pytest.MonkeyPatch], None]:
    """A kernel's operand has half less, so that it rounds down."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(kernels, name)

        def changed(*arguments: Any) -> None:
            values = list(arguments)
            half = (1 << values[shift_at]) >> 1
            values[at] = (values[at].astype(np.int32) - half).astype(values[at].dtype)
            original(*values)

        monkeypatch.setattr(kernels, name, changed)

    return patch


def hidden_edge_of_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hidden map's edge is 0 in the place of -128."""
    monkeypatch.setattr(layers, "NOTHING", 0)


WAVEFRONT = ("pixelcnn", "row_lstm")
FAULTS: dict[str, tuple[tuple[str, ...], Callable[[pytest.MonkeyPatch], None]]] = {
    "rows: tap (-1, 1) at (-1, 0)": (WAVEFRONT, tap_moved(maps.RowView, (-1, 1), (-1, 0))),
    "rows: tap (0, -1) at (-1, 0)": (ARCHITECTURES, tap_moved(maps.RowView, (0, -1), (-1, 0))),
    "rows: tap (0, 1) at (-1, 1)": (("diagonal_bilstm",), tap_moved(maps.RowView, (0, 1), (-1, 1))),
    "rows: tap (-1, 0) at (-1, 1)": (("diagonal_bilstm",), tap_moved(maps.RowView, (-1, 0), (-1, 1))),
    "steps: tap (-1, 1) at (-1, 2)": (WAVEFRONT, tap_moved(maps.StepView, (-1, 1), (-1, 2))),
    "steps: tap (-1, -1) at (-1, 0)": (WAVEFRONT, tap_moved(maps.StepView, (-1, -1), (-1, 0))),
    "the right-to-left map is not shifted": (("diagonal_bilstm",), map_not_shifted),
    "stale edge right of a row": (WAVEFRONT, row_not_ended),
    "stale edge above the first row": (("row_lstm",), nothing_above),
    "colours cut elsewhere": (ARCHITECTURES, groups_rounded_down),
    "gates in another order": (("row_lstm", "diagonal_bilstm"), gates_in_another_order),
    "edge of hidden maps": (("pixelcnn",), hidden_edge_of_zeros),
    "rounding of the first layer": (ARCHITECTURES, rounding_down("start_stream", 0, 2)),
    "rounding of the stream": (ARCHITECTURES, rounding_down("add_stream", 0, 2)),
    "rounding of hidden layers": (ARCHITECTURES, rounding_down("rectify", 0, 2)),
    "rounding of activations": (("row_lstm", "diagonal_bilstm"), rounding_down("activate", 0, 1)),
}


@pytest.mark.parametrize(("fault", "architecture"), [(f, a) for f, (on, _) in FAULTS.items() for a in on])
def test_a_planted_fault_is_found(fault: str, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not faulty(architecture, "rgb", 17)
    FAULTS[fault][1](monkeypatch)
    assert faulty(architecture, "rgb", 17)


@pytest.mark.parametrize("name", ["first", "layer.1.up", "head.last"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_weight_that_a_mask_hides_leaks_and_is_refused(architecture: str, name: str) -> None:
    """Which is why a file must hold 0 there: rows would see it, steps would not."""
    from pixzip.errors import ModelError

    config, arrays = stack_parts(architecture, 18)
    network = read_paper(config, arrays)
    hidden = np.argwhere(network.products[name].hidden_weights(3))
    weight = arrays[f"{name}.weight"].copy()
    for at in hidden:
        weight[tuple(at)] = 90
    changed = arrays | {f"{name}.weight": weight}
    with pytest.raises(ModelError, match="hides is not 0"):
        read_paper(config, changed)
    leaking, pixels = StackNetwork(**copied(network, changed)), pixels_for("rgb", (1, 4, 5))
    assert leaks(leaking, pixels)[0] > 0
    assert not np.array_equal(by_rows(leaking, pixels), by_steps(leaking, pixels))
