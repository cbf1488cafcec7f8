"""pixzip.model.file: model files read back as written, every broken field is a ModelError of one line."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import largest_bias, parts, tiny_bytes

from pixzip.errors import ModelError
from pixzip.model.file import MAX_BYTES, find_model, load_model, write_model

Header = dict[str, Any]


@cache
def good_file() -> bytes:
    """The smallest valid model file."""
    return tiny_bytes(1, "cl", channels=8, hidden=8, lstm=8, head=8)


def taken_apart() -> tuple[Header, bytes]:
    """Header and array data of the good file."""
    (length,) = struct.unpack_from("<Q", good_file())
    return json.loads(good_file()[8 : 8 + length]), good_file()[8 + length :]


def put_together(header: object, data: bytes) -> bytes:
    """The inverse; header may be JSON text already."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def assert_refused(data: bytes, match: str | None = None) -> None:
    """load_model raises ModelError: one line, not too long, naming the model, without a word of the code's own."""
    with pytest.raises(ModelError, match=match) as caught:
        load_model(data, "evil")
    message = str(caught.value)
    assert message.startswith("model evil: ")
    assert message.isprintable()
    assert len(message) < 500
    for word in ("numpy", "NoneType", "' object", "__init__", "reshape", "buffer", "unpack", "argument", "TypeError"):
        assert word not in message


# Reading what was written.


@pytest.mark.parametrize("blocks", ["c", "l", "clcl", "l" * 64])
def test_load_model_gives_what_write_model_took(blocks: str) -> None:
    config, arrays = parts(2, blocks)
    model = load_model(write_model(config, arrays), "some")
    assert set(model.network.arrays) == set(arrays)
    for name, array in arrays.items():
        assert np.array_equal(model.network.arrays[name], array)
        assert model.network.arrays[name].dtype == array.dtype
    assert (model.network.blocks, model.network.channels) == (blocks, config["channels"])
    assert model.network.macs_per_pixel() == sum(a.size for name, a in arrays.items() if name.endswith(".weight"))


def test_the_same_model_has_the_same_bytes() -> None:
    config, arrays = parts(3)
    turned = {name: arrays[name] for name in reversed(arrays)}
    assert write_model(config, arrays) == write_model(dict(reversed(config.items())), turned)


def test_a_header_of_any_length_is_read() -> None:
    header, data = taken_apart()
    for blanks in range(8):
        model = load_model(put_together(json.dumps(header).encode() + b" " * blanks, data), "some")
        assert np.array_equal(model.network.arrays["table.exp"], parts(1)[1]["table.exp"])


def test_the_order_of_arrays_in_the_file_is_free() -> None:
    header, data = taken_apart()
    turned, body = {"__metadata__": header.pop("__metadata__")}, b""
    for name, entry in reversed(header.items()):
        start, stop = entry["data_offsets"]
        turned[name] = entry | {"data_offsets": [len(body), len(body) + stop - start]}
        body += data[start:stop]
    arrays = load_model(put_together(turned, body), "some").network.arrays
    for name, array in load_model(good_file(), "some").network.arrays.items():
        assert np.array_equal(arrays[name], array)


@pytest.mark.parametrize("info", [None, [], "text", 7, {"recipe": [1, {"a": None}]}])
def test_info_may_be_anything(info: object) -> None:
    header, data = taken_apart()
    config = json.loads(header["__metadata__"]["config"]) | {"info": info}
    header["__metadata__"]["config"] = json.dumps(config)
    load_model(put_together(header, data), "some")


# The frame of the file.

