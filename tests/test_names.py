"""pixzip.pxz.names: names come back, and nothing that leads out of a folder ever does."""

from __future__ import annotations

import zlib
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
from conftest import model_picture
from hypothesis import given
from hypothesis import strategies as st

import pixzip
from pixzip.commands.decompress import _targets
from pixzip.errors import FormatError, UsageError
from pixzip.pxz.names import pack_names, unpack_names

PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="/\\\x7f", min_codepoint=32), min_size=1, max_size=40)


@given(names=st.lists(PLAIN.filter(lambda name: name not in (".", "..")), max_size=20))
def test_names_come_back(names: list[str]) -> None:
    assert list(unpack_names(pack_names(names), len(names))) == names


def test_surrogates_that_stand_for_no_byte_are_refused() -> None:
    with pytest.raises(UsageError, match="ud800"):
        pixzip.compress_batch([np.zeros((2, 2), np.uint8)] * 2, names=["\ud800", "b"])


def test_drive_in_a_name_is_refused() -> None:
    data = pixzip.compress_batch([np.zeros((2, 2), np.uint8)] * 2, names=["C:evil", "b"])
    assert _targets(data, Path("x/y.png"), 1000, named=True)
    windows: Any = PureWindowsPath("x/y.png")
    with pytest.raises(FormatError, match="names of the pictures"):
        _targets(data, windows, 1000, named=True)


def test_bytes_that_are_no_text_come_back() -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert unpack_names(pack_names([name]), 1) == (name,)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\nb", "a\0b", "x" * 256])
def test_what_is_no_name_is_refused_both_ways(name: str) -> None:
    with pytest.raises(UsageError, match="name b'"):
        pack_names(["fine", name])
    with pytest.raises(FormatError, match="names of the pictures"):
        unpack_names(zlib.compress(b"fine\0" + name.encode() + b"\0"), 2)


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"nothing", zlib.compress(b"a\0b\0")[:-1], zlib.compress(b"a\0b\0") + b"\0"),
        *(zlib.compress(text) for text in (b"a\0b", b"a\0", b"a\0b\0c\0", b"a" * 10**7)),
    ],
)
def test_anything_else_than_one_stream_of_as_many_names_is_refused(value: bytes) -> None:
    with pytest.raises(FormatError, match="names of the pictures"):
        unpack_names(value, 2)


def test_many_names_cost_little() -> None:
    assert len(pack_names([f"{i:05}.png" for i in range(10_000)])) < 30_000


def test_batch_keeps_names_beside_the_pictures_own_metadata(model: object) -> None:
    pixels = [model_picture(8, 8, seed=i) for i in range(3)]
    data = pixzip.compress_batch(pixels, names=["a.png", "b.png", "c.png"], model=model)
    assert pixzip.picture_names(data) == ("a.png", "b.png", "c.png")
    assert all(picture.metadata == () for picture in pixzip.decompress_batch(data, model=model))
    assert pixzip.picture_names(pixzip.compress_batch(pixels, model=model)) == ()
    assert pixzip.picture_names(pixzip.compress(pixels[0], model=model)) == ()
    with pytest.raises(UsageError, match="2 names for 3"):
        pixzip.compress_batch(pixels, names=["a", "b"], model=model)


def test_key_of_the_names_is_not_taken_by_other_metadata(model: object) -> None:
    picture = pixzip.Picture(pixzip.from_array(model_picture(8, 8)).planes, "RGB", 8, metadata=(("names", b"x"),))
    assert pixzip.decompress(pixzip.compress(picture, model=model), model=model).metadata == (("names", b"x"),)
    with pytest.raises(UsageError, match="names"):
        pixzip.compress_batch([picture, picture], model=model)
