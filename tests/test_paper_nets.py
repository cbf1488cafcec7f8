"""What the paper's networks may see and do see, proven by changing pixels; their sizes; that they learn."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_nets import ARCHITECTURES, crops_of, randomised  # noqa: E402

from pixzip.errors import TrainingDataError, TrainingError  # noqa: E402
from pixzip.nets import diagonal_bilstm, multiscale, pixels  # noqa: E402
from pixzip.nets.diagonal_bilstm import DiagonalBiLstmConfig  # noqa: E402
from pixzip.nets.masks import colours, weight_mask  # noqa: E402
from pixzip.nets.multiscale import MultiScaleConfig  # noqa: E402
from pixzip.nets.network import build  # noqa: E402
from pixzip.nets.pixelcnn import PixelCnnConfig  # noqa: E402
from pixzip.nets.precision import fastest_type  # noqa: E402
from pixzip.nets.row_lstm import RowLstmConfig  # noqa: E402
from pixzip.training.config import architecture_of, from_tables, preset_tables, presets  # noqa: E402
from pixzip.training.workers import torch_threads  # noqa: E402

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import network_sizes  # noqa: E402

Position = tuple[int, int, int]  # (y, x, c)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that equal inputs give equal bits."""
    with torch_threads(1):
        yield


def seen_by_coder(network: Any, crops: Any, dtype: torch.dtype) -> Any:
    """(h, w, planes, m): of each sub-pixel its prediction and its logits."""
    batch = network.prepare(crops)
    predictions = getattr(batch, "large", batch).predictions[0]
    with torch.no_grad():
        logits = network.logits(crops, dtype)[0]
    if logits.dim() == 3:  # binary
        logits = logits[..., None]
    return np.concatenate([predictions[..., None], logits.permute(1, 2, 0, 3).double().numpy()], axis=3)


def changed_at(crops: Any, at: Position, random: np.random.Generator) -> Any:
    """The crops with another value at one sub-pixel."""
    other = crops.copy()
    values = 2 if crops.max() <= 1 else 256
    other[(0, *at)] = (int(other[(0, *at)]) + random.integers(1, values)) % values
    return other


def leaks(
    network: Any, crops: Any, dtype: torch.dtype = torch.float64, known: Callable[[Position], bool] = lambda _: False
) -> tuple[list[tuple[Position, Position]], int]:
    """Change each sub-pixel j that is not known: the pairs (j, i), i <= j not known, where i changes, and the number
    of later ones that do."""
    random = np.random.default_rng(7)
    positions: list[Position] = [p for p in np.ndindex(crops.shape[1:]) if not known(p)]
    before = seen_by_coder(network, crops, dtype)
    found, later = [], 0
    for j in positions:
        after = seen_by_coder(network, changed_at(crops, j, random), dtype)
        for i in positions:
            if (before[i] != after[i]).any():
                if i <= j:
                    found.append((j, i))
                else:
                    later += 1
    return found, later


#: Type and pictures at once: training has branches of its own for float32 and for more than one picture.
TYPES = [(torch.float64, 1), (torch.float32, 1), (torch.float32, 2)]


@pytest.mark.parametrize(("dtype", "n"), TYPES)
@pytest.mark.parametrize(("scale", "layers", "seed"), [(0.3, 3, 0), (1.0, 1, 1), (4.0, 2, 2)])
@pytest.mark.parametrize(
    ("pictures", "frame"),
    [("rgb", "raw"), ("rgb", "residual"), ("gray", "raw"), ("gray", "residual"), ("binary", "raw")],
)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_earlier_changes_with_a_sub_pixel(
    name: str, pictures: str, frame: str, scale: float, layers: int, seed: int, dtype: torch.dtype, n: int
) -> None:
    sizes = {"h": 7 + seed, "head": 12 + seed}  # widths of groups of colours with every remainder by 3
    config = ARCHITECTURES[name](
        pictures=pictures, frame=frame, layers=layers, **sizes, residual=seed != 1, skip=seed != 2
    )
    crops = crops_of(pictures, 4, 5, n, seed=seed)
    found, later = leaks(randomised(config, seed, scale), crops, dtype)
    assert found == []
    assert later > crops[0].size ** 2 // 4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_earlier_changes_in_float32_on_a_wider_picture(name: str) -> None:
    network = randomised(ARCHITECTURES[name](layers=2, h=9, head=12, frame="residual"))
    found, later = leaks(network, crops_of("rgb", 5, 9), torch.float32)
    assert found == [] and later > 0


