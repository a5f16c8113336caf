"""Curves as SVG in the colours of the page that they stand in, so that they are read by day and by night.

Written by hand: matplotlib would take a second, and could not follow the page.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

FAR = 30.0
"""So many times the smallest value the largest may be before the axis counts in powers."""
POINTS = 300
"""So many points of a curve are drawn, evenly chosen of more."""
LEFT, TOP, RIGHT, BOTTOM = 48.0, 28.0, 456.0, 256.0
"""Where the axes lie, of 480 x 300."""
TICKS = 5

Curve = tuple[Sequence[int], Sequence[float]]
"""Epochs and values."""


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to places."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies."""
        low, high, value = (math.log(each) if self.is_log else each for each in (self.low, self.high, value))
        return self.begin + (value - low) / (high - low) * (self.end - self.begin)


def curves(lines: Mapping[str, Curve], kept: int | None = None) -> str:
    """Draw up to three curves by epoch.

    Args:
        lines: by name; values that are not finite leave a gap.
        kept: epoch whose weights were kept, if it is to be marked.
    """
    thinned = {name: _thinned(curve) for name, curve in lines.items()}
    values = [value for _, found in thinned.values() for value in found if math.isfinite(value)]
    if not values:
        return '<svg class="chart" viewBox="0 0 480 60"><text x="48" y="34">nothing finite was recorded</text></svg>\n'
    last = max(steps[-1] for steps, _ in lines.values())
    x = Axis(1, last, LEFT, RIGHT) if last > 1 else Axis(0, 2, LEFT, RIGHT)
    y = _upright(values)
    body = _grid(x, y, whole=last) + _mark(x, kept)
    body += "".join(_line(index, x, y, curve) for index, curve in enumerate(thinned.values()))
    told = "; ".join(_told(name, curve) for name, curve in lines.items())
    head = f'<svg class="chart" viewBox="0 0 480 300" role="img" aria-label="{escape(told)}">'
    return f"{head}\n{body}{_legend(lines)}</svg>\n"


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Round numbers from `low` to `high`, at most about `count`: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _upright(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    if low > 0 and high > FAR * low:
        return Axis(low, high, BOTTOM, TOP, is_log=True)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 0.05
    low = 0.0 if 0 <= low < high / 2 else low - margin
    return Axis(low, high + margin, BOTTOM, TOP)


def _thinned(curve: Curve) -> tuple[list[int], list[float]]:
    """Evenly chosen points, the last among them."""
    steps, values = list(curve[0]), list(curve[1])
    stride = -(-len(steps) // POINTS)
    chosen = sorted({*range(0, len(steps), stride), len(steps) - 1})
    return [steps[index] for index in chosen], [values[index] for index in chosen]


def _grid(x: Axis, y: Axis, whole: int) -> str:
    if y.is_log:
        powers = range(math.floor(math.log10(y.low)), math.ceil(math.log10(y.high)) + 1)
        heights = [10.0**power for power in powers if y.low <= 10.0**power <= y.high] or [y.low, y.high]
    else:
        heights = ticks(y.low, y.high)
    drawn = "".join(
        f'<path class="grid" d="M{LEFT:g} {y.place(value):.1f}H{RIGHT:g}"/>'
        f'<text x="{LEFT - 6:g}" y="{y.place(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>\n'
        for value in heights
    )
    epochs = [1] if whole == 1 else [1, *(int(each) for each in ticks(1, whole) if each >= 2 and each == int(each))]
    for epoch in epochs:
        place = f'x="{x.place(epoch):.1f}" y="{BOTTOM + 18:g}"'
        drawn += f'<text {place} text-anchor="middle">{epoch:,}</text>\n'
    middle = (LEFT + RIGHT) / 2
    return (
        f'{drawn}<path class="axis" d="M{LEFT:g} {BOTTOM:g}H{RIGHT:g}"/>'
        f'<text x="{middle:g}" y="{BOTTOM + 38:g}" text-anchor="middle">epoch</text>\n'
    )


def _mark(x: Axis, kept: int | None) -> str:
    if kept is None:
        return ""
    place = x.place(kept)
    return (
        f'<path class="kept" d="M{place:.1f} {TOP:g}V{BOTTOM:g}"/>'
        f'<text x="{RIGHT:g}" y="14" text-anchor="end">kept: epoch {kept:,}</text>\n'
    )


def _line(index: int, x: Axis, y: Axis, curve: tuple[list[int], list[float]]) -> str:
    points = [
        (x.place(step), y.place(value)) if math.isfinite(value) and (value > 0 or not y.is_log) else None
        for step, value in zip(*curve, strict=True)
    ]
    if len(points) == 1 and points[0]:  # one epoch is a point, not a line
        return f'<circle class="dot c{index}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="4"/>\n'
    path, is_open = "", False
    for point in points:
        path += f"{'L' if is_open else 'M'}{point[0]:.1f} {point[1]:.1f}" if point else ""
        is_open = point is not None
    return f'<path class="line c{index}" d="{path}"/>\n'


def _legend(lines: Mapping[str, Curve]) -> str:
    drawn, place = "", LEFT
    for index, name in enumerate(lines):
        drawn += f'<path class="line c{index}" d="M{place:g} 10h26"/>'
        drawn += f'<text x="{place + 32:g}" y="14">{escape(name)}</text>\n'
        place += 46 + 6.6 * len(name)
    return drawn


def _told(name: str, curve: Curve) -> str:
    steps, values = curve
    return f"{name}: {values[0]:.4g} at epoch {steps[0]:,}, {values[-1]:.4g} at epoch {steps[-1]:,}"