FRAMES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "eight bytes": lambda: bytes(8),
    "length of the header over the file": lambda: struct.pack("<Q", len(good_file())) + good_file()[8:],
    "length of the header 2^64 - 1": lambda: b"\xff" * 8 + good_file()[8:],
    "length of the header 0": lambda: bytes(8) + good_file()[8:],
    "length of the header one less": lambda: bytes([good_file()[0] - 1]) + good_file()[1:],
    "header not JSON": lambda: put_together(b"{nonsense", b""),
    "header not UTF-8": lambda: put_together(b'{"\xff\xfe": 1}', b""),
    "header with text after it": lambda: put_together(b"{} {}", b""),
    "header a number": lambda: put_together(5, b""),
    "header a string": lambda: put_together("text", b""),
    "header null": lambda: put_together(None, b""),
    "header a list": lambda: put_together([1, 2], b""),
    "header empty": lambda: put_together({}, b""),
    "deeply nested lists": lambda: put_together(b"[" * 500_000, b""),
    "deeply nested objects": lambda: put_together(b'{"a":' * 100_000, b""),
    "a number of many digits": lambda: put_together(b'{"a": ' + b"9" * 100_000 + b"}", b""),
    "PNG": lambda: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "zip": lambda: b"PK\x03\x04" + bytes(100),
    "one byte more": lambda: good_file() + b"\0",
    "one byte less": lambda: good_file()[:-1],
    "half": lambda: good_file()[: len(good_file()) // 2],
}


@pytest.mark.parametrize("case", FRAMES)
def test_a_broken_frame_is_refused(case: str) -> None:
    assert_refused(FRAMES[case]())


def test_a_file_over_the_limit_is_refused() -> None:
    assert_refused(good_file() + bytes(MAX_BYTES), "bytes, allowed 9 to")


def test_every_truncation_is_refused() -> None:
    data = good_file()
    for length in [*range(0, 40), *range(40, len(data), 997)]:
        assert_refused(data[:length])


# Metadata.

ODD_VALUES = [None, True, 5, -1, 1.5, float("inf"), float("nan"), "", "text", "\n\ud800"]
ODD_VALUES += [[], [[]], {}, {"a": 1}, 10**30]


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
@pytest.mark.parametrize("key", ["format", "arithmetic", "config"])
def test_odd_metadata_is_refused(key: str, value: object) -> None:
    header, data = taken_apart()
    header["__metadata__"][key] = value
    assert_refused(put_together(header, data))


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_metadata_that_is_not_an_object_is_refused(value: object) -> None:
    header, data = taken_apart()
    header["__metadata__"] = value
    assert_refused(put_together(header, data))


@pytest.mark.parametrize("key", ["format", "arithmetic", "config"])
def test_missing_metadata_is_refused(key: str) -> None:
    header, data = taken_apart()
    del header["__metadata__"][key]
    assert_refused(put_together(header, data))


@pytest.mark.parametrize("version", ["1", "3"])
def test_an_older_or_newer_arithmetic_is_named(version: str) -> None:
    header, data = taken_apart()
    header["__metadata__"]["arithmetic"] = version
    assert_refused(put_together(header, data), f"arithmetic version '{version}', this pixzip knows 2")


# Configuration.


def with_config(change: Callable[[Header], object]) -> bytes:
    """The good file with a changed configuration."""
    header, data = taken_apart()
    config = json.loads(header["__metadata__"]["config"])
    change(config)
    header["__metadata__"]["config"] = json.dumps(config)
    return put_together(header, data)


@pytest.mark.parametrize("value", [*ODD_VALUES, "trunk ", "l" * 65, "cx", "x" * 100_000], ids=lambda v: repr(v)[:20])
@pytest.mark.parametrize("key", ["architecture", "channels", "hidden", "lstm", "head", "blocks", "shifts"])
def test_odd_configuration_is_refused(key: str, value: object) -> None:
    assert_refused(with_config(lambda config: config.update({key: value})))


@pytest.mark.parametrize("key", ["channels", "hidden", "lstm", "head"])
@pytest.mark.parametrize("value", [0, 4, 7, 9, 16, -8, 1032, 2**31, 2**64])
def test_widths_out_of_range_or_unlike_the_arrays_are_refused(key: str, value: int) -> None:
    assert_refused(with_config(lambda config: config.update({key: value})))


@pytest.mark.parametrize("key", ["architecture", "channels", "hidden", "lstm", "head", "blocks", "shifts"])
def test_missing_configuration_is_refused(key: str) -> None:
    assert_refused(with_config(lambda config: config.pop(key)), key)


SHIFTS = [["feature"], ["blocks", 0], ["blocks", 1]]


