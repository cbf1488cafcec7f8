"""Batches on a device: the same bytes and pixels as the CPU's compiled code, whatever else is in the batch.

They run on torch's CPU device, and on a GPU where there is one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import photo, tiny_model

torch = pytest.importorskip("torch")

from test_learning import bold_model  # noqa: E402

import pixzip  # noqa: E402
from pixzip import codec  # noqa: E402
from pixzip.coding.entropy import Lanes, read_lanes  # noqa: E402
from pixzip.coding.frequencies import find_weight, sum_before, weight_interval  # noqa: E402
from pixzip.errors import FormatError, LimitError, UsageError  # noqa: E402
from pixzip.jit import jit  # noqa: E402
from pixzip.model.file import Model  # noqa: E402
from pixzip.runtime.device import arithmetic, heads, pixels, together, trunk, wavefront  # noqa: E402
from pixzip.runtime.device.wavefront import Block  # noqa: E402
from pixzip.runtime.trunk import steps  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]

#: Wide, tall, one row, one column, one pixel, and rows that leave and take a slot again.
SHAPES: list[Shape] = [(1, 16, 18), (1, 9, 30), (1, 30, 9), (1, 1, 5), (1, 7, 1), (1, 1, 1), (1, 21, 8)]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def planes_of(shapes: Sequence[Shape], colours: int = 3) -> list[Pixels]:
    """A picture of each shape, gray ones three times over."""
    made = [photo(i, (n, colours, h, w)) for i, (n, h, w) in enumerate(shapes)]
    return [np.ascontiguousarray(np.broadcast_to(p, (len(p), 3, *p.shape[2:]))) for p in made]


def on_cpu(model: Model, planes: Pixels, rate: int, colours: int = 3) -> Any:
    return steps.intervals(model.network, "float32", planes, colours, rate=rate)


def streams(model: Model, planes: Pixels, rate: int, lanes: int, colours: int = 3) -> Lanes:
    return read_lanes(codec.block_payload(*on_cpu(model, planes, rate, colours), len(planes), lanes, model), lanes)


def agree(
    model: Model, shapes: Sequence[Shape], rates: Sequence[int], lanes: Sequence[int], device: str, colours: int = 3
) -> bool:
    """Whether the device writes the CPU's intervals and reads its lanes, all blocks in one batch."""
    planes, blocks = planes_of(shapes, colours), [Block(s, r) for s, r in zip(shapes, rates, strict=True)]
    how = (model.network, torch.device(device), blocks)
    found = wavefront.intervals_of_blocks(*how, planes, colours)
    expected = [on_cpu(model, p, r, colours) for p, r in zip(planes, rates, strict=True)]
    if not all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)):
        return False
    coded = [streams(model, p, r, k, colours) for p, r, k in zip(planes, rates, lanes, strict=True)]
    for (decoded, ends), wanted in zip(wavefront.decode_blocks(*how, coded, colours), planes, strict=True):
        if not np.array_equal(decoded, wanted):
            return False
        ends.check_finished()
    return True


