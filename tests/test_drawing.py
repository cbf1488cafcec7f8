"""Drawing: decoding with given quantiles; from the rows that code; the same for any batch, order, engine, threads."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from reference_decoder import PaperTile, Tile, read_model
from tiny_model import parts, photo, tiny_bytes, tiny_model
from tiny_stack import ARCHITECTURES, stack_bytes, stack_model

import pixzip
from pixzip import drawing
from pixzip.coding import schedule
from pixzip.coding.frequencies import row_intervals, tempered
from pixzip.coding.quantiles import quantiles
from pixzip.errors import ImageError, LimitError, ModelError, ModelNotFoundError, UsageError
from pixzip.model.file import Model, find_model, load_model, shipped_models, write_model
from pixzip.model.stack import StackNetwork
from pixzip.runtime import draw, frozen, kernels, maps
from pixzip.runtime.multiply import HAS_INT8
from pixzip.runtime.trunk import layers as trunk_layers

ENGINES = ["float32", pytest.param("int8", marks=pytest.mark.skipif(not HAS_INT8, reason="no instructions for it"))]
ONE = Fraction(1)
Pixels = NDArray[np.uint8]

#: Every kind of frozen network, and the number of colours of the pictures that it is tried on.
NETWORKS: dict[str, tuple[Callable[[], Model], int]] = {
    "trunk": (lambda: tiny_model(1, "clcl"), 3),
    "trunk, of convolutions": (lambda: tiny_model(2, "cc"), 3),
    "trunk, gray picture": (lambda: tiny_model(1, "clcl"), 1),
}
for _name in ARCHITECTURES:
    for _kind, _colours in (("rgb", 3), ("gray", 1), ("binary", 1)):
        NETWORKS[f"{_name}, {_kind}"] = (lambda a=_name, k=_kind: stack_model(a, 4, pictures=k), _colours)  # type: ignore[misc]
    NETWORKS[f"{_name}, residual"] = (lambda a=_name: stack_model(a, 5, frame="residual", skip=True), 3)  # type: ignore[misc]
    NETWORKS[f"{_name}, gray picture"] = (lambda a=_name: stack_model(a, 4), 1)  # type: ignore[misc]
#: Networks at their limits; their rows leave little to chance.
EXTREME: dict[str, tuple[Callable[[], Model], int]] = {"trunk, extreme": (lambda: tiny_model(3, "lc", True), 3)}
for _name in ARCHITECTURES:
    EXTREME[f"{_name}, extreme"] = (lambda a=_name: stack_model(a, 6, True), 3)  # type: ignore[misc]
ALL = NETWORKS | EXTREME
#: One of each traversal.
FEW = ("trunk", "pixelcnn, binary", "row_lstm, residual", "diagonal_bilstm, rgb")


def network_of(name: str) -> tuple[Model, int]:
    make, colours = ALL[name]
    return make(), colours


def pixels_for(model: Model, shape: tuple[int, int, int, int], seed: int = 1) -> Pixels:
    """Pictures (n, planes of the network, h, w), with equal planes where there is one colour."""
    n, colours, h, w = shape
    pixels = photo(seed, (n, colours, h, w))
    if model.network.pictures == "binary":
        pixels = np.random.default_rng(seed).integers(0, 2, pixels.shape, np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (n, model.network.planes, h, w)))


def by_picture(values: NDArray[Any], n: int) -> NDArray[np.int64]:
    """(h, colours, w * n), as intervals are given, → (n, colours, h, w)."""
    h, colours, _ = values.shape
    return values.astype(np.int64).reshape(h, colours, -1, n).transpose(3, 1, 0, 2)


def draws_what_it_is_told(model: Model, colours: int, pixels: Pixels, engine: str = "float32") -> bool:
    """Teacher forcing: quantiles at both ends of the true symbols' intervals draw the pictures."""
    left, size = (by_picture(v, len(pixels)) for v in frozen.plain_intervals(model.network, engine, pixels, colours))
    ends = (left, left + size - 1)
    found = [draw.draw_block(model.network, engine, each.astype(np.int32), pixels[0, :, :0]) for each in ends]
    return all(np.array_equal(each, pixels) for each in found)


