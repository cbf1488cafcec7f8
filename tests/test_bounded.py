"""What a file claims takes no memory: that of every reader is bounded by the bytes of the file, and by the limits."""

from __future__ import annotations

import hashlib
import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pixzip
import pixzip.pillow
from pixzip import api
from pixzip.coding.stored import store
from pixzip.errors import FormatError, LimitError, PixzipError
from pixzip.formats.image import Picture
from pixzip.memory import MIB
from pixzip.pxz import remains
from pixzip.pxz.container import Coding, Container, Header, tile_grid, write_container
from pixzip.pxz.names import unpack_names

MOST_PICTURES = 2**31 - 1
#: Any file, and times its bytes.
CONSTANT_BYTES, TIMES = 16 * MIB, 40


@cache
def stored_file(pictures: int, *metadata: tuple[str, bytes], claimed: int = 0) -> bytes:
    """Gray pictures of one pixel, 0 each, stored; the header claims others, where that is said."""
    planes = np.zeros((1, pictures, 1), dtype=np.uint8)
    summed = struct.pack("<BBBIII", 1, 8, 1, pictures, 1, 1) + planes.tobytes() + bytes(8)
    sum_of_pixels = hashlib.blake2b(summed, digest_size=16).digest()
    header = Header(1, 1, claimed or pictures, "L", 8, Coding.STORED, bytes(8), 1, 1, 0, sum_of_pixels)
    return write_container(Container(header, b"", b"", metadata, None, store(planes, "L", 8), ()))


