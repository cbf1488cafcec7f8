"""Lanes on a device: the coder's states, and whose turn it is (coding.entropy.take, docs/format.md).

In a step, colour after colour, a lane's symbols stand in the order of their rows y * n + picture, every K-th of which
is the lane's. So they come in rounds: in each, every lane has one symbol at most, and all lanes go on together.
States are int64 with the bits of uint64.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from pixzip.coding.entropy import Lanes
from pixzip.coding.frequencies import PRECISION
from pixzip.runtime.device.arithmetic import on
from pixzip.runtime.device.heads import intervals_of, symbols_of
from pixzip.runtime.device.pixels import Pixels

_LOW = (1 << PRECISION) - 1
_WORD = 32


def _down(state: Tensor, bits: int) -> Tensor:
    """A logical shift right."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def compiles(device: torch.device) -> bool:
    """Whether lanes are decoded by take.py; elsewhere rounds of whole-tensor operations do the same."""
    return device.type == "cuda" and find_spec("triton") is not None


class DeviceLanes:
    """The lanes of a batch of blocks, one after another."""

    def __init__(self, lanes: Sequence[Lanes], pixels: Pixels, device: torch.device) -> None:
        counts = [len(block.state) for block in lanes]
        offsets = np.cumsum([0, *(len(block.words) for block in lanes[:-1])])
        self._state = on(device, np.concatenate([block.state.view(np.int64) for block in lanes]), torch.int64)
        words = np.concatenate([*(block.words for block in lanes), np.zeros(1, dtype=np.uint32)])
        self._words = on(device, words.astype(np.int64), torch.int64)
        starts, stops = (
            [getattr(b, end) + o for b, o in zip(lanes, offsets, strict=True)] for end in ("start", "stop")
        )
        self._start, self._stop = (on(device, np.concatenate(ends), torch.int64) for ends in (starts, stops))
        block = np.repeat(np.arange(len(lanes)), counts)
        self._block = on(device, block, torch.int64)
        self._lane = on(device, np.concatenate([np.arange(count) for count in counts]), torch.int64)
        self._lanes = on(device, np.array(counts)[block], torch.int64)
        sizes = np.array(pixels.shapes)[block]
        self._heights, self._widths = (on(device, sizes[:, i], torch.int64) for i in (1, 2))
        self._n, self._period = pixels.pictures, pixels.period
        rows = max(min(h, -(-w // 2)) * n / k for (n, h, w), k in zip(pixels.shapes, counts, strict=True))
        self._rounds = int(np.ceil(rows))
        self._nowhere = len(lanes) * self._n * self._period
        self._compiled = compiles(device)

    def decode(self, step: Tensor, weights: Tensor) -> Tensor:
        """Take the symbols of a step in one colour: weights (positions, 256) int32 → symbols (positions,) int64."""
        symbols = torch.zeros(self._nowhere + 1, dtype=torch.int64, device=weights.device)
        if self._compiled:
            from pixzip.runtime.device.take import take

            coder = self._state, self._words, self._start, self._stop
            places = self._block, self._lane, self._lanes, self._heights, self._widths
            take(weights, symbols, coder, places, step, self._n, self._period)
            return symbols[:-1]
        top = torch.clamp((step - self._widths + 2) // 2, min=0)
        end = (torch.minimum(self._heights - 1, step // 2) + 1) * self._n
        row = top * self._n + (self._lane - top * self._n) % self._lanes
        for _ in range(self._rounds):
            exists = row < end
            y, picture = row // self._n, row % self._n
            position = (self._block * self._n + picture) * self._period + y % self._period
            found = self._take(weights[position], exists)
            symbols[torch.where(exists, position, self._nowhere)] = found
            row = row + self._lanes
        return symbols[:-1]

    def _take(self, weights: Tensor, exists: Tensor) -> Tensor:
        """One symbol of every lane that has one: weights (lanes, 256) → symbols (lanes,)."""
        quantile = self._state & _LOW
        symbol = symbols_of(weights, quantile)
        left, frequency = intervals_of(weights, symbol)
        state = _down(self._state, PRECISION) * frequency + (quantile - left)
        refills = exists & (_down(state, _WORD) == 0) & (self._stop > self._start)
        self._stop -= refills.to(torch.int64)
        state = torch.where(refills, (state << _WORD) | self._words[self._stop.clamp(max=len(self._words) - 1)], state)
        self._state.copy_(torch.where(exists, state, self._state))
        return symbol

    def ends(self) -> list[Lanes]:
        """What is left of each block's lanes."""
        state, start, stop = (t.cpu().numpy() for t in (self._state, self._start, self._stop))
        words, block = self._words.cpu().numpy().astype(np.uint32), self._block.cpu().numpy()
        return [
            Lanes(state[block == b].view(np.uint64), words, start[block == b], stop[block == b])
            for b in range(int(block.max()) + 1)
        ]