def put(tree: Any, path: list[Any], value: object) -> None:
    """tree[path[0]][path[1]]... = value."""
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


@pytest.mark.parametrize("path", SHIFTS, ids=str)
def test_odd_shifts_are_refused(path: list[Any]) -> None:
    for value in [*(v for v in ODD_VALUES if v != 5), 25, 2**40]:
        assert_refused(with_config(lambda config, value=value: put(config["shifts"], path, value)))
    load_model(with_config(lambda config: put(config["shifts"], path, 24)), "some")
    assert_refused(with_config(lambda config: put(config["shifts"], path, 25)), "shift 25, allowed 0 to 24")


def test_lists_of_shifts_of_another_length_are_refused() -> None:
    assert_refused(with_config(lambda config: config["shifts"]["blocks"].pop()))
    assert_refused(with_config(lambda config: config["shifts"]["blocks"].append(5)))
    for value in ODD_VALUES:
        assert_refused(with_config(lambda config, value=value: put(config["shifts"], ["blocks"], value)))


@pytest.mark.parametrize("key", ["feature", "blocks"])
def test_missing_shifts_are_refused(key: str) -> None:
    assert_refused(with_config(lambda config: config["shifts"].pop(key)), key)


# Arrays: the header's entries.


def with_entry(name: str, **change: object) -> bytes:
    """The good file with one array's entry changed."""
    header, data = taken_apart()
    header[name] = header[name] | change
    return put_together(header, data)


@pytest.mark.parametrize("value", [*ODD_VALUES, "I64", "F32", "i8", "BOOL", "F16"], ids=repr)
def test_odd_dtypes_are_refused(value: object) -> None:
    assert_refused(with_entry("table.exp", dtype=value))


def test_another_dtype_of_the_same_size_is_refused() -> None:
    assert_refused(with_entry("table.exp", dtype="I8", shape=[4096]), "table.exp")
    assert_refused(with_entry("input.weight", dtype="I16", shape=[8, 44]), "input.weight")


HUGE = 10**19
SHAPES = [[-1024], [-1, -1024], [1024, 1], [1, 1024], [2, 512], [0], [0, HUGE], [HUGE], [2**62, 4], [2**63], [2**64]]
SHAPES += [
    [1] * 40,
    [1] * 65 + [1024],
    [10**200] * 100,
    [10**4200] * 2,
    ["1024"],
    [1024.0],
    [1024.5],
    [None],
    [[1024]],
    [True],
    [{}],
]


@pytest.mark.parametrize("shape", [*SHAPES, *ODD_VALUES], ids=lambda v: repr(v)[:20])
def test_odd_shapes_are_refused(shape: object) -> None:
    assert_refused(with_entry("table.exp", shape=shape))


def test_a_transposed_weight_is_refused() -> None:
    assert_refused(with_entry("input.weight", shape=[88, 8]), "input.weight")


def offsets_of(name: str) -> list[int]:
    """Where an array of the good file lies."""
    offsets: list[int] = taken_apart()[0][name]["data_offsets"]
    return offsets


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b: [a, b + 1],
        lambda a, b: [a - 1, b - 1],
        lambda a, b: [a + 4, b + 4],
        lambda a, b: [0, b - a],
        lambda a, b: [b, a],
        lambda a, b: [-a, -b],
        lambda a, b: [a, HUGE],
        lambda a, b: [a + HUGE, b + HUGE],
        lambda a, b: [float(a), float(b)],
        lambda a, b: [a, b, b],
        lambda a, b: [a],
        lambda a, b: [str(a), str(b)],
        lambda a, b: [[a], [b]],
        lambda a, b: {"0": a, "1": b},
        *[lambda a, b, value=value: value for value in ODD_VALUES],
    ],
)
def test_odd_offsets_are_refused(change: Callable[[int, int], object]) -> None:
    assert_refused(with_entry("table.exp", data_offsets=change(*offsets_of("table.exp"))))


def test_offsets_of_true_and_false_are_refused() -> None:
    header, data = taken_apart()
    first = next(name for name in header if name != "__metadata__")
    header[first]["data_offsets"][0] = False
    assert_refused(put_together(header, data))


