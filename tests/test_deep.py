"""16-bit samples: every stream gives back its samples, by the kernel and by plain Python; damage is refused."""

from __future__ import annotations

import dataclasses
import os
from contextlib import suppress
from decimal import ROUND_UP, Context, Decimal, Inexact, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import png
import pytest
import reference_decoder
from conftest import model_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_decoder import Refused, decode_deep
from reference_decoder import decode as reference_decode

import pixzip
from pixzip.api import need_to_compress, need_to_decompress
from pixzip.coding import deep, deep_kernels
from pixzip.coding.deep import decode_block, decode_planes, encode_block, encode_planes
from pixzip.coding.deep_kernels import MOST_PLANES
from pixzip.coding.entropy import encode_words, words_of
from pixzip.coding.halves import halves, joined
from pixzip.errors import FormatError, UsageError
from pixzip.formats.image import Picture
from pixzip.memory import deep_block
from pixzip.model.file import find_model
from pixzip.pxz.container import DEEP, Coding, read_container, write_container

Planes = NDArray[np.uint16]
MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
KINDS = ["noise", "constant", "slope", "walk", "8 bits", "12 bits", "few", "photo"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


def samples(kind: str, shape: tuple[int, int, int, int], seed: int = 0) -> Planes:
    """Pictures (n, c, h, w) of 16 bits."""
    random = np.random.default_rng(seed)
    _, c, h, w = shape
    noise = random.integers(0, 2**16, shape)
    y, x = np.mgrid[:h, :w]
    values = {
        "noise": noise,
        "constant": np.full(shape, noise.flat[0]),
        "slope": (37 * y + 53 * x + 7 * noise[:, :, :1, :1]) % 2**16 + 0 * noise,
        "walk": np.cumsum(noise % 301 - 150, axis=3) % 2**16,
        "8 bits": noise // 256 * 257,
        "12 bits": noise // 16 * 16,
        "few": noise % 3 * 32767,
        "photo": 200 * np.cumsum(noise % 5, axis=2) // (c + 1) + 90 * np.cumsum(noise[:, :1] % 4, axis=3) + noise % 99,
    }
    return np.asarray(values[kind] % 2**16, dtype=np.uint16)


def high_of(planes: Planes) -> NDArray[np.uint8]:
    return (planes >> 8).astype(np.uint8)


def there_and_back(planes: Planes, split: bool) -> bytes:
    data = encode_block(planes, split=split)
    back = decode_block(data, planes.shape, high_of(planes) if split else None)
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, planes)
    return data


sides = st.one_of(st.just(1), st.just(2), st.integers(1, 40))


# ------------------------------------------------------------------------ streams


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS), st.sampled_from([1, 3]), sides, sides, st.integers(1, 3), st.booleans(), st.integers(0, 99)
)
def test_streams_give_back_their_samples(kind: str, c: int, h: int, w: int, n: int, split: bool, seed: int) -> None:
    there_and_back(samples(kind, (n, c, h, w), seed), split)


def test_a_stream_of_more_planes_than_its_memory_has_room_for_is_refused() -> None:
    data = there_and_back(samples("photo", (1, MOST_PLANES, 3, 4)), split=False)
    for planes in (MOST_PLANES + 1, 8):
        with pytest.raises(UsageError, match=f"{planes} planes in one stream: must be 1 to 3"):
            encode_block(samples("photo", (1, planes, 3, 4)), split=False)
        with pytest.raises(UsageError, match=f"{planes} planes in one stream"):
            decode_block(b"\0" + data[1:], (1, planes, 3, 4))


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_python_decodes_the_same(kind: str, split: bool) -> None:
    for shape in ((1, 3, 4, 5), (2, 1, 3, 4), (1, 1, 1, 1), (1, 3, 1, 6), (1, 1, 6, 1)):
        planes = samples(kind, shape, seed=sum(shape))
        data = encode_block(planes, split=split)
        assert decode_deep(data, *shape, high_of(planes).tolist() if split else None) == planes.tolist()


