"""Learning curves as SVG in the colours of the page, so that they suit its light and its dark scheme.

They are not drawn with matplotlib, which takes a second and cannot follow the scheme.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hallmark.tasks.ml.reports import templating

FAR = 30.0
"""Ratio of the largest to the smallest value above which the axis is logarithmic."""
POINTS = 300
"""Maximum number of points of a curve. Longer curves are thinned evenly."""
LEFT, TOP, RIGHT, BOTTOM = 48, 28, 456, 256
"""Position of the axes in a chart of 480 x 300."""
TICKS = 5
"""Approximate number of ticks on an axis."""

Curve = tuple[Sequence[int], Sequence[float]]
"""Epochs and values."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear or logarithmic mapping from values to coordinates."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False

    def position(self, value: float) -> float:
        """Return the coordinate of a value, to a tenth."""
        low, high, value = (math.log(each) if self.is_log else each for each in (self.low, self.high, value))
        return round(self.begin + (value - low) / (high - low) * (self.end - self.begin), 1)


def curves(lines: Mapping[str, Curve], best: int | None = None) -> str:
    """Draw up to three curves by epoch as an SVG element.

    Args:
        lines: curves by name. Values that are not finite leave a gap.
        best: epoch to mark, the one whose weights were kept.
    """
    thinned = [_thinned(curve) for curve in lines.values()]
    values = [value for _, found in thinned for value in found if math.isfinite(value)]
    if not values:
        return '<svg class="chart" viewBox="0 0 480 60"><text x="48" y="34">no finite values</text></svg>\n'
    last = max(steps[-1] for steps, _ in lines.values())
    x, y = Axis(1, last, LEFT, RIGHT) if last > 1 else Axis(0, 2, LEFT, RIGHT), _value_axis(values)
    epochs = [1] if last == 1 else [1, *(int(tick) for tick in ticks(1, last) if tick >= 2 and tick == int(tick))]
    starts = itertools.accumulate((46 + 6.6 * len(name) for name in lines), initial=LEFT)
    return templating.render(
        "chart.svg.jinja",
        label="; ".join(_description(name, curve) for name, curve in lines.items()),
        left=LEFT,
        top=TOP,
        right=RIGHT,
        bottom=BOTTOM,
        x_ticks=[(x.position(epoch), f"{epoch:,}") for epoch in epochs],
        y_ticks=[(y.position(value), f"{value:.3g}") for value in _value_ticks(y)],
        best={"x": x.position(best), "epoch": f"{best:,}"} if best is not None else None,
        curves=[
            {"name": name, "legend": round(start, 1), **_shape(list(_points(x, y, curve)))}
            for name, start, curve in zip(lines, starts, thinned, strict=False)
        ],
    )


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Return round numbers from `low` to `high`, at most about `count`: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def needs_log_axis(values: Sequence[float]) -> bool:
    """Return whether values, at least one, are all positive and so far apart that their axis is logarithmic."""
    return min(values) > 0 and max(values) > FAR * min(values)


def _value_axis(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    if needs_log_axis(values):
        return Axis(low, high, BOTTOM, TOP, is_log=True)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 0.05
    low = 0.0 if 0 <= low < high / 2 else low - margin
    return Axis(low, high + margin, BOTTOM, TOP)


def _value_ticks(y: Axis) -> list[float]:
    if not y.is_log:
        return ticks(y.low, y.high)
    powers = range(math.floor(math.log10(y.low)), math.ceil(math.log10(y.high)) + 1)
    return [10.0**power for power in powers if y.low <= 10.0**power <= y.high] or [y.low, y.high]


def _thinned(curve: Curve) -> tuple[list[int], list[float]]:
    """Select evenly spaced points and the last one."""
    steps, values = list(curve[0]), list(curve[1])
    stride = -(-len(steps) // POINTS)
    chosen = sorted({*range(0, len(steps), stride), len(steps) - 1})
    return [steps[index] for index in chosen], [values[index] for index in chosen]


def _points(x: Axis, y: Axis, curve: Curve) -> Iterator[tuple[float, float] | None]:
    """Yield the coordinates of each point, or None for a gap."""
    for step, value in zip(*curve, strict=True):
        is_drawn = math.isfinite(value) and (value > 0 or not y.is_log)
        yield (x.position(step), y.position(value)) if is_drawn else None


def _shape(points: Sequence[tuple[float, float] | None]) -> dict[str, Any]:
    """Return a curve as an SVG path, or as a dot if it is a single point, as after one epoch."""
    path, is_open = "", False
    for point in points:
        path += f"{'L' if is_open else 'M'}{point[0]} {point[1]}" if point else ""
        is_open = point is not None
    return {"path": path, "dot": points[0] if len(points) == 1 else None}


def _description(name: str, curve: Curve) -> str:
    steps, values = curve
    return f"{name}: {values[0]:.4g} at epoch {steps[0]:,}, {values[-1]:.4g} at epoch {steps[-1]:,}"
