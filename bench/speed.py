"""One photograph → seconds and peak memory of encoding and decoding, by engine, and start-up times.

    python bench/speed.py PICTURE [--model NAME] [--repeats N]
    python bench/speed.py PICTURE --profile int8

The second prints the time of each part of decoding and encoding, and the floor: the network's products alone, at the
mean width of a decoder's step, each layer's own shape, on as many threads.

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
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixzip import codec
from pixzip.model_file import Model, find_model
from pixzip.runtime import engines, kernels, network, rows, steps
from pixzip.runtime.engines import make_product, one_thread
from pixzip.schedule import number_of_steps


def planes_of(picture: Path) -> NDArray[np.uint8]:
    """Pixels (1, 3, h, w) of an image file."""
    with Image.open(picture) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))[None]


def measure(picture: Path, model_name: str, engine: str, repeats: int, threads: int) -> dict[str, float]:
    """Run in the child process: medians of encode and decode seconds, peak resident MiB."""
    model, planes = find_model(model_name), planes_of(picture)
    encode_s, decode_s = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        encoded = codec.encode(model, planes, engine=engine, threads=threads)
        middle = time.perf_counter()
        shape, cut = planes.shape, {"tile": encoded.tile, "lanes": encoded.lanes}
        decoded = codec.decode(model, encoded.tiles, shape, engine=engine, threads=threads, **cut)
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


def floor_s(model: Model, engine: str, height: int, width: int, threads: int) -> float:
    """Seconds that the products of a picture take when nothing else is done: all layers at the mean step's width."""
    mean = height * width // number_of_steps(height, width, model.network.slope)
    rows = -(-mean // threads)
    weights = [a for name, a in model.network.arrays.items() if name.endswith(".weight")]

    def work(_: int) -> float:
        products = [make_product(engine, weight, rows) for weight in weights]
        seconds = []
        for _ in range(200):
            start = time.perf_counter()
            for product in products:
                product(rows)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    with one_thread(engine), ThreadPoolExecutor(threads) as pool:
        slowest = max(pool.map(work, range(threads)))
    return slowest * height * width / (rows * threads)


#: What a profile tells apart: (part, module, function).
PARTS = (
    ("products", engines.Int8Product, "__call__"),
    ("products", engines.Float32Product, "__call__"),
    ("gather", network, "_gather"),
    ("input layer", kernels, "start_stream"),
    ("residual add", kernels, "add_stream"),
    ("activations", kernels, "activate"),
    ("hidden layers", kernels, "rectify"),
    ("hidden layers", kernels, "rectify_known"),
    ("LSTM cell", kernels, "lstm_cell"),
    ("inputs", steps, "block_step_inputs"),
    ("inputs", rows, "block_row_inputs"),
    ("predictions", rows, "picture_errors"),
    ("entropy", steps, "decode_pixels"),
    ("frequencies", rows, "row_intervals"),
    ("entropy", codec, "_lanes"),
)


def profile(picture: Path, model_name: str, engine: str, repeats: int) -> None:
    """Print the seconds of each part of coding on one thread, and the floor."""
    model, planes = find_model(model_name), planes_of(picture)
    spent: dict[str, float] = defaultdict(float)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            spent[part] += time.perf_counter() - start
            return result

        return call

    encoded = codec.encode(model, planes, engine=engine, threads=1)  # compiles
    shape, cut = planes.shape, {"tile": encoded.tile, "lanes": encoded.lanes, "engine": engine, "threads": 1}
    for part, place, name in PARTS:
        setattr(place, name, timed(part, getattr(place, name)))
    codings = {
        "decode": lambda: codec.decode(model, encoded.tiles, shape, **cut),
        "encode": lambda: codec.encode(model, planes, engine=engine, threads=1),
    }
    for label, coding in codings.items():
        runs = []
        for _ in range(repeats):
            spent.clear()
            start = time.perf_counter()
            coding()
            runs.append((time.perf_counter() - start, dict(spent)))
        whole, parts = sorted(runs, key=lambda run: run[0])[0]
        print(f"{label} {whole:.3f} s, best of {repeats}, one thread")
        for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
            print(f"    {part:16} {seconds:.3f} s")
        print(f"    {'Python':16} {whole - sum(parts.values()):.3f} s")
    for threads in (1, 2):
        print(f"floor, {threads} threads: {floor_s(model, engine, *shape[2:], threads):.3f} s")


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
@click.option("--engine", default=None, help="Measure one engine in this process and print JSON.")
@click.option("--profile", "profiled", default=None, help="Print the time of each part with this engine.")
def main(picture: Path, model: str, repeats: int, threads: int, engine: str | None, profiled: str | None) -> None:
    """Measure PICTURE with both engines."""
    if profiled is not None:
        profile(picture, model, profiled, repeats)
        return
    if engine is not None:
        print(json.dumps(measure(picture, model, engine, repeats, threads)))
        return
    for name in ("int8", "float32"):
        command = [sys.executable, __file__, str(picture), "--model", model, "--engine", name]
        command += ["--repeats", str(repeats), "--threads", str(threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        r = json.loads(done.stdout)
        print(
            f"{name:8} {r['pixels'] / 1e6:.2f} MP, {r['macs_per_pixel'] / 1e6:.2f} M MAC/pixel, {threads} threads: "
            f"encode {r['encode_s']:.2f} s, decode {r['decode_s']:.2f} s, peak {r['peak_mib']:.0f} MiB"
        )
    commands(picture, model, repeats)


if __name__ == "__main__":
    main()
