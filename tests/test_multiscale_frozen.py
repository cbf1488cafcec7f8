"""Multi-Scale in exact integers: it freezes near the float network, codes, decodes, and sees nothing it may not."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_nets import ARCHITECTURES, crops_of, randomised  # noqa: E402
from test_reference import assert_all_agree, pxz_file  # noqa: E402

import pixzip  # noqa: E402
from pixzip import codec  # noqa: E402
from pixzip.errors import FormatError, ModelError, UsageError  # noqa: E402
from pixzip.evaluate import plane_bits  # noqa: E402
from pixzip.freezing.freeze import freeze_network  # noqa: E402
from pixzip.model.file import Model, _read_safetensors, load_model, write_model  # noqa: E402
from pixzip.model.multiscale import MultiScaleNetwork  # noqa: E402
from pixzip.nets.multiscale import MultiScaleConfig, unknown_pixels  # noqa: E402
from pixzip.runtime import draw, frozen  # noqa: E402
from pixzip.runtime.multiply import HAS_INT8  # noqa: E402
from pixzip.runtime.stack import multiscale, rows, steps  # noqa: E402

ENGINES = ["float32", *(["int8"] if HAS_INT8 else [])]
#: small and large network, each perhaps with words of VARIANTS; pictures, frame of the large network, factor
CASES = [
    ("pixelcnn", "row_lstm", "rgb", "raw", 2),
    ("row_lstm", "diagonal_bilstm", "rgb", "residual", 4),
    ("diagonal_bilstm", "pixelcnn", "gray", "residual", 2),
    ("row_lstm", "pixelcnn", "binary", "raw", 2),
    ("pixelcnn", "diagonal_bilstm", "binary", "raw", 4),
    ("row_lstm predicted skips", "row_lstm plain", "rgb", "residual", 8),
    ("diagonal_bilstm plain skips", "pixelcnn skips", "gray", "raw", 16),
]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"residual": False},
    "skips": {"skip": True},
    "predicted": {"frame": "residual"},
}


@cache
def network_of(small: str, large: str, pictures: str, frame: str, factor: int, layers: int = 2, seed: int = 0) -> Any:
    """A random float network whose conditioning matters."""
    sizes: dict[str, Any] = {"pictures": pictures, "layers": layers, "h": 4, "head": 7}
    parts = [config_of(small, sizes), config_of(large, sizes | {"frame": frame})]
    return randomised(MultiScaleConfig(*parts, factor=factor, features=5), seed=factor + seed)


def config_of(words: str, sizes: dict[str, Any]) -> Any:
    """The configuration of an architecture with these variants."""
    architecture, *variants = words.split()
    for variant in variants:
        sizes = sizes | VARIANTS[variant]
    return ARCHITECTURES[architecture](**sizes)


@cache
def model_of(*case: Any) -> Model:
    """It frozen, calibrated on noise; case as one of CASES, then perhaps layers and seed."""
    network = network_of(*case)
    return load_model(freeze_network(network, crops_of(case[2], 9, 10, n=6, seed=5), {}), "tiny")


@cache
def model_path(case: tuple[Any, ...]) -> Path:
    """Its file."""
    path = Path(tempfile.mkdtemp()) / "tiny.safetensors"
    path.write_bytes(model_of(*case).data)
    return path


def pixels_of(pictures: str, h: int, w: int, n: int = 1, seed: int = 0) -> Any:
    """(n, planes, h, w)."""
    return np.ascontiguousarray(crops_of(pictures, h, w, n, seed).transpose(0, 3, 1, 2))


def depth_of(case: tuple[Any, ...]) -> int:
    return 1 if case[2] == "binary" else 8


def coded(model: Model, pixels: Any, depth: int, **how: Any) -> tuple[Any, Any]:
    """What encode makes, and what decode makes of that."""
    made = codec.encode(model, pixels, depth=depth, threads=1, **how)
    again = codec.decode(model, made.tiles, pixels.shape, depth=depth, threads=1, **made.layout)
    return made, again


@pytest.mark.parametrize("case", CASES)
def test_pictures_come_back_from_their_lanes(case: tuple[Any, ...]) -> None:
    model = model_of(*case)
    beyond = case[4] + 1  # a second known pixel in every direction
    for n, h, w, lanes in ((1, 1, 1, 1), (1, 1, 6, 2), (1, 7, 1, 2), (3, 6, 9, 4), (1, beyond, beyond + 1, 2)):
        pixels = pixels_of(case[2], h, w, n, seed=h * w)
        made, again = coded(model, pixels, depth_of(case), lanes=lanes)
        np.testing.assert_array_equal(again, pixels)
        bits = plane_bits(model, pixels, threads=1).sum()
        assert made.row_bits == pytest.approx(bits, rel=1e-3, abs=0.1)
        assert 8 * sum(map(len, made.tiles)) < bits + 8 * 5 * lanes + 64


@pytest.mark.parametrize("case", CASES[:2])
def test_tiles_engines_and_a_gray_picture_by_an_rgb_network(case: tuple[Any, ...]) -> None:
    model = model_of(*case)
    gray = pixels_of("gray", 11, 8)
    for engine in ENGINES:
        made, again = coded(model, gray, 8, tile=5, engine=engine)
        np.testing.assert_array_equal(again, gray)
        assert made.tiles == codec.encode(model, gray, tile=5, engine="float32", threads=1).tiles


@pytest.mark.parametrize("case", CASES)
def test_the_reference_decoder_agrees(case: tuple[Any, ...]) -> None:
    mode = "RGB" if case[2] == "rgb" else "L"
    assert_all_agree(model_of(*case), pixels_of(case[2], 5, 6, n=2, seed=8), mode, depth_of(case), lanes=3, threads=1)


def test_the_reference_decoder_agrees_on_a_gray_picture_by_an_rgb_network() -> None:
    assert_all_agree(model_of(*CASES[1]), pixels_of("gray", 5, 6, seed=8), "L", lanes=2, threads=1)


def test_whole_files_hold_the_picture() -> None:
    pixels = pixels_of("rgb", 12, 13)
    data = pxz_file(model_of(*CASES[0]), pixels, "RGB", threads=1)
    again = pixzip.decompress(data, model=model_path(CASES[0]), threads=1)
    np.testing.assert_array_equal(again.planes, pixels[0])


@pytest.mark.parametrize("case", CASES)
def test_frozen_bits_are_near_those_of_the_float_network(case: tuple[Any, ...]) -> None:
    network, model = network_of(*case), model_of(*case)
    crops = crops_of(case[2], 9, 10, n=4, seed=9)
    with torch.no_grad():
        wanted = network.nats(network.prepare(crops), torch.float64).item() / np.log(2)
    found = plane_bits(model, np.ascontiguousarray(crops.transpose(0, 3, 1, 2)), threads=1).sum()
    assert found == pytest.approx(wanted, rel=0.02)


def map_distance(case: tuple[Any, ...]) -> float:
    """Of the frozen conditioning map from that of the float network, over its size."""
    network, model = network_of(*case), model_of(*case)
    crops = crops_of(case[2], 9, 10, n=2, seed=3)
    with torch.no_grad():
        wanted = network.conditioning(network.prepare(crops), torch.float32).permute(2, 3, 0, 1).numpy()
    frozen_: Any = model.network
    small = multiscale.picked(frozen_, np.ascontiguousarray(crops.transpose(0, 3, 1, 2)))
    held = multiscale.conditioning_map(frozen_.small, frozen_.upsampling, small, 9, 10).astype(np.float64)
    # the exponent is not in the file: weights of the layers have taken it up
    return min(float(np.sqrt(((held * 2.0**-e - wanted) ** 2).mean() / (wanted**2).mean())) for e in range(-4, 13))


@pytest.mark.parametrize("case", CASES)
def test_conditioning_map_is_that_of_the_deconvolutions(case: tuple[Any, ...]) -> None:
    assert map_distance(case) < 0.05


def test_that_comparison_finds_a_tap_on_the_wrong_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiscale, "BESIDE", (1, -1))
    assert min(map(map_distance, CASES)) > 0.2


def logits_of(model: Model, planes: Any, small_planes: Any = None) -> dict[tuple[int, ...], Any]:
    """Accumulators by (y, x, colour) of the unknown sub-pixels, the small picture given or taken from planes."""
    network: Any = model.network
    small = multiscale.picked(network, planes) if small_planes is None else small_planes
    _, colours, height, width = planes.shape
    conditioning = multiscale.conditioning_map(network.small, network.upsampling, small, height, width)
    found: dict[tuple[int, ...], Any] = {}

    def visit(y: int, colour: int, acc: Any, symbols: Any) -> None:
        for x in range(width):
            found[y, x, colour] = acc[x].copy()

    with frozen.products_alone(network):
        rows.traverse(network.large, "float32", planes, colours, visit, conditioning=conditioning)
    unknown = unknown_pixels(height, width, network.factor)
    return {key: acc for key, acc in found.items() if unknown[key[:2]]}


def altered(planes: Any, pictures: str, at: tuple[int, int, int]) -> Any:
    """Planes (1, planes, h, w) with another value at (plane, y, x)."""
    other = planes.copy()
    other[(0, *at)] ^= 1 if pictures == "binary" else 0x55
    return other


def looks_ahead(model: Model, height: int = 5, width: int = 6) -> list[tuple[Any, Any]]:
    """Pairs (changed, seen) of unknown sub-pixels, seen not after changed, whose accumulators changed; small fixed."""
    planes = pixels_of(model.network.pictures, height, width)
    before = logits_of(model, planes)
    found = []
    for key in before:
        y, x, colour = key
        after = logits_of(model, altered(planes, model.network.pictures, (colour, y, x)))
        found += [(key, other) for other in before if other <= key and (after[other] != before[other]).any()]
    return found


@pytest.mark.parametrize("case", CASES)
def test_no_unknown_sub_pixel_is_seen_before_its_turn(case: tuple[Any, ...]) -> None:
    assert not looks_ahead(model_of(*case))


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("case", CASES[:3])
def test_nor_at_other_depths(case: tuple[Any, ...], layers: int) -> None:
    assert not looks_ahead(model_of(*case, layers, 10 + layers), 4, 5)


def reactions(case: tuple[Any, ...]) -> tuple[float, float]:
    """The share of known sub-pixels that some unknown one before them reacts to, the small picture alone being changed;
    and that of unknown ones that some later one reacts to. Of those that have such others."""
    model = model_of(*case)
    planes = pixels_of(case[2], max(6, case[4] + 1), max(7, case[4] + 2), seed=2)
    small, factor = multiscale.picked(model.network, planes), case[4]
    before = logits_of(model, planes)
    known = []
    for c, y, x in np.ndindex(small.shape[1:]):
        after = logits_of(model, planes, altered(small, case[2], (c, y, x)))
        earlier = [key for key in before if key[:2] < (y * factor, x * factor)]
        if earlier:
            known.append(any((before[key] != after[key]).any() for key in earlier))
    unknown = []
    for y, x, c in list(before)[: -1 : max(1, len(before) // 100)]:
        after = logits_of(model, altered(planes, case[2], (c, y, x)))
        unknown.append(any((before[key] != after[key]).any() for key in before if key > (y, x, c)))
    return float(np.mean(known)), float(np.mean(unknown))


@pytest.mark.parametrize("case", CASES)
def test_known_pixels_are_seen_before_their_turn_and_unknown_ones_after_it(case: tuple[Any, ...]) -> None:
    known, unknown = reactions(case)
    assert known > 0.8 and unknown > 0.8  # a change of little may not reach an integer


def test_that_test_finds_a_network_without_its_conditioning_map(monkeypatch: pytest.MonkeyPatch) -> None:
    right = multiscale.conditioning_map
    monkeypatch.setattr(multiscale, "conditioning_map", lambda *given: 0 * right(*given))
    assert reactions(CASES[0])[0] == 0


def test_perturbation_finds_a_mask_that_lets_through_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(*CASES[0])
    window = rows.row_windows

    def shifted(inputs: Any, y: int, own: int, out: Any) -> None:
        ahead = np.zeros_like(inputs)
        ahead[..., :-1] = inputs[..., 1:]
        window(ahead, y, own, out)

    monkeypatch.setattr(rows, "row_windows", shifted)
    assert looks_ahead(model)


FAULTS = ["conditioning of the picture beside", "known pixels coded again", "small picture's last row forgotten"]


@pytest.mark.parametrize("fault", FAULTS)
def test_round_trip_finds(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[0]
    model, pixels = model_of(*case), pixels_of("rgb", 8, 8, n=2, seed=4)
    made = codec.encode(model, pixels, threads=1)
    right = multiscale.conditioning_map
    if fault == FAULTS[0]:
        monkeypatch.setattr(multiscale, "conditioning_map", lambda *given: right(*given)[:, :, ::-1].copy())
    elif fault == FAULTS[1]:
        monkeypatch.setattr(steps.Small, "put", lambda *given: None)
    else:

        def forgetful(network: Any, products: Any, small: Any, *size: int) -> Any:
            small = small.copy()
            small[:, :, -1] = 0
            return right(network, products, small, *size)

        monkeypatch.setattr(multiscale, "conditioning_map", forgetful)
    try:
        again = codec.decode(model, made.tiles, pixels.shape, threads=1, **made.layout)
    except FormatError:
        return
    assert (again != pixels).any()


def changed(model: Model, **changes: Any) -> bytes:
    """The model written again with another configuration."""
    config = {"architecture": "multiscale", **changes}
    return write_model(config, dict(model.network.arrays))


def test_files_that_cannot_be_are_refused() -> None:
    model = model_of(*CASES[0])
    config = json.loads(_read_safetensors(model.data)[0]["config"])
    assert changed(model, **{k: v for k, v in config.items() if k != "architecture"}) == model.data
    for change, message in (
        ({"factor": 3}, "factor is 3, allowed are 2, 4, 8, 16"),
        ({"factor": 4}, "upsample.1"),
        ({"features": 0}, "features is 0, allowed are 1 to 1024"),
        ({"small": config["small"] | {"pictures": "gray"}}, "small.pictures is 'gray', must be that of large, rgb"),
        ({"small": config["small"] | {"layers": 0}}, "small: layers is 0"),
        ({"large": 5}, "large is 5, must be an object"),
    ):
        with pytest.raises((ModelError, KeyError), match=message):
            changed(model, **(config | change))
    arrays = dict(model.network.arrays)
    arrays["upsample.0.weight"] = np.full_like(arrays["upsample.0.weight"], -128)
    with pytest.raises(ModelError, match=r"upsample\.0\.weight holds -128"):
        write_model(config, arrays)


def test_what_multiscale_cannot_do_is_said() -> None:
    model = model_of(*CASES[0])
    assert isinstance(model.network, MultiScaleNetwork)
    with pytest.raises(UsageError, match="learning 8: model tiny cannot learn"):
        codec.encode(model, pixels_of("rgb", 2, 2), learning=8)


def draws_what_it_is_told(case: tuple[Any, ...], engine: str = "float32", rows_known: int = 0) -> bool:
    """The random numbers at both ends of the true symbols' intervals, each at its place, draw the pictures."""
    network, pixels = model_of(*case).network, pixels_of(case[2], 6, 7, n=2, seed=9)
    colours = pixels.shape[1]
    for end in (0, 1):
        left, size = frozen.plain_intervals(network, engine, pixels, colours)
        places = (left + end * (size - 1)).astype(np.int32).reshape(6, colours, 7, 2).transpose(3, 1, 0, 2).copy()
        places[:, :, :rows_known] = 12345
        one = [draw.draw_block(network, engine, places[i : i + 1], pixels[i, :, :rows_known])[0] for i in range(2)]
        if not np.array_equal(one, pixels):
            return False
    return True


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_drawing_is_decoding_with_given_numbers(case: tuple[Any, ...], engine: str) -> None:
    for rows_known in (0, 1, 3, 4):
        assert draws_what_it_is_told(case, engine, rows_known)


