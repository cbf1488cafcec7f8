"""The trainable network: gradients, causality, equality with loops from the paper and with the frozen runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from naive_trunk import naive_conv, naive_row_lstm  # noqa: E402

from pixzip import evaluate  # noqa: E402
from pixzip.freezing.calibration import calibrated, observe  # noqa: E402
from pixzip.freezing.exponents import (  # noqa: E402
    HIDDEN,
    SIGNED,
    STATE,
    ConvExponents,
    Exponents,
    HeadExponents,
    LstmExponents,
    best_exponent,
    calibrate,
    weight_exponents,
)
from pixzip.freezing.freeze import freeze  # noqa: E402
from pixzip.freezing.quantised import (  # noqa: E402
    GateIntegers,
    HeadIntegers,
    Integers,
    head_logits,
    int8_engine_is_exact,
    quantised_loss,
    quantised_stream,
    to_int8,
)
from pixzip.freezing.tables import make_tables  # noqa: E402
from pixzip.model.file import Model, load_model  # noqa: E402
from pixzip.nets.flat_map import FlatMap  # noqa: E402
from pixzip.nets.layers import ConvBlock, RowLstm  # noqa: E402
from pixzip.nets.trunk import Batch, TrunkConfig, TrunkModel, error_basis, prepare, prior_bias  # noqa: E402
from pixzip.runtime.trunk.rows import traverse  # noqa: E402

CONFIG = TrunkConfig(channels=16, hidden=24, lstm=8, head=16, blocks="clcl")
TABLES = make_tables()


def picture_batch(n: int, h: int, w: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Smooth pictures with noise, (n, h, w, 3) uint8."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 120, h * w * 3).reshape(h, w, 3)
    return np.clip(ramp + rng.normal(60, 12, (n, h, w, 3)), 0, 255).astype(np.uint8)


def tensors(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(batch.inputs), torch.from_numpy(batch.errors)


def small_model(seed: int = 0) -> TrunkModel:
    """A network with random biases, so that no path is dead."""
    model = TrunkModel(CONFIG, seed)
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=g)
    return model


def frozen(model: TrunkModel, crops: np.ndarray[Any, Any]) -> tuple[Exponents, Model]:
    """Exponents calibrated on crops, and the model file they give, loaded."""
    exponents = calibrated(model, *tensors(prepare(crops)), TABLES)
    return exponents, load_model(freeze(model, exponents, TABLES, {}), "test")


def test_gradients_equal_central_differences() -> None:
    model = small_model()
    inputs, errors = tensors(prepare(picture_batch(2, 7, 6)))

    def loss() -> torch.Tensor:
        return sum(model.loss(inputs, errors, torch.float32), torch.zeros((), dtype=torch.float64))

    loss().backward()
    g = torch.Generator().manual_seed(3)
    for name, p in model.named_parameters():
        if p.numel() == 0:
            continue
        direction = torch.randn(p.shape, generator=g)
        direction *= 2e-3 / direction.norm()
        assert p.grad is not None
        expected = float((p.grad * direction).sum())
        with torch.no_grad():
            p += direction
            up = loss().item()
            p -= 2 * direction
            down = loss().item()
            p += direction
        assert (up - down) / 2 == pytest.approx(expected, rel=0.08, abs=2e-3), name


def test_layers_equal_loops_written_from_the_equations() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 5, 6, 8))
    m = FlatMap(2, 5, 6, chunk=7)
    flat = m.pack(torch.from_numpy(x), torch.float32)
    conv = [rng.normal(size=s) * 0.3 for s in ((40, 12), (12,), (12, 8), (8,))]
    lstm = [rng.normal(size=s) * 0.3 for s in ((16, 24), (18, 24), (24,))]
    as_tensors = [[torch.from_numpy(p).float() for p in group] for group in (conv, lstm)]
    got_conv = m.unpack(ConvBlock.apply(flat, *as_tensors[0], m)).numpy()
    got_lstm = m.unpack(RowLstm.apply(flat, *as_tensors[1], m)[0]).numpy()
    for i in range(2):
        np.testing.assert_allclose(got_conv[i], naive_conv(x[i], *conv), atol=1e-5)
        np.testing.assert_allclose(got_lstm[i], naive_row_lstm(x[i], *lstm), atol=1e-5)


@contextmanager
def nan_in_fresh_memory() -> Iterator[None]:
    """torch fills what it allocates and does not initialise with NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def gradients_of_layers(chunk: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Results of each layer of the trunk on two pictures of 9 x 6, and gradients of input and parameters."""
    g = torch.Generator().manual_seed(5)
    m, found = FlatMap(2, 9, 6, chunk=chunk), []

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=g) * 0.3).requires_grad_()

    conv, lstm = (random(40, 16), random(16), random(16, 8), random(8)), (random(16, 24), random(18, 24), random(24))
    for layer, sizes, parameters in ((ConvBlock, 8, conv), (RowLstm, 8, lstm)):
        maps, weights = random(2, 9, 6, sizes), random(2, 9, 6, 6 if layer is RowLstm else 8)
        x = m.pack(maps.detach(), dtype).requires_grad_()
        out = layer.apply(x, *parameters, m)
        out = out[0] if layer is RowLstm else out
        (m.unpack(out).float() * weights.detach()).sum().backward()
        assert x.grad is not None
        found += [m.unpack(out).detach(), m.unpack(x.grad)]
        found += [p.grad for p in parameters if p.grad is not None]
    return [t.float() for t in found]


def row_lstm_gradient(*, of_states: bool, of_stream: bool) -> torch.Tensor:
    """Gradient of the stream that a Row LSTM layer reads, from that of its states, of what it hands on, or both."""
    g = torch.Generator().manual_seed(6)
    m = FlatMap(2, 9, 6, chunk=20)
    weights = [torch.randn(s, generator=g) for s in ((16, 24), (18, 24), (24,))]
    x = m.pack(torch.randn(2, 9, 6, 8, generator=g), torch.float32).requires_grad_()
    h, on = RowLstm.apply(x, *weights, m)
    assert torch.equal(on, x)
    states, stream = torch.randn(2, 9, 6, 6, generator=g), torch.randn(2, 9, 6, 8, generator=g)
    ((m.unpack(h) * states).sum() * of_states + (m.unpack(on) * stream).sum() * of_stream).backward()
    assert x.grad is not None
    return m.unpack(x.grad)


def test_a_row_lstm_adds_its_gradient_to_that_of_the_stream_it_hands_on() -> None:
    states = row_lstm_gradient(of_states=True, of_stream=False)
    stream = row_lstm_gradient(of_states=False, of_stream=True)
    both = row_lstm_gradient(of_states=True, of_stream=True)
    torch.testing.assert_close(both, states + stream)
    assert states.abs().max() > 0.1 and stream.abs().max() > 0.1


def test_the_gradient_of_unpack_in_one_pass() -> None:
    m = FlatMap(2, 3, 4)
    matrix = m.pack(torch.randn(2, 3, 4, 5), torch.float32).requires_grad_()
    rows = torch.randn(24, 5)
    (m.unpack(matrix).reshape(-1, 5) * rows).sum().backward()
    assert matrix.grad is not None
    assert torch.equal(m.packed(rows, 1.0), matrix.grad)
    assert torch.equal(m.packed(rows, 0.5), matrix.grad / 2)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 6e-2)])
@pytest.mark.parametrize("chunk", [1, 7, 14, 15, 50])
def test_gradients_do_not_depend_on_the_pieces_or_on_fresh_memory(chunk: int, dtype: torch.dtype, near: float) -> None:
    whole = gradients_of_layers(10**6, torch.float32)
    with nan_in_fresh_memory():
        assert torch.empty(3).isnan().all()
        pieces = gradients_of_layers(chunk, dtype)
    assert len(whole) == len(pieces) == 11
    for a, b in zip(whole, pieces, strict=True):
        assert (a - b).norm() <= near * a.norm()  # in bfloat16 other units are 0


def test_losses_of_colours_have_one_weight() -> None:
    model = small_model()
    parts = model.loss(*tensors(prepare(picture_batch(1, 4, 4))), torch.float32)
    with pytest.raises(ValueError, match="must be equal"):
        (parts[0] + 2 * parts[1] + parts[2]).backward()
    parts = model.loss(*tensors(prepare(picture_batch(1, 4, 4))), torch.float32)
    (sum(parts) * torch.nan).backward()  # a loss that is not finite is the training loop's to see
    assert model.w_in.grad is not None and model.w_in.grad.isnan().any()


def stream_of(model: TrunkModel, crops: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    batch = prepare(crops)
    n, h, w, _ = batch.inputs.shape
    m = FlatMap(n, h, w)
    with torch.no_grad():
        return m.unpack(model.stream(torch.from_numpy(batch.inputs), m, torch.float32)).numpy()


def changed_positions(model: TrunkModel, crops: np.ndarray[Any, Any], y: int, x: int, c: int) -> set[tuple[int, int]]:
    """Pixels whose stream changes when one sub-pixel does."""
    other = crops.copy()
    other[0, y, x, c] ^= 85
    differs = (stream_of(model, crops) != stream_of(model, other)).any(axis=-1)[0]
    return {(int(a), int(b)) for a, b in np.argwhere(differs)}


@pytest.mark.parametrize("blocks", ["c", "l", "clc"])
def test_stream_sees_only_earlier_pixels_and_earlier_steps(blocks: str) -> None:
    model = TrunkModel(TrunkConfig(16, 16, 8, 16, blocks))
    crops = picture_batch(1, 7, 8)
    reached = 0
    for y, x, c in [(0, 0, 0), (2, 3, 1), (3, 7, 2), (4, 0, 0), (6, 7, 2)]:
        changed = changed_positions(model, crops, y, x, c)
        assert all((a, b) > (y, x) and b + 2 * a > x + 2 * y for a, b in changed)
        reached += len(changed)
    assert reached > 40


def test_causality_check_catches_a_tap_too_far_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixzip.nets.layers.CONV_TAPS", ((-1, -1), (-1, 0), (-1, 3), (0, -1), (0, 0)))
    model = TrunkModel(TrunkConfig(16, 16, 8, 16, "cc"))
    changed = changed_positions(model, picture_batch(1, 7, 8), 2, 4, 1)
    assert any(b + 2 * a <= 4 + 2 * 2 for a, b in changed)


def test_heads_see_only_colours_already_known() -> None:
    model = small_model()
    crops = picture_batch(1, 4, 5)
    with torch.no_grad():
        before = [v.item() for v in model.loss(*tensors(prepare(crops)), torch.float32)]
        for c in range(3):
            other = crops.copy()
            other[0, -1, -1, c] ^= 3  # the last pixel: only its own colours can tell
            after = [v.item() for v in model.loss(*tensors(prepare(other)), torch.float32)]
            assert after[:c] == before[:c]
            assert all(a != b for a, b in zip(after[c:], before[c:], strict=True))


def runtime_logits(model: Model, crops: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Integer logits of the frozen runtime: (h, 3, w, 256)."""
    planes = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    height, width = planes.shape[2:]
    out = np.empty((height, 3, width, 256), dtype=np.int64)

    def visit(y: int, colour: int, acc: Any, _: Any) -> None:
        bias, shift = (
            model.network.arrays[f"head.{colour}.logit.{part}"].astype(np.int64) for part in ("bias", "shift")
        )
        out[y, colour] = (acc.astype(np.int64) + bias + ((1 << shift) >> 1)) >> shift

    traverse(model.network, "float32", planes, 3, visit)
    return out


def quantised_logits(model: TrunkModel, e: Exponents, crops: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Integer logits of the network in training: (h, 3, w, 256)."""
    inputs, errors = tensors(prepare(crops))
    _, h, w, _ = inputs.shape
    m = FlatMap(1, h, w)
    with torch.no_grad():
        stream = m.unpack(quantised_stream(model, inputs, m, e, TABLES)).reshape(h * w, -1)
        by_colour = errors.reshape(-1, 3).t().contiguous()
        rows = []
        for colour, p in enumerate(model.head_parts()):
            q = HeadIntegers.of(p, model.basis, e.feature, e.heads[colour])
            x = to_int8(stream, 2.0**e.feature)
            rows.append(head_logits(x, by_colour[:colour], q)[1].reshape(h, w, 256))
    return torch.stack(rows, dim=1).numpy()


@pytest.mark.parametrize("by_bytes", [True, False])
def test_quantised_training_computes_the_runtime_integers(by_bytes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if by_bytes and not int8_engine_is_exact():
        pytest.skip("torch's product of bytes is not exact here")
    monkeypatch.setattr("pixzip.freezing.quantised.INT8_MATMUL", by_bytes)
    model, crops = small_model(), picture_batch(1, 9, 23, seed=5)
    e, file = frozen(model, crops)
    np.testing.assert_array_equal(quantised_logits(model, e, crops), runtime_logits(file, crops))
    nats = sum(v.item() for v in quantised_loss(model, *tensors(prepare(crops)), e, TABLES))
    bits = evaluate.plane_bits(file, np.ascontiguousarray(crops.transpose(0, 3, 1, 2)), learning=0).sum()
    assert nats / np.log(2) == pytest.approx(bits, rel=1e-6)


def test_quantised_equality_catches_one_table_entry_off_by_one() -> None:
    model, crops = small_model(), picture_batch(1, 9, 23, seed=5)
    e, file = frozen(model, crops)
    tanh = file.network.arrays["table.tanh"].copy()
    tanh += (np.abs(tanh) < 4096).astype(np.int16)
    arrays = {**file.network.arrays, "table.tanh": tanh}
    broken = Model("broken", file.data, type(file.network)(**{**vars(file.network), "arrays": arrays}), {})
    assert (quantised_logits(model, e, crops) != runtime_logits(broken, crops)).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_quantised_gradients_point_where_float_gradients_do(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixzip.freezing.quantised.GRADIENT", dtype)
    model, crops = small_model(), picture_batch(4, 16, 16, seed=7)
    inputs, errors = tensors(prepare(crops))
    e = calibrate(
        CONFIG.blocks, observe(model, inputs, errors)
    )  # by the loss, an untrained network is cut at every turn
    parts = quantised_loss(model, inputs, errors, e, TABLES)
    with torch.no_grad():
        assert quantised_loss(model, inputs, errors, e, TABLES) == parts  # gradients change no loss
    sum(parts).backward()
    quantised = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    sum(model.loss(inputs, errors, torch.float32)).backward()
    for name, p in model.named_parameters():
        if p.numel() and p.grad is not None and float(p.grad.norm()) > 1e-3:
            cosine = torch.nn.functional.cosine_similarity(p.grad.flatten(), quantised[name].flatten(), dim=0)
            assert cosine > 0.8, name


def test_calibration_ends_where_no_single_exponent_can_improve_the_last_ones() -> None:
    model = small_model()
    inputs, errors = tensors(prepare(picture_batch(4, 16, 16, seed=8)))

    def nats(e: Exponents) -> float:
        with torch.no_grad():
            return sum(v.item() for v in quantised_loss(model, inputs, errors, e, TABLES))

    start, e = calibrate(CONFIG.blocks, observe(model, inputs, errors)), calibrated(model, inputs, errors, TABLES)
    assert e.stream == start.stream
    assert nats(e) < nats(start)
    whole, least = start, nats(start)  # the same search, by the whole loss each time
    for path in start.paths():
        for by in (1, -1):
            changed = whole.changed(path, by)
            while changed is not None and (now := nats(changed)) < least:
                whole, least, changed = changed, now, changed.changed(path, by)
    assert e == whole
    for by in (1, -1):
        last = e.changed(("heads", 2, "h"), by)
        assert last is not None and nats(last) >= nats(e)


def test_no_activation_gets_finer_than_the_stream() -> None:
    e = Exponents(5, 5, (ConvExponents(4, 2), LstmExponents(5)), (HeadExponents(3),) * 3)
    assert e.paths() == [
        ("blocks", 0, "a"),
        ("blocks", 0, "h"),
        ("blocks", 1, "a"),
        ("feature", 0, ""),
        *(("heads", c, "h") for c in range(3)),
    ]
    assert e.changed(("blocks", 0, "a"), 1) == Exponents(5, 5, (ConvExponents(5, 2), LstmExponents(5)), e.heads)
    assert e.changed(("heads", 1, "h"), -1) == Exponents(5, 5, e.blocks, (e.heads[0], HeadExponents(2), e.heads[2]))
    assert e.changed(("blocks", 1, "a"), 1) is None
    assert e.changed(("feature", 0, ""), 1) is None


def test_best_exponent_keeps_typical_values() -> None:
    values = torch.linspace(-1.9, 1.9, 101)
    assert best_exponent(values) == 6  # 127 / 2^6 holds 1.98; 2^7 would cut half of them
    assert best_exponent(values * 8) == 3


def held(w: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    """Weights as integers, before they are cut."""
    return torch.floor(w.double() * 2.0 ** e.double() + 0.5)


def test_weight_exponents_are_the_finest_that_cut_nothing() -> None:
    g = torch.Generator().manual_seed(5)
    w = torch.randn(40, 60, generator=g) * 10.0 ** torch.linspace(-3, 0.7, 60)
    w[:, 7] = 0
    w[0, 8], w[1:, 8] = 127.5 / 2**6, 0  # would be rounded to 128
    for values in (w, -w):
        e = weight_exponents(values, torch.zeros(60), 4, SIGNED, 0)
        assert held(values, e).abs().max() <= 127
        finer = (values.abs().double() * 2.0 ** (e + 1.0).double()).amax(0) >= 127.5
        assert all(finer[j] or e[j] == 20 for j in range(60))
        assert e[7] == 20  # shift 24: no weight sets a limit


@pytest.mark.parametrize("largest", [SIGNED, HIDDEN])
def test_no_output_can_reach_the_bound_whatever_the_weights(largest: int) -> None:
    g = torch.Generator().manual_seed(6)
    sign = torch.where(torch.rand(1024, 40, generator=g) < 0.5, -1.0, 1.0)
    w = (torch.rand(1024, 40, generator=g) * 0.1 + 0.9) * sign * 10.0 ** torch.linspace(-4, 0, 40)
    w[:, 1::2] = w[:, 1::2].abs()
    b = torch.linspace(-300, 300, 40)
    q = Integers.of(w, b, 3, largest, -6)
    reach = (128 if largest == HIDDEN else 127) * q.w.abs().sum(0, dtype=torch.int64) + q.b.abs()
    assert int(reach.max()) < 2**24
    assert int(reach.max()) > 2**20


def test_gates_share_a_grid_that_left_shifts_of_at_most_five_reach() -> None:
    g = torch.Generator().manual_seed(7)
    w_is = torch.randn(32, 64, generator=g) * 10.0 ** torch.linspace(-3, 1, 64)
    w_ss = torch.randn(24, 64, generator=g) * 10.0 ** torch.linspace(1, -3, 64)
    q = GateIntegers.of(w_is, w_ss, torch.zeros(64), 4)
    for left in (q.is_left, q.ss_left):
        assert 0 <= int(left.min()) < int(left.max()) == 5
    assert bool((torch.minimum(q.is_left, q.ss_left) == 0).all())
    assert torch.equal(4 + q.is_exponent + q.is_left, STATE + q.ss_exponent + q.ss_left)


def test_exponents_survive_json_and_those_of_another_arithmetic_do_not() -> None:
    e = Exponents(9, 3, (ConvExponents(4, 2), LstmExponents(3)), (HeadExponents(3), HeadExponents(4), HeadExponents(5)))
    stored = json.loads(json.dumps(e.to_json()))
    assert Exponents.from_json(stored) == e
    del stored["arithmetic"]
    assert Exponents.from_json(stored) is None


def test_prior_starts_training_near_four_bits() -> None:
    p = torch.softmax(prior_bias(), dim=0)
    assert float(p[0]) == float(p.max())
    assert p[1] == p[255]
    assert error_basis().shape == (256, 32)
    model = TrunkModel(CONFIG)
    smooth = np.clip(np.random.default_rng(0).normal(128, 2, (1, 16, 16, 3)), 0, 255).astype(np.uint8)
    inputs, errors = tensors(prepare(smooth))
    bits = sum(v.item() for v in model.loss(inputs, errors, torch.float32)) / errors.numel() / np.log(2)
    assert bits < 4.5
