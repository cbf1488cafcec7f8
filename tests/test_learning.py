"""Heads that learn: the compiled traversal is the plain one, whatever runs it; nothing is learned from the future."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_golden import FOLDER
from tiny_model import parts, photo, tiny_model

from pixzip import codec, evaluate
from pixzip.coding.entropy import read_lanes
from pixzip.errors import FormatError, UsageError
from pixzip.formats.image import read_image
from pixzip.jit import jit
from pixzip.model.file import Model, find_model, load_model, write_model
from pixzip.runtime import frozen
from pixzip.runtime.multiply import HAS_INT8, pack, store_row
from pixzip.runtime.trunk import learning, plain, steps
from pixzip.runtime.trunk.layers import logit_row

ENGINES = ["float32", *(["int8"] if HAS_INT8 else [])]
Pixels = NDArray[np.uint8]
Intervals = tuple[NDArray[np.uint32], NDArray[np.uint32]]


def bold_model(seed: int) -> Model:
    """Weights at their limits that learning takes beyond them, biases that leave room for it."""
    config, arrays = parts(seed, "cl")
    for name in arrays:
        if name.startswith("head") and name.endswith(".weight"):
            random = np.random.default_rng(seed)
            arrays[name] = random.choice(np.array([-127, 0, 127], dtype=np.int8), arrays[name].shape)
        if name.endswith("hidden.shift"):
            arrays[name] += 2
    return load_model(write_model(config, arrays), "bold")


def plain_intervals(model: Model, pixels: Pixels, rate: int, colours: int = 3) -> Intervals:
    return frozen.plain_intervals(model.network, "float32", pixels, colours, rate=rate)


def agree(model: Model, pixels: Pixels, rate: int, engine: str = "float32", threads: int = 1, lanes: int = 3) -> bool:
    """Whether encoder and decoder see what the plain traversal sees."""
    n, _, h, w = pixels.shape
    expected = plain_intervals(model, pixels, rate)
    found = steps.intervals(model.network, engine, pixels, 3, threads=threads, rate=rate)
    if not np.array_equal(found, expected):
        return False
    streams = read_lanes(codec.block_payload(*expected, n, lanes, model), lanes)
    try:
        again = steps.decode_block(model.network, engine, streams, (n, h, w), 3, None, threads, None, rate)
    except FormatError:
        return False
    return np.array_equal(again, pixels)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 50),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    n=st.integers(1, 3),
    rate=st.sampled_from([1, 8, 40, 255]),
    engine=st.sampled_from(ENGINES),
    threads=st.integers(1, 3),
    lanes=st.integers(1, 5),
)
def test_compiled_and_plain_learning_agree(
    seed: int, size: tuple[int, int], n: int, rate: int, engine: str, threads: int, lanes: int
) -> None:
    assert agree(tiny_model(seed % 4, "cl"), photo(seed, (n, 3, *size)), rate, engine, threads, lanes)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(3))
def test_weights_stay_within_their_limits(seed: int, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, largest = bold_model(seed), []
    original = plain.Head.learn

    def learn(head: plain.Head, symbols: NDArray[np.int64]) -> None:
        original(head, symbols)
        largest.append([int(np.abs(layer.kept).max()) for layer in (head.hidden, head.last)])

    monkeypatch.setattr(plain.Head, "learn", learn)
    assert agree(model, photo(seed, (2, 3, 17, 19)), 255, engine, 2)
    assert np.max(largest, axis=0).tolist() == [127 << learning.HIDDEN.fraction, 127 << learning.LOGIT.fraction]


def changed(name: str, by: int = 0, **parts: int) -> Callable[[pytest.MonkeyPatch], None]:
    """The plain traversal with a constant, or parts of a Kind, larger."""

    def fault(monkeypatch: pytest.MonkeyPatch) -> None:
        constant = getattr(learning, name)
        other = constant._replace(**{k: getattr(constant, k) + v for k, v in parts.items()}) if parts else constant + by
        monkeypatch.setattr(learning, name, other)

    return fault


def errors_of_silent_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain.kernels, "HIDDEN_OFFSET", 300)


def a_bias_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    original = plain.Head.logits

    def logits(head: plain.Head, *arguments: Any) -> Any:
        head._first_sum = head.last.weight.sum(axis=1)
        return original(head, *arguments)

    monkeypatch.setattr(plain.Head, "logits", logits)


def one_position_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    original = plain.Head.learn

    def learn(head: plain.Head, symbols: NDArray[np.int64]) -> None:
        if len(symbols) > 3:
            head._features = np.where(np.arange(len(symbols))[:, None] == 3, 0, head._features).astype(np.int8)
        original(head, symbols)

    monkeypatch.setattr(plain.Head, "learn", learn)


FAULTS = {
    "least of the hidden layer": changed("HIDDEN", least=-1),
    "least of the last layer": changed("LOGIT", least=-1),
    "unit of the hidden layer": changed("HIDDEN", unit=1),
    "unit of the last layer": changed("LOGIT", unit=1),
    "fraction of the last layer": changed("LOGIT", fraction=1),
    "coarse weights": changed("COARSE", 1),
    "errors of units": changed("FINE", -1),
    "errors of logits": changed("ODDS", -1),
    "memory": changed("FORGET", 1),
    "silent units": errors_of_silent_units,
    "bias": a_bias_that_stays,
    "one position": one_position_left_out,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_breaks_the_agreement(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = tiny_model(1, "cl"), photo(1, (1, 3, 16, 18))
    assert agree(model, pixels, 40)
    FAULTS[fault](monkeypatch)
    assert not agree(model, pixels, 40)


def test_a_decoder_at_another_rate_is_caught() -> None:
    model, pixels = tiny_model(2, "cl"), photo(2, (1, 3, 16, 18))
    encoded = codec.encode(model, pixels, learning=8, engine="float32")
    with pytest.raises(FormatError):
        codec.decode(model, encoded.tiles, pixels.shape, **encoded.layout | {"learning": 9}, engine="float32")


# Likelihoods are real.


def step_of(shape: tuple[int, int], slope: int = 2) -> NDArray[np.int64]:
    """The step of each pixel: (h, w)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return x + slope * y


