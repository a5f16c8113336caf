"""Plot the members of a sweep over three or more options as parallel coordinates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator

from hallmark.tasks.ml.reports.plots.style import make_figure
from hallmark.tasks.ml.reports.plots.sweep_values import (
    CHOSEN,
    DIVERGED,
    SHADES,
    Losses,
    Row,
    Value,
    as_numbers,
    background,
    distinct_sorted,
    is_quantity,
    loss_norm,
    loss_text,
    shortest_names,
    spans_magnitudes,
    value_text,
)

Ticks = list[tuple[float, str]]
Line = list[tuple[float, float]]
EVEN = 12
"""Maximum number of distinct shared numbers that are drawn as evenly spaced bands, as words are."""
BAND = 0.36
"""Half the height of a band, as a share of the distance between two."""
GROUP: dict[str, Any] = {"color": "lightgrey", "linewidth": 7, "zorder": 1}
"""Style of the band that collects the members with one value."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A vertical scale from 0 to 1."""

    heights: list[float]
    """Height at which each member crosses the scale."""
    ticks: Ticks
    """Heights and their labels."""
    band: float = 0.0
    """Half the height over which the members of one tick are spread; 0 on a continuous scale."""


def parallel_coordinates(axes: Sequence[str], rows: Sequence[Row], losses: Losses, chosen: int) -> Figure:
    """Draw a vertical scale for each option and one for the validation loss, and a line for each member."""
    scales = [_option_scale(axis, [row[axis] for row in rows], losses) for axis in axes] + [_loss_scale(losses)]
    lines = [[(float(x), scale.heights[member]) for x, scale in enumerate(scales)] for member in range(len(rows))]
    chosen_texts = [value_text(rows[chosen][axis]) for axis in axes] + [loss_text(losses[chosen])]
    top = 1.15 if None in losses else 1.03

    def draw(panel: Axes) -> None:
        _draw_members(panel, lines, losses, chosen)
        for x, scale in enumerate(scales):
            _draw_scale(panel, x, scale, scale.heights[chosen], chosen_texts[x])
        panel.set_xticks(range(len(scales)), [*(axis.replace(".", ".\n") for axis in axes), "validation\nloss"])
        panel.xaxis.tick_top()
        panel.tick_params(length=0)
        panel.set(xlim=(-0.35, len(axes) + 0.35), ylim=(-0.03, top), yticks=[])
        panel.spines[:].set_visible(False)
        panel.grid(visible=False)
        corner = (0, 0)
        handles = _legend(losses, has_bands=any(scale.band for scale in scales))
        panel.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=5, frameon=False, fontsize=9)

    return make_figure(draw, size=(max(1.75 * len(scales), 5.2), 5.4))


def _draw_members(panel: Axes, lines: list[Line], losses: Losses, chosen: int) -> None:
    """Draw the members: low losses on top of high ones, the chosen member on top of all."""
    diverged = [line for line, loss in zip(lines, losses, strict=True) if loss is None]
    kept = sorted(((loss, line) for line, loss in zip(lines, losses, strict=True) if loss is not None), reverse=True)
    shades = SHADES(loss_norm(losses)([loss for loss, _ in kept]))
    alpha = min(1.0, max(0.15, 60 / len(lines)))
    panel.add_collection(LineCollection(diverged, colors=DIVERGED, linestyles="--", linewidths=1, alpha=alpha))
    panel.add_collection(LineCollection([line for _, line in kept], colors=shades, linewidths=1.4, alpha=alpha))
    bold = LineCollection([lines[chosen]], colors=CHOSEN, linewidths=4, zorder=4)
    bold.set_path_effects([withStroke(linewidth=6, foreground="white")])
    panel.add_collection(bold)


