"""Small networks of the paper's architectures with every parameter at work, and random pictures for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pixzip.nets.diagonal_bilstm import DiagonalBiLstmConfig
from pixzip.nets.network import build
from pixzip.nets.pixelcnn import PixelCnnConfig
from pixzip.nets.row_lstm import RowLstmConfig

ARCHITECTURES = {"pixelcnn": PixelCnnConfig, "row_lstm": RowLstmConfig, "diagonal_bilstm": DiagonalBiLstmConfig}


def crops_of(pictures: str, h: int = 5, w: int = 4, n: int = 1, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    planes = 3 if pictures == "rgb" else 1
    return random.integers(0, 2 if pictures == "binary" else 256, (n, h, w, planes)).astype(np.uint8)


def randomised(config: Any, seed: int = 0, scale: float = 1.0) -> Any:
    """A network whose biases and initial states are random too; all parameters times scale."""
    network = build(config, seed)
    g = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for p in network.parameters():
            noise = 0.3 if p.dim() == 1 else 0.01
            p.add_(noise * torch.randn(p.shape, generator=g)).mul_(scale)
    return network