# Drawing is decoding.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ALL)
def test_the_quantiles_of_a_picture_draw_it(name: str, engine: str) -> None:
    model, colours = network_of(name)
    assert draws_what_it_is_told(model, colours, pixels_for(model, (2, colours, 7, 6)), engine)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (1, 9, 1), (3, 2, 2), (1, 3, 13), (5, 4, 3)])
@pytest.mark.parametrize("name", FEW)
def test_the_quantiles_of_a_picture_draw_it_at_mean_sizes(name: str, shape: tuple[int, int, int]) -> None:
    model, colours = network_of(name)
    n, h, w = shape
    assert draws_what_it_is_told(model, colours, pixels_for(model, (n, colours, h, w), 2))


@pytest.mark.skipif(not any(m.name == "default" for m in shipped_models()), reason="no default model")
def test_the_quantiles_of_a_picture_draw_it_from_the_default_model() -> None:
    model = find_model("default")
    assert draws_what_it_is_told(model, 3, photo(5, (2, 3, 19, 24)))
    assert draws_what_it_is_told(model, 3, np.random.default_rng(0).integers(0, 256, (1, 3, 12, 9), np.uint8))


@pytest.mark.parametrize("name", [name for name in ALL if "binary" not in name])
def test_intervals_while_drawing_are_those_of_the_encoder(name: str) -> None:
    model, colours = network_of(name)
    network, pixels = model.network, pixels_for(model, (2, colours, 6, 5), 3)
    n, _, h, w = pixels.shape
    slope = network.slope_at(w)
    symbols = np.stack([draw.picture_symbols(network, each) for each in pixels])
    heads = [head_of(model, colour) for colour in range(colours)]
    found = np.zeros((2, n, colours, h, w), dtype=np.uint32)

    def take(step: int, first: int, colour: int, acc: Any) -> NDArray[np.int16]:
        y, i = np.divmod(first + np.arange(len(acc)), n)
        true = symbols[i, colour, y, step - slope * y]
        left, size = np.empty((2, len(acc)), dtype=np.uint32)
        row_intervals(np.ascontiguousarray(acc), *heads[colour], true, left, size)
        found[:, i, colour, y, step - slope * y] = left, size
        return true

    assert np.array_equal(draw.traverse(network, "float32", (n, h, w), colours, take), pixels)
    for mine, theirs in zip(found, frozen.plain_intervals(network, "float32", pixels, colours), strict=True):
        assert np.array_equal(mine, by_picture(theirs, n))


def head_of(model: Model, colour: int) -> Any:
    """Addend, shift and exp table of a colour."""
    from pixzip.runtime.stack.layers import logit_row

    network = model.network
    return logit_row(network, colour) if isinstance(network, StackNetwork) else trunk_layers.logit_row(network, colour)


# Drawing is what the documents say, in plain Python integers, pixel by pixel.


def place_of(seed: int, number: int, y: int, x: int, c: int) -> int:
    """Philox4x32-10, its first word without the lowest 8 bits."""
    words, keys = [y, x, c, number], [seed % 2**32, seed >> 32]
    for _ in range(10):
        first, second = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = [
            second >> 32 ^ words[1] ^ keys[0],
            second % 2**32,
            first >> 32 ^ words[3] ^ keys[1],
            first % 2**32,
        ]
        keys = [(keys[0] + 0x9E3779B9) % 2**32, (keys[1] + 0xBB67AE85) % 2**32]
    return words[0] >> 8