@pytest.mark.parametrize("colour", range(3))
@pytest.mark.parametrize("at", [(0, 0), (3, 7), (8, 2), (8, 10)])
def test_a_sub_pixel_changes_nothing_that_is_coded_up_to_it(at: tuple[int, int], colour: int) -> None:
    """Coded up to it: in earlier steps, elsewhere in its step, and the colours of its pixel up to its own."""
    model, before = tiny_model(3, "cl"), photo(3, (1, 3, 9, 11))
    after = before.copy()
    after[0, colour, at[0], at[1]] ^= 64
    left, right = (np.stack(plain_intervals(model, p, 8)).transpose(0, 2, 1, 3) for p in (before, after))
    step = step_of((9, 11))
    earlier = np.broadcast_to(step <= step[at], (3, 9, 11)).copy()
    earlier[colour + 1 :, at[0], at[1]] = False
    own = np.zeros((3, 9, 11), dtype=bool)
    own[colour, at[0], at[1]] = True  # its own symbol is another one, so its interval is
    unchanged = earlier & ~own
    assert np.array_equal(left[:, unchanged], right[:, unchanged])


def test_what_is_learned_reaches_beyond_the_receptive_field() -> None:
    """The last pixels see the first one only through the weights."""
    model, before = tiny_model(4, "c"), photo(4, (1, 3, 20, 24))
    after = before.copy()
    after[0, 0, 0, 0] ^= 255
    for rate, reaches in ((0, False), (40, True)):
        far = [np.stack(plain_intervals(model, p, rate))[:, -1, :, -4:] for p in (before, after)]
        assert np.array_equal(far[0], far[1]) is not reaches


def test_rows_and_model_bits_agree() -> None:
    model, pixels = find_model("default"), read_image((FOLDER / "photo-64x48.png").read_bytes()).planes[None]
    for rate in (0, 8):
        row_bits = codec.encode(model, pixels, learning=rate).row_bits
        assert abs(row_bits / evaluate.plane_bits(model, pixels, learning=rate).sum() - 1) < 1e-3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rate", [0, 8, 255])
def test_model_bits_are_those_of_a_softmax(rate: int, engine: str) -> None:
    model, pixels = tiny_model(5, "cl"), photo(5, (1, 3, 13, 15))
    expected = np.empty(pixels.shape)

    def visit(y: Any, columns: Any, colour: int, acc: NDArray[np.float32], errors: NDArray[np.int16]) -> None:
        addend, shift, _ = logit_row(model.network, colour)
        logits = ((acc.astype(np.int64) + addend) >> shift) / 64
        true = logits[np.arange(len(errors)), errors.astype(np.int64) & 255]
        expected[0, colour, y, columns] = (np.logaddexp.reduce(logits, axis=1) - true) / np.log(2)

    plain.traverse(model.network, "float32", pixels, 3, rate, visit)
    found = evaluate.plane_bits(model, pixels, learning=rate, engine=engine)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    wrong = evaluate.plane_bits(model, pixels, learning=rate + 1 & 255, engine=engine)
    assert not np.allclose(wrong, expected, rtol=1e-12, atol=1e-12)


