"""Numbers from 0 to 1 → colours: a map of them as a PNG, and the same ramp in CSS."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: From dark to light through blue, purple and orange; gray prints keep the order.
RAMP = ("#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4")


def heat(values: NDArray[np.float64]) -> bytes:
    """Values (h, w), cut to 0 to 1, as the bytes of a PNG with a palette."""
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in RAMP], dtype=np.float64)
    places = np.linspace(0, len(RAMP) - 1, 128)
    palette = np.stack([np.interp(places, np.arange(len(RAMP)), stops[:, c]) for c in range(3)], axis=1)
    image = Image.fromarray(np.round(127 * np.clip(values, 0, 1)).astype(np.uint8)).convert("P")
    image.putpalette(np.round(palette).astype(np.uint8).tobytes())
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def css_gradient() -> str:
    """The ramp from left to right."""
    return f"linear-gradient(to right, {', '.join(RAMP)})"
