"""A training checkpoint → bits/dim of its float network and of its integers, before any fine-tuning on them.

    python bench/quantisation.py CHECKPOINT --photos PHOTOS --validation VALIDATION [--crop 64]

Exponents of activations are the checkpoint's, or else calibrated on random crops of PHOTOS as training does it. Bits
are means over the centre crops of VALIDATION. The frozen file is written with --out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch

from pixzip.data.cache import default_cache, load_pictures
from pixzip.data.crops import RandomCrops, centre_crops
from pixzip.training import integers
from pixzip.training.checkpoint import load_run
from pixzip.training.config import to_tables, without_places
from pixzip.training.loop import Trainer
from pixzip.training.processes import Processes


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--validation", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--crop", default=64)
@click.option("--out", type=click.Path(path_type=Path), default=None)
def main(checkpoint: Path, photos: Path, validation: Path, crop: int, out: Path | None) -> None:
    """Measure CHECKPOINT."""
    torch.set_num_threads(1)
    run = load_run(checkpoint.read_bytes(), str(checkpoint))
    crops = RandomCrops(load_pictures(str(photos), default_cache()), run.config.data, run.config.training.seed)
    held_out = centre_crops(
        load_pictures(str(validation), default_cache()), replace(run.config.data, validation_crop=crop)
    )
    trainer = Trainer(run, crops, held_out, Path(), Processes())
    if run.exponents is None:
        trainer.begin_integers()
    real, exact = trainer.validate(held_out, integer=False), trainer.validate(held_out, integer=True)
    print(f"float {real:.4f}, integers {exact:.4f} bits/dim ({100 * (exact / real - 1):+.2f} %)")
    if out is not None:
        assert run.exponents is not None
        data = integers.frozen(run.network, run.exponents, without_places(to_tables(run.config)))
        out.write_bytes(data)
        print(f"{out}: {len(data)} bytes")


if __name__ == "__main__":
    main()
