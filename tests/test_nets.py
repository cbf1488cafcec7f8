"""The trainable network: gradients, causality, equality with loops from the paper and with the frozen runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pixzip import evaluate  # noqa: E402
from pixzip.freeze import freeze  # noqa: E402
from pixzip.model_file import Model, load_model  # noqa: E402
from pixzip.nets.calibration import calibrated  # noqa: E402
from pixzip.nets.exponents import Exponents, best_exponent  # noqa: E402
from pixzip.nets.flat_map import FlatMap  # noqa: E402
from pixzip.nets.layers import CONV_TAPS, ConvBlock, RowLstm  # noqa: E402
from pixzip.nets.quantised import HeadIntegers, head_logits, quantised_loss, quantised_stream, to_int8  # noqa: E402
from pixzip.nets.tables import make_tables  # noqa: E402
from pixzip.nets.trunk import Batch, TrunkConfig, TrunkModel, error_basis, prepare, prior_bias  # noqa: E402
from pixzip.runtime.rows import traverse  # noqa: E402

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
    exponents = calibrated(model, *tensors(prepare(crops)))
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


def naive_conv(x: np.ndarray[Any, Any], w1: Any, b1: Any, w2: Any, b2: Any) -> np.ndarray[Any, Any]:
    """The convolution block, pixel by pixel, in float64: x (h, w, t)."""
    h, w, t = x.shape
    out = np.empty_like(x)
    for y in range(h):
        for xx in range(w):
            taps = []
            for dy, dx in CONV_TAPS:
                inside = y + dy >= 0 and 0 <= xx + dx < w
                taps.append(x[y + dy, xx + dx] if inside else np.zeros(t))
            hidden = np.maximum(np.concatenate(taps) @ w1 + b1, 0)
            out[y, xx] = x[y, xx] + hidden @ w2 + b2
    return out


def naive_row_lstm(x: np.ndarray[Any, Any], w_is: Any, w_ss: Any, b: Any) -> np.ndarray[Any, Any]:
    """Equation 3 of the paper, pixel by pixel, in float64: x (h, w, t) → h (h, w, k)."""
    height, width, _ = x.shape
    k = w_ss.shape[1] // 4
    state, cell = np.zeros((height, width, k)), np.zeros((height, width, k))

    def at(a: np.ndarray[Any, Any], y: int, xx: int) -> np.ndarray[Any, Any]:
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


def test_layers_equal_loops_written_from_the_equations() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 5, 6, 8))
    m = FlatMap(2, 5, 6, chunk=7)
    flat = m.pack(torch.from_numpy(x), torch.float32)
    conv = [rng.normal(size=s) * 0.3 for s in ((40, 12), (12,), (12, 8), (8,))]
    lstm = [rng.normal(size=s) * 0.3 for s in ((16, 24), (18, 24), (24,))]
    as_tensors = [[torch.from_numpy(p).float() for p in group] for group in (conv, lstm)]
    got_conv = m.unpack(ConvBlock.apply(flat, *as_tensors[0], m)).numpy()
    got_lstm = m.unpack(RowLstm.apply(flat, *as_tensors[1], m)).numpy()
    for i in range(2):
        np.testing.assert_allclose(got_conv[i], naive_conv(x[i], *conv), atol=1e-5)
        np.testing.assert_allclose(got_lstm[i], naive_row_lstm(x[i], *lstm), atol=1e-5)


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
        bias, shift, _table = model.network.logit_row(colour)
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
            x = to_int8(stream, e.feature)
            rows.append(head_logits(x, by_colour[:colour], q, e.feature, e.heads[colour])[1].reshape(h, w, 256))
    return torch.stack(rows, dim=1).numpy()


def test_quantised_training_computes_the_runtime_integers() -> None:
    model, crops = small_model(), picture_batch(1, 9, 23, seed=5)
    e, file = frozen(model, crops)
    np.testing.assert_array_equal(quantised_logits(model, e, crops), runtime_logits(file, crops))
    nats = sum(v.item() for v in quantised_loss(model, *tensors(prepare(crops)), e, TABLES))
    bits = evaluate.model_bits(file, np.ascontiguousarray(crops.transpose(0, 3, 1, 2))).sum()
    assert nats / np.log(2) == pytest.approx(bits, rel=1e-6)


def test_quantised_equality_catches_one_table_entry_off_by_one() -> None:
    model, crops = small_model(), picture_batch(1, 9, 23, seed=5)
    e, file = frozen(model, crops)
    tanh = file.network.arrays["table.tanh"].copy()
    tanh += (np.abs(tanh) < 4096).astype(np.int16)
    arrays = {**file.network.arrays, "table.tanh": tanh}
    broken = Model("broken", file.data, type(file.network)(**{**vars(file.network), "arrays": arrays}), {})
    assert (quantised_logits(model, e, crops) != runtime_logits(broken, crops)).any()


def test_quantised_gradients_point_where_float_gradients_do() -> None:
    model, crops = small_model(), picture_batch(4, 16, 16, seed=7)
    inputs, errors = tensors(prepare(crops))
    e, _ = frozen(model, crops)
    sum(quantised_loss(model, inputs, errors, e, TABLES)).backward()
    quantised = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    sum(model.loss(inputs, errors, torch.float32)).backward()
    for name, p in model.named_parameters():
        if p.numel() and p.grad is not None and float(p.grad.norm()) > 1e-3:
            cosine = torch.nn.functional.cosine_similarity(p.grad.flatten(), quantised[name].flatten(), dim=0)
            assert cosine > 0.8, name


def test_best_exponent_keeps_typical_values() -> None:
    values = torch.linspace(-1.9, 1.9, 101)
    assert best_exponent(values) == 6  # 127 / 2^6 holds 1.98; 2^7 would cut half of them
    assert best_exponent(values * 8) == 3


def test_prior_starts_training_near_four_bits() -> None:
    p = torch.softmax(prior_bias(), dim=0)
    assert float(p[0]) == float(p.max())
    assert p[1] == p[255]
    assert error_basis().shape == (256, 32)
    model = TrunkModel(CONFIG)
    smooth = np.clip(np.random.default_rng(0).normal(128, 2, (1, 16, 16, 3)), 0, 255).astype(np.uint8)
    inputs, errors = tensors(prepare(smooth))
    bits = sum(v.item() for v in model.loss(inputs, errors)) / errors.numel() / np.log(2)
    assert bits < 4.5