@pytest.mark.parametrize("fault", ["numbers of the small picture's own places", "no conditioning"])
def test_drawing_finds(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = draw._draw_one, draw.conditioning_map

    def own_places(network: Any, engine: str, quantiles: Any, *others: Any) -> Any:
        return original[0](network, engine, quantiles[..., ::-1] if network is small else quantiles, *others)

    small = model_of(*CASES[0]).network.small  # type: ignore[union-attr]
    if fault == "no conditioning":
        monkeypatch.setattr(draw, "conditioning_map", lambda *given: 0 * original[1](*given))
    else:
        monkeypatch.setattr(draw, "_draw_one", own_places)
    assert not draws_what_it_is_told(CASES[0])


def test_samples_and_completions_of_a_multiscale_network() -> None:
    path = model_path(CASES[0])
    drawn = pixzip.sample(path, 3, (6, 7), 5, threads=1)
    assert drawn.shape == (3, 6, 7, 3) and not np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(pixzip.sample(path, 2, (6, 7), 5, threads=2), drawn[:2])
    picture = pixels_of("rgb", 6, 7)[0].transpose(1, 2, 0)
    completed = pixzip.complete(path, picture, 2, from_row=3, seed=5, threads=1)
    assert np.array_equal(completed[:, :3], np.stack([picture[:3]] * 2))
    assert not np.array_equal(completed[0, 3:], completed[1, 3:])
    assert np.array_equal(pixzip.complete(path, drawn[1], 2, from_row=3, seed=5, threads=1)[1], drawn[1])