def drawn_by_loops(model: Model, above: Pixels, height: int, number: int, seed: int, temperature: Fraction) -> Pixels:
    """One picture (colours, h, w) by the reference decoder; above (colours, rows, w) is known."""
    colours, rows, width = above.shape
    stack = isinstance(model.network, StackNetwork)
    tile = (PaperTile if stack else Tile)(read_model(model.data), height, width)
    edges = tile.left_edges

    def at_temperature(logits: list[int]) -> list[int]:
        return edges([-math.floor(Fraction(max(logits) - logit) / temperature + Fraction(1, 2)) for logit in logits])

    tile.left_edges = at_temperature  # type: ignore[method-assign]
    for y, x, c in np.ndindex(height, width, colours):
        left = tile.row(c, y, x)
        symbol = bisect.bisect_right(left, place_of(seed, number, y, x, c)) - 1
        if y < rows:
            raw = isinstance(model.network, StackNetwork) and model.network.frame == "raw"
            symbol = (int(above[c, y, x]) - (0 if raw else tile.prediction(c, y, x))) % 256
        tile.set_value(c, y, x, symbol, gray=colours < tile.colours)
    return np.array([[[tile.planes[c][y, x] for x in range(width)] for y in range(height)] for c in range(colours)])


@pytest.mark.parametrize("temperature", [ONE, Fraction(4, 5), Fraction(5, 2)])
@pytest.mark.parametrize("name", ALL)
def test_drawing_is_what_the_documents_say(name: str, temperature: Fraction) -> None:
    model, colours = network_of(name)
    seed, above = 2**63 + 12345, pixels_for(model, (1, colours, 2, 4))[0, :colours]
    for rows in (0, 2):
        known = np.ascontiguousarray(above[:, :rows])
        drawn = drawing.draw_numbers(model, [6, 1], known, 4, seed, temperature, "float32")
        for i, number in enumerate((6, 1)):
            assert np.array_equal(drawn[i], drawn_by_loops(model, known, 4, number, seed, temperature))


# A sample depends on its number, seed and size.


def numbered(
    model: Model, colours: int, numbers: Sequence[int], engine: str = "float32", temperature: Fraction = ONE
) -> Pixels:
    """Samples of 6 rows and 5 columns."""
    above = np.zeros((colours, 0, 5), dtype=np.uint8)
    return drawing.draw_numbers(model, numbers, above, 6, 11, temperature, engine)


def batch_matters(model: Model, colours: int) -> bool:
    """Whether pictures change with those that they are drawn beside, or with their order."""
    together = numbered(model, colours, range(5))
    alone = np.concatenate([numbered(model, colours, [k]) for k in range(5)])
    other = numbered(model, colours, [4, 9, 0, 2])
    return not (np.array_equal(together, alone) and np.array_equal(other[[0, 2, 3]], together[[4, 0, 2]]))


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_and_order_do_not_change_a_sample(name: str) -> None:
    model, colours = network_of(name)
    assert not batch_matters(model, colours)
    drawn = numbered(model, colours, range(3))
    assert not np.array_equal(drawn[0], drawn[1])


@pytest.mark.skipif(not HAS_INT8, reason="no instructions for it")
@pytest.mark.parametrize("name", FEW)
def test_the_engine_does_not_change_a_sample(name: str) -> None:
    model, colours = network_of(name)
    assert np.array_equal(numbered(model, colours, [3, 1], "int8"), numbered(model, colours, [3, 1]))


@pytest.fixture(params=["trunk", *ARCHITECTURES])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model file for colour pictures."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(tiny_bytes(1, "clcl") if request.param == "trunk" else stack_bytes(request.param, 4))
    return path