def names_of(name: bytes, length: int = 62 * MIB) -> bytes:
    """The value of `names` that inflates to so many bytes of one name, over and over."""
    return zlib.compress((name + b"\0") * (length // (len(name) + 1)), 9)


def by_pillow(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def verified_by_pillow(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.verify()


READERS: dict[str, Callable[[bytes], Any]] = {
    "picture_names": pixzip.picture_names,
    "picture_names, no limit": partial(pixzip.picture_names, max_pixels=2**93),
    "inspect": pixzip.inspect,
    "decompress": pixzip.decompress,
    "decompress_batch": pixzip.decompress_batch,
    "verify": pixzip.verify,
    "salvage": pixzip.salvage,
    "Pillow's open and load": by_pillow,
    "Pillow's verify": verified_by_pillow,
}
HOSTILE: dict[str, Callable[[], bytes]] = {
    "names of a byte": lambda: stored_file(2, ("names", names_of(b"a")), claimed=MOST_PICTURES),
    "names of two bytes": lambda: stored_file(2, ("names", names_of(b"ab")), claimed=MOST_PICTURES),
    "names without a byte": lambda: stored_file(2, ("names", names_of(b"")), claimed=MOST_PICTURES),
    "one name without end": lambda: stored_file(2, ("names", names_of(b"a" * 62 * MIB)), claimed=MOST_PICTURES),
    "fewer names than pictures": lambda: stored_file(2, ("names", names_of(b"ab")), claimed=10**6),
    "names for two": lambda: stored_file(2, ("names", names_of(b"ab"))),
    "pictures without end": lambda: stored_file(2, claimed=MOST_PICTURES),
    "pictures of a pixel": lambda: stored_file(3_000_000),
    "ten thousand entries": lambda: stored_file(1, *(("a", b""),) * 10_000),
    "text that Pillow inflates": lambda: stored_file(1, ("ztxt", b"a\0\0" + zlib.compress(bytes(62 * MIB), 9))),
    "profile that Pillow inflates": lambda: stored_file(1, ("iccp", b"a\0\0" + zlib.compress(bytes(62 * MIB), 9))),
}


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes that Python and numpy hold during the work beyond what they held before; errors are results."""
    tracemalloc.start()
    try:
        work()
    except (PixzipError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def is_bounded(read: Callable[[bytes], object], data: bytes) -> bool:
    return peak_bytes(lambda: read(data)) <= CONSTANT_BYTES + TIMES * len(data)


@pytest.mark.parametrize("claim", HOSTILE)
@pytest.mark.parametrize("reader", READERS)
def test_memory_is_bounded_by_the_bytes_of_the_file(reader: str, claim: str) -> None:
    data = HOSTILE[claim]()
    assert len(data) < 160_000
    assert is_bounded(READERS[reader], data)


def test_names_inflated_as_a_whole_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "unpack_names", lambda value, pictures: zlib.decompress(value).split(b"\0"))
    assert not is_bounded(READERS["picture_names, no limit"], HOSTILE["names of a byte"]())


def test_many_names_take_what_they_are() -> None:
    data = stored_file(1_000_000, ("names", names_of(b"ab", 3 * 10**6)))
    assert len(data) < 8_000
    assert peak_bytes(lambda: pixzip.picture_names(data)) < 24 * MIB
    assert pixzip.picture_names(data) == ("ab",) * 1_000_000


@pytest.mark.parametrize("length", [1, 2, 254, 255])
def test_names_at_every_place_of_a_piece_come_back(length: int) -> None:
    names = [f"{i:x}".rjust(length, "x")[-length:] for i in range(3000)]
    value = zlib.compress("".join(name + "\0" for name in names).encode(), 0)
    assert unpack_names(value, 3000) == tuple(names)


def test_names_longer_than_a_name_or_without_an_end_are_refused() -> None:
    long = zlib.compress(b"a" * 256 + b"\0" + b"b\0" * 9)
    with pytest.raises(FormatError, match=r"b'a+' of 256 bytes: must have 1 to 255"):
        unpack_names(long, 10)
    with pytest.raises(FormatError, match="a name of over 255 bytes"):
        unpack_names(zlib.compress(b"a\0" + b"a" * 700 + b"\0b\0", 0), 3)
    with pytest.raises(FormatError, match="3 bytes behind the last"):
        unpack_names(zlib.compress(b"a\0b\0abc"), 2)


# ------------------------------------------------------------------------ many tiny pictures


def test_tiny_pictures_count_as_64_pixels_where_a_limit_is_compared() -> None:
    for count, limit in ((1, 1), (2, 128), (5, 320)):
        data = stored_file(count)
        for read in (pixzip.decompress_batch, pixzip.verify, pixzip.salvage, pixzip.picture_names):
            read(data, max_pixels=limit)
            with pytest.raises(LimitError, match=r"\(max_pixels\)"):
                read(data, max_pixels=limit - 1)
        images = [Picture(np.zeros((1, 1, 1), dtype=np.uint8), "P", 1, palette=bytes(3))] * count
        assert pixzip.inspect(pixzip.compress_batch(images, max_pixels=limit)).pictures == count
        with pytest.raises(LimitError, match=r"\(max_pixels\)"):
            pixzip.compress_batch(images, max_pixels=limit - 1)
    with pytest.raises(LimitError, match="1 x 1 x 1000001 = 1000001 pixels, which count as 64000064, over the limit"):
        pixzip.decompress_batch(stored_file(2, claimed=1_000_001))


def test_memory_of_many_pictures_is_within_the_need() -> None:
    data = stored_file(20_000)
    need = api.need_to_decompress(data)
    assert peak_bytes(lambda: pixzip.decompress_batch(data)) < need.bytes() - need.bytes() % MIB
    with pytest.raises(LimitError, match="MiB"):
        pixzip.decompress_batch(data, max_memory=api.need_to_decompress(stored_file(2)).bytes())


# ------------------------------------------------------------------------ salvage


def stored_palette(height: int, width: int) -> bytes:
    planes = np.zeros((1, height, width), dtype=np.uint8)
    return pixzip.compress(Picture(planes, "P", 2, palette=bytes(12)))


def test_salvage_of_a_stored_picture_looks_at_no_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header says tiles of a pixel, which have no meaning."""
    data = stored_palette(1200, 1000)
    assert peak_bytes(lambda: pixzip.salvage(data)) < CONSTANT_BYTES
    assert pixzip.salvage(data).whole
    looked = remains.areas
    monkeypatch.setattr(api, "areas", lambda h, missing: tile_grid(h.width, h.height, h.tile) and looked(h, missing))
    assert peak_bytes(lambda: pixzip.salvage(data)) > CONSTANT_BYTES