def test_overlapping_arrays_are_refused() -> None:
    assert_refused(with_entry("table.tanh", data_offsets=offsets_of("table.sigmoid")), "table.tanh")


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_entries_that_are_not_objects_are_refused(value: object) -> None:
    header, data = taken_apart()
    header["table.exp"] = value
    assert_refused(put_together(header, data))


@pytest.mark.parametrize("key", ["dtype", "shape", "data_offsets"])
def test_entries_with_a_missing_key_are_refused(key: str) -> None:
    header, data = taken_apart()
    del header["head.2.known"][key]
    assert_refused(put_together(header, data))


ODD_NAMES = ["head.0.known", "head.3.hidden.weight", "x" * 100_000, "two\nlines\x1b[31m", "\ud800"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name)[:20])
def test_unknown_arrays_are_refused(name: str) -> None:
    header, data = taken_apart()
    header[name] = {"dtype": "I8", "shape": [8], "data_offsets": [len(data), len(data) + 8]}
    assert_refused(put_together(header, data + bytes(8)))


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name)[:20])
def test_odd_entries_of_odd_names_are_refused(name: str) -> None:
    for change in ({"dtype": "I64"}, {"shape": [9]}, {"data_offsets": [0, 8]}, {"dtype": "x" * 100_000}):
        header, data = taken_apart()
        header[name] = {"dtype": "I8", "shape": [8], "data_offsets": [len(data), len(data) + 8]} | change
        assert_refused(put_together(header, data + bytes(8)))


def test_missing_arrays_are_refused() -> None:
    header, data = taken_apart()
    last = list(header)[-1]
    start, _ = header.pop(last)["data_offsets"]
    assert_refused(put_together(header, data[:start]), last)


def test_an_array_given_twice_is_refused() -> None:
    """Readers of JSON differ on which of two equal keys counts."""
    header, data = taken_apart()
    text = json.dumps(header)
    entry = json.dumps(header["table.sigmoid"])
    assert_refused(put_together((text[:-1] + f', "table.sigmoid": {entry}}}').encode(), data))


# Arrays: the values.


def with_value(name: str, index: tuple[int, ...], value: int) -> bytes:
    """The good file with one entry of an array changed."""
    header, data = taken_apart()
    entry = header[name]
    start, stop = entry["data_offsets"]
    dtype = {"I8": np.int8, "I16": np.int16, "I32": np.int32}[entry["dtype"]]
    array = np.frombuffer(data[start:stop], dtype=dtype).reshape(entry["shape"]).copy()
    array[index] = value
    return put_together(header, data[:start] + array.tobytes() + data[stop:])


def weights() -> list[str]:
    """All weight arrays of the good file."""
    return [name for name in taken_apart()[0] if name.endswith(".weight")]


@pytest.mark.parametrize("name", weights())
def test_a_weight_of_minus_128_is_refused(name: str) -> None:
    assert_refused(with_value(name, (3, 5), -128), f"{name} holds -128")
    load_model(with_value(name, (3, 5), -127), "some")


@pytest.mark.parametrize("name", [name for name in taken_apart()[0] if name.endswith((".shift", ".left"))])
def test_shifts_of_outputs_out_of_range_are_refused(name: str) -> None:
    most = 24 if name.endswith(".shift") else 5
    for value in (-128, -1, most + 1, 31, 32, 127):
        assert_refused(with_value(name, (3,), value), f"{name} holds {value}, allowed 0 to {most}")
    for value in (0, most):
        load_model(with_value(name, (3,), value), "some")


def test_every_product_has_a_shift_for_each_output() -> None:
    header, _ = taken_apart()
    for name in weights():
        rounded = [name.replace(".weight", ".shift")] if not name.endswith("ss.weight") else []
        shifted = [name.replace(".weight", ".left")] if name.endswith(("is.weight", "ss.weight")) else []
        for shift in rounded + shifted:
            assert header[shift]["shape"] == header[name]["shape"][:1]


@pytest.mark.parametrize("table", ["table.sigmoid", "table.tanh"])
def test_tables_out_of_range_are_refused(table: str) -> None:
    for value in (4097, -4097, 32767, -32768):
        assert_refused(with_value(table, (100,), value), table)
    for value in (4096, -4096):
        load_model(with_value(table, (100,), value), "some")