def multiscale_network(name: str, scale: float = 1.0, factor: int = 2, **choices: Any) -> Any:
    part = ARCHITECTURES[name](**{"layers": 2, "h": 4, "head": 5, **choices})
    return randomised(MultiScaleConfig(part, part, factor, 3), seed=3, scale=scale)


def in_small_picture(factor: int) -> Callable[[Position], bool]:
    return lambda p: p[0] % factor == 0 and p[1] % factor == 0


@pytest.mark.parametrize(("dtype", "n"), TYPES)
@pytest.mark.parametrize(("scale", "factor"), [(0.5, 2), (2.0, 4)])
@pytest.mark.parametrize(("pictures", "frame"), [("rgb", "raw"), ("gray", "residual"), ("binary", "raw")])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_multiscale_nothing_earlier_unknown_changes(
    name: str, pictures: str, frame: str, scale: float, factor: int, dtype: torch.dtype, n: int
) -> None:
    network = multiscale_network(name, scale, factor, pictures=pictures, frame=frame)
    crops = crops_of(pictures, 5, 4, n, seed=1)
    found, later = leaks(network, crops, dtype, in_small_picture(factor))
    assert found == [] and later > 0
    assert leaks(network.small, crops_of(pictures, 3, 3, n), dtype)[0] == []


def test_multiscale_small_picture_reaches_earlier_pixels() -> None:
    network, crops = multiscale_network("pixelcnn", h=12, head=24), crops_of("rgb", 8, 8)
    other = changed_at(crops, (4, 4, 0), np.random.default_rng(0))
    before, after = (seen_by_coder(network, c, torch.float64) for c in (crops, other))
    changed = (before != after).any(axis=3)
    assert changed[3, 3].all() and changed[4, 3].all()  # above and left of the known pixel
    assert not changed[:3].any()  # a deconvolution of 4 × 4 taps reaches one pixel back


def fault_in_masks(network: Any, fault: str) -> None:
    """Faults of one convolution of an otherwise right network."""
    wide, narrow = colours(2 * network.config.h, 3), colours(network.config.h, 3)
    layer = network.layers[-1]
    if fault == "first layer with mask B":
        network.first.mask = weight_mask("B", (0, 1, 2), wide, (7, 7))
    elif fault == "one input group too many in the first layer":
        network.first.mask[0, 0, 3, 3] = 1  # an R feature sees R at its own pixel
    elif fault == "groups in the order B, G, R":
        layer.up.mask = weight_mask("B", narrow[::-1], wide[::-1], (1, 1))
    elif fault == "an unmasked up-projection":
        layer.up.mask = torch.ones_like(layer.up.mask)
    elif fault == "an unmasked skip connection":
        network.skips[-1].mask = torch.ones_like(network.skips[-1].mask)
    elif fault == "an unmasked head":
        network.head.two.mask = torch.ones_like(network.head.two.mask)
    elif fault == "gates grouped over all four at once":
        layer.input_to_state.mask = weight_mask("B", wide, colours(4 * network.config.h, 3), (1, 3))
    elif fault == "a 3×3 convolution one column ahead":
        layer.middle.padding = (0, 2, 1, 0)
    elif fault == "a 3×3 convolution one row ahead":
        layer.middle.padding = (1, 1, 0, 1)
    elif fault == "an is convolution one column ahead":
        layer.input_to_state.padding = (0, 1, 0, 0)
    elif fault == "an unmasked left-to-right is":
        mask = layer.left_to_right.input_to_state.mask
        layer.left_to_right.input_to_state.mask = torch.ones_like(mask)
    else:
        raise AssertionError(fault)


