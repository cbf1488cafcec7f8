"""A run that has ended → model file, report, curves and card."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pixzip.data.crops import Pixels
from pixzip.evaluate import model_bits
from pixzip.files import staged
from pixzip.model_file import Model, load_model
from pixzip.training import integers
from pixzip.training.card import card
from pixzip.training.config import to_tables, without_places
from pixzip.training.curves import curves
from pixzip.training.report import read_log

if TYPE_CHECKING:
    from pixzip.training.loop import Trainer

#: Float, quantised and exact bits are compared on as many pixels of the validation crops.
_COMPARED_PX = 1 << 20
#: Crops that saturation is counted on.
_SATURATION_CROPS = 8


def finish(trainer: Trainer, counts: dict[str, int], say: Callable[[str], None]) -> None:
    """Write model.safetensors (of networks with an integer form), report.json, curves.png and card.md.

    counts: training and validation pictures.
    """
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
    model = None
    if run.exponents is not None:
        model = _freeze(trainer, counts)
        bits["exact"] = exact_bits(model, crops)
        sample = run.network.prepare(crops[:_SATURATION_CROPS])
        report |= {"model_bytes": len(model.data), "saturated": integers.saturation(run.network, sample, run.exponents)}
    elif integers.freezes_untuned(run.network):
        model = _freeze(trainer, counts)
        bits["exact"] = exact_bits(model, crops)
        report |= {"model_bytes": len(model.data)}
    _write(trainer, "report.json", json.dumps(report, indent=1).encode())
    _write(trainer, "curves.png", curves(read_log(trainer.folder / "log.csv")))
    _write(trainer, "card.md", card(run, model, report, counts).encode())
    shown = ", ".join(f"{name} {value:.4f}" for name, value in bits.items())
    say(f"validation bits/dim: {shown}" + (f"; model {len(model.data)} bytes" if model is not None else ""))
    if model is None:
        say(
            f"{run.config.architecture} has no integer form yet: last.safetensors and best.safetensors hold the network"
        )


def _write(trainer: Trainer, name: str, data: bytes) -> None:
    with staged(trainer.folder / name, data, force=True):
        pass


def _freeze(trainer: Trainer, counts: dict[str, int]) -> Model:
    """The model file, written and read."""
    run = trainer.run
    info = without_places(to_tables(run.config)) | {
        "pictures": {part: {"count": counts[part], "digest": run.data[part]} for part in counts},
        "setbacks": [s.reason for s in run.setbacks],
    }
    if run.exponents is not None:
        data = integers.frozen(run.network, run.exponents, info)
    else:
        data = integers.frozen_untuned(run.network, trainer.calibration_crops(), info)
    _write(trainer, "model.safetensors", data)
    return load_model(data, "model")


def exact_bits(model: Model, crops: Pixels) -> float:
    """Bits/dim of the frozen model, computed as a decoder computes them; crops (n, h, w, 3), each a picture."""
    pixels = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    return float(model_bits(model, pixels, learning=0).mean())
