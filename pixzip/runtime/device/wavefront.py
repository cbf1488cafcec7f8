"""Blocks of pictures ↔ lanes and intervals on a device, all steps of all blocks side by side: runtime/trunk/steps.py.

Everything of a step stays on the device: payloads go up once, pixels come down once. On CUDA four steps (the depth of
the rings) are captured as one graph, which is replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixzip.coding.entropy import Lanes
from pixzip.coding.schedule import number_of_steps
from pixzip.model.file import TrunkNetwork
from pixzip.runtime.device.arithmetic import exact_products
from pixzip.runtime.device.heads import Head, intervals_of
from pixzip.runtime.device.lanes import DeviceLanes
from pixzip.runtime.device.pixels import Pixels, Shape, Where
from pixzip.runtime.device.trunk import Trunk

Progress = Callable[[float], None]
_PHASES = 4


class Block(NamedTuple):
    """What one payload codes: pictures, h, w, and the rate at which the heads learn."""

    shape: Shape
    rate: int


class _Batch:
    """The state of all blocks, and one step of it; lanes where symbols are decoded, else pixels are known."""

    def __init__(
        self, network: TrunkNetwork, blocks: Sequence[Block], colours: int, pixels: Pixels, lanes: DeviceLanes | None
    ) -> None:
        device, count = pixels.values.device, len(blocks)
        self._pixels, self._lanes, self._colours = pixels, lanes, colours
        positions = torch.Size((count, pixels.pictures, pixels.period))
        self._positions = positions
        self._trunk = Trunk(network, positions, device)
        rates = torch.tensor([block.rate for block in blocks], device=device)
        self._learns = any(block.rate for block in blocks)
        self._heads = [Head(network, colour, rates, self._learns) for colour in range(colours)]
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self.steps = max(number_of_steps(*block.shape[1:], network.slope) for block in blocks)
        # left and f of known pixels, in the places of their values.
        space = 0 if lanes else pixels.values.numel()
        self.intervals = [torch.zeros(space, dtype=torch.int32, device=device) for _ in range(2)]

    def step(self, phase: int) -> None:
        """The next step, which is ``phase`` modulo 4."""
        where = self._pixels.where(self._step)
        inputs, guesses = self._pixels.inputs(where)
        blocks = self._positions[0]
        features = self._trunk(inputs, where.active, phase)
        features = features.reshape(blocks, -1, features.shape[1])
        errors = torch.zeros((3, *features.shape[:2]), dtype=torch.int64, device=features.device)
        symbols = []
        base = torch.zeros_like(guesses[:, 0])
        for colour, head in enumerate(self._heads):
            prediction = (base + guesses[:, colour]).clamp(0, 255)
            symbol = self._symbols(where, colour, head.weights(features, errors), prediction)
            base = ((prediction + symbol) & 255).to(torch.int32)
            errors[colour] = (base - prediction).reshape(errors.shape[1:])
            self._pixels.write(self._pixels.places(where, colour), base, (base - prediction).clamp(-127, 127))
            symbols.append(symbol.reshape(errors.shape[1:]))
        if self._colours == 1:
            for colour in (1, 2):
                self._pixels.write(self._pixels.places(where, colour), base, torch.zeros_like(base))
        if self._learns:
            active = where.active.reshape(blocks, -1).to(torch.int64)
            for head, symbol in zip(self._heads, symbols, strict=True):
                head.learn(symbol, active)
        self._step += 1

    def _symbols(self, where: Where, colour: int, weights: Tensor, prediction: Tensor) -> Tensor:
        """Symbols (positions,) int64 of a colour: from the lanes, or from the pixels, whose intervals are kept."""
        flat = weights.reshape(-1, weights.shape[-1])
        if self._lanes is not None:
            return self._lanes.decode(self._step, flat)
        symbols = ((self._pixels.read(where, colour) - prediction) & 255).to(torch.int64)
        places = self._pixels.places(where, colour)
        for kept, found in zip(self.intervals, intervals_of(flat, symbols), strict=True):
            kept[places] = found.to(torch.int32)
        return symbols


def _run(batch: _Batch, device: torch.device, progress: Progress | None) -> None:
    """All steps; those after the last are of no consequence."""
    rounds = -(-batch.steps // _PHASES)

    def four() -> None:
        for phase in range(_PHASES):
            batch.step(phase)

    again = four
    done = 0
    if device.type == "cuda" and rounds > 2:
        four()  # outside a graph, so that libraries set themselves up
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            four()  # recorded, not run
        again, done = graph.replay, 1
    for i in range(done, rounds):
        again()
        if progress is not None and (i % 16 == 15 or i == rounds - 1):
            if device.type == "cuda":
                torch.cuda.synchronize()
            progress((i + 1) / rounds)


def decode_blocks(
    network: TrunkNetwork,
    device: torch.device,
    blocks: Sequence[Block],
    lanes: Sequence[Lanes],
    colours: int,
    progress: Progress | None = None,
) -> list[tuple[NDArray[np.uint8], Lanes]]:
    """Pixels (n, 3, h, w) of blocks that all have as many pictures, as steps.decode_block of each, and its lanes' ends.

    The caller looks at the ends (Lanes.check_finished). Raises UsageError where the device is not exact.
    """
    with exact_products(device):
        pixels = Pixels([block.shape for block in blocks], device)
        states = DeviceLanes(lanes, pixels, device)
        _run(_Batch(network, blocks, colours, pixels, states), device, progress)
        planes = [block.astype(np.uint8) for block in pixels.cut(pixels.values)]
        return list(zip(planes, states.ends(), strict=True))


def intervals_of_blocks(
    network: TrunkNetwork,
    device: torch.device,
    blocks: Sequence[Block],
    planes: Sequence[NDArray[np.uint8]],
    colours: int,
    progress: Progress | None = None,
) -> list[tuple[NDArray[np.uint32], NDArray[np.uint32]]]:
    """(left, f) of every symbol of blocks (n, 3, h, w): two arrays (h, colours, w * n) each, as steps.intervals."""
    with exact_products(device):
        pixels = Pixels([block.shape for block in blocks], device, planes)
        batch = _Batch(network, blocks, colours, pixels, None)
        _run(batch, device, progress)
        left, frequency = ([_arranged(block, colours) for block in pixels.cut(kept)] for kept in batch.intervals)
        return list(zip(left, frequency, strict=True))


def _arranged(values: NDArray[np.generic], colours: int) -> NDArray[np.uint32]:
    """(n, 3, h, w) → (h, colours, w * n), position x * n + picture."""
    n, _, h, w = values.shape
    return np.ascontiguousarray(values[:, :colours].transpose(2, 1, 3, 0), dtype=np.uint32).reshape(h, colours, w * n)