def test_exp_tables_out_of_range_are_refused() -> None:
    for index, value in ((0, 0), (0, -1), (0, 2**24 + 1), (1023, -1), (500, 2**24 + 1), (7, -(2**31))):
        assert_refused(with_value("table.exp", (index,), value), "table.exp")
    for index, value in ((0, 1), (0, 2**24), (1023, 0), (500, 2**24)):
        load_model(with_value("table.exp", (index,), value), "some")


@pytest.mark.parametrize("name", [name for name in weights() if not name.endswith("ss.weight")])
def test_the_bound_of_2_to_the_24_is_exact(name: str) -> None:
    layer = name.removesuffix(".weight")
    _, arrays = parts(1, "cl", channels=8, hidden=8, lstm=8, head=8)
    most = int(largest_bias(arrays, layer)[3])
    for sign in (-1, 1):
        load_model(with_value(layer + ".bias", (3,), sign * most), "some")
        assert_refused(with_value(layer + ".bias", (3,), sign * (most + 1)), f"{name}: output 3 can reach 16777216")
    assert_refused(with_value(layer + ".bias", (3,), -(2**31)), name)


@pytest.mark.parametrize("c", [1, 2])
def test_known_tables_count_in_the_bound(c: int) -> None:
    for value in (2**24, -(2**24), 2**31 - 1, -(2**31)):
        for column in range(c):
            data = with_value(f"head.{c}.known", (column, 200, 3), value)
            assert_refused(data, rf"head\.{c}\.hidden\.weight: output 3 can reach")


# Anything at all.


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_files_load_or_are_refused(data: st.DataObject) -> None:
    """Bytes changed, cut out or put in, mostly in the header: ModelError or a model, nothing else."""
    mutated = bytearray(good_file())
    (length,) = struct.unpack_from("<Q", mutated)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, 8 + length), st.integers(0, len(mutated) - 1)))
        kind = data.draw(st.sampled_from(["change", "cut", "put"]))
        if kind == "change":
            mutated[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
        elif kind == "cut":
            del mutated[at : at + data.draw(st.integers(1, 9))]
        else:
            mutated[at:at] = data.draw(st.sampled_from([b'"', b"0", b"-", b"[", b"}", b"e9", b"null", b"\n", b"\xff"]))
    try:
        load_model(bytes(mutated), "some")
    except ModelError as error:
        assert "\n" not in str(error)


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(tiny_bytes(1, "c", channels=8, hidden=8, lstm=8, head=8))
    first = find_model(path)
    assert find_model(path) is first
    assert not any(a.flags.writeable for a in first.network.arrays.values())  # all who get it share it
    path.write_bytes(tiny_bytes(2, "c", channels=8, hidden=8, lstm=8, head=8))  # as many bytes
    second = find_model(path)
    assert (len(second.data), second.data) == (len(first.data), path.read_bytes())
    assert second.data != first.data
    path.write_bytes(second.data[:-1])
    with pytest.raises(ModelError):
        find_model(path)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["dtype", "shape", "format"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), value=JSON)
def test_any_json_anywhere_loads_or_is_refused(data: st.DataObject, value: object) -> None:
    header, body = taken_apart()
    config = json.loads(header["__metadata__"]["config"])
    places: list[tuple[Any, Any]] = [(header, key) for key in header] + [(config, key) for key in config]
    places += [(header["table.exp"], key) for key in header["table.exp"]]
    places += [(config["shifts"], key) for key in config["shifts"]]
    places += [(header["__metadata__"], "config"), (header["table.exp"]["shape"], 0)]
    tree, key = data.draw(st.sampled_from(places))
    metadata = header["__metadata__"]
    metadata["config"] = json.dumps(config)
    tree[key] = value
    if isinstance(header["__metadata__"], dict) and tree is not metadata:
        header["__metadata__"]["config"] = json.dumps(config)
    try:
        load_model(put_together(header, body), "some")
    except ModelError as error:
        assert "\n" not in str(error)