EVERYWHERE = (
    "first layer with mask B",
    "one input group too many in the first layer",
    "groups in the order B, G, R",
    "an unmasked up-projection",
    "an unmasked skip connection",
    "an unmasked head",
)
OF_ONE = {
    "pixelcnn": ("a 3×3 convolution one column ahead", "a 3×3 convolution one row ahead"),
    "row_lstm": ("an is convolution one column ahead", "gates grouped over all four at once"),
    "diagonal_bilstm": ("an unmasked left-to-right is",),
}


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name in ARCHITECTURES for fault in EVERYWHERE + OF_ONE[name]]
)
def test_changing_sub_pixels_finds(name: str, fault: str) -> None:
    network = randomised(ARCHITECTURES[name](layers=2, h=12, head=24, skip=True))
    crops = crops_of("rgb", 3, 4)
    assert leaks(network, crops)[0] == []
    fault_in_masks(network, fault)
    assert leaks(network, crops)[0] != []


@pytest.mark.parametrize(("dtype", "n"), TYPES)
@pytest.mark.parametrize("is_conditioned", [False, True])
def test_changing_sub_pixels_finds_a_right_to_left_map_that_is_not_shifted(
    monkeypatch: pytest.MonkeyPatch, is_conditioned: bool, dtype: torch.dtype, n: int
) -> None:
    """Where a layer is conditioned, or where it is not."""
    own, conditioned = randomised(DiagonalBiLstmConfig(layers=1, h=4, head=5)), multiscale_network("diagonal_bilstm")
    right, is_right = diagonal_bilstm.DiagonalBiLstmLayer.forward, diagonal_bilstm.shift_down

    def wrong(layer: Any, x: Any, conditioning: Any = None) -> Any:
        faulty = (conditioning is not None) == is_conditioned
        monkeypatch.setattr(diagonal_bilstm, "shift_down", (lambda states: states) if faulty else is_right)
        return right(layer, x, conditioning)

    monkeypatch.setattr(diagonal_bilstm.DiagonalBiLstmLayer, "forward", wrong)
    crops = crops_of("rgb", 4, 4, n)
    assert bool(leaks(own, crops, dtype)[0]) == (not is_conditioned)
    assert bool(leaks(conditioned, crops, dtype, in_small_picture(2))[0]) == is_conditioned


def test_changing_sub_pixels_finds_a_predictor_that_looks_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    network = randomised(RowLstmConfig(layers=1, h=4, head=5, frame="residual"))
    right = pixels.coding_errors

    def wrong(crops: Any) -> Any:
        predictions = crops - right(crops)
        return crops - np.roll(predictions, -1, axis=2)  # the next pixel's: it knows this one

    monkeypatch.setattr(pixels, "coding_errors", wrong)
    crops = crops_of("rgb", 3, 4)
    assert leaks(network, crops)[0] != []


def test_changing_sub_pixels_finds_a_small_picture_of_means(monkeypatch: pytest.MonkeyPatch) -> None:
    def means(crops: Any, factor: int) -> Any:
        n, h, w, c = crops.shape
        blocks = crops.reshape(n, h // factor, factor, w // factor, factor, c)
        return blocks.mean(axis=(2, 4)).astype(np.uint8)

    network = multiscale_network("row_lstm")
    monkeypatch.setattr(multiscale, "picked", means)
    assert leaks(network, crops_of("rgb", 4, 4), known=in_small_picture(2))[0] != []


# What is seen: sets of pixels, composed from the paper's tables and compared with what reacts.

Pixel = tuple[int, int]
BEFORE_7X7 = [(dy, dx) for dy in range(-3, 1) for dx in range(-3, 4) if (dy, dx) < (0, 0)]
MASK_B_3X3 = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0)]


def reached(start: set[Pixel], taps: list[Pixel], height: int, width: int) -> set[Pixel]:
    """Pixels of the picture at the taps of some pixel of start."""
    moved = {(y + dy, x + dx) for y, x in start for dy, dx in taps}
    return {(y, x) for y, x in moved if 0 <= y < height and 0 <= x < width}


