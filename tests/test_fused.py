"""The fused CPU passes of training equal torch's operations, which float64 takes, to the precision of their type."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from pixzip.nets import fused  # noqa: E402

ROWS, WIDTH, STATES = 3, 6, 24
POSITIONS = ROWS * (WIDTH + 1)
COMPILED = [torch.bfloat16, torch.float32]


def near(dtype: torch.dtype, bfloat16: float) -> float:
    """A tolerance: the one given, or float32's."""
    return bfloat16 if dtype == torch.bfloat16 else 2e-6


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Values that bfloat16 holds, as float32."""
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=g) * scale).bfloat16().float()


def cell(pre: torch.Tensor, before: torch.Tensor, dtype: torch.dtype, width: int = WIDTH) -> list[torch.Tensor]:
    """Cells, hidden states and gates of row 1 of lstm_rows, computed in dtype, as float32; the bias is not small."""
    m, k = before.shape
    bias = random(4 * k, seed=7)
    cells = torch.stack([torch.full((m, k), torch.nan), before, before])
    h, gates = torch.full((m + 5, k), 7.0, dtype=dtype), torch.full((m + 5, 4 * k), 7.0, dtype=dtype)
    fused.lstm_rows(bias, width, cells, h, gates)(pre.to(dtype), 1, 3)
    for whole in (h, gates):  # no other row is written
        assert (whole[:3] == 7).all() and (whole[-2:] == 7).all()
    return [cells[2], h[3:-2].float(), gates[3:-2].float()]


def gradient(dtype: torch.dtype, width: int = WIDTH) -> list[torch.Tensor]:
    """d_pre, dc and db of row 1 of lstm_rows_gradient, computed in dtype, as float32."""
    gates = torch.sigmoid(random(POSITIONS, 4 * STATES, seed=1)).bfloat16().to(dtype)
    gates.view(ROWS, WIDTH + 1, -1)[:, WIDTH] = 0
    before, after = random(POSITIONS, STATES, seed=2), random(POSITIONS, STATES, seed=3)
    dc = random(POSITIONS, STATES, seed=4)
    dc.view(ROWS, WIDTH + 1, -1)[:, WIDTH] = 0
    d_pre, db = torch.empty(POSITIONS, 4 * STATES, dtype=dtype), torch.zeros(4 * STATES)
    dh = random(POSITIONS, STATES, seed=5).to(dtype)
    cells = torch.stack([torch.full_like(before, torch.nan), before, after])
    first = 3  # what stands before the row, and after it, is not read
    dh, gates = (torch.nn.functional.pad(part, (0, 0, first, 2), value=torch.nan) for part in (dh, gates))
    fused.lstm_rows_gradient(gates, width, cells, dh, dc, db)(d_pre, 1, first)
    return [d_pre.float(), dc, db]


@pytest.mark.parametrize("dtype", COMPILED)
@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0, 100.0])
def test_cell_equals_torch(scale: float, dtype: torch.dtype) -> None:
    pre, before, most = (
        random(POSITIONS, 4 * STATES, scale=scale),
        random(POSITIONS, STATES, seed=1),
        near(dtype, 2**-8),
    )
    for got, want in zip(cell(pre, before, dtype), cell(pre, before, torch.float64), strict=True):
        torch.testing.assert_close(got, want, atol=most, rtol=most)


@pytest.mark.parametrize("dtype", COMPILED)
def test_cell_keeps_the_zero_columns_at_zero(dtype: torch.dtype) -> None:
    pre, before = random(POSITIONS, 4 * STATES), random(POSITIONS, STATES, seed=1)
    for part in cell(pre, before, dtype):
        assert not part.view(ROWS, WIDTH + 1, -1)[:, WIDTH].any()
        assert part.view(ROWS, WIDTH + 1, -1)[:, :WIDTH].all()


@pytest.mark.parametrize("dtype", COMPILED)
def test_cell_gradient_equals_torch(dtype: torch.dtype) -> None:
    most = near(dtype, 2**-7)
    for got, want in zip(gradient(dtype), gradient(torch.float64), strict=True):
        torch.testing.assert_close(got, want, atol=5 * most, rtol=most)


@pytest.mark.parametrize("dtype", COMPILED)
def test_a_zero_column_in_the_wrong_place_is_seen(dtype: torch.dtype) -> None:
    right, wrong = gradient(torch.float64), gradient(dtype, width=WIDTH - 1)
    assert any((a - b).abs().max() > 0.1 for a, b in zip(right, wrong, strict=True))


@pytest.mark.parametrize("dtype", COMPILED)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_softmax_equals_torch(scale: float, dtype: torch.dtype) -> None:
    logits, bias, symbols = random(50, 256, scale=scale), random(256, seed=1, scale=scale), torch.arange(50) * 5
    d_bias, reference = torch.zeros(256), torch.zeros(256)
    nats, d_logits = fused.softmax_nats(logits.to(dtype).clone(), bias, symbols, d_bias)
    expected, d_expected = fused.softmax_nats(logits.double(), bias, symbols, reference)
    assert nats == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(d_logits.float(), d_expected.float(), atol=near(dtype, 2**-12), rtol=near(dtype, 2**-8))
    torch.testing.assert_close(d_bias, reference, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", COMPILED)
def test_softmax_of_all_negative_logits_is_finite(dtype: torch.dtype) -> None:
    logits, symbols = torch.full((2, 256), -1e4, dtype=dtype), torch.zeros(2, dtype=torch.int64)
    nats, d_logits = fused.softmax_nats(logits, torch.zeros(256), symbols, torch.zeros(256))
    assert nats == pytest.approx(2 * torch.log(torch.tensor(256.0)).item())
    assert d_logits.float().sum().abs() < 1e-2


@pytest.mark.parametrize("dtype", COMPILED)
def test_not_a_number_shows_in_the_loss(dtype: torch.dtype) -> None:
    logits = torch.zeros(3, 256)
    logits[1, 7] = float("nan")
    symbols = torch.zeros(3, dtype=torch.int64)
    nats, _ = fused.softmax_nats(logits.to(dtype), torch.zeros(256), symbols, torch.zeros(256))
    assert nats != nats


@pytest.mark.parametrize("dtype", COMPILED)
def test_columns_are_added(dtype: torch.dtype) -> None:
    part, sums = random(300, 40).to(dtype), random(40, seed=1)
    wanted = sums.double() + part.double().sum(0)
    fused.add_columns(part, sums)
    torch.testing.assert_close(sums.double(), wanted, atol=1e-4 if dtype == torch.bfloat16 else 1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", COMPILED)
def test_rectifying_adds_the_bias_first(dtype: torch.dtype) -> None:
    out, bias = random(30, 40), random(40, seed=1)
    got = fused.rectify(out.to(dtype).clone(), bias)
    torch.testing.assert_close(got.float(), (out + bias).relu(), atol=0, rtol=near(dtype, 2**-8))
    assert (got == 0).any() and (got > 0).any() and not (got < 0).any()


@pytest.mark.parametrize("dtype", COMPILED)
def test_gradient_of_rectifying_is_masked_by_the_output_and_summed(dtype: torch.dtype) -> None:
    output, gradient = random(300, 40).relu().to(dtype), random(300, 40, seed=1).to(dtype)
    sums = torch.ones(40)
    got = fused.rectify_gradient(gradient.clone(), output, sums)
    assert torch.equal(got, gradient * (output > 0))
    torch.testing.assert_close(sums, 1 + got.float().sum(0), atol=0.05 if dtype == torch.bfloat16 else 1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", COMPILED)
@pytest.mark.parametrize("based", [False, True])
def test_bias_and_base_are_added_in_place(based: bool, dtype: torch.dtype) -> None:
    out, bias, base = random(30, 40), random(40, seed=1), random(30, 40, seed=2)
    got = out.to(dtype).clone()
    fused.add_bias(got, bias, base.to(dtype) if based else None)
    torch.testing.assert_close(got.float(), out + bias + based * base, atol=near(dtype, 2**-7), rtol=near(dtype, 2**-8))


@pytest.mark.parametrize("dtype", COMPILED)
def test_softmax_of_integer_logits_equals_torch(dtype: torch.dtype) -> None:
    logits = (random(40, 256, scale=300.0)).to(torch.int32)
    symbols, d_bias, reference = torch.arange(40), torch.zeros(256), torch.zeros(256)
    nats, d_logits = fused.integer_softmax_nats(logits, 2.0**-6, symbols, d_bias, dtype)
    expected, d_expected = fused.softmax_nats(logits.double() * 2.0**-6, torch.zeros(256), symbols, reference)
    assert nats == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(d_logits.float(), d_expected.float(), atol=near(dtype, 2**-12), rtol=near(dtype, 2**-8))
    torch.testing.assert_close(d_bias, reference, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", COMPILED)
def test_gates_of_integer_products_equal_torch(dtype: torch.dtype) -> None:
    products = [random(POSITIONS, 4 * STATES, seed=s, scale=500.0).to(torch.int32) for s in (0, 1)]
    scales = [torch.full((4 * STATES,), 2.0**-9), torch.full((4 * STATES,), 2.0**-10)]
    bias, gates = random(4 * STATES), torch.empty(POSITIONS, 4 * STATES, dtype=dtype)
    fused.integer_gates((products[0], products[1]), (scales[0], scales[1]), bias, WIDTH, gates)
    pre = products[0] * scales[0] + products[1] * scales[1] + bias
    expected = torch.cat([pre[:, : 3 * STATES].sigmoid(), pre[:, 3 * STATES :].tanh()], dim=1)
    expected.view(ROWS, WIDTH + 1, -1)[:, WIDTH] = 0
    torch.testing.assert_close(gates.float(), expected, atol=near(dtype, 2**-9), rtol=near(dtype, 2**-8))


@pytest.mark.parametrize("dtype", COMPILED)
def test_no_gradient_passes_where_a_hidden_layer_was_cut(dtype: torch.dtype) -> None:
    held = torch.tensor([[-128, -127, 0, 126, 127]], dtype=torch.int8)
    assert fused.clear_cut(torch.ones(1, 5, dtype=dtype), held).tolist() == [[0, 1, 1, 1, 0]]


@pytest.mark.parametrize("dtype", COMPILED)
@pytest.mark.parametrize("offsets", [(-8, -7, -6, -1, 0), (-8, -7, -6), (-1, 0), (0,)])
def test_gradients_of_taps_are_added_where_they_came_from(offsets: tuple[int, ...], dtype: torch.dtype) -> None:
    into, grad = random(40, 8).double(), random(20, 8 * len(offsets), seed=1).double()
    got, reference = into.to(dtype), into.clone()
    fused.add_taps(got, 12, grad.to(dtype), offsets)
    fused.add_taps(reference, 12, grad, offsets)
    torch.testing.assert_close(got.double(), reference, atol=near(dtype, 0), rtol=near(dtype, 2**-8))
    expected = into.clone()
    for p in range(20):
        for j, offset in enumerate(offsets):
            expected[12 + p + offset] += grad[p, 8 * j : 8 * j + 8]
    torch.testing.assert_close(reference, expected)
    fused.add_taps(wrong := into.to(dtype), 13, grad.to(dtype), offsets)
    assert (wrong.double() - expected).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_added_to_sums_in_float32(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(3)
    a, b, sums = (torch.randn(s, generator=g) for s in ((70, 9), (70, 5), (9, 5)))
    a, b = a.to(dtype), b.to(dtype)
    wanted = sums.double() + a.double().t() @ b.double()
    fused.add_product(sums, a, b)
    near = 1e-5 if dtype is torch.float32 else 2**-7
    torch.testing.assert_close(sums.double(), wanted, rtol=near, atol=8 * near)
    fused.add_product(sums, a, b)  # again: it is added, not put there
    assert (sums.double() - wanted).abs().max() > 1
