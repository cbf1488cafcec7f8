"""A run's end → the Markdown card that says what its model is."""

from __future__ import annotations

import platform
from typing import Any

import torch

from pixzip import __version__
from pixzip.model.file import Model
from pixzip.training.checkpoint import Run
from pixzip.training.config import to_tables, to_toml, without_places


def card(run: Run, model: Model, report: dict[str, Any], samples: str) -> str:
    """What the network is, what it was trained on and how, and what was measured. No places, no times.

    samples: a sentence on them, and where they are.
    """
    parts = [_head(run, model), _data(run), _recipe(run), _measured(report), _saturated(report)]
    return "\n\n".join(part for part in (*parts, f"## Samples\n\n{samples}") if part) + "\n"


def _table(rows: dict[str, str]) -> str:
    return "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def _head(run: Run, model: Model) -> str:
    rows = {"architecture": run.config.architecture}
    rows["parameters"] = f"{sum(p.numel() for p in run.network.parameters()):,}"
    rows["file"] = f"`model.safetensors`, {len(model.data):,} bytes"
    rows["digest in .pxz files"] = f"`{model.digest[:8].hex()}`"
    rows["multiply-accumulates a pixel"] = f"{model.network.macs_per_pixel():,}"
    rows["made by"] = f"pixzip {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return f"# A pixzip model\n\n{_table(rows)}\n\n![bits/dim over steps](curves.png)"


def _data(run: Run) -> str:
    names = {"train": "training", "validation": "validation"}
    rows = {names[part]: f"{count:,} pictures, digest `{run.data[part]}`" for part, count in run.counts.items()}
    note = run.config.data.note or "Not described: say here what the pictures are and under which licences."
    return f"## Pictures\n\n{_table(rows)}\n\n{note}"


def _recipe(run: Run) -> str:
    setbacks = "".join(f"\n- step {s.step}: {s.reason}; back to step {s.back_to}" for s in run.setbacks)
    slower = f"\n\nThe rate was halved at each of these setbacks:\n{setbacks}" if setbacks else ""
    text = to_toml(without_places(to_tables(run.config)))
    command = "    pixzip train --config CONFIG.toml --data PICTURES --validation PICTURES --out RUN"
    start = ""
    if run.start:
        command += " --init CHECKPOINT"
        start = f" and the weights of a checkpoint or model whose SHA-256 begins with `{run.start}`"
    return f"## Recipe\n\n{command}\n\nwith this configuration{start}:\n\n```toml\n{text}```{slower}"


def _measured(report: dict[str, Any]) -> str:
    bits = report["validation_bits_per_dim"]
    head = "| " + " | ".join(bits) + " |\n|" + "---|" * len(bits)
    row = "| " + " | ".join(f"{value:.4f}" for value in bits.values()) + " |"
    return (
        f"## Measured\n\nBits/dim after {report['steps']} steps on {report['compared_crops']} validation crops, each "
        f"coded as a picture of its own:\n\n{head}\n{row}"
    )


def _saturated(report: dict[str, Any]) -> str:
    found: dict[str, float] = report.get("saturated", {})
    if not found:
        return ""
    rows = {name: f"{100 * share:.3f} %" for name, share in found.items() if share} or {"none": "0"}
    return f"Activations beyond their grid, which are clipped:\n\n{_table(rows)}"
