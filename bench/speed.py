"""One photograph → seconds and peak memory of encoding and decoding, by engine, and start-up times.

    python bench/speed.py PICTURE [--model NAME] [--repeats N]

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
from pathlib import Path

import click
import numpy as np


def measure(picture: Path, model_name: str, engine: str, repeats: int, threads: int) -> dict[str, float]:
    """Run in the child process: medians of encode and decode seconds, peak resident MiB."""
    from PIL import Image

    from pixzip import codec
    from pixzip.model_file import find_model

    model = find_model(model_name)
    with Image.open(picture) as image:
        planes = np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))[None]
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
    from PIL import Image

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
def main(picture: Path, model: str, repeats: int, threads: int, engine: str | None) -> None:
    """Measure PICTURE with both engines."""
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
