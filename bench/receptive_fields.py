"""Which pixels the paper's networks see, measured by changing pixels → docs/receptive-fields.svg, beside figure 4.

    python bench/receptive_fields.py [--out FILE] [--seeds N]

Upper row: one layer of its input map, as in figure 4. Lower row: the R logits of a network of three layers (and the
first one, 7×7 mask A) of the picture. A cell is drawn as seen if changing it changes the target's value, in float64,
in at least one of N random networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from pixzip.nets.diagonal_bilstm import DiagonalBiLstmConfig
from pixzip.nets.network import build
from pixzip.nets.pixelcnn import PixelCnnConfig
from pixzip.nets.row_lstm import RowLstmConfig

HEIGHT, WIDTH = 15, 21
TARGET = (12, 9)
NETWORKS = {
    "PixelCNN": PixelCnnConfig(layers=3, h=12, head=24),
    "Row LSTM": RowLstmConfig(layers=3, h=12, head=24),
    "Diagonal BiLSTM": DiagonalBiLstmConfig(layers=3, h=12, head=24),
}
COLOURS = {"seen": "#4a7ebb", "not": "#e8e8e8", "target": "#d9534f"}
CELL, GAP, TITLE = 10, 24, 18


def randomised(config: Any, seed: int) -> Any:
    """A network with random biases and initial states, so that no path is shut by zeros."""
    network = build(config, seed)
    g = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for p in network.parameters():
            if p.dim() == 1:
                p += 0.3 * torch.randn(p.shape, generator=g)
    return network


def layer_field(network: Any, seed: int) -> Any:
    """(h, w) bool: which cells of its input map the first layer's target cell sees."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 24, HEIGHT, WIDTH, dtype=torch.float64, generator=g)
    field = np.zeros((HEIGHT, WIDTH), dtype=bool)
    before = network.layers[0](x)[0, :, TARGET[0], TARGET[1]]
    for y, at in np.ndindex(HEIGHT, WIDTH):
        changed = x.clone()
        changed[0, :, y, at] += 1
        field[y, at] = bool((network.layers[0](changed)[0, :, TARGET[0], TARGET[1]] != before).any())
    return field


def network_field(network: Any, seed: int) -> Any:
    """(h, w) bool: which pixels the target's R logits see."""
    pixels = np.random.default_rng(seed).integers(0, 256, (1, HEIGHT, WIDTH, 3)).astype(np.uint8)
    field = np.zeros((HEIGHT, WIDTH), dtype=bool)
    before = network.logits(pixels, torch.float64)[0, 0, TARGET[0], TARGET[1]]
    for y, at in np.ndindex(HEIGHT, WIDTH):
        changed = pixels.copy()
        changed[0, y, at] ^= 255
        field[y, at] = bool((network.logits(changed, torch.float64)[0, 0, TARGET[0], TARGET[1]] != before).any())
    return field


def squares(cells: Any, left: int, top: int, colour: str) -> str:
    """One SVG path of all cells that are True."""
    at = [(left + CELL * int(x), top + CELL * int(y)) for y, x in np.argwhere(cells)]
    side = CELL - 1
    return f'<path fill="{colour}" d="' + "".join(f"M{x} {y}h{side}v{side}h-{side}z" for x, y in at) + '"/>'


def panel(title: str, field: Any, left: int, top: int) -> list[str]:
    """A titled map of one field."""
    target = np.zeros_like(field)
    target[TARGET] = True
    return [
        f'<text x="{left}" y="{top + 12}">{title}</text>',
        squares(field & ~target, left, top + TITLE, COLOURS["seen"]),
        squares(~field & ~target, left, top + TITLE, COLOURS["not"]),
        squares(target, left, top + TITLE, COLOURS["target"]),
    ]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/receptive-fields.svg"))
@click.option("--seeds", type=int, default=3)
def main(out: Path, seeds: int) -> None:
    """Measure, print the numbers of cells seen, draw."""
    torch.set_num_threads(1)
    width, height = CELL * WIDTH + GAP, CELL * HEIGHT + TITLE + GAP
    lines = []
    for column, (name, config) in enumerate(NETWORKS.items()):
        fields = [np.zeros((HEIGHT, WIDTH), dtype=bool) for _ in range(2)]
        with torch.no_grad():
            for seed in range(seeds):
                network = randomised(config, seed)
                fields[0] |= layer_field(network, seed)
                fields[1] |= network_field(network, seed)
        before = TARGET[0] * WIDTH + TARGET[1]
        for row, (label, field) in enumerate(zip(("one layer", "7×7 and three layers"), fields, strict=True)):
            own = field[TARGET]
            others = int(field.sum()) - int(own)
            print(
                f"{name}, {label}: {others} of the {before} pixels before the target, itself: {'yes' if own else 'no'}"
            )
            lines += panel(f"{name}, {label}", field, GAP // 2 + column * width, row * height)
    size = f'width="{3 * width}" height="{2 * height}"'
    style = 'font-family="sans-serif" font-size="12"'
    out.write_text("\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', *lines, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
