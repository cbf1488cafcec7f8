"""What the learning half asks of a network, and the networks by name."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.errors import TrainingError
from pixzip.nets.diagonal_bilstm import DiagonalBiLstm, DiagonalBiLstmConfig
from pixzip.nets.multiscale import MultiScale, MultiScaleConfig
from pixzip.nets.pixelcnn import PixelCnn, PixelCnnConfig
from pixzip.nets.row_lstm import RowLstm, RowLstmConfig
from pixzip.nets.trunk import TrunkConfig, TrunkModel


class Network(Protocol):
    """A trainable PixelRNN. Implementations are ``torch.nn.Module``; their configuration is a frozen dataclass."""

    config: Any

    def prepare(self, crops: NDArray[np.uint8]) -> Any:
        """(n, h, w, planes) pixels → what ``nats`` reads; numpy only, so that a data thread can run it."""
        ...

    def nats(self, batch: Any, dtype: torch.dtype) -> Tensor:
        """Scalar float64: the sum of −log p over the batch's coded sub-pixels, products in dtype."""
        ...


#: Architecture name → its configuration and its class, built as class(config, seed).
NETWORKS: dict[str, tuple[type, type]] = {
    "trunk": (TrunkConfig, TrunkModel),
    "pixelcnn": (PixelCnnConfig, PixelCnn),
    "row_lstm": (RowLstmConfig, RowLstm),
    "diagonal_bilstm": (DiagonalBiLstmConfig, DiagonalBiLstm),
    "multiscale": (MultiScaleConfig, MultiScale),
}


def build(config: Any, seed: int = 0) -> Any:
    """The untrained network of a configuration. Raises TrainingError for a configuration of no known network."""
    for config_class, network in NETWORKS.values():
        if type(config) is config_class:
            return network(config, seed)
    raise TrainingError(f"{type(config).__name__}: no network has this configuration")