@pytest.mark.parametrize("device", DEVICES)
def test_blocks_of_all_sizes_rates_and_lanes_in_one_batch(device: str) -> None:
    rates, lanes = [8, 200, 0, 255, 3, 8, 40], [1, 2, 3, 1, 7, 1, 5]
    assert agree(tiny_model(2, "clc"), SHAPES, rates, lanes, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("blocks", ["c", "l", "lcl"])
@pytest.mark.parametrize("seed", range(2))
def test_networks(seed: int, blocks: str, device: str) -> None:
    assert agree(tiny_model(seed, blocks), [(1, 9, 11)], [8], [2], device)


@pytest.mark.parametrize("device", DEVICES)
def test_several_pictures_learn_as_one_block(device: str) -> None:
    assert agree(tiny_model(3), [(3, 9, 9), (3, 4, 17)], [8, 9], [4, 2], device)


@pytest.mark.parametrize("device", DEVICES)
def test_gray(device: str) -> None:
    assert agree(tiny_model(4), [(2, 9, 9), (2, 5, 12)], [8, 0], [2, 1], device, colours=1)


@pytest.mark.parametrize("device", DEVICES)
def test_networks_at_their_limits(device: str) -> None:
    assert agree(tiny_model(5, "cl", extreme=True), [(1, 9, 11)], [0], [2], device)
    assert agree(bold_model(6), [(1, 12, 13)], [255], [3], device)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (trunk, "half_of", lambda shift: 0),
        (trunk, "CONV_TAPS", ((-1, -1), (-1, 0), (0, -1), (-1, 1), (0, 0))),
        (trunk, "SS_TAPS", ((-1, -1), (-1, 0), (-1, 0))),
        (trunk, "IS_TAPS", ((0, 0), (0, -1))),
        (trunk, "saturated", lambda values, limit: values),
        (heads, "hidden_units", lambda values: values.clamp(0, 255) - 127),
        (pixels, "period_of", lambda shapes: max(min(h, w // 2 + 2) for _, h, w in shapes)),
        (pixels, "_median", lambda west, *others: west),
        (pixels, "OUTSIDE", 0),
        (heads.learning, "FORGET", 5),
        (heads.learning, "FINE", 2),
        (heads.learning, "ODDS", 11),
        (heads.learning, "COARSE", 13),
    ],
)
def test_a_planted_fault_is_caught(module: Any, name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    model, shapes, rates = tiny_model(2, "cl"), [(1, 9, 30), (1, 12, 12)], [40, 40]
    planes = planes_of(shapes)
    expected = [on_cpu(model, p, r) for p, r in zip(planes, rates, strict=True)]
    blocks = [Block(s, r) for s, r in zip(shapes, rates, strict=True)]
    monkeypatch.setattr(module, name, value)
    found = wavefront.intervals_of_blocks(model.network, torch.device("cpu"), blocks, planes, 3)
    assert not all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_device_that_does_not_multiply_exactly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with arithmetic.exact_products(torch.device("cpu")):
        pass
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: product(a.bfloat16(), b.bfloat16()).float())
    with pytest.raises(UsageError, match="does not multiply exactly"), arithmetic.exact_products(torch.device("cpu")):
        pass


def test_autocast_and_matmul_precision_change_nothing() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert agree(tiny_model(7), [(1, 9, 9)], [8], [1], "cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


# The coder.


@pytest.mark.parametrize("scale", [1, 300, 1 << 20])
def test_symbols_and_intervals_are_the_coders(scale: int) -> None:
    @jit
    def by_coder(weights: Any, total: int, quantile: int) -> Any:
        symbol, before = find_weight(weights, total, quantile)
        return symbol, weight_interval(weights, total, symbol, before), sum_before(weights, symbol)

    random = np.random.default_rng(scale)
    weights = random.integers(0, scale + 1, (200, 256)).astype(np.int32)
    weights[:, 0] += 1  # never all zeros
    quantiles = random.integers(0, 1 << 24, 200)
    quantiles[:2] = 0, (1 << 24) - 1
    symbols = heads.symbols_of(torch.from_numpy(weights), torch.from_numpy(quantiles))
    left, frequency = heads.intervals_of(torch.from_numpy(weights), symbols)
    for r in range(200):
        symbol, interval, _ = by_coder(weights[r], int(weights[r].sum()), int(quantiles[r]))
        assert (int(symbols[r]), (int(left[r]), int(frequency[r]))) == (symbol, interval)


def test_a_damaged_block_fails_alone() -> None:
    model, shapes = tiny_model(8), [(1, 9, 11), (1, 8, 8), (1, 11, 6)]
    planes = planes_of(shapes)
    coded = [streams(model, p, 8, 2) for p in planes]
    coded[1].words[0] ^= 1
    blocks = [Block(shape, 8) for shape in shapes]
    found = wavefront.decode_blocks(model.network, torch.device("cpu"), blocks, coded, 3)
    for i in (0, 2):
        assert np.array_equal(found[i][0], planes[i])
        found[i][1].check_finished()
    with pytest.raises(FormatError, match="lane"):
        found[1][1].check_finished()


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_lanes_cut_short_end_as_on_the_cpu(cut: int) -> None:
    model, planes = tiny_model(9), planes_of([(1, 9, 11)])[0]
    whole = codec.block_payload(*on_cpu(model, planes, 0), 1, 1, model)
    words = np.frombuffer(whole[2:], dtype="<u4")[cut:]
    payload = bytes([len(words) & 127 | 128, len(words) >> 7]) + words.tobytes()
    block = [Block((1, 9, 11), 0)]
    ((_, ends),) = wavefront.decode_blocks(model.network, torch.device("cpu"), block, [read_lanes(payload, 1)], 3)
    lanes = read_lanes(payload, 1)
    if cut == 0:
        ends.check_finished()
        return
    with pytest.raises(FormatError) as there:
        steps.decode_block(model.network, "float32", lanes, (1, 9, 11), 3)
    with pytest.raises(FormatError) as here:
        ends.check_finished()
    assert str(here.value) == str(there.value)


# Requests together.


def scarce(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """A device on which so many blocks fit at once; how many each batch had."""
    decode, sizes = together.decode_blocks, list[int]()

    def limited(network: Any, device: Any, blocks: Any, *more: Any) -> Any:
        sizes.append(len(blocks))
        if len(blocks) > most:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate\nmore")
        return decode(network, device, blocks, *more)

    monkeypatch.setattr(together, "decode_blocks", limited)
    return sizes


def test_a_batch_that_does_not_fit_after_all_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = scarce(monkeypatch, 2)
    shapes = [(1, 6, 7), (1, 4, 9), (1, 8, 3), (1, 5, 5), (1, 2, 2)]
    found = run_together(together.Together(torch.device("cpu")), tiny_model(10), shapes, wait_for=5)
    for i, shape in enumerate(shapes):
        assert np.array_equal(found[i][0], photo(i, (shape[0], 3, *shape[1:])))
    assert sizes == [5, 2, 3, 1, 2]


def test_a_block_that_does_not_fit_is_one_of_our_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    scarce(monkeypatch, 0)
    with pytest.raises(LimitError, match=r"out of the device's memory: out of memory\. Tried to allocate$"):
        run_together(together.Together(torch.device("cpu")), tiny_model(10), [(1, 4, 4), (1, 5, 5)], wait_for=2)


def run_together(
    device: together.Together, model: Model, shapes: Sequence[Shape], wait_for: int
) -> list[tuple[Pixels, Lanes]]:
    """Decode blocks of a request each, from as many threads; the first batch waits until wait_for requests are in."""
    patience = device._wait_for_more

    def wait() -> None:
        while len(device._waiting) < wait_for:
            threading.Event().wait(0.001)
        patience()

    device._wait_for_more = wait  # type: ignore[method-assign]

    def work(i: int) -> tuple[Pixels, Lanes]:
        planes = photo(i, (shapes[i][0], 3, *shapes[i][1:]))
        request = together._Request(model.network, [Block(shapes[i], 8)], 3, [streams(model, planes, 8, 2)], True, None)
        (result,) = device.run(request)
        return result

    with ThreadPoolExecutor(len(shapes)) as pool:
        return list(pool.map(work, range(len(shapes))))


def test_requests_of_several_threads_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    decode = together.decode_blocks

    def counted(network: Any, device: Any, blocks: Sequence[Block], *others: Any) -> Any:
        batches.append(len(blocks))
        return decode(network, device, blocks, *others)

    monkeypatch.setattr(together, "decode_blocks", counted)
    shapes: list[Shape] = [(1, 8, 9), (1, 9, 8), (1, 5, 5), (1, 12, 3)]
    found = run_together(together.Together(torch.device("cpu")), tiny_model(10), shapes, wait_for=4)
    for i, (planes, ends) in enumerate(found):
        assert np.array_equal(planes, photo(i, (1, 3, *shapes[i][1:])))
        ends.check_finished()
    assert batches == [4]


def test_requests_alike_are_still_two() -> None:
    """Of the same shapes and with equal arrays, as they are where a picture is coded twice at the same time."""
    shapes: list[Shape] = [(1, 6, 7)] * 3
    device, model = together.Together(torch.device("cpu")), tiny_model(10)
    planes = photo(0, (1, 3, 6, 7))
    requests = [together._Request(model.network, [Block(shape, 8)], 3, [planes], False, None) for shape in shapes]
    device._waiting += [
        together._Request(model.network, [Block((2, 6, 7), 8)], 3, [planes], False, None),
        *requests[:2],
    ]
    (found,) = device.run(requests[2])
    assert np.array_equal(found, on_cpu(model, planes, 8))
    assert [request.done for request in requests] == [True] * 3
    assert len(device._waiting) == 1


def test_a_request_that_is_given_up_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    device, model, planes = together.Together(torch.device("cpu")), tiny_model(10), photo(0, (1, 3, 6, 7))
    one, other = (together._Request(model.network, [Block((1, 6, 7), 8)], 3, [planes], False, None) for _ in range(2))
    device._waiting.append(other)
    with monkeypatch.context() as patch:
        patch.setattr(device, "_wait_for_more", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            device.run(one)
    assert device._waiting == [other]


def test_what_goes_wrong_in_a_batch_is_raised_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("device")

    monkeypatch.setattr(together, "decode_blocks", fail)
    device = together.Together(torch.device("cpu"))
    with pytest.raises(MemoryError, match="device"):
        run_together(device, tiny_model(10), [(1, 4, 4), (1, 5, 5)], wait_for=2)
    assert not device._waiting


def test_pieces_are_alike_and_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    network, device = tiny_model(11).network, together.Together(torch.device("cpu"))
    blocks = [Block((n, 8, 8), 8) for n in (4, 4, 4, 2, 2, 2)]
    assert device.pieces(network, blocks, None) == [slice(0, 3), slice(3, 6)]
    assert device.pieces(network, blocks, 2) == [slice(0, 2), slice(2, 3), slice(3, 5), slice(5, 6)]
    monkeypatch.setattr(together, "_HOST_BYTES", together.batch_bytes(network, [(4, 8, 8)] * 2))
    assert device.pieces(network, blocks, None)[0] == slice(0, 2)
    monkeypatch.setattr(together, "_HOST_BYTES", 1)
    assert device.pieces(network, blocks, None) == [slice(i, i + 1) for i in range(6)]


# Files.


@pytest.mark.parametrize("learning", [0, 8])
def test_files_are_the_cpus(model: Any, model_picture_at: Callable[[int, int], Any], learning: int) -> None:
    image = model_picture_at(20, 24)
    how: dict[str, Any] = {"model": model, "tile": 10, "learning": learning}
    data = pixzip.compress(image, **how)
    assert pixzip.inspect(data).coding == "model"
    assert pixzip.compress(image, engine="torch", **how) == data
    progress: list[float] = []
    again = pixzip.decompress(data, model=model, engine="torch", progress=progress.append)
    assert np.array_equal(pixzip.to_array(again), image)
    assert progress == sorted(progress) and progress[-1] == 1


def test_a_network_for_the_cpu_only_is_refused() -> None:
    from tiny_stack import stack_model

    with pytest.raises(UsageError, match="runs on the CPU only"):
        codec.encode(stack_model("pixelcnn"), photo(0, (1, 3, 8, 8)), engine="torch")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_cuda_is_refused(model: Any, model_picture_at: Callable[[int, int], Any]) -> None:
    with pytest.raises(UsageError, match="no CUDA device"):
        pixzip.compress(model_picture_at(8, 8), model=model, engine="cuda")


@pytest.fixture
def model_picture_at() -> Callable[[int, int], Any]:
    from conftest import model_picture

    return model_picture