def _draw_scale(panel: Axes, x: int, scale: Scale, height: float, chosen_text: str) -> None:
    """Draw a scale and highlight the chosen member's value: its tick if it has one, else a label beside it."""
    patch = background("white")
    for tick, text in scale.ticks:
        is_chosen = abs(tick - height) < scale.band
        bold: dict[str, Any] = {"color": CHOSEN, "fontweight": "bold"} if is_chosen else {}
        panel.text(x - 0.04, tick, text, ha="right", va="center", fontsize=9, bbox=patch, zorder=5, **bold)
        if scale.band:
            panel.plot([x, x], [tick - scale.band, tick + scale.band], solid_capstyle="butt", **GROUP)
        else:
            panel.plot([x - 0.02, x], [tick, tick], color="black", linewidth=1, zorder=3)
    if not scale.band:
        panel.plot([x, x], [0, 1], color="black", linewidth=1, zorder=3)
        panel.text(x + 0.05, height, chosen_text, va="center", color=CHOSEN, fontweight="bold", bbox=patch, zorder=5)


def _legend(losses: Losses, *, has_bands: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=CHOSEN, linewidth=4, label="chosen"),
        Line2D([], [], color=SHADES(0.0), linewidth=1.4, label="low loss"),
        Line2D([], [], color=SHADES(1.0), linewidth=1.4, label="high loss"),
    ]
    if None in losses:
        handles.append(Line2D([], [], color=DIVERGED, linewidth=1, linestyle="--", label="diverged"))
    if has_bands:
        handles.append(Line2D([], [], label="same value, low loss below", **GROUP))
    return handles


def _option_scale(option: str, values: Sequence[Value], losses: Losses) -> Scale:
    """Return a continuous scale for numbers, and evenly spaced bands for words and for few shared numbers."""
    numbers, distinct = as_numbers(values), distinct_sorted(values)
    if numbers and len(distinct) > min(EVEN, len(values) - 1):
        return _continuous_scale(numbers, logarithmic=is_quantity(option) and spans_magnitudes(numbers))
    step = 1 / len(distinct)
    middle = {value: (index + 0.5) * step for index, value in enumerate(distinct)}
    heights = [0.0] * len(values)
    for value in distinct:
        sharing = [member for member, other in enumerate(values) if other == value]
        # Spread the members by loss, because lines through one point would hide each other.
        sharing.sort(key=lambda member: math.inf if (loss := losses[member]) is None else loss)
        for place, member in enumerate(sharing):
            heights[member] = middle[value] + 2 * BAND * step * ((place + 0.5) / len(sharing) - 0.5)
    return Scale(heights, list(zip(middle.values(), shortest_names(distinct), strict=True)), BAND * step)


def _loss_scale(losses: Losses) -> Scale:
    finite = [loss for loss in losses if loss is not None]
    scale = _continuous_scale(finite, logarithmic=spans_magnitudes(finite))
    if len(finite) == len(losses):
        return scale
    # Diverged members are drawn above the scale.
    above, rest = 1.1, iter(scale.heights)
    heights = [above if loss is None else next(rest) for loss in losses]
    return Scale(heights, [*scale.ticks, (above, "diverged")])


def _continuous_scale(numbers: Sequence[float], *, logarithmic: bool) -> Scale:
    """Return a continuous scale that starts and ends at a tick."""
    low, high = min(numbers), max(numbers)
    if low == high:
        return Scale([0.5] * len(numbers), [(0.5, value_text(low))])
    whole = all(float(number).is_integer() for number in numbers)
    locator = LogLocator() if logarithmic else MaxNLocator(5, steps=[1, 2, 5, 10], integer=whole)
    ticks = [float(tick) for tick in locator.tick_values(low, high)]
    # Rounding can put the outermost tick just inside the range.
    first = max((tick for tick in ticks if tick <= low), default=low)
    last = min((tick for tick in ticks if tick >= high), default=high)
    ends = (math.log(first), math.log(last)) if logarithmic else (first, last)

    def height(number: float) -> float:
        place = math.log(number) if logarithmic else number
        return (place - ends[0]) / (ends[1] - ends[0])

    return Scale(
        [height(number) for number in numbers], [(height(t), value_text(t)) for t in ticks if first <= t <= last]
    )