@pytest.mark.parametrize("split", [True, False])
def test_plain_python_decodes_what_was_learned_in_a_larger_picture(split: bool) -> None:
    shape = (1, 3, 14, 17)
    planes = 16 * (samples("photo", shape) // 16 % 4096)
    data = encode_block(planes, split=split)
    assert decode_deep(data, *shape, high_of(planes).tolist() if split else None) == planes.tolist()


def test_noise_costs_its_bits_and_little_more() -> None:
    planes = samples("noise", (1, 1, 120, 130))
    assert len(there_and_back(planes, split=True)) <= 1.02 * planes.size
    assert len(there_and_back(planes, split=False)) <= 1.02 * planes.nbytes


def test_low_bytes_that_follow_from_the_high_ones_cost_a_list() -> None:
    planes = samples("8 bits", (1, 3, 100, 100))
    assert len(there_and_back(planes, split=True)) < 100


def test_gaps_in_the_values_are_not_paid_for() -> None:
    planes = samples("12 bits", (1, 1, 200, 300))
    assert planes.size * 12 / 8 < len(there_and_back(planes, split=False)) < 1.02 * planes.size * 12 / 8 + 200


def test_smooth_pictures_cost_little() -> None:
    y, x = np.mgrid[:200, :200]
    waves = 32768 + 30000 * np.sin(x / 40) * np.cos(y / 50)
    planes = np.rint(waves)[None, None].astype(np.uint16)
    assert len(there_and_back(planes, split=False)) < planes.nbytes / 4


def test_gray_in_three_planes_costs_hardly_more_than_in_one() -> None:
    gray = samples("photo", (1, 1, 90, 90))
    one, three = (len(there_and_back(np.repeat(gray, c, axis=1), split=False)) for c in (1, 3))
    assert three < 1.1 * one


@pytest.mark.parametrize(
    "values", [[0], [65535], [0, 65535], [7, 8, 9], [*range(0, 65536, 257)], [*range(50000)]], ids=len
)
def test_lists_give_back_their_values(values: list[int]) -> None:
    shape = (1, 1, 1, len(values))
    planes = np.array(values, dtype=np.uint16).reshape(shape)
    data = deep.encode_with(planes, False, [np.unique(planes).astype(np.int64)])
    assert data[0] == 1
    np.testing.assert_array_equal(decode_block(data, shape), planes)


def test_random_lists_give_back_their_values() -> None:
    for seed in range(12):
        random = np.random.default_rng(seed)
        values = np.unique(random.integers(0, 65536, 1 << seed)).astype(np.int64)
        planes = values.astype(np.uint16).reshape(1, 1, 1, -1)
        assert (decode_block(deep.encode_with(planes, False, [values]), planes.shape) == planes).all()


def test_logistic_table_is_the_nearest_integers() -> None:
    with localcontext() as context:
        context.prec = 30
        for k, value in enumerate(deep_kernels.LOGISTIC.tolist()):
            assert abs(Decimal(2**28) / (1 + (Decimal(-k) / 16).exp()) - value) <= Decimal("0.5")
    assert deep_kernels.LOGISTIC[0] == 2**27
    inverse = deep_kernels.INVERSE_SCALES.tolist()
    assert all(s * s <= 2 ** (76 - i) < (s + 1) ** 2 for i, s in enumerate(inverse)) and len(inverse) == 52


def test_words_are_those_of_constriction() -> None:
    pytest.importorskip("constriction")
    random = np.random.default_rng(3)
    for count in (0, 1, 2, 3, 1000):
        left = random.integers(0, 2**24 - 3, count).astype(np.uint32)
        left[random.random(count) < 0.1] = 0
        frequency = (1 + random.random(count) ** 8 * (2**24 - left - 2)).astype(np.uint32)
        np.testing.assert_array_equal(words_of(left, frequency), encode_words(left, frequency))


@pytest.mark.parametrize("fault", ["prediction", "context", "share", "weight"])
def test_an_error_of_one_in_what_is_learned_breaks_decoding(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain decoder with one thing changed loses the picture: all of them matter."""
    shape = (1, 3, 7, 8)
    planes = samples("photo", shape, seed=5)
    data = encode_block(planes, split=False)
    plane = reference_decoder.DeepPlane
    predict, context, decode = plane.predict, plane.context, plane.decode

    def stale(self: Any, *arguments: Any) -> None:
        shares, weights, uses = dict(self.shares), self.weights, dict(self.uses)
        decode(self, *arguments)
        if fault == "weight":
            self.weights = weights
        elif arguments[2:4] == (3, 3):
            self.shares.update({key: shares.get(key, [2**18] * 4) for key in self.shares})
            self.uses.update({key: uses.get(key, 0) for key in self.uses})

    wrong = {
        "prediction": ("predict", lambda self, g, y, x: predict(self, g, y, x) + (x == 3)),
        "context": ("context", lambda self, b, y, x: (context(self, b, y, x)[0], context(self, b, y, x)[1] ^ (x == 3))),
        "share": ("decode", stale),
        "weight": ("decode", stale),
    }
    assert decode_deep(data, *shape, None) == planes.tolist()
    monkeypatch.setattr(plane, *wrong[fault])
    with suppress(Refused):
        assert decode_deep(data, *shape, None) != planes.tolist()


def test_logistic_table_does_not_depend_on_the_programs_decimals() -> None:
    with localcontext(Context(prec=3, rounding=ROUND_UP, Emin=0, Emax=2, traps=[Inexact])):
        assert np.array_equal(deep_kernels._logistic(), deep_kernels.LOGISTIC)


@pytest.mark.parametrize("table", ["LOGISTIC", "INVERSE_SCALES"])
def test_another_table_breaks_decoding(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = samples("photo", (1, 1, 40, 40))
    data = encode_block(planes, split=False)
    monkeypatch.setattr(deep, table, getattr(deep, table) + 1)
    with suppress(FormatError):
        assert (decode_block(data, planes.shape) != planes).any()


def test_stream_of_high_bytes_that_are_not_its_own_is_refused_or_wrong() -> None:
    planes = samples("photo", (1, 1, 30, 30))
    data, high = encode_block(planes, split=True), high_of(planes)
    high[0, 0, 2, 3] ^= 1
    with suppress(FormatError):
        assert (decode_block(data, planes.shape, high) != planes).any()


# ------------------------------------------------------------------------ hostile streams


def test_changed_streams_are_refused_or_give_other_samples_by_both_decoders() -> None:
    shape = (1, 1, 3, 4)
    random = np.random.default_rng(9)
    refused = 0
    for kind in ("photo", "12 bits"):
        planes = samples(kind, shape, seed=2)
        for split in (True, False):
            high = high_of(planes) if split else None
            data = deep.encode_with(planes, split, [np.unique(planes).astype(np.int64) if kind == "12 bits" else None])
            cases = [data[:i] + random.bytes(1) + data[i + 1 :] for i in range(len(data))]
            cases += [data[:i] for i in range(len(data))] + [
                data + b"\0",
                data + b"\0\0\0\1",
                data + bytes(4),
                b"\0",
                b"\1",
            ]
            for case in cases:
                expected = attempt(lambda: decode_deep(case, *shape, None if high is None else high.tolist()), Refused)  # noqa: B023
                found = attempt(lambda: decode_block(case, shape, high).tolist(), FormatError)  # noqa: B023
                assert found == expected
                refused += found is None
    assert refused > 100


def attempt(work: Any, refusal: type[Exception]) -> Any:
    """What work gives; None where it refuses."""
    try:
        return work()
    except refusal:
        return None


def test_listed_values_beyond_16_bits_are_refused() -> None:
    with pytest.raises(FormatError, match="listed value is over 65535"):
        decode_block(b"\1" + b"\xff" * 40, (1, 1, 2, 2))


def test_high_byte_without_a_listed_value_is_refused() -> None:
    planes = samples("8 bits", (1, 1, 5, 5)) & np.uint16(0x7FFF)
    data = deep.encode_with(planes, True, [np.unique(planes).astype(np.int64)])
    with pytest.raises(FormatError, match="no listed value"):
        decode_block(data, planes.shape, np.full(planes.shape, 255, dtype=np.uint8))
    with pytest.raises(Refused, match="high byte"):
        decode_deep(data, *planes.shape, np.full(planes.shape, 255).tolist())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "flags"),
        (b"\2", "flags 02, must have one bit for each of 1 planes"),
        (b"\0\1", "1 bytes of words"),
        (b"\0" + bytes(4), "zero word"),
        (b"\0" + b"\1" * 400, "words left"),
    ],
)
def test_streams_that_no_encoder_writes_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        decode_block(data, (1, 1, 4, 4))


# ------------------------------------------------------------------------ bands


@pytest.mark.parametrize("threads", [1, 3])
def test_bands_do_not_depend_on_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep, "BAND_PIXELS", 100)
    planes = samples("photo", (1, 3, 23, 30))[0]
    data = encode_planes(planes, threads)
    assert data == encode_planes(planes)
    assert data.count(encode_block(planes[None, :, 3:6], split=False)) == 1
    np.testing.assert_array_equal(decode_planes(data, planes.shape, threads), planes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: b"", "length of band 0 is cut off"),
        (lambda d: d + b"\0", "1 bytes after the last band"),
        (lambda d: b"\xff\xff\xff\xff\x0f" + d, "band 0 has 4294967295 bytes"),
        (lambda d: b"\x80\0" + d, "shortest form"),
        (lambda d: d[:-1], "band 0 has"),
    ],
)
def test_bands_that_do_not_fit_are_refused(change: Any, reason: str) -> None:
    planes = samples("photo", (1, 1, 5, 6))[0]
    with pytest.raises(FormatError, match=reason):
        decode_planes(change(encode_planes(planes)), planes.shape)


# ------------------------------------------------------------------------ files


def picture(mode: str, h: int, w: int, kind: str = "model", n: int = 0) -> Picture:
    """16 bits: such as a model codes well in their high bytes, or samples of a kind."""
    if kind == "model":
        colours = model_picture(h, w, n).transpose(2, 0, 1)[: 3 if mode.startswith("RGB") else 1].astype(np.uint16)
        noise = np.random.default_rng(n).integers(0, 256, colours.shape)
        planes = 256 * colours + noise.astype(np.uint16)
    else:
        planes = samples(kind, (1, MODES[mode.removesuffix("A")], h, w), n)[0]
    if mode.endswith("A"):
        planes = np.concatenate([planes, samples("walk", (1, 1, h, w), n)[0]])
    return Picture(planes, mode, 16)


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (13, 21), (40, 33)])
@pytest.mark.parametrize("kind", ["model", "noise", "constant", "slope", "8 bits", "12 bits"])
def test_files_give_back_16_bits(model: Path, mode: str, size: tuple[int, int], kind: str) -> None:
    before = picture(mode, *size, kind)
    data = pixzip.compress(before, model=model, tile=16)
    back = pixzip.decompress(data, model=model)
    assert back.same_pixels(before)
    rows = png.Reader(bytes=pixzip.write_image(back, "PNG")).asDirect()[2]
    read = np.array([np.array(row) for row in rows]).reshape(*size, len(mode)).transpose(2, 0, 1)
    np.testing.assert_array_equal(read, before.planes)
    pixzip.verify(data, model=model)


def test_high_bytes_go_by_the_model_and_the_file_says_so(model: Path) -> None:
    before = picture("RGB", 48, 56)
    data = pixzip.compress(before, model=model, tile=32)
    info = pixzip.inspect(data)
    assert (info.coding, info.depth, data[8]) == ("model", 16, 3)
    assert 0.9 * 3 * 48 * 56 < info.low_bytes < info.payload_bytes
    of_high = pixzip.inspect(
        pixzip.compress((before.planes >> 8).astype(np.uint8).transpose(1, 2, 0), model=model, tile=32)
    )
    assert info.payload_bytes - info.low_bytes - of_high.payload_bytes == 2 * 4  # the lengths
    assert of_high.low_bytes == 0
    embedded = pixzip.compress(before, model=model, tile=32, embed_model=True)
    assert pixzip.decompress(embedded).same_pixels(before)


def test_other_pictures_are_stored_by_a_coding_of_ours_or_as_png(model: Path) -> None:
    waves = picture("LA", 60, 50, "slope")
    data = pixzip.compress(waves, model=model)
    c = read_container(data)
    assert c.header.coding == Coding.STORED and c.alpha is not None
    assert DEEP in (c.alpha[0], c.stored[0] if c.stored else 0)
    assert pixzip.inspect(data).coding in ("deep", "PNG")
    assert pixzip.decompress(data).same_pixels(waves)
    stripes = Picture(np.tile(samples("noise", (1, 1, 1, 200)), (1, 1, 100, 1))[0], "L", 16)
    assert pixzip.inspect(pixzip.compress(stripes, model=model)).coding in ("PNG", "deep")


@pytest.mark.parametrize("mode", list(MODES))
def test_several_pictures_of_16_bits_share_a_file(model: Path, mode: str) -> None:
    before = [picture(mode, 12, 15, n=i) for i in range(4)]
    data = pixzip.compress_batch(before, model=model)
    assert pixzip.inspect(data).coding == "model"
    after = pixzip.decompress_batch(data, model=model)
    assert all(a.same_pixels(b) for a, b in zip(after, before, strict=True))


def test_plain_python_decodes_whole_files(model: Path, model_bytes: bytes) -> None:
    for before, tile in ((picture("RGB", 6, 7), 4), (picture("L", 5, 3), 9), (picture("RGBA", 3, 4, "walk"), 9)):
        planes = before.planes.copy()
        if before.mode == "RGBA":
            planes[3] = 12345
        before = dataclasses.replace(before, planes=planes)
        data = pixzip.compress(before, model=model, tile=tile)
        if pixzip.inspect(data).coding == "PNG":
            continue
        used = model_bytes if pixzip.inspect(data).coding == "model" else b""
        assert reference_decode(data, used)[2] == [planes.tolist()]


def test_damaged_low_bytes_are_noticed(model: Path) -> None:
    before = picture("L", 40, 40)
    c = read_container(pixzip.compress(before, model=model, tile=64))
    (payload,) = c.tiles
    for changed in (
        payload[:-4],
        payload + b"\0\0\0\1",
        payload[:-9] + b"\xff" + payload[-8:],
        b"\xff\x7f" + payload[2:],
    ):
        bad = write_container(dataclasses.replace(c, tiles=(changed,)))
        with pytest.raises(FormatError):
            pixzip.decompress(bad, model=model)


def test_damaged_tiles_cost_their_place_only(model: Path) -> None:
    before = picture("RGB", 64, 96)
    data = pixzip.compress(before, model=model, tile=32)
    c = read_container(data)
    assert len(c.tiles) == 6
    high, low = halves(c.tiles)
    worse = list(c.tiles)
    worse[1] = joined(high[1], low[1][:-4])  # its CRC is right
    worse[4] = b"\xff\xff\x03" + worse[4]
    damaged = bytearray(write_container(dataclasses.replace(c, tiles=tuple(worse))))
    damaged[damaged.index(c.tiles[2]) + 5] ^= 1
    found = pixzip.salvage(bytes(damaged), model=model)
    assert [(a.y, a.x) for a in found.lost] == [(0, 32), (0, 64), (32, 32)]
    assert "16 bits" in found.lost[2].reason
    expected = before.planes.copy()
    for area in found.lost:
        expected[:, area.y : area.y + 32, area.x : area.x + 32] = np.array([65535, 0, 65535])[:, None, None]
    np.testing.assert_array_equal(found.pictures[0].planes, expected)
    assert pixzip.salvage(data, model=model).whole


def test_threads_and_memory_change_no_byte(model: Path) -> None:
    before = picture("RGB", 40, 70)
    data = pixzip.compress(before, model=model, tile=32)
    assert pixzip.compress(before, model=model, tile=32, threads=3, max_memory=2**30) == data
    assert pixzip.decompress(data, model=model, threads=3, max_memory=2**30).same_pixels(before)


# ------------------------------------------------------------------------ memory


@pytest.mark.parametrize("kind", ["noise", "8 bits"])
@pytest.mark.parametrize("c", [1, 3])
def test_arrays_of_a_stream_are_below_the_bound(kind: str, c: int) -> None:
    import tracemalloc

    planes = samples(kind, (1, c, 400, 500))
    high = high_of(planes)
    for split in (True, False):
        peaks = []
        data = encode_block(planes, split=split)
        for work in (
            lambda: encode_block(planes, split=split),  # noqa: B023
            lambda: decode_block(data, planes.shape, high if split else None),  # noqa: B023
        ):
            tracemalloc.start()
            work()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert max(peaks) <= deep_block(200_000, c) <= 4 * max(peaks) + (40 << 20)


def test_needs_of_16_bits_are_more(model: Path) -> None:
    network = find_model(model)
    deep_picture = picture("RGB", 64, 64)
    shallow = pixzip.from_array((deep_picture.planes >> 8).astype(np.uint8).transpose(1, 2, 0))
    needs = [need_to_compress([p], network, tile=64, max_pixels=10**6).bytes() for p in (shallow, deep_picture)]
    assert needs[0] < needs[1]
    files = [pixzip.compress(p, model=model) for p in (shallow, deep_picture)]
    assert need_to_decompress(files[0], model=model).bytes() < need_to_decompress(files[1], model=model).bytes()
