"""The integer tables that a model file stores: sigmoid, tanh and exp (docs/model-format.md, section 3).

They are computed here once, when a network is quantised; from then on training, freezing and every decoder read the
stored integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixzip.freezing.exponents import GATE, GATE_INDEX, LOGIT

#: Half the length of the sigmoid and tanh tables: indices -HALF .. HALF - 1 stand for -8 .. 8.
HALF = 8 << GATE_INDEX
#: exp has this many bits and entries; differences of logits beyond the last entry weigh 0.
EXP_BITS = 22
EXP_ENTRIES = 16 << LOGIT


@dataclass(frozen=True)
class Tables:
    """sigmoid and tanh: int16 (2 * HALF,), value * 2^12; exp: int32 (EXP_ENTRIES,), exp(-i / 64) * 2^22."""

    sigmoid: NDArray[np.int16]
    tanh: NDArray[np.int16]
    exp: NDArray[np.int32]


def make_tables() -> Tables:
    """The tables of arithmetic version 2."""
    at = np.arange(-HALF, HALF, dtype=np.float64) / 2**GATE_INDEX
    one = 2.0**GATE
    sigmoid = np.floor(one / (1 + np.exp(-at)) + 0.5)
    tanh = np.floor(one * np.tanh(at) + 0.5)
    exp = np.floor(2.0**EXP_BITS * np.exp(-np.arange(EXP_ENTRIES) / 2**LOGIT) + 0.5)
    return Tables(sigmoid.astype(np.int16), tanh.astype(np.int16), exp.astype(np.int32))
