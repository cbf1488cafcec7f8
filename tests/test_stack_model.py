"""Model files of the paper's networks: what is written is read; damage and hostile values are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import photo
from tiny_stack import ARCHITECTURES, Arrays, stack_bytes, stack_model, stack_parts

import pixzip
from pixzip.errors import FormatError, ModelError, UsageError
from pixzip.model.file import TrunkNetwork, load_model, write_model
from pixzip.model.multiscale import MultiScaleNetwork
from pixzip.model.stack import Product, StackNetwork, colour_starts

Config = dict[str, Any]
#: A function that damages a configuration and its arrays.
Damage = Callable[[Config, Arrays], None]


def setting(key: str, value: object) -> Damage:
    return lambda config, arrays: config.__setitem__(key, value)


def shift(key: str, value: object) -> Damage:
    return lambda config, arrays: config["shifts"].__setitem__(key, value)


def entry(name: str, value: int, at: tuple[int, ...] = (0,)) -> Damage:
    def damage(config: Config, arrays: Arrays) -> None:
        array = arrays[name].copy()
        array[at] = value
        arrays[name] = array

    return damage


#: What is wrong → the damage, and what the error names.
HOSTILE: dict[str, tuple[Damage, str]] = {
    "no such architecture": (setting("architecture", "pixelrnn"), "architecture is 'pixelrnn'|architecture 'pixelrnn'"),
    "architecture a list": (setting("architecture", ["row_lstm"]), "architecture"),
    "no such pictures": (setting("pictures", "cmyk"), "pictures"),
    "pictures a number": (setting("pictures", 3), "pictures"),
    "no such frame": (setting("frame", "delta"), "frame"),
    "no layers": (setting("layers", 0), "layers"),
    "too many layers": (setting("layers", 65), "layers"),
    "layers a float": (setting("layers", 2.0), "layers"),
    "layers true": (setting("layers", True), "layers"),
    "h below the colours": (setting("h", 2), "h is 2"),
    "h negative": (setting("h", -8), "h is -8"),
    "h huge": (setting("h", 10**18), "h is"),
    "head huge": (setting("head", 4097), "head is 4097"),
    "residual a number": (setting("residual", 1), "residual"),
    "skip a string": (setting("skip", "no"), "skip"),
    "another h than the arrays": (setting("h", 9), "array"),
    "skip without arrays": (setting("skip", True), "missing"),
    "shifts a number": (setting("shifts", 5), "shifts"),
    "a shift too few": (shift("layers", [4]), "layers"),
    "a shift too many": (shift("skips", [4]), "skips"),
    "a shift of 25": (shift("layers", [4, 25]), "shift 25"),
    "a shift of -1": (shift("head", -1), "shift -1"),
    "a shift of None": (shift("head", None), "shift None"),
    "no shift of the head": (lambda config, arrays: config["shifts"].pop("head"), "head"),
    "-128 in a weight": (entry("head.two.weight", -128, (10, 0)), "head.two.weight holds -128"),
    "an own colour in the first layer": (entry("first.weight", 1, (0, 72)), "first.weight: a weight that mask A hides"),
    "a later colour in the head": (entry("head.last.weight", 1, (0, 10)), "mask B hides"),
    "a right shift of 25": (entry("head.one.shift", 25), "head.one.shift holds 25"),
    "a right shift of -1": (entry("first.shift", -1), "first.shift holds -1"),
    "a bias at the bound": (entry("head.one.bias", 2**30), "the limit is 2\\^30"),
    "a bias at minus 2^31": (entry("head.one.bias", -(2**31)), "the limit is 2\\^30"),
    "sigmoid over its range": (entry("table.sigmoid", 4097), "table.sigmoid"),
    "tanh under its range": (entry("table.tanh", -4097), "table.tanh"),
    "exp that begins with 0": (entry("table.exp", 0), "table.exp"),
}
RECURRENT: dict[str, tuple[Damage, str]] = {
    "a left shift of 6": (entry(".is.left", 6), "is.left holds 6"),
    "a left shift of -1": (entry(".ss.left", -1), "ss.left holds -1"),
    "h0 of -128": (entry(".h0", -128), "before the first step"),
    "c0 over its range": (entry(".c0", 65536), "before the first step"),
    "c0 at minus 2^31": (entry(".c0", -(2**31)), "before the first step"),
}
GATES = {"row_lstm": "layer.1", "diagonal_bilstm": "layer.1.right_to_left"}


def assert_refused(architecture: str, damage: Damage, message: str) -> None:
    config, arrays = stack_parts(architecture, 1)
    write_model(config, arrays)
    damage(config, arrays)
    with pytest.raises(ModelError, match=message):
        write_unchecked(config, arrays)


def write_unchecked(config: Config, arrays: Arrays) -> None:
    """A file of whatever is given, read."""
    from test_model_file import put_together

    header: dict[str, Any] = {"__metadata__": {"format": "pixzip-model", "arithmetic": "2", "config": dumped(config)}}
    body = b""
    for name, array in arrays.items():
        kind = {1: "I8", 2: "I16", 4: "I32"}[array.itemsize]
        offsets = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        body += array.tobytes()
    load_model(put_together(header, body), "some")


def dumped(config: Config) -> str:
    import json

    return json.dumps(config)


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_hostile_file_is_refused(architecture: str, case: str) -> None:
    assert_refused(architecture, *HOSTILE[case])


@pytest.mark.parametrize("case", RECURRENT)
@pytest.mark.parametrize("architecture", GATES)
def test_a_hostile_recurrence_is_refused(architecture: str, case: str) -> None:
    damage, message = RECURRENT[case]

    def of_layer(config: Config, arrays: Arrays) -> None:
        inside = {name.removeprefix(GATES[architecture]): array for name, array in arrays.items()}
        before = dict(inside)
        damage(config, inside)
        for name in (name for name in inside if inside[name] is not before[name]):
            arrays[GATES[architecture] + name] = inside[name]

    assert_refused(architecture, of_layer, message)


def test_gates_over_int32_are_refused() -> None:
    """Each product is within its own bound; their sum, shifted left, is not."""
    config, arrays = stack_parts("row_lstm", 1, pictures="gray", layers=1, h=512, head=3)
    for part in ("is", "ss"):
        arrays[f"layer.0.{part}.weight"] = np.full_like(arrays[f"layer.0.{part}.weight"], 127)
        arrays[f"layer.0.{part}.left"] = np.full_like(arrays[f"layer.0.{part}.left"], 5)
    arrays["layer.0.is.bias"] = np.full_like(arrays["layer.0.is.bias"], 2**20)
    write_model(config, arrays)
    arrays["layer.0.is.bias"][1000] = 2**29
    with pytest.raises(ModelError, match="gate 1000 can reach"):
        write_model(config, arrays)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_missing_or_added_array_is_refused(architecture: str) -> None:
    config, arrays = stack_parts(architecture, 1)
    for name in arrays:
        with pytest.raises(ModelError, match="missing or unknown"):
            write_unchecked(config, {other: array for other, array in arrays.items() if other != name})
    with pytest.raises(ModelError, match="missing or unknown"):
        write_unchecked(config, arrays | {"more": np.zeros(3, np.int8)})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_missing_key_is_refused(architecture: str) -> None:
    config, arrays = stack_parts(architecture, 1)
    for key in set(config) - {"info"}:
        with pytest.raises(ModelError, match=key):
            write_unchecked({other: value for other, value in config.items() if other != key}, arrays)


def test_binary_pictures_have_the_raw_frame() -> None:
    config, arrays = stack_parts("pixelcnn", 1, pictures="binary")
    with pytest.raises(ModelError, match="frame"):
        write_model(config | {"frame": "residual"}, arrays)


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_written_is_read(architecture: str, extreme: bool) -> None:
    config, arrays = stack_parts(architecture, 2, extreme, skip=True)
    model = load_model(stack_bytes(architecture, 2, extreme, skip=True), "some")
    network = model.network
    assert isinstance(network, StackNetwork)
    assert set(network.arrays) == set(arrays)
    assert all(np.array_equal(network.arrays[name], array) for name, array in arrays.items())
    assert (network.architecture, network.layers, network.skip) == (architecture, 2, True)
    assert list(network.layer_shifts) == config["shifts"]["layers"]
    assert list(network.skip_shifts) == config["shifts"]["skips"]


def test_the_macs_of_a_network_are_those_of_its_float_form() -> None:
    """The figures of docs/networks.md."""
    counts = {"pixelcnn": 3_219_551, "row_lstm": 6_658_661, "diagonal_bilstm": 7_445_093}
    for architecture, count in counts.items():
        layers = 15 if architecture == "pixelcnn" else 12
        network = StackNetwork(architecture, "rgb", "raw", layers, 128, 1024, True, False)
        # a Diagonal BiLSTM's two maps are added before the one product, and the last tap of mask A sees two colours
        assert network.macs_per_pixel() == count


@pytest.mark.parametrize("features", [3, 4, 5, 7, 8, 16, 128, 256, 768, 1024])
@pytest.mark.parametrize("groups", [1, 3])
def test_colours_are_cut_where_the_float_network_cuts_them(features: int, groups: int) -> None:
    starts = colour_starts(features, groups)
    for k in range(features):
        colour = groups * k // features
        assert starts[colour] <= k < starts[colour + 1]


@pytest.mark.parametrize("mask", ["A", "B", "all", "none"])
def test_hidden_weights_are_those_after_the_own_pixel_or_colour(mask: Any) -> None:
    product = Product("p", 6, 5, mask, ((0, -1),), gates=2)
    hidden = product.hidden_weights(3)
    inputs, outputs = [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2] * 2
    for o, own in enumerate(outputs):
        assert not hidden[o, :6].any()
        for i, seen in enumerate(inputs if mask != "none" else []):
            assert hidden[o, 6 + i] == {"A": seen >= own, "B": seen > own, "all": False}[mask]


# Through the public API.


@pytest.fixture(params=ARCHITECTURES)
def paths(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Path]:
    """A model file of each kind of pictures."""
    found = {}
    for pictures in ("rgb", "gray", "binary"):
        found[pictures] = tmp_path / f"{pictures}.safetensors"
        found[pictures].write_bytes(calm_bytes(request.param, pictures))
    return found


def calm_bytes(architecture: str, pictures: str) -> bytes:
    """A model that wins against the classical codecs on the pictures below: it expects values near 20, or 1."""
    config, arrays = stack_parts(architecture, 3, pictures=pictures)
    arrays["head.last.weight"] //= 30
    weight = arrays["head.last.weight"]
    value = np.arange(len(weight)) % 256
    prior = np.array([300]) if pictures == "binary" else -64 * np.minimum(np.abs(value - 20) / 2, 14)
    arrays["head.last.shift"][:] = 6
    bias = prior * 64 + 128 * weight.astype(np.int64).sum(axis=1)
    arrays["head.last.bias"] = bias.astype(np.int32)
    return write_model(config, arrays)


def calm_pixels(pictures: str) -> NDArray[Any]:
    random = np.random.default_rng(4)
    if pictures == "binary":
        return random.random((40, 31)) < 0.98
    return np.clip(random.laplace(20, 2, (40, 31) if pictures == "gray" else (40, 31, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("pictures", ["rgb", "gray", "binary"])
def test_pictures_pass_through_files(paths: dict[str, Path], pictures: str) -> None:
    model, pixels = paths[pictures], calm_pixels(pictures)
    data = pixzip.compress(pixels, model=model, lanes=2)
    assert pixzip.inspect(data).coding == "model"
    assert np.array_equal(pixzip.to_array(pixzip.decompress(data, model=model)), pixels)
    many = pixzip.compress_batch([pixels, pixels[::-1]], model=model, embed_model=True)
    again = [pixzip.to_array(picture) for picture in pixzip.decompress_batch(many)]
    assert np.array_equal(again, [pixels, pixels[::-1]])


@pytest.mark.parametrize("pictures", ["gray", "binary"])
def test_another_kind_of_picture_is_an_error_that_says_what_is_allowed(paths: dict[str, Path], pictures: str) -> None:
    for pixels in (calm_pixels("rgb"), photo(1, (1, 2, 4, 4))[0].transpose(1, 2, 0)):
        if pictures == "gray" and pixels.shape[2] == 2:
            continue  # gray with alpha is one plane and a classical one
        with pytest.raises(UsageError, match="mode L"):
            pixzip.compress(pixels, model=paths[pictures])
    with pytest.raises(UsageError, match="with 8 bits" if pictures == "binary" else "with 1 bits"):
        pixzip.compress(calm_pixels("gray" if pictures == "binary" else "binary"), model=paths[pictures])


def test_a_file_whose_model_is_for_other_pictures_is_refused() -> None:
    from pixzip import codec

    model = stack_model("row_lstm", 1, pictures="gray")
    with pytest.raises(FormatError, match="one plane"):
        codec.decode(model, [b"\0"], (1, 3, 4, 4), tile=64, lanes=1, learning=0)


@pytest.mark.parametrize("kind", [TrunkNetwork, StackNetwork, MultiScaleNetwork])
def test_frozen_networks_are_compared_by_identity(kind: type) -> None:
    """Arrays have no truth value, and weak dictionaries hold what was made of a network."""
    assert kind.__eq__ is object.__eq__ and kind.__hash__ is object.__hash__
