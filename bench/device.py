"""Pictures as one batch on a GPU: seconds, and whether its files are the CPU's, both ways.

    python bench/device.py FOLDER [--engine cuda] [--batches 1,7,64] [--crop N] [--first N]
    python bench/device.py cifar10/test:FOLDER --model cifar10 --pack --naive

Every picture is encoded on the CPU and on the device, and the payloads compared byte for byte; the CPU's are decoded on
the device and the pixels compared. Pictures are handed in from a thread each, which makes them one batch. Seconds are
the best of three for the codec alone (no file is read or written) after a first run, which compiles. --engine torch
does the same without a GPU, slowly: use --crop. --pack codes all pictures, of equal size, as one file. --naive adds
the naive decoder, for pictures of equal size: a forward pass of the whole network for every sub-pixel, of all pictures
at once. A few passes are measured, of a float network of the model's sizes, and the others reckoned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from pixzip import codec
from pixzip.model.file import Model, find_model

Planes = NDArray[np.uint8]
_T = TypeVar("_T")
_R = TypeVar("_R")
#: Pictures of a forward pass of the naive decoder.
_NAIVE_AT_ONCE = 256


def at_once(work: Callable[[_T], _R], items: Sequence[_T], batch: int) -> list[_R]:
    """Results of work on all items, ``batch`` of them at a time."""
    with ThreadPoolExecutor(batch) as pool:
        return [r for i in range(0, len(items), batch) for r in pool.map(work, items[i : i + batch])]


def best_of(repeats: int, work: Callable[[], _R]) -> tuple[float, _R]:
    """Seconds of the fastest run, and its result."""
    fastest, result = float("inf"), work()
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest, result


def measure(model: Model, pictures: Sequence[Planes], coded: Sequence[codec.Encoded], engine: str, batch: int) -> float:
    """Print a line for one size of batch; returns the seconds of decoding.

    Stops where anything differs from the CPU's.
    """

    def encode(planes: Planes) -> codec.Encoded:
        return codec.encode(model, planes, engine=engine)

    def decode(pair: tuple[Planes, codec.Encoded]) -> Planes:
        planes, made = pair
        return codec.decode(model, made.tiles, planes.shape, **made.layout, engine=engine)

    encode_s, again = best_of(3, lambda: at_once(encode, pictures, batch))
    if any(a.tiles != b.tiles for a, b in zip(again, coded, strict=True)):
        raise SystemExit("the device's payloads are not the CPU's")
    pairs = list(zip(pictures, coded, strict=True))
    decode_s, decoded = best_of(3, lambda: at_once(decode, pairs, batch))
    if not all(np.array_equal(a, b) for a, b in zip(decoded, pictures, strict=True)):
        raise SystemExit("the device's pixels are not the pictures'")
    count, pixels = sum(len(p) for p in pictures), sum(p[:, 0].size for p in pictures)
    line = f"batch {batch:4}: encode {encode_s:7.2f} s, decode {decode_s:7.2f} s, {pixels / decode_s / 1e6:8.3f} MP/s, "
    print(line + f"{count / decode_s:8.1f} pictures/s, identical", flush=True)
    return decode_s


def naive_s(network: Any, pictures: Sequence[Planes], engine: str) -> float:
    """Seconds in which a naive decoder would decode pictures of equal size (n, 3, h, w each), reckoned from three."""
    import torch

    from pixzip.nets.trunk import TrunkConfig, TrunkModel

    device = "cuda" if engine == "cuda" else "cpu"
    sizes = (getattr(network, name) for name in ("channels", "hidden", "lstm", "head", "blocks"))
    made = TrunkModel(TrunkConfig(*sizes)).to(device)
    pixels = np.concatenate(list(pictures))
    parts = [
        made.prepare(np.ascontiguousarray(pixels[i : i + _NAIVE_AT_ONCE].transpose(0, 2, 3, 1)))
        for i in range(0, len(pixels), _NAIVE_AT_ONCE)
    ]

    def forward() -> float:
        with torch.no_grad():
            return sum(made.nats(part, torch.bfloat16).item() for part in parts)

    pass_s, _ = best_of(3, forward)
    return pass_s * pixels[0].size


@click.command()
@click.argument("source")
@click.option("--model", "name", default="default")
@click.option("--engine", default="cuda", type=click.Choice(["cuda", "torch"]))
@click.option("--batches", default="1,7,64", help="Pictures at a time; more than there are: all.")
@click.option("--crop", type=int, help="Only the first N rows and columns of each picture.")
@click.option("--first", type=int, help="Only the first N pictures.")
@click.option("--pack", is_flag=True, help="All pictures, of equal size, as one file.")
@click.option("--naive", is_flag=True, help="The naive decoder, too.")
def main(
    source: str, name: str, engine: str, batches: str, crop: int | None, first: int | None, pack: bool, naive: bool
) -> None:
    """Code every picture of SOURCE, a folder or DATASET/PART:PLACE, on the CPU and on a device."""
    import torch

    from pixzip.data.cache import default_cache, load_pictures
    from pixzip.data.crops import as_planes

    model = find_model(name)
    found = load_pictures(source, default_cache(), print)
    pictures = [
        np.ascontiguousarray(as_planes(found[i][:crop, :crop], 3).transpose(2, 0, 1))[None]
        for i in range(min(first or len(found), len(found)))
    ]
    if naive and len({planes.shape for planes in pictures}) > 1:
        raise click.UsageError("--naive is for pictures of equal size: --crop cuts them")
    if pack:
        pictures = [np.concatenate(pictures)]
    where = torch.cuda.get_device_name() if engine == "cuda" else "torch's CPU device"
    print(
        f"{where}, torch {torch.__version__}, model {name}, {len(pictures)} files, {sum(map(len, pictures))} pictures"
    )
    start = time.perf_counter()
    coded = [codec.encode(model, planes) for planes in pictures]
    print(f"CPU: encode {time.perf_counter() - start:.2f} s", flush=True)
    sizes = [min(int(batch), len(pictures)) for batch in batches.split(",")]
    decode_s = min(measure(model, pictures, coded, engine, size) for size in sizes)
    if naive:
        reckoned_s = naive_s(model.network, pictures, engine)
        print(f"naive decoder: {reckoned_s:.1f} s, {reckoned_s / decode_s:.0f} times the fastest above")


if __name__ == "__main__":
    main()
