"""One preset of the paper's networks → pixels per second of training on the CPU, one thread, random pictures.

    python bench/network_speed.py PRESET [--batch N] [--dtype bfloat16|float32] [--seconds S]

Forward and backward pass, without the optimiser's step. Seconds are the process's own CPU time, so that other work on
the machine counts less; G MAC/s counts 3 × MAC per pixel (bench/network_sizes.py).
"""

from __future__ import annotations

import time
from importlib.resources import files

import click
import numpy as np
import tomllib
import torch
from network_sizes import config_of, sizes

from pixzip.nets.network import build


@click.command()
@click.argument("preset")
@click.option("--batch", type=int, default=0, help="Pictures of a batch; the preset's where it is 0.")
@click.option("--dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16")
@click.option("--seconds", type=float, default=10.0)
def main(preset: str, batch: int, dtype: str, seconds: float) -> None:
    """Time training passes until SECONDS of CPU time are spent."""
    torch.set_num_threads(1)
    text = files("pixzip").joinpath("presets", f"{preset}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    config = config_of(table["model"])
    network = build(config)
    side, count = table["data"]["crop"], batch or table["training"]["batch"]
    kind = getattr(config, "large", config).pictures
    shape = (count, side, side, 3 if kind == "rgb" else 1)
    crops = np.random.default_rng(0).integers(0, 2 if kind == "binary" else 256, shape).astype(np.uint8)
    prepared = network.prepare(crops)
    network.nats(prepared, getattr(torch, dtype)).backward()  # warms up
    passes, start = 0, time.process_time()
    while passes == 0 or time.process_time() - start < seconds:
        network.nats(prepared, getattr(torch, dtype)).backward()
        passes += 1
    each_s = (time.process_time() - start) / passes
    pixels = count * side * side
    giga = 3 * sizes(network)[2] * pixels / each_s / 1e9
    print(
        f"{preset}, {dtype}, batch {count}: {each_s:.3f} s a pass, {pixels / each_s:,.0f} pixels/s, {giga:.1f} G MAC/s"
    )


if __name__ == "__main__":
    main()
