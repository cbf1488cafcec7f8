"""Sizes of the paper's networks, from their presets: parameters, multiply-accumulates.

    python bench/network_sizes.py

count: parameters, weights hidden by a mask left out; stored: with them. MAC: of one pixel, hidden weights left out;
cells outside a skewed map are never computed, so a diagonal layer costs what its pixels cost.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import tomllib
from torch import nn

from pixzip.nets.masked_conv import MaskedConv, Upsampling
from pixzip.nets.multiscale import MultiScale
from pixzip.nets.network import NETWORKS, build


def config_of(table: dict[str, Any]) -> Any:
    """The configuration of a [model] table."""
    parts = {key: config_of(value) if isinstance(value, dict) else value for key, value in table.items()}
    return NETWORKS[parts.pop("architecture")][0](**parts)


def sizes(network: nn.Module) -> tuple[int, int, int]:
    """(parameters that count, parameters stored, multiply-accumulates of a pixel)."""
    stored = sum(p.numel() for p in network.parameters())
    hidden = sum(int((m.mask == 0).sum()) for m in network.modules() if isinstance(m, MaskedConv))
    macs = sum(int(m.mask.sum()) for m in network.modules() if isinstance(m, MaskedConv))
    macs += sum(p.numel() for name, p in network.named_parameters() if name.endswith("state_to_state"))
    macs += sum(m.weight.numel() // 4 for m in network.modules() if isinstance(m, Upsampling))
    return stored - hidden, stored, macs


def parts_of(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """A network, or the three of Multi-Scale: a pixel means one of each one's output map."""
    if not isinstance(network, MultiScale):
        return [("", network)]
    return [(f" {name}", part) for name, part in network.named_children()]


def main() -> None:
    """Print one line per network of each preset."""
    presets = sorted(files("pixzip").joinpath("presets").iterdir(), key=lambda p: p.name)
    print(f"{'preset':36}{'count':>12}{'stored':>12}{'MAC':>14}")
    for path in presets:
        table = tomllib.loads(path.read_text(encoding="utf-8"))["model"]
        if table["architecture"] == "trunk":
            continue
        config = config_of(table)
        name = path.name.removesuffix(".toml")
        for part, network in parts_of(build(config)):
            count, stored, macs = sizes(network)
            print(f"{name + part:36}{count:12,}{stored:12,}{macs:14,}")


if __name__ == "__main__":
    main()
