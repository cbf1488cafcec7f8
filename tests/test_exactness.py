"""One digest for all ways of computing: engine, device, threads, tiles, batch, in whatever version of everything.

`bench/versions.py` runs this file with other versions of PyTorch.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_golden import FOLDER

from pixzip import codec
from pixzip.formats.image import read_image
from pixzip.model.file import find_model
from pixzip.runtime.multiply import HAS_INT8

#: BLAKE2b-128 of the payloads of CASES, in their order, by the default model: digest([coded(name, "float32", 1), ...]).
DIGEST = "c280b2c7c59f7c2be58c6e3eedc6c2b1"


def pieces() -> dict[str, tuple[NDArray[np.uint8], dict[str, Any]]]:
    """Pictures (n, c, h, w), and how they are coded: whole, in tiles, several in a block, gray, learning and not."""
    planes = read_image((FOLDER / "photo-64x48.png").read_bytes()).planes
    parts = np.stack([planes[:, y : y + 9, x : x + 12] for y in (0, 20) for x in (5, 30, 50)])
    return {
        "whole": (planes[None, :, :24, :31], {}),
        "not learning": (planes[None, :, 10:26, :20], {"learning": 0}),
        "tiles": (planes[None, :, 20:44, 30:], {"tile": 15, "learning": 20}),
        "block": (parts, {"lanes": 4}),
        "gray": (planes[None, 1:2, :15, :20], {"lanes": 3}),
    }


def engines() -> list[str]:
    found = ["float32", *(["int8"] if HAS_INT8 else [])]
    if find_spec("torch") is not None:
        import torch

        found += ["torch", *(["cuda"] if torch.cuda.is_available() else [])]
    return found


CASES = pieces()


def coded(name: str, engine: str, threads: int) -> codec.Encoded:
    pixels, how = CASES[name]
    return codec.encode(find_model("default"), np.ascontiguousarray(pixels), engine=engine, threads=threads, **how)


def digest(made: list[codec.Encoded]) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for encoded in made:
        for payload in encoded.tiles:
            whole.update(len(payload).to_bytes(8, "little") + payload)
    return whole.hexdigest()


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (1, 2), (1, 3), (7, 1), (7, 2), (7, 3), (64, 2)])
@pytest.mark.parametrize("engine", engines())
def test_payloads_are_the_same(engine: str, batch: int, threads: int) -> None:
    """batch: calls at the same time."""
    if engine in ("torch", "cuda") and threads > 1 and batch < 64:
        pytest.skip("a device has no threads of ours")
    names = [name for _ in range(-(-batch // len(CASES))) for name in CASES]
    with ThreadPoolExecutor(batch) as pool:
        made = list(pool.map(lambda name: coded(name, engine, threads), names))
    for first in range(0, len(names), len(CASES)):
        assert digest(made[first : first + len(CASES)]) == DIGEST


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("reader", engines())
@pytest.mark.parametrize("writer", engines())
def test_every_engine_reads_what_every_engine_writes(writer: str, reader: str, threads: int) -> None:
    for name, (pixels, _) in CASES.items():
        made = coded(name, writer, 2)
        how = {"engine": reader, "threads": threads}
        assert np.array_equal(
            codec.decode(find_model("default"), made.tiles, pixels.shape, **made.layout, **how), pixels
        )


def test_another_pixel_gives_another_digest() -> None:
    pixels, how = CASES["whole"]
    other = np.array(pixels)
    other[0, 2, -1, -1] ^= 1
    changed = codec.encode(find_model("default"), other, **how)
    assert digest([changed]) != digest([coded("whole", "float32", 1)])