def closure(start: set[Pixel], taps: list[Pixel], height: int, width: int) -> set[Pixel]:
    """Pixels reached in any number of moves inside the picture."""
    while True:
        more = start | reached(start, taps, height, width)
        if more == start:
            return start
        start = more


def one_layer(name: str, outputs: set[Pixel], height: int, width: int) -> set[Pixel]:
    """Pixels of a layer's input that its outputs see."""
    if name == "pixelcnn":
        return reached(outputs, MASK_B_3X3, height, width)
    if name == "row_lstm":
        states = closure(outputs, [(-1, -1), (-1, 0), (-1, 1)], height, width)
        return reached(states, [(0, -1), (0, 0)], height, width)
    backwards = closure(reached(outputs, [(-1, 0)], height, width), [(-1, 0), (0, 1)], height, width)
    return closure(outputs, [(-1, 0), (0, -1)], height, width) | backwards


def expected_field(name: str, layers: int, target: Pixel, height: int, width: int) -> set[Pixel]:
    """Pixels that the R logits of target see, by table 1."""
    seen = {target}
    for _ in range(layers):
        seen = one_layer(name, seen, height, width)
    others = seen - {target}  # their G and B features see their own pixel's R and G
    return others | reached(seen, BEFORE_7X7, height, width)


def measured_fields(network: Any, crops: Any) -> dict[Pixel, set[Pixel]]:
    """Target → pixels whose change changes its R logits."""
    _, height, width, _ = crops.shape
    fields: dict[Pixel, set[Pixel]] = {(y, x): set() for y in range(height) for x in range(width)}
    with torch.no_grad():
        before = network.logits(crops, torch.float64)[0, 0]
        for y, x in fields:
            other = crops.copy()
            other[0, y, x] ^= 0xFF
            differs = (network.logits(other, torch.float64)[0, 0] != before).any(dim=2)
            for a, b in differs.nonzero().tolist():
                fields[a, b].add((y, x))
    return fields


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_pixel_sees_exactly_what_the_paper_says(name: str, layers: int) -> None:
    height, width = 8, 11
    fields: dict[Pixel, set[Pixel]] = {}
    for seed in range(2):  # a ReLU may be shut in one network
        network = randomised(ARCHITECTURES[name](layers=layers, h=12, head=24), seed)
        for target, seen in measured_fields(network, crops_of("rgb", height, width, seed=seed)).items():
            fields.setdefault(target, set()).update(seen)
    for target, seen in fields.items():
        assert seen == expected_field(name, layers, target, height, width), target


@pytest.mark.parametrize("layers", [1, 4])
def test_pixelcnn_has_a_blind_spot_that_diagonal_bilstm_has_not(layers: int) -> None:
    crops = crops_of("rgb", 6, 9)
    target = (4, 2)
    blind = {(3, x) for x in range(6, 9)}  # the row above, further right than 7×7 reaches
    fields = {}
    for name in ARCHITECTURES:
        network = randomised(ARCHITECTURES[name](layers=layers, h=12, head=24))
        fields[name] = measured_fields(network, crops)[target]
    everything = {(y, x) for y in range(6) for x in range(9) if (y, x) < target}
    assert fields["diagonal_bilstm"] == everything
    assert not fields["pixelcnn"] & blind and not fields["row_lstm"] & blind


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_green_sees_red_and_blue_sees_both_at_the_same_pixel(name: str) -> None:
    network = randomised(ARCHITECTURES[name](layers=2, h=12, head=24))
    crops = crops_of("rgb", 3, 4)
    before = seen_by_coder(network, crops, torch.float64)[1, 2]
    for colour, reacts in ((0, [False, True, True]), (1, [False, False, True]), (2, [False, False, False])):
        after = seen_by_coder(network, changed_at(crops, (1, 2, colour), np.random.default_rng(0)), torch.float64)
        assert (before != after[1, 2]).any(axis=1).tolist() == reacts


# The same of Multi-Scale: what the large network reads of earlier pixels, and the small picture by way of its map.


