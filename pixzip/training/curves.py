"""Rows of log.csv → a PNG of bits/dim over steps."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageDraw

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 960, 540, 60, 40, 30
_TRAIN, _VALIDATION, _GRID, _TEXT = "#7aa6d8", "#c0392b", "#e3e3e3", "#303030"
_Points = list[tuple[float, float]]


def curves(rows: list[dict[str, str]]) -> bytes:
    """PNG bytes; rows have the columns step, train_bits_per_dim and validation_bits_per_dim, empty where unknown."""
    train = _points(rows, "train_bits_per_dim")
    validation = _points(rows, "validation_bits_per_dim")
    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    if train:
        values = sorted(y for _, y in train)
        # The first losses are far above the rest and would flatten it: the top is where nine tenths lie below.
        high = max([values[int(0.9 * (len(values) - 1))], *(y for _, y in validation)])
        low = min([values[0], *(y for _, y in validation)])
        frame = _Frame(max(x for x, _ in train), low, max(high, low + 0.01))
        frame.grid(draw)
        frame.line(draw, train, _TRAIN, 2)
        frame.line(draw, validation, _VALIDATION, 3)
    draw.text((_LEFT, 8), "bits/dim over steps", fill=_TEXT)
    draw.text((_WIDTH - 260, 8), "training", fill=_TRAIN)
    draw.text((_WIDTH - 160, 8), "validation", fill=_VALIDATION)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _points(rows: list[dict[str, str]], column: str) -> _Points:
    return [(float(row["step"]), float(row[column])) for row in rows if row[column]]


def _tick(span: float) -> float:
    """A round distance that divides a span into four to ten parts."""
    power = 10.0 ** math.floor(math.log10(span))
    return next(power * f for f in (0.1, 0.2, 0.5, 1.0) if span / (power * f) <= 10)


class _Frame:
    """Steps and bits/dim ↔ places in the picture."""

    def __init__(self, steps: float, low: float, high: float) -> None:
        self._steps, self._low, self._high = max(steps, 1.0), low, high

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = x / self._steps
        up = (min(y, self._high) - self._low) / (self._high - self._low)
        return _LEFT + across * (_WIDTH - _LEFT - 20), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)

    def grid(self, draw: ImageDraw.ImageDraw) -> None:
        every = _tick(self._high - self._low)
        for i in range(math.ceil(self._low / every), math.floor(self._high / every) + 1):
            x, y = self.place(0, i * every)
            draw.line([(x, y), (_WIDTH - 20, y)], fill=_GRID)
            draw.text((8, y - 6), f"{i * every:.4g}", fill=_TEXT)
        every = _tick(self._steps)
        for i in range(math.floor(self._steps / every) + 1):
            x, y = self.place(i * every, self._low)
            draw.line([(x, _TOP), (x, y)], fill=_GRID)
            draw.text((x - 10, y + 8), f"{i * every:.6g}", fill=_TEXT)

    def line(self, draw: ImageDraw.ImageDraw, points: _Points, colour: str, width: int) -> None:
        placed = [self.place(x, y) for x, y in points]
        if len(placed) > 1:
            draw.line(placed, fill=colour, width=width)
        for x, y in placed[-1:]:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
