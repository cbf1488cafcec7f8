"""Points and lines → SVG: axes, ticks, marks with titles; no script, nothing from outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 14, 46
_INK, _FAINT, _GRID = "#333", "#666", "#e6e6e6"
_LETTER_PX, _LINE_PX = 6.6, 13  # a letter on average, a line
_GAP_PX, _MARK_PX = 9, 6  # from a mark to its name, half a mark
_HALO = 'stroke="#fff" stroke-width="3" paint-order="stroke"'
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """What an axis shows, from low to high; log: in equal steps of factors."""

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies: 0 at low, 1 at high."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values from low to high."""
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


def around(values: Sequence[float], label: str, *, log: bool = False, zero: bool = False, share: float = 0.06) -> Axis:
    """An axis with room around all values, a share of what they span; positive ones where log."""
    low, high = min(values), max(values)
    if log:
        return Axis(label, low / 1.3, high * 1.3, True)
    room = (high - low) * share or abs(high) * 0.1 or 1.0
    return Axis(label, 0.0 if zero else low - room, high + room)


def _linear_ticks(low: float, high: float, about: int = 6) -> list[float]:
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and 2 and 5 times those where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = math.log10(high / low)
    factors = (1, 2, 5) if decades < 3 else (1,)
    wide = max(1, math.ceil(decades / 9))
    ticks = [m * 10.0**p for p in powers if p % wide == 0 for m in factors]
    return [t for t in ticks if low <= t <= high * (1 + 1e-9)]


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e7:
        return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


@dataclass
class Figure:
    """A drawing with two axes; marks are drawn in the order they are added."""

    x: Axis
    y: Axis
    width: int = 460
    height: int = 320
    left: int = _LEFT
    rows: Sequence[str] = ()  # names in the place of numbers at the y axis, at 0, 1, ...
    _marks: list[str] = field(default_factory=list)

    def _at(self, point: Point) -> Point:
        inner_w, inner_h = self.width - self.left - _RIGHT, self.height - _TOP - _BOTTOM
        x = self.left + inner_w * self.x.place(point[0])
        y = self.height - _BOTTOM - inner_h * self.y.place(point[1])
        return round(x, 1), round(y, 1)

    def dot(self, point: Point, colour: str, title: str, *, diamond: bool = False, radius: float = 4.5) -> None:
        """A mark that says its title when pointed at."""
        x, y = self._at(point)
        told = f"<title>{escape(title)}</title>"
        if diamond:
            r = radius * 1.3
            path = f"M{x} {y - r:.1f}L{x + r:.1f} {y}L{x} {y + r:.1f}L{x - r:.1f} {y}Z"
            self._marks.append(f'<path d="{path}" fill="{colour}" stroke="#fff">{told}</path>')
        else:
            self._marks.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{colour}" stroke="#fff">{told}</circle>')

    def line(self, points: Sequence[Point], colour: str, *, dashed: bool = False, width: float = 1.5) -> None:
        """A line through points."""
        path = " ".join(f"{x},{y}" for x, y in map(self._at, points))
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>')

    def names(self, named: Sequence[tuple[Point, str]]) -> None:
        """Words beside points, to the left of those at the right edge, moved where marks or others stand already."""
        marks = [(x - _MARK_PX, x + _MARK_PX, y + 4) for x, y in (self._at(point) for point, _ in named)]
        taken: list[tuple[float, float, float]] = []  # left, right, y
        for point, text in sorted(named, key=lambda each: -self.y.place(each[0][1])):
            x, y = self._at(point)
            wide = _LETTER_PX * len(text)
            before = x + _GAP_PX + wide > self.width - _RIGHT
            left = x - _GAP_PX - wide if before else x + _GAP_PX
            beside = [at for start, end, at in (*marks, *taken) if left < end and start < left + wide]
            y = self._free(y + 4, beside)
            taken.append((left, left + wide, y))
            place = f'x="{x + (-_GAP_PX if before else _GAP_PX):.1f}" y="{y:.1f}"'
            anchor = 'text-anchor="end"' if before else ""
            self._marks.append(f'<text {place} {anchor} fill="{_INK}" {_HALO}>{escape(text)}</text>')

    def _free(self, y: float, taken: Sequence[float]) -> float:
        """The line nearest to y that keeps its distance to those taken and stays inside."""
        lines = [y + sign * step for step in range(self.height) for sign in (1, -1)]
        inside = [at for at in lines if _TOP + _LINE_PX <= at <= self.height - _BOTTOM - 3]
        return next((at for at in inside if all(abs(at - other) >= _LINE_PX for other in taken)), y)

    def svg(self, label: str) -> str:
        """The drawing; label says what it shows to those who cannot see it."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        parts = [*self._frame(), *self._marks]
        return f'<svg {size} role="img" aria-label="{escape(label)}" {_FONT}>{"".join(parts)}</svg>'

    def _frame(self) -> list[str]:
        """Grid, ticks, names of the axes."""
        bottom, right = self.height - _BOTTOM, self.width - _RIGHT
        out = [f'<rect x="{self.left}" y="{_TOP}" width="{right - self.left}" height="{bottom - _TOP}" fill="#fff"/>']
        for value in self.x.ticks():
            x, _ = self._at((value, self.y.low))
            out.append(f'<path d="M{x} {_TOP}V{bottom}" stroke="{_GRID}"/>')
            out.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle" fill="{_FAINT}">{_number(value)}</text>')
        named = list(enumerate(self.rows)) if self.rows else [(v, _number(v)) for v in self.y.ticks()]
        for value, name in named:
            _, y = self._at((self.x.low, value))
            out.append(f'<path d="M{self.left} {y}H{right}" stroke="{_GRID}"/>')
            place = f'x="{self.left - 7}" y="{y + 4}" text-anchor="end"'
            out.append(f'<text {place} fill="{_FAINT}">{escape(name)}</text>')
        out.append(f'<path d="M{self.left} {_TOP}V{bottom}H{right}" fill="none" stroke="{_FAINT}"/>')
        middle = (self.left + right) / 2
        out.append(
            f'<text x="{middle}" y="{self.height - 8}" text-anchor="middle" fill="{_INK}">{escape(self.x.label)}</text>'
        )
        if not self.rows:
            turn = f'transform="translate(14 {(bottom + _TOP) / 2}) rotate(-90)"'
            out.append(f'<text {turn} text-anchor="middle" fill="{_INK}">{escape(self.y.label)}</text>')
        return out


def legend(entries: Sequence[tuple[str, str, bool]]) -> str:
    """(title, colour, diamond) as a line of HTML."""
    parts = []
    for title, colour, diamond in entries:
        shape = "M7 1L13 7L7 13L1 7Z" if diamond else "M7 2a5 5 0 1 0 .01 0Z"
        mark = f'<svg width="14" height="14" aria-hidden="true"><path d="{shape}" fill="{colour}"/></svg>'
        parts.append(f"<span>{mark} {escape(title)}</span>")
    return f'<p class="legend">{"".join(parts)}</p>'
