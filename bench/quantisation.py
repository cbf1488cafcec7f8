"""A training checkpoint → bits/dim of its float network and of its integers, before any fine-tuning on them.

    python bench/quantisation.py CHECKPOINT --photos PHOTOS --validation VALIDATION [--crop 64]

Exponents of activations are the checkpoint's, or else calibrated on random crops of PHOTOS as training does it. Bits
are means over the centre crops of VALIDATION. The frozen file is written with --out.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
import torch
from safetensors import safe_open

from pixzip.data import RandomCrops, centre_crops, load_pictures, prepare
from pixzip.freeze import freeze
from pixzip.nets.trunk import TrunkConfig
from pixzip.train import TABLES, Run, TrainConfig, bits_per_dim


def load_run(checkpoint: Path, photos: Path) -> Run:
    """The checkpoint's network with exponents."""
    with safe_open(checkpoint, "pt") as handle:
        stored = json.loads(handle.metadata()["config"])
    config = TrainConfig(**stored | {"model": TrunkConfig(**stored["model"])})
    run = Run.new(config)
    run.load(checkpoint)
    if run.exponents is None:
        run.calibrate(RandomCrops(load_pictures(photos), config.crop, config.batch, config.seed))
    return run


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--validation", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--crop", default=64)
@click.option("--out", type=click.Path(path_type=Path), default=None)
def main(checkpoint: Path, photos: Path, validation: Path, crop: int, out: Path | None) -> None:
    """Measure CHECKPOINT."""
    torch.set_num_threads(1)
    run = load_run(checkpoint, photos)
    pictures = centre_crops(load_pictures(validation), crop)
    batches = [prepare(pictures[i : i + 5]) for i in range(0, len(pictures), 5)]
    real, integers = bits_per_dim(run.model, batches), bits_per_dim(run.model, batches, run.exponents)
    print(f"float {real:.4f}, integers {integers:.4f} bits/dim ({100 * (integers / real - 1):+.2f} %)")
    if out is not None:
        assert run.exponents is not None
        data = freeze(run.model, run.exponents, TABLES, {"training": asdict(run.config)})
        out.write_bytes(data)
        print(f"{out}: {len(data)} bytes")


if __name__ == "__main__":
    main()