def test_threads_and_groups_do_not_change_samples(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = pixzip.sample(path, 5, (4, 3), 7, threads=1)
    assert once.shape == (5, 4, 3, 3) and once.dtype == np.uint8
    for threads, rows in ((2, 4096), (3, 4096), (1, 8), (4, 1)):
        monkeypatch.setattr(schedule, "_SIDE_BY_SIDE", rows)
        assert np.array_equal(pixzip.sample(path, 5, (4, 3), 7, threads=threads), once)
    assert np.array_equal(pixzip.sample(path, 2, (4, 3), 7), once[:2])
    assert not np.array_equal(pixzip.sample(path, 2, (4, 3), 8), once[:2])


def test_random_numbers_made_in_parts_are_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = pixzip.sample(path, 3, (5, 4))
    monkeypatch.setattr(drawing, "_AT_ONCE", 1)
    assert np.array_equal(pixzip.sample(path, 3, (5, 4)), once)


@pytest.mark.parametrize("at_once", [1, 40, 1 << 16])
def test_every_sub_pixel_has_a_number_of_its_own_key(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[NDArray[np.int32]] = []
    original = drawing.draw_block
    monkeypatch.setattr(drawing, "_AT_ONCE", at_once)
    monkeypatch.setattr(drawing, "draw_block", lambda *given: used.append(given[2]) or original(*given))
    numbers = [7, 0, 2**32 - 1]
    drawing.draw_numbers(tiny_model(), numbers, np.zeros((3, 2, 4), np.uint8), 5, 2**64 - 1, ONE, "float32")
    (found,) = used
    assert found.shape == (3, 3, 5, 4)
    for i, c, y, x in np.ndindex(found.shape):
        assert found[i, c, y, x] == quantiles(2**64 - 1, numbers[i], y, x, c)


# Symbols follow their rows.


def chi_square(model: Model, temperature: Fraction = ONE) -> tuple[float, int]:
    """Distance of 6,000 drawn first values of the second of two rows from what its frequencies say; degrees of freedom.

    The frequencies are those of plain_intervals at temperature 1, else of a row in Fractions.
    """
    network, count = model.network, 6000
    binary = network.pictures == "binary"
    values = 2 if binary else 256
    above = np.ones((network.planes, 1, 1), dtype=np.uint8) if binary else photo(8, (1, network.planes, 1, 1))[0]
    drawn = drawing.draw_numbers(model, range(count), above, 2, 5, temperature, "float32")[:, 0, 1, 0]
    every = np.zeros((values, network.planes, 2, 1), dtype=np.uint8)
    every[:, :, :1] = above
    every[:, 0, 1, 0] = np.arange(values)
    if temperature == 1:
        frequency = by_picture(frozen.plain_intervals(network, "float32", every, 1)[1], values)[:, 0, 1, 0]
    else:
        frequency = frequencies_at(model, every, temperature)
    assert frequency.sum() == 1 << 24
    expected, seen = count * frequency / 2**24, np.bincount(drawn, minlength=values)
    likely = expected >= 5
    terms = (seen[likely] - expected[likely]) ** 2 / expected[likely]
    rest = expected[~likely].sum()
    more = (seen[~likely].sum() - rest) ** 2 / rest if rest >= 5 else 0.0
    return float(terms.sum() + more), int(likely.sum()) + (rest >= 5) - 1


def frequencies_at(model: Model, every: Pixels, temperature: Fraction) -> NDArray[np.int64]:
    """Frequency of each value of plane 0 at (1, 0), from logits, with temperature as docs/networks.md says."""
    seen: list[Any] = []

    def write(where: tuple[Any, Any], colour: int, acc: Any, head: Any, symbols: NDArray[np.int16]) -> None:
        if (where[0], colour) == (1, 0):
            addend, shift, exp = head
            rows = acc.astype(np.int64) + addend >> shift
            seen.extend([rows[0].tolist(), symbols & 255, exp.tolist()])

    frozen._scored(model.network, "float32", every, 1, 0, write)
    logits, symbols, exp = seen
    logits = [0, *logits] if len(logits) == 1 else logits
    distances = [math.floor(Fraction(max(logits) - logit) / temperature + Fraction(1, 2)) for logit in logits]
    weights = [exp[d] if d < len(exp) else 0 for d in distances]
    n, total = len(logits), sum(weights)
    left = [sum(weights[:i]) * (2**24 - n) // total + i for i in range(n + 1)]
    return np.diff(left)[symbols]  # every[i] has value i, whose symbol is symbols[i]


def follows_the_row(model: Model, temperature: Fraction = ONE) -> bool:
    distance, freedom = chi_square(model, temperature)
    assert freedom >= 1
    return distance < freedom + 4 * math.sqrt(2 * freedom) + 4


@pytest.mark.parametrize("temperature", [ONE, Fraction(3, 2)])
@pytest.mark.parametrize("name", [*FEW, "row_lstm, gray", "diagonal_bilstm, residual"])
def test_drawn_values_are_as_frequent_as_their_row_says(name: str, temperature: Fraction) -> None:
    model, _ = network_of(name)
    assert follows_the_row(model, temperature)


@pytest.mark.parametrize("temperature", ["1", "1/2", "2", "0.7", "3/2", "7/3", "1/1000", "100", "99.999"])
def test_temperature_divides_the_distances_of_logits(temperature: str) -> None:
    random = np.random.default_rng(3)
    exp, t = np.sort(random.integers(0, 1 << 20, 1024, np.int32))[::-1], drawing._rational(temperature)
    table = tempered(exp, t)
    for d in [*range(30), *random.integers(0, 103_000, 400).tolist(), len(table) - 1, len(table), len(table) + 1]:
        at = math.floor(Fraction(d) / t + Fraction(1, 2))
        assert (table[d] if d < len(table) else None) == (exp[at] if at < len(exp) else None)
    assert table.dtype == exp.dtype


def test_temperature_1_is_the_model_s_own_table() -> None:
    exp = tiny_model().network.arrays["table.exp"]
    assert np.array_equal(tempered(exp, ONE), exp)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_small_temperature_draws_the_likeliest_symbols(name: str) -> None:
    """And a large one does not. Of two equally likely ones any may be drawn."""
    model, colours = network_of(name)
    shares = [likeliest(model, colours, Fraction(t)) for t in ("1/1000", "3")]
    assert shares[0] == 1.0
    assert shares[1] < 1.0


def likeliest(model: Model, colours: int, temperature: Fraction) -> float:
    """The share of drawn symbols whose logit is the largest of their row."""
    seen: list[bool] = []
    network = model.network
    original, heads = draw.find_symbols, [head_of(model, colour) for colour in range(colours)]

    def watched(acc: Any, *more: Any) -> None:
        original(acc, *more)
        addend, shift, _ = heads[more[5]]
        rows = acc.astype(np.int64) + addend >> shift
        if rows.shape[1] == 1:
            rows = np.concatenate([np.zeros_like(rows), rows], axis=1)
        seen.extend(rows[np.arange(len(rows)), more[-1]] == rows.max(axis=1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "find_symbols", watched)
        numbered(model, colours, range(2), temperature=temperature)
    assert len(seen) == 2 * 6 * 5 * colours and network.planes >= colours
    return float(np.mean(seen))


# Completion.


def arrays_of(planes: Pixels, kind: str) -> NDArray[Any]:
    """(c, h, w) → what callers give and get."""
    return planes[0].astype(bool) if kind == "binary" else planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)


def keeps_what_is_known(path: Path, picture: NDArray[Any], cut: int) -> bool:
    """Whether the rows above the cut come back, and those below differ between completions."""
    made = pixzip.complete(path, picture, 3, cut)
    assert made.shape == (3, *picture.shape) and made.dtype == picture.dtype
    return all(np.array_equal(each[:cut], picture[:cut]) for each in made) and not np.array_equal(made[0], made[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_completion_keeps_the_known_part_exactly(name: str, tmp_path: Path) -> None:
    model, colours = network_of(name)
    path = tmp_path / "m.safetensors"
    path.write_bytes(model.data)
    picture = arrays_of(pixels_for(model, (1, colours, 9, 7), 4)[0, :colours], model.network.pictures)
    for cut in (0, 1, 5):
        assert keeps_what_is_known(path, picture, cut)
    half = pixzip.complete(path, picture, 2)
    assert np.array_equal(half, pixzip.complete(path, picture, 2, 4))


def test_a_sample_completes_itself(path: Path) -> None:
    """Sample k's upper part, completed with the same seed, is sample k in completion k."""
    drawn = pixzip.sample(path, 3, (8, 5), 3)
    for k, cut in ((0, 3), (2, 4), (1, 7)):
        assert np.array_equal(pixzip.complete(path, drawn[k], k + 1, cut, 3)[k], drawn[k])
    assert np.array_equal(pixzip.complete(path, drawn[0], 3, 0, 3), drawn)


def test_pictures_are_taken_as_they_are_given(path: Path) -> None:
    picture = photo(2, (1, 3, 6, 5))[0].transpose(1, 2, 0)
    expected = pixzip.complete(path, picture, 2)
    assert np.array_equal(pixzip.complete(path, pixzip.from_array(picture), 2), expected)
    assert np.array_equal(pixzip.complete(path, picture.copy(), 2), expected)


# Faults that must be found.


def tap_moved(at: tuple[int, int], by: tuple[int, int]) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = maps.StepView.at

        def moved(self: Any, name: str, dy: int, dx: int) -> Any:
            return original(self, name, *(by if (dy, dx) == at else (dy, dx)))

        monkeypatch.setattr(maps.StepView, "at", moved)

    return patch


def row_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps.StepMaps, "begin_step", lambda self, step: self._write_above(step))


def in_the_trunk_s_steps(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fault: Callable[..., Any]) -> None:
    """The encoder's traversal, which shares the function, keeps the right one."""
    steps = draw._trunk

    def with_fault(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(where, name, fault)
            return steps(*arguments)

    monkeypatch.setattr(draw, "_trunk", with_fault)


def errors_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heads of G and B see coding errors of 0."""
    original = trunk_layers.Layers.logits

    def logits(self: Any, colour: int, errors: NDArray[np.int16]) -> Any:
        return original(self, colour, np.zeros_like(errors))

    in_the_trunk_s_steps(monkeypatch, trunk_layers.Layers, "logits", logits)


def errors_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later pixels see coding errors of 0."""
    original = draw.write_step

    def write(features: Any, *more: Any) -> None:
        original(np.zeros_like(features), *more)

    monkeypatch.setattr(draw, "write_step", write)


def prediction_of_r(monkeypatch: pytest.MonkeyPatch) -> None:
    original = draw.step_predictions

    def predict(planes: Pixels, colour: int, *more: Any) -> None:
        original(planes, 0, *more)

    monkeypatch.setattr(draw, "step_predictions", predict)


def rounding_down(monkeypatch: pytest.MonkeyPatch) -> None:
    original = kernels.start_stream

    def start(acc: Any, addend: Any, shift: Any, x: Any) -> None:
        original(acc, addend - ((1 << shift) >> 1).astype(addend.dtype), shift, x)

    in_the_trunk_s_steps(monkeypatch, kernels, "start_stream", start)


FAULTS = {
    "tap (-1, 1) at (-1, 0)": tap_moved((-1, 1), (-1, 0)),
    "tap (-1, -1) at (-1, 0)": tap_moved((-1, -1), (-1, 0)),
    "tap (0, -1) at (-1, 0)": tap_moved((0, -1), (-1, 0)),
    "tap (-1, 0) at (-1, 1)": tap_moved((-1, 0), (-1, 1)),
    "stale edge right of a row": row_not_ended,
    "coding errors of this pixel": errors_forgotten,
    "coding errors of earlier pixels": errors_not_kept,
    "another prediction": prediction_of_r,
    "rounding": rounding_down,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_trunk_s_steps_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(1, "clcl")
    pixels = photo(6, (2, 3, 8, 7))
    assert draws_what_it_is_told(model, 3, pixels)
    FAULTS[fault](monkeypatch)
    assert not draws_what_it_is_told(model, 3, pixels)


def test_numbers_counted_in_the_batch_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original, model = drawing.quantiles, tiny_model(1, "cl")
    assert not batch_matters(model, 3)

    def of_batch(seed: int, picture: NDArray[np.uint64], *where: Any) -> NDArray[np.int64]:
        return original(seed, np.arange(len(picture))[:, None, None, None], *where)

    monkeypatch.setattr(drawing, "quantiles", of_batch)
    assert batch_matters(model, 3)


def test_a_picture_s_place_in_the_batch_read_elsewhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original, model = draw.find_symbols, stack_model("row_lstm", 4)

    def shifted(*arguments: Any) -> None:
        original(*arguments[:4], np.ascontiguousarray(arguments[4][::-1]), *arguments[5:])

    assert not batch_matters(model, 3)
    monkeypatch.setattr(draw, "find_symbols", shifted)
    assert batch_matters(model, 3)


@pytest.mark.parametrize("name", FEW)
def test_quantiles_that_are_not_uniform_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, model = drawing.quantiles, network_of(name)[0]
    assert follows_the_row(model)
    monkeypatch.setattr(drawing, "quantiles", lambda *where: original(*where) * 7 // 8)
    assert not follows_the_row(model)


def test_a_temperature_that_is_not_used_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(1, "clcl")
    assert follows_the_row(model, Fraction(3, 2))
    monkeypatch.setattr(draw, "tempered", lambda exp, temperature: exp)
    assert not follows_the_row(model, Fraction(3, 2))


def test_a_known_row_that_is_drawn_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, original = photo(4, (1, 3, 6, 5))[0].transpose(1, 2, 0), draw.picture_symbols
    assert keeps_what_is_known(path, picture, 4)
    monkeypatch.setattr(draw, "picture_symbols", lambda *given: original(*given)[:, :-1])
    assert not keeps_what_is_known(path, picture, 4)


# Bad input.


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no pictures": ({"count": 0}, UsageError, "at least 1"),
    "fewer than no pictures": ({"count": -3}, UsageError, "count -3: must be at least 1"),
    "no rows": ({"size": (0, 4)}, UsageError, "size 0: must be at least 1"),
    "columns below 0": ({"size": (4, -1)}, UsageError, "size -1"),
    "a side too long": ({"size": (4, 4097)}, LimitError, "4096"),
    "a side that no computer has": ({"size": (4, 10**30)}, LimitError, "4096"),
    "too many pictures": ({"count": 10**12}, LimitError, "over the limit of 64000000"),
    "more than the limit given": ({"count": 5, "max_pixels": 79}, LimitError, "80 pixels, over the limit of 79"),
    "seed below 0": ({"seed": -1}, UsageError, "seed -1"),
    "seed of 65 bits": ({"seed": 1 << 64}, UsageError, "seed"),
    "no threads": ({"threads": 0}, UsageError, "threads 0"),
    "unknown engine": ({"engine": "abacus"}, UsageError, "abacus"),
}
for _text in (
    0,
    -1,
    float("nan"),
    float("inf"),
    "",
    "hot",
    "1/0",
    "0.0009",
    "100.1",
    1e-9,
    "9" * 99,
    "1/2/3",
    "٣",
    True,
):
    BAD[f"temperature {str(_text)[:9]}"] = ({"temperature": _text}, UsageError, "temperature")


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_drawn_is_refused_before_anything_is_made(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(tiny_bytes())
    if "seed" not in case:
        monkeypatch.setattr(drawing, "draw_numbers", lambda *arguments: pytest.fail("drawn"))
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message):
        pixzip.sample(path, **({"size": (4, 4)} | arguments))


@pytest.mark.parametrize(
    ("given", "meant"), [(0.9, "9/10"), ("9/10", "9/10"), (2, "2"), (Fraction(7, 3), "7/3"), ("0.001", "1/1000")]
)
def test_a_temperature_is_what_is_written(given: Any, meant: str) -> None:
    assert drawing._rational(given) == Fraction(meant)


@pytest.mark.parametrize("cut", [-1, 6, 10**20])
def test_a_cut_outside_the_picture_is_refused(path: Path, cut: int) -> None:
    with pytest.raises(UsageError, match=f"from_row {cut}: must be 0 to 5"):
        pixzip.complete(path, photo(1, (1, 3, 6, 5))[0].transpose(1, 2, 0), 1, cut)


OTHERS = {
    "binary": ("mode L with 1 bits", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)]),
    "gray": ("mode L with 8 bits", [np.zeros((4, 4), bool), np.zeros((4, 4, 3), np.uint8)]),
    "rgb": ("mode RGB or L with 8 bits", [np.zeros((4, 4), bool), np.zeros((4, 4, 4), np.uint8)]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_pictures_of_another_kind_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(stack_bytes("pixelcnn", 1, pictures=kind))
    allowed, pictures = OTHERS[kind]
    for picture in [*pictures, np.zeros((4, 4), np.uint16), np.zeros((4, 4, 2), np.uint8)]:
        with pytest.raises(UsageError, match=allowed):
            pixzip.complete(path, picture)
    with pytest.raises(ImageError):
        pixzip.complete(path, np.zeros((4, 4, 3), np.float32))


def test_models_that_are_not_there_or_damaged_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        pixzip.sample("no-such-model")
    path = tmp_path / "m.safetensors"
    path.write_bytes(tiny_bytes()[:-3])
    with pytest.raises(ModelError):
        pixzip.sample(path, 1, (4, 4))


def with_info(info: Any) -> Model:
    config, arrays = parts()
    return load_model(write_model(config | {"info": info}, arrays), "some")


def test_the_size_is_that_of_the_training_pictures() -> None:
    assert drawing.trained_size(with_info({"data": {"crop": 7}})) == (7, 7)


@pytest.mark.parametrize(
    "info", [{}, [], "crop", None, {"data": 3}, *({"data": {"crop": c}} for c in (0, -1, True, 7.0, "7", 10**9, None))]
)
def test_a_model_that_says_no_size_needs_one(info: Any) -> None:
    with pytest.raises(UsageError, match="give a size"):
        drawing.trained_size(with_info(info))


# Progress, grids.


def test_progress_rises_to_the_end_and_can_stop_the_work(path: Path) -> None:
    seen: list[float] = []
    drawn = pixzip.sample(path, 4, (17, 9), threads=2, progress=seen.append)
    assert seen == sorted(seen) and 0 < seen[-1] <= 1 and len(seen) > 3
    assert np.array_equal(drawn, pixzip.sample(path, 4, (17, 9)))

    def stop(done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pixzip.sample(path, 4, (17, 9), threads=2, progress=stop)


def test_a_grid_has_its_pictures_in_rows_with_white_between() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 3, 4, 3), np.uint8)
    grid = drawing.grid(pictures, 3)
    assert grid.shape == (3 + 2 + 3, 4 + 2 + 4 + 2 + 4, 3)
    assert (grid[0:3, 0:4] == 0).all() and (grid[0:3, 6:10] == 1).all() and (grid[5:8, 6:10] == 4).all()
    assert (grid[3:5] == 255).all() and (grid[:, 4:6] == 255).all() and (grid[5:, 10:] == 255).all()
    assert np.array_equal(drawing.grid(pictures[:1], 1), pictures[0])
    binary = drawing.grid(np.zeros((2, 2, 2), bool), 2)
    assert binary.dtype == bool and binary[:, 2:4].all() and not binary[:, :2].any()
