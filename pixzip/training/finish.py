"""A run that has ended → model file, report, curves, samples and card."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pixzip import drawing
from pixzip.data.crops import Pixels
from pixzip.evaluate import plane_bits
from pixzip.files import staged
from pixzip.formats.image import from_array, write_image
from pixzip.model.file import Model, load_model
from pixzip.training import integers
from pixzip.training.card import card
from pixzip.training.checkpoint import Run
from pixzip.training.config import to_tables, without_places
from pixzip.training.curves import curves
from pixzip.training.loop import Trainer
from pixzip.training.report import read_log

#: Float, quantised and exact bits are compared on as many pixels of the validation crops.
_COMPARED_PX = 1 << 20
#: Crops that saturation is counted on.
SATURATION_CROPS = 8
#: Samples of the grid: how many, in how many columns, and their longest side.
_SAMPLES, _SAMPLE_COLUMNS, _SAMPLE_PX = 16, 4, 32
SEED = 0
#: At 1, what the model believes, most samples of a small network end in noise.
TEMPERATURE = "0.9"


def finish(trainer: Trainer, say: Callable[[str], None]) -> None:
    """Write model.safetensors, samples.png, report.json, curves.png and card.md."""
    run = trainer.run
    if run.average is not None:
        run.average.become_weights(run.network)
    size = trainer.held_out.shape[1] * trainer.held_out.shape[2]
    crops = trainer.held_out[: max(1, _COMPARED_PX // size)]
    bits = {"float": trainer.validate(crops, integer=False)}
    report: dict[str, Any] = {"steps": run.done, "compared_crops": len(crops), "validation_bits_per_dim": bits}
    if run.exponents is not None:
        bits["quantised"] = trainer.validate(crops, integer=True)
    if not trainer.processes.leads:
        return
    data, clipped = frozen(run, lambda: integers.calibration_crops(trainer.crops))
    _write(trainer, "model.safetensors", data)
    model = load_model(data, "model")
    bits["exact"] = exact_bits(model, crops)
    report["model_bytes"] = len(data)
    _write(trainer, "samples.png", samples(trainer))
    if run.exponents is not None:
        sample = run.network.prepare(crops[:SATURATION_CROPS])
        clipped = integers.saturation(run.network, sample, run.exponents)
    report["saturated"] = clipped
    _write(trainer, "report.json", json.dumps(report, indent=1).encode())
    _write(trainer, "curves.png", curves(read_log(trainer.folder / "log.csv")))
    _write(trainer, "card.md", card(run, model, report, _about_samples(trainer)).encode())
    shown = ", ".join(f"{name} {value:.4f}" for name, value in bits.items())
    say(f"validation bits/dim: {shown}; model {len(model.data)} bytes")


def _write(trainer: Trainer, name: str, data: bytes) -> None:
    with staged(trainer.folder / name, data, force=True):
        pass


def frozen(run: Run, calibration_crops: Callable[[], Pixels]) -> tuple[bytes, dict[str, float]]:
    """The model file of a run: with its exponents where it has them, else calibrated on the crops.

    And what calibration found to be clipped, of each layer the share of its values. The network is moved to the CPU.
    """
    run.network.cpu()  # from a GPU, where the integers are not
    pictures = {name: {"count": run.counts.get(name), "digest": digest} for name, digest in run.data.items()}
    setbacks = [s.reason for s in run.setbacks]
    info = without_places(to_tables(run.config)) | {"pictures": pictures, "setbacks": setbacks, "start": run.start}
    if run.exponents is not None:
        return integers.frozen(run.network, run.exponents, info), {}
    return integers.frozen_untuned(run.network, calibration_crops(), info)


def exact_bits(model: Model, crops: Pixels) -> float:
    """Bits/dim of the frozen model, computed as a decoder computes them; crops (n, h, w, 3), each a picture."""
    pixels = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    return float(plane_bits(model, pixels, learning=0, threads=torch.get_num_threads()).mean())


def samples(trainer: Trainer) -> bytes:
    """PNG bytes of a grid of pictures drawn from the model file in the run's folder."""
    side, path = _sample_side(trainer), trainer.folder / "model.safetensors"
    drawn = drawing.sample(path, _SAMPLES, (side, side), SEED, TEMPERATURE, threads=torch.get_num_threads())
    return write_image(from_array(drawing.grid(drawn, _SAMPLE_COLUMNS)), "PNG")


def _sample_side(trainer: Trainer) -> int:
    return min(_SAMPLE_PX, trainer.run.config.data.crop)


def _about_samples(trainer: Trainer) -> str:
    """What the card says of the samples."""
    side = _sample_side(trainer)
    return (
        f"{_SAMPLES} samples of {side}×{side} pixels, seed {SEED}, temperature {TEMPERATURE}; "
        "more of them by `pixzip sample model.safetensors -o more.png`:\n\n![samples](samples.png)"
    )
