"""One photograph → seconds and peak memory of encoding and decoding, by engine, and start-up times.

    python bench/speed.py PICTURE [--model NAME] [--repeats N] [--learning RATE]
    python bench/speed.py PICTURE --profile int8 [--learning RATE]

The second prints the time of each part of decoding and encoding, and the floor: the multiply-accumulates alone, of all
layers and of learning, at the mean width of a decoder's step, each of its own shape, on as many threads.

Each engine runs in its own process (so that peak memory is its own): once to warm caches, then --repeats times; medians
are printed. Verified before timed.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixzip import codec
from pixzip.coding.entropy import read_lanes
from pixzip.coding.schedule import number_of_steps
from pixzip.jit import jit
from pixzip.model.file import Model, find_model
from pixzip.pxz.container import MAX_TILE
from pixzip.runtime.multiply import outer, whole_blocks
from pixzip.runtime.trunk import pipeline, steps
from pixzip.runtime.trunk.fused import _OUTPUTS, PARTS, Plan, Scratch, make_plan, make_scratch, multiply

Spent = NDArray[np.int64]


def planes_of(picture: Path) -> NDArray[np.uint8]:
    """Pixels (1, 3, h, w) of an image file."""
    with Image.open(picture) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))[None]


def measure(
    picture: Path, model_name: str, engine: str, repeats: int, threads: int, learning: int | None
) -> dict[str, float]:
    """Run in the child process: medians of encode and decode seconds, peak resident MiB."""
    model, planes = find_model(model_name), planes_of(picture)
    encode_s, decode_s = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        encoded = codec.encode(model, planes, engine=engine, threads=threads, learning=learning)
        middle = time.perf_counter()
        decoded = codec.decode(model, encoded.tiles, planes.shape, engine=engine, threads=threads, **encoded.layout)
        decode_s.append(time.perf_counter() - middle)
        encode_s.append(middle - start)
        if not np.array_equal(decoded, planes):
            raise SystemExit("the pixels did not come back")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    macs = model.network.macs_per_pixel()
    return {
        "pixels": planes.shape[2] * planes.shape[3],
        "macs_per_pixel": macs,
        "encode_s": statistics.median(encode_s[1:]),
        "decode_s": statistics.median(decode_s[1:]),
        "peak_mib": peak_mib,
    }


def floor_s(model: Model, engine: str, height: int, width: int, threads: int, learning: int) -> float:
    """Seconds that the products of a picture take when nothing else is done: all layers at the mean step's width."""
    steps_s = number_of_steps(height, width, model.network.slope)
    rows = -(-height * width // (steps_s * threads))
    plan = make_plan(model.network, engine)
    products = len(plan.products) - (0 if learning else 3)  # the last three are those of learning

    def work(_: int) -> float:
        scratch = make_scratch(plan)
        seconds = []
        for _ in range(200):
            start = time.perf_counter()
            all_products(plan, products, rows, scratch)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    work(0)  # compiles
    with ThreadPoolExecutor(threads) as pool:
        slowest = max(pool.map(work, range(threads)))
    return slowest * height * width / (rows * threads)


@jit
def all_products(plan: Plan, products: int, rows: int, scratch: Scratch) -> None:
    """Every product of the network once; if those of learning are among them, the outer products too."""
    for p in range(products):
        multiply(plan, p, scratch.operands[0], rows, scratch, 0)
    if products == len(plan.products):
        channels, head = plan.products[0, _OUTPUTS], plan.products[products - 1, _OUTPUTS]
        for outputs, inputs in ((head, channels), (256, head)):
            made = scratch.lesson[: outputs * whole_blocks(inputs)].reshape(outputs, whole_blocks(inputs))
            for _ in range(3):
                outer(scratch.pairs[0], outputs, scratch.pairs[1], inputs, (rows + 1) // 2, made)


def profile(picture: Path, model_name: str, engine: str, repeats: int, threads: int, learning: int | None) -> None:
    """Print the seconds of each part of coding, by thread, and the floor."""
    model, planes = find_model(model_name), planes_of(picture)
    encoded = codec.encode(model, planes, engine=engine, tile=MAX_TILE, learning=learning)
    rate = encoded.learning
    n, c, h, w = planes.shape

    def decode(spent: Spent) -> None:
        lanes = read_lanes(encoded.tiles[0], encoded.lanes)
        steps.decode_block(model.network, engine, lanes, (n, h, w), c, None, threads, spent, rate)

    def encode(spent: Spent) -> None:
        if rate:
            found = steps.intervals(model.network, engine, planes, c, None, threads, spent, rate)
        else:
            found = pipeline.intervals(model.network, engine, planes, c, None, threads, spent)
        start = time.perf_counter()
        codec.block_payload(*found, n, encoded.lanes, model)
        entropy_s.append(time.perf_counter() - start)

    entropy_s: list[float] = []
    for coding in (decode, encode):
        runs = []
        for _ in range(repeats + 1):
            spent = np.zeros((threads, len(PARTS) + 1), dtype=np.int64)
            start = time.perf_counter()
            coding(spent)
            runs.append((time.perf_counter() - start, spent[:, :-1]))
        whole, cycles = min(runs[1:], key=lambda run: run[0])
        after_s = min(entropy_s, default=0.0)
        print(f"{coding.__name__} {whole:.3f} s, best of {repeats}, {threads} threads")
        seconds = cycles * (whole - after_s) / cycles.sum(axis=1).max()
        for k in np.argsort(-seconds.sum(axis=0)):
            print(f"    {PARTS[k]:14}" + "".join(f" {s:.3f}" for s in seconds[:, k]) + " s")
        print(f"    {'lanes':14} {after_s:.3f} s")
    one_s, all_s = (floor_s(model, engine, h, w, count, rate) for count in (1, threads))
    print(f"floor: {one_s:.3f} s on one thread, {all_s:.3f} s on {threads}")


def command_seconds(arguments: list[str], repeats: int) -> float:
    """Median wall seconds of a whole pixzip command."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pixzip", *arguments], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def commands(picture: Path, model: str, repeats: int) -> None:
    """Time --help, and compress and decompress of the picture and of its 64×64 corner."""
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.png"
        with Image.open(picture) as image:
            image.convert("RGB").crop((0, 0, 64, 64)).save(small)
        print(f"pixzip --help: {command_seconds(['--help'], repeats):.2f} s")
        for label, path in (("64x64", small), (picture.name, picture)):
            packed, back = Path(folder) / "a.pxz", Path(folder) / "a.png"
            options = ["--force", "--model", model]
            compress_s = command_seconds(["compress", str(path), "-o", str(packed), "--no-verify", *options], repeats)
            verified_s = command_seconds(["compress", str(path), "-o", str(packed), *options], repeats)
            decompress_s = command_seconds(["decompress", str(packed), "-o", str(back), *options], repeats)
            packing = f"compress {verified_s:.2f} s, --no-verify {compress_s:.2f} s"
            print(f"{label}: {packing}, decompress {decompress_s:.2f} s")


@click.command()
@click.argument("picture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", default="default")
@click.option("--repeats", default=5)
@click.option("--threads", default=2)
@click.option("--learning", default=None, type=int, help="Rate of learning; default: the codec's.")
@click.option("--engine", default=None, help="Measure one engine in this process and print JSON.")
@click.option("--profile", "profiled", default=None, help="Print the time of each part with this engine.")
def main(
    picture: Path,
    model: str,
    repeats: int,
    threads: int,
    learning: int | None,
    engine: str | None,
    profiled: str | None,
) -> None:
    """Measure PICTURE with both engines."""
    if profiled is not None:
        profile(picture, model, profiled, repeats, threads, learning)
        return
    if engine is not None:
        print(json.dumps(measure(picture, model, engine, repeats, threads, learning)))
        return
    for name in ("int8", "float32"):
        command = [sys.executable, __file__, str(picture), "--model", model, "--engine", name]
        command += ["--repeats", str(repeats), "--threads", str(threads)]
        command += [] if learning is None else ["--learning", str(learning)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        r = json.loads(done.stdout)
        print(
            f"{name:8} {r['pixels'] / 1e6:.2f} MP, {r['macs_per_pixel'] / 1e6:.2f} M MAC/pixel, {threads} threads: "
            f"encode {r['encode_s']:.2f} s, decode {r['decode_s']:.2f} s, peak {r['peak_mib']:.0f} MiB"
        )
    commands(picture, model, repeats)


if __name__ == "__main__":
    main()
