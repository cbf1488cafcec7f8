"""Which weights of a convolution may see: masks A and B over space and over the R, G, B groups (paper, section 3.4).

A kernel of ``rows`` × ``columns`` taps is centred on the pixel in question. In raster order a tap lies before the
pixel, on it, or after it::

    before  before  before        before: every weight is kept
    before  centre  after         centre: kept where the groups allow, as `allowed` says
                                  after:  masked; rows below the centre are not even stored
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

#: A: not the own colour at the own pixel (first layer). B: the own colour too. all: the centre without restriction.
Mask = Literal["A", "B", "all"]


def colours(features: int, groups: int) -> tuple[int, ...]:
    """Colour of each feature of a map: feature k of F belongs to group floor(groups * k / F)."""
    return tuple(groups * k // features for k in range(features))


def gate_colours(features: int, groups: int) -> tuple[int, ...]:
    """Colour of each feature of a map of four LSTM gates o, f, i, g: grouped within each gate."""
    return colours(features, groups) * 4


def allowed(mask: Mask, seen: Tensor, own: Tensor) -> Tensor:
    """Whether features of the colours ``own`` may see features of the colours ``seen`` at their own pixel."""
    if mask == "all":
        return torch.ones_like(seen < own)
    return seen <= own if mask == "B" else seen < own


def stored_taps(kernel: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """(dy, dx) of the taps that are stored, row by row.

    Of a kernel of one row, the columns up to the centre; of a taller one, the rows up to the centre.
    """
    above, beside = kernel[0] // 2, kernel[1] // 2
    right = 0 if above == 0 else beside
    return tuple((dy, dx) for dy in range(-above, 1) for dx in range(-beside, right + 1))


def weight_mask(mask: Mask, seen: tuple[int, ...], own: tuple[int, ...], kernel: tuple[int, int]) -> Tensor:
    """(outputs, inputs, stored rows, stored columns) of 0 and 1, from the colours of the inputs and of the outputs."""
    centre = allowed(mask, torch.tensor(seen), torch.tensor(own)[:, None]).float()  # (outputs, inputs)
    taps = [torch.full_like(centre, float(tap < (0, 0))) if tap != (0, 0) else centre for tap in stored_taps(kernel)]
    return torch.stack(taps, dim=2).view(len(own), len(seen), kernel[0] // 2 + 1, -1)
