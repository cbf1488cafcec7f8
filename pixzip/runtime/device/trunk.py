"""The trunk on a device: inputs of a step's positions → features, neighbours from rings of the last four steps.

A map is a ring (4, blocks, pictures, 1 + slots, width); place 0 is a copy of the last slot, so that what stands above
slot s is at place s and its own at s + 1. Row y - 1 was at column x + dx when it was step t + dx - 2. Inactive slots
write zeros, which are the values outside the picture. docs/model-format.md, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pixzip.model.file import TrunkNetwork
from pixzip.runtime import kernels
from pixzip.runtime.device.arithmetic import half_of, hidden_units, indices, on, rounded, saturated
from pixzip.runtime.trunk.layers import CONV_TAPS, IS_TAPS, SS_TAPS, rounding

_DEPTH = 4


class Ring:
    """One map of the last four steps; width numbers a position, as float32 or int32."""

    def __init__(self, positions: torch.Size, width: int, dtype: torch.dtype, device: torch.device) -> None:
        blocks, pictures, slots = positions
        self._slots = torch.zeros((_DEPTH, blocks, pictures, 1 + slots, width), dtype=dtype, device=device)

    def write(self, phase: int, values: Tensor, active: Tensor) -> None:
        """Values (positions, width) of step ``phase`` modulo 4; active (blocks, pictures, slots)."""
        place = self._slots[phase]
        shape = *active.shape, values.shape[-1]
        place[:, :, 1:] = torch.where(active[..., None], values.reshape(shape), 0)
        place[:, :, 0] = place[:, :, -1]

    def at(self, phase: int, taps: Sequence[tuple[int, int]]) -> Tensor:
        """What stands at taps (dy, dx), dy 0 or -1, side by side: (positions, taps * width)."""
        found = []
        for dy, dx in taps:
            place = self._slots[(phase + dx + 2 * dy) % _DEPTH]
            found.append(place[:, :, 1:] if dy == 0 else place[:, :, :-1])
        whole = torch.cat(found, dim=-1)
        return whole.reshape(-1, whole.shape[-1])


class Product:
    """One layer's product: int8 weights, then bias and shift of each output."""

    def __init__(self, network: TrunkNetwork, name: str, device: torch.device) -> None:
        self._weight = on(device, network.arrays[f"{name}.weight"].T, torch.float32)
        if f"{name}.shift" in network.arrays:
            addend, shift = rounding(network.arrays, name)
            self.addend, self.shift = on(device, addend, torch.int32), on(device, shift, torch.int32)

    def sums(self, inputs: Tensor) -> Tensor:
        """inputs (positions, inputs) float32 → sums (positions, outputs) float32, exact integers."""
        return inputs @ self._weight

    def __call__(self, inputs: Tensor) -> Tensor:
        """As sums, with bias and shift: int32."""
        return rounded(self.sums(inputs), self.addend, self.shift)


class Convolution:
    """A masked-convolution block; kernels.rectify and add_stream."""

    def __init__(self, network: TrunkNetwork, block: int, positions: torch.Size, device: torch.device) -> None:
        self._first, self._second = (Product(network, f"block.{block}.{part}", device) for part in ("first", "second"))
        self._activation = Ring(positions, network.channels, torch.float32, device)

    def __call__(self, activation: Tensor, active: Tensor, phase: int) -> Tensor:
        """What is added to the stream: (positions, channels) int32; activation (positions, channels)."""
        self._activation.write(phase, activation, active)
        hidden = hidden_units(self._first(self._activation.at(phase, CONV_TAPS)))
        return self._second(hidden.to(torch.float32))


class RowLstm:
    """A Row LSTM layer: equation 3 of the paper on tables, as kernels.lstm_cell has it."""

    def __init__(self, network: TrunkNetwork, block: int, positions: torch.Size, device: torch.device) -> None:
        name, arrays = f"block.{block}", network.arrays
        self._is, self._ss, self._up = (Product(network, f"{name}.{part}", device) for part in ("is", "ss", "up"))
        self._is_left, self._ss_left = (on(device, arrays[f"{name}.{p}.left"], torch.int32) for p in ("is", "ss"))
        self._sigmoid, self._tanh = (on(device, arrays[f"table.{t}"], torch.int32) for t in ("sigmoid", "tanh"))
        self._activation = Ring(positions, network.channels, torch.float32, device)
        self._state = Ring(positions, network.lstm, torch.float32, device)
        self._cell = Ring(positions, network.lstm, torch.int32, device)

    def __call__(self, activation: Tensor, active: Tensor, phase: int) -> Tensor:
        """As Convolution."""
        self._activation.write(phase, activation, active)
        from_input = self._is.sums(self._activation.at(phase, IS_TAPS)).to(torch.int32) << self._is_left
        from_state = self._ss.sums(self._state.at(phase, SS_TAPS)).to(torch.int32) << self._ss_left
        places = indices((from_input + from_state + self._is.addend) >> self._is.shift)
        k = places.shape[1] // 4
        o, f, i = self._sigmoid[places[:, : 3 * k]].chunk(3, dim=1)
        g = self._tanh[places[:, 3 * k :]]
        cell = (f * self._cell.at(phase, ((-1, 0),)) + i * g + half_of(kernels.GATE)) >> kernels.GATE
        cell = saturated(cell, kernels.CELL_LIMIT)
        argument = indices((cell + half_of(kernels.INDEX_SHIFT)) >> kernels.INDEX_SHIFT)
        state = saturated((o * self._tanh[argument] + half_of(kernels.STATE_SHIFT)) >> kernels.STATE_SHIFT, 127)
        self._cell.write(phase, cell, active)
        self._state.write(phase, state.to(torch.float32), active)
        return self._up(state.to(torch.float32))


class Trunk:
    """All blocks, with their maps."""

    def __init__(self, network: TrunkNetwork, positions: torch.Size, device: torch.device) -> None:
        self._input = Product(network, "input", device)
        kinds: dict[str, type[Convolution] | type[RowLstm]] = {"c": Convolution, "l": RowLstm}
        self._blocks = [kinds[kind](network, b, positions, device) for b, kind in enumerate(network.blocks)]
        self._shifts, self._feature_shift = network.activation_shifts, network.feature_shift

    def __call__(self, inputs: Tensor, active: Tensor, phase: int) -> Tensor:
        """Inputs (positions, INPUTS) float32 of step ``phase`` modulo 4 → features (positions, channels) float32."""
        stream = saturated(self._input(inputs), 32767)
        for block, shift in zip(self._blocks, self._shifts, strict=True):
            stream = saturated(stream + block(_activation(stream, shift), active, phase), 32767)
        return _activation(stream, self._feature_shift)


def _activation(stream: Tensor, shift: int) -> Tensor:
    """The stream as a block's input: kernels.activate."""
    return saturated((stream + half_of(shift)) >> shift, 127).to(torch.float32)