def test_learning_pays_on_a_photograph() -> None:
    model, pixels = find_model("default"), read_image((FOLDER / "photo-64x48.png").read_bytes()).planes[None]
    with_learning, without = (codec.encode(model, pixels, learning=rate).row_bits for rate in (8, 0))
    assert with_learning < 0.995 * without


# Blocks, gray pictures, models that cannot.


def test_pictures_of_a_block_learn_together() -> None:
    model, pixels = tiny_model(6, "cl"), photo(6, (3, 3, 9, 9))
    alone = [plain_intervals(model, pixels[i : i + 1], 8)[1] for i in range(3)]
    together = plain_intervals(model, pixels, 8)[1].reshape(9, 3, 9, 3)
    assert all(np.array_equal(together[0, 0, 0, i], alone[i][0, 0, 0]) for i in range(3))  # before anything is learned
    assert not all(np.array_equal(together[..., i], alone[i]) for i in range(3))


def test_gradients_of_thousands_of_positions_are_carried() -> None:
    model, pixels = tiny_model(6, "c"), photo(6, (1000, 3, 4, 9))  # up to 4,000 in a step
    assert 2 * learning._SUMMED < 4 * 1000
    assert agree(model, pixels, 8, ENGINES[-1], lanes=2)
    assert agree(model, pixels, 8, ENGINES[-1], threads=2, lanes=2)


@pytest.mark.parametrize("engine", ENGINES)
def test_gray_pictures_learn(engine: str) -> None:
    model, pixels = tiny_model(7, "cl"), photo(7, (1, 1, 13, 15))
    encoded = codec.encode(model, pixels, learning=20, engine=engine)
    three = np.ascontiguousarray(np.broadcast_to(pixels, (1, 3, 13, 15)))
    assert encoded.row_bits != codec.encode(model, pixels, learning=0, engine=engine).row_bits
    left, frequency = steps.intervals(model.network, engine, three, 1, rate=20)
    assert np.array_equal(plain_intervals(model, three, 20, 1), (left, frequency))
    assert np.array_equal(codec.decode(model, encoded.tiles, pixels.shape, **encoded.layout), pixels)


def test_each_tile_learns_alone() -> None:
    model, pixels = tiny_model(8, "c"), photo(8, (1, 3, 9, 20))
    tiles = codec.encode(model, pixels, tile=10, learning=8).tiles
    assert tiles[1:] == codec.encode(model, pixels[..., 10:], tile=10, lanes=1, learning=8).tiles


def test_a_model_without_room_does_not_learn() -> None:
    model, pixels = tiny_model(9, "cl", extreme=True), photo(9, (1, 3, 5, 5))
    assert not model.network.learns
    encoded = codec.encode(model, pixels, engine="float32")
    assert encoded.learning == 0
    with pytest.raises(UsageError, match="cannot learn"):
        codec.encode(model, pixels, learning=1)
    with pytest.raises(FormatError, match="cannot learn"):
        codec.decode(model, encoded.tiles, pixels.shape, **encoded.layout | {"learning": 1})
    with pytest.raises(UsageError, match="learning 256: must be 0 to 255"):
        codec.encode(tiny_model(9), pixels, learning=256)


@pytest.mark.parametrize("engine", ["int8", "float32"])
@pytest.mark.parametrize("outputs", [8, 40])
def test_a_stored_row_is_one_that_was_packed(engine: str, outputs: int) -> None:
    @jit
    def store(weights: Any, output: int, inputs: int, row: Any) -> None:
        store_row(weights, output, inputs, row)

    random = np.random.default_rng(0)
    weight = random.integers(-127, 128, (outputs, 24)).astype(np.int8)
    other = random.integers(-127, 128, (outputs, 24)).astype(np.int8)
    packed = pack(weight, engine)
    for output in range(outputs):
        store(packed, output, 24, other[output].astype(np.int32))
    assert np.array_equal(packed, pack(other, engine))