def conditioned(name: str, outputs: set[Pixel], height: int, width: int) -> set[Pixel]:
    """Pixels of the conditioning map that a layer's outputs see."""
    if name == "pixelcnn":
        return outputs
    if name == "row_lstm":
        return closure(outputs, [(-1, -1), (-1, 0), (-1, 1)], height, width)
    backwards = closure(reached(outputs, [(-1, 0)], height, width), [(-1, 0), (0, 1)], height, width)
    return closure(outputs, [(-1, 0), (0, -1)], height, width) | backwards


def below(pixel: Pixel, factor: int, small: Pixel) -> set[Pixel]:
    """Pixels of a small picture (h, w) that a pixel of the conditioning map sees, by deconvolutions of 4×4 taps."""
    seen, scale = {pixel}, factor
    while scale > 1:
        scale //= 2
        beside = [(y // 2, (y // 2 + (1 if y % 2 else -1)), x // 2, (x // 2 + (1 if x % 2 else -1))) for y, x in seen]
        seen = {(a, b) for y0, y1, x0, x1 in beside for a in (y0, y1) for b in (x0, x1)}
        seen = {(y, x) for y, x in seen if 0 <= y < small[0] * scale and 0 <= x < small[1] * scale}
    return seen


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_unknown_pixel_of_multiscale_sees_what_is_before_it_and_the_small_picture(name: str, factor: int) -> None:
    height, width, layers = 7, 10, 2
    small = -(-height // factor), -(-width // factor)
    fields: dict[Pixel, set[Pixel]] = {}
    for seed in range(4):  # a ReLU may be shut in one network
        part = ARCHITECTURES[name](layers=layers, h=12, head=24)
        network = randomised(MultiScaleConfig(part, part, factor, 12), seed)
        for target, seen in measured_fields(network, crops_of("rgb", height, width, seed=seed)).items():
            fields.setdefault(target, set()).update(seen)
    for target in fields:
        if in_small_picture(factor)((*target, 0)):
            continue
        outputs, biases = {target}, set()
        for _ in range(layers):
            biases |= conditioned(name, outputs, height, width)
            outputs |= one_layer(name, outputs, height, width)
        known = {(factor * y, factor * x) for pixel in biases for y, x in below(pixel, factor, small)}
        assert fields[target] == known | expected_field(name, layers, target, height, width), target


# Sizes.


def allowed_pairs(mask: str, inputs: int, outputs: int, groups: int) -> int:
    """Pairs of features that a centre tap keeps."""
    seen = [sum(groups * k // inputs == g for k in range(inputs)) for g in range(groups)]
    own = [sum(groups * k // outputs == g for k in range(outputs)) for g in range(groups)]
    return sum(seen[a] * own[b] for a in range(groups) for b in range(groups) if a < b or (mask == "B" and a == b))


def expected_parameters(name: str, config: Any) -> int:
    """Parameters that count, from table 1, figure 5 and section 3: weights not masked, biases, initial states."""
    h, groups = config.h, config.groups
    planes, logits = groups, 1 if config.pictures == "binary" else 256 * groups

    def product(inputs: int, outputs: int, before: int = 0) -> int:
        return before * inputs * outputs + allowed_pairs("B", inputs, outputs, groups) + outputs

    first = 24 * planes * 2 * h + allowed_pairs("A", planes, 2 * h, groups) + 2 * h  # 24 taps before the centre
    up = product(h, 2 * h)
    is_of_gates = 4 * allowed_pairs("B", 2 * h, h, groups) + 4 * h
    layer = {
        "pixelcnn": product(2 * h, h) + product(h, h, before=4) + up,
        "row_lstm": 2 * h * 4 * h + is_of_gates + 3 * h * 4 * h + 2 * h + up,
        "diagonal_bilstm": is_of_gates + (2 * h * 4 * h + 4 * h) + 2 * (2 * h * 4 * h + 2 * h) + up,
    }[name]
    skips = config.layers * product(2 * h, 2 * h) if config.skip else 0
    head = product(2 * h, config.head) + product(config.head, config.head) + product(config.head, logits)
    return first + config.layers * layer + skips + head


def expected_parts(config: Any) -> dict[str, int]:
    """The same of a network, or of each of the three of a Multi-Scale one (section 3.6): part → parameters."""
    if not isinstance(config, MultiScaleConfig):
        return {"": expected_parameters(architecture_of(config), config)}
    large, features = config.large, config.features
    biased = {"pixelcnn": large.h, "row_lstm": 4 * large.h, "diagonal_bilstm": 2 * 4 * large.h}
    conditioning = large.layers * biased[architecture_of(large)] * (features + 1)
    deconvolutions = sum(
        16 * (features if i else config.small.groups) * features + features
        for i in range(config.factor.bit_length() - 1)
    )
    small = expected_parts(config.small)[""]
    return {"small": small, "upsampler": deconvolutions, "large": expected_parts(large)[""] + conditioning}


def document_rows() -> dict[str, tuple[int, ...]]:
    """docs/networks.md's table of parameters: network → numbers."""
    found = {}
    for line in (ROOT / "docs" / "networks.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and all(re.fullmatch("[0-9,]+", cell) for cell in cells[1:]):
            for name in cells[0].split(", "):
                found[name] = tuple(int(cell.replace(",", "")) for cell in cells[1:])
    return found


def counting_parameters(network: Any) -> int:
    """Parameters less the weights that a mask hides."""
    hidden = sum(int((m.mask == 0).sum()) for m in network.modules() if hasattr(m, "mask"))
    return sum(p.numel() for p in network.parameters()) - hidden


@pytest.mark.parametrize("preset", [name for name in presets() if name not in ("default", "fast", "small")])
def test_parameters_are_those_of_table_1_and_of_the_document(preset: str) -> None:
    config = from_tables(preset_tables(preset)).model
    expected, documented = expected_parts(config), document_rows()
    for suffix, network in network_sizes.parts_of(build(config)):
        assert counting_parameters(network) == expected[suffix.strip()]
        assert documented[f"{preset}:{suffix}" if suffix else preset] == network_sizes.sizes(network)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_networks_parameters_are_counted_alike_at_other_sizes(factor: int) -> None:
    """Uneven groups, every kind of large network, several deconvolutions."""
    for name in ARCHITECTURES:
        small = RowLstmConfig(layers=1, h=5, head=7, skip=True)
        config = MultiScaleConfig(small, ARCHITECTURES[name](layers=2, h=8, head=10), factor, 4)
        found = {part: counting_parameters(network) for part, network in build(config).named_children()}
        assert found == expected_parts(config)


LAYER_SHAPES = {
    "pixelcnn": {
        "down.weight": (128, 256, 1, 1),
        "middle.weight": (128, 128, 2, 3),
        "up.weight": (256, 128, 1, 1),
    },
    "row_lstm": {
        "state_to_state": (384, 512),
        "input_to_state.weight": (512, 256, 1, 2),
        "up.weight": (256, 128, 1, 1),
    },
    "diagonal_bilstm": {
        "left_to_right.state_to_state": (256, 512),
        "left_to_right.input_to_state.weight": (512, 256, 1, 1),
        "right_to_left.state_to_state": (256, 512),
        "right_to_left.input_to_state.weight": (512, 256, 1, 1),
        "up.weight": (256, 128, 1, 1),
    },
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layer_shapes_are_those_of_table_1(name: str) -> None:
    network = build(ARCHITECTURES[name](layers=1, h=128))
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() > 1}
    assert shapes == {
        "first.weight": (256, 3, 4, 7),
        **{f"layers.0.{key}": shape for key, shape in LAYER_SHAPES[name].items()},
        "head.one.weight": (1024, 256, 1, 1),
        "head.two.weight": (1024, 1024, 1, 1),
        "head.last.weight": (768, 1024, 1, 1),
    }


# Learning.


def stripes(pictures: str, n: int) -> Any:
    """Slanted stripes with noise: neighbours tell much about a pixel."""
    random = np.random.default_rng(0)
    y, x = np.ogrid[:8, :8]
    phase = random.integers(0, 8, (n, 1, 1, 1))
    wave = ((x + y)[None, :, :, None] + phase) % 8 < 4
    if pictures == "binary":
        return wave.astype(np.uint8)
    planes = 3 if pictures == "rgb" else 1
    return (60 + 100 * wave + random.integers(0, 4, (n, 8, 8, planes))).astype(np.uint8)


LEARNERS = [
    *(config(layers=2, h=12, head=16) for config in ARCHITECTURES.values()),
    RowLstmConfig(layers=2, h=12, head=16, frame="residual"),
    DiagonalBiLstmConfig(layers=2, h=6, head=8, pictures="binary"),
    MultiScaleConfig(PixelCnnConfig(layers=1, h=8, head=16), RowLstmConfig(layers=2, h=12, head=16), features=8),
]


@pytest.mark.parametrize("config", LEARNERS, ids=lambda c: type(c).__name__)
def test_a_short_training_reduces_the_loss_and_moves_every_parameter(config: Any) -> None:
    pictures = getattr(config, "large", config).pictures
    network = build(config, seed=1)
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    crops = stripes(pictures, 8)
    batch = network.prepare(crops)
    optimiser = torch.optim.RMSprop(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        loss = network.nats(batch, fastest_type()) / crops.size
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    still = [name for name, p in network.named_parameters() if torch.equal(p, start[name])]
    assert still == []


def test_masked_weights_have_no_gradient_and_are_never_edited() -> None:
    network = build(RowLstmConfig(layers=1, h=6, head=6))
    before = network.first.weight.detach().clone()
    batch = network.prepare(crops_of("rgb"))
    network.nats(batch, torch.float32).backward()
    assert torch.equal(network.first.weight, before)
    masked = network.first.mask == 0
    assert bool((before[masked] != 0).any()) and bool((network.first.weight.grad[masked] == 0).all())


# Bad input.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers 0: must be a whole number from 1 to 64"),
        ({"layers": 2.0}, "layers 2.0: must be a whole number"),
        ({"h": 2}, "h 2: must be a whole number from 3"),
        ({"head": True}, "head True: must be a whole number"),
        ({"residual": 1}, "residual 1: must be true or false"),
        ({"pictures": "cmyk"}, "pictures 'cmyk': must be one of binary, gray, rgb"),
        ({"frame": "mean"}, "frame 'mean': must be one of raw, residual"),
        ({"frame": "residual", "pictures": "binary"}, "frame 'residual': must be one of raw"),
    ],
)
def test_impossible_sizes_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    for config in ARCHITECTURES.values():
        with pytest.raises(TrainingError, match=message):
            config(**change)


def test_impossible_pairs_are_refused_by_name() -> None:
    rgb, gray = PixelCnnConfig(), PixelCnnConfig(pictures="gray")
    for arguments, message in (
        ((rgb, gray), "small.pictures 'rgb': must be one of gray"),
        ((rgb, "row_lstm"), "large 'row_lstm': must be a pixelcnn, row_lstm or diagonal_bilstm"),
        ((rgb, rgb, 3), "factor 3: must be one of 2, 4, 8, 16"),
        ((rgb, rgb, 2, 0), "features 0: must be a whole number from 1"),
    ):
        with pytest.raises(TrainingError, match=message):
            MultiScaleConfig(*arguments)


def test_crops_of_another_kind_are_refused() -> None:
    small: dict[str, Any] = {"layers": 1, "h": 3, "head": 3}
    network = build(PixelCnnConfig(**small))
    binary = build(replace(network.config, pictures="binary"))
    for crops, net, message in (
        (crops_of("gray"), network, "rgb pictures are"),
        (crops_of("rgb").astype(np.float32), network, "float32"),
        (crops_of("rgb")[:, :0], network, "no side 0"),
        (crops_of("gray"), binary, "allowed are 0 and 1"),
    ):
        with pytest.raises(TrainingDataError, match=message):
            net.prepare(crops)
    pair = build(MultiScaleConfig(network.config, network.config, 4, 2))
    with pytest.raises(TrainingDataError, match="rgb pictures are"):
        pair.prepare(crops_of("gray"))
