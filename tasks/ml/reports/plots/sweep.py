"""Pictures of a sweep: what the values of its members have to do with their validation losses.

Everywhere, dark is a low loss, grey a member that diverged, and the frame or the bold line the chosen one.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator

from hallmark.tasks.ml.reports.plots.figures import COLOURS, drawn, write

Value = float | str | bool
Row = Mapping[str, Value]
Losses = Sequence[float | None]
Ticks = list[tuple[float, str]]
Line = list[tuple[float, float]]

SPAN = 20
"""Positive numbers that span over this factor may get a logarithmic scale."""
EVEN = 12
"""Up to so many numbers that members share are a band each, as words are: those of a grid, which may lie close."""
APART = 0.08
"""Values that lie so much of the width apart have room for their names."""
BAND = 0.36
"""The half-height of a band over the distance of two."""
ANNOTATED = (24, 16)
"""Up to so many rows and columns of cells have their loss written in them."""
NAMED = 24
"""Up to so many rows or columns of cells have their value beside them; of more, every few."""

SHADES = LinearSegmentedColormap.from_list(
    "losses", mpl.colormaps["viridis"](np.linspace(0, 0.9, 256)).tolist()
).with_extremes(bad="lightgrey")
"""viridis, which colour-blind eyes and grey print keep in order, without its end that is lost on white."""
CHOSEN = COLOURS[1]
DIVERGED = "grey"
GROUP: dict[str, Any] = {"color": "lightgrey", "linewidth": 7, "zorder": 1}
"""The members of one value."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An upright scale, from 0 to 1.

    heights: where each member crosses it.
    ticks: heights, and what stands there.
    band: the half-height over which members of one tick are spread; 0 where each crosses where its number lies.
    """

    heights: list[float]
    ticks: Ticks
    band: float = 0.0


def picture(axes: Sequence[str], rows: Sequence[Row], losses: Losses, chosen: int, path: Path) -> Path:
    """Write the picture that suits the axes as a PNG: the same members give the same bytes.

    Args:
        axes: what varies, as `training.lr`; at least one.
        rows: of each member, its value on each axis.
        losses: of each member, the validation loss; None where it diverged.
        chosen: index of the chosen member, which has a loss.
        path: where the picture appears, whole or not at all.
    """
    return write(figure(axes, rows, losses, chosen), path)


def figure(axes: Sequence[str], rows: Sequence[Row], losses: Losses, chosen: int) -> Figure:
    """A curve for one axis, a heat map for two of which every combination is there, else parallel coordinates."""
    if len(axes) == 1:
        return _curve(axes[0], [row[axes[0]] for row in rows], losses, chosen)
    places = {tuple(row[axis] for axis in axes) for row in rows}
    if len(axes) == 2 and len(places) == len(rows) == math.prod(len({row[axis] for row in rows}) for axis in axes):
        return _heat_map(axes, rows, losses, chosen)
    return _parallel(axes, rows, losses, chosen)


def _curve(axis: str, values: Sequence[Value], losses: Losses, chosen: int) -> Figure:
    """The validation loss by the one value that varies."""
    numbers, distinct = _numbers(values), _ordered(values)
    x = numbers or [float(distinct.index(value)) for value in values]
    said = f"chosen: {_text(values[chosen])}, loss {_loss(losses[chosen])}"

    def draw(panel: Axes) -> None:
        # Nothing lies between two words, nor between two seeds.
        line = "-" if numbers and _is_amount(axis) else ""
        points = [(place, math.nan if loss is None else loss) for place, loss in zip(x, losses, strict=True)]
        panel.plot(*np.array(sorted(points)).T, color=COLOURS[0], marker="o", linestyle=line, linewidth=1)
        panel.plot(*points[chosen], color=CHOSEN, marker="o", markersize=11, linestyle="", label=said)
        _mark(panel, [place for place, loss in zip(x, losses, strict=True) if loss is None])
        panel.set(xlabel=axis, ylabel="validation loss")
        panel.set_xscale(**_scaling(numbers if _is_amount(axis) else []))
        panel.set_yscale(**_scaling([loss for loss in losses if loss is not None]))
        for side in (panel.xaxis, panel.yaxis):
            if side.get_scale() != "linear":
                side.set_major_formatter(lambda number, _: _text(float(number)))
        _name(panel, sorted(x), _names(distinct), always=not numbers)
        panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)

    return drawn(draw, size=(6.6, 4.6))


def _mark(panel: Axes, lost: Sequence[float]) -> None:
    """Where members diverged: at the top edge, whatever the scale."""
    if lost:
        across, top = panel.get_xaxis_transform(), [0.97] * len(lost)
        panel.plot(lost, top, transform=across, color=DIVERGED, marker="X", linestyle="", label="diverged")


def _scaling(numbers: Sequence[float]) -> dict[str, Any]:
    """A logarithmic scale where the numbers span one; if 0 is among them, it has its place beside."""
    positive = [number for number in numbers if number > 0]
    if not _spans(positive) or min(numbers) < 0:
        return {"value": "linear"}
    if len(positive) == len(numbers):
        return {"value": "log"}
    return {"value": "symlog", "linthresh": min(positive), "linscale": 0.5}


def _name(panel: Axes, x: Sequence[float], texts: Sequence[str], *, always: bool) -> None:
    """Put the values themselves below their points, unless they are numbers too close for that."""
    places = panel.xaxis.get_transform().transform(np.array(x, dtype=float))
    if always or np.diff(places).min(initial=np.inf) >= APART * np.ptp(places):
        panel.set_xticks(x, texts, **_turned(texts, room=60 // len(texts)))
        panel.set_xticks([], minor=True)


def _heat_map(axes: Sequence[str], rows: Sequence[Row], losses: Losses, chosen: int) -> Figure:
    """The first axis upwards, the second to the right."""
    up, right = (_ordered(row[axis] for row in rows) for axis in axes)
    places = [(up.index(row[axes[0]]), right.index(row[axes[1]])) for row in rows]
    cells = np.full((len(up), len(right)), np.nan)
    for place, loss in zip(places, losses, strict=True):
        cells[place] = np.nan if loss is None else loss
    annotated = len(up) <= ANNOTATED[0] and len(right) <= ANNOTATED[1]

    def draw(panel: Axes) -> None:
        norm = _norm(losses)
        image = panel.imshow(
            np.ma.masked_invalid(cells), cmap=SHADES, norm=norm, aspect="auto", origin="lower", interpolation="nearest"
        )
        if annotated:
            for place, loss in zip(places, losses, strict=True):
                _cell(panel, place, loss, norm)
        else:
            panel.figure.colorbar(image, label="validation loss")
        _frame(panel, places[chosen])
        panel.set_yticks(*_thinned(up))
        shown, texts = _thinned(right)
        panel.set_xticks(shown, texts, **_turned(texts, room=9 if annotated else 3))
        panel.set(xlabel=axes[1], ylabel=axes[0], title="Validation loss; the chosen member is framed")
        panel.grid(visible=False)
        panel.tick_params(length=0)

    width = 0.75 * len(right) + 1.6 if annotated else 8.0
    height = 0.42 * len(up) + 1.2 if annotated else 6.0
    return drawn(draw, size=(max(width, 5.2), max(height, 3.2)))


def _cell(panel: Axes, place: tuple[int, int], loss: float | None, norm: Normalize) -> None:
    """Write a loss on its cell, or hatch it."""
    row, column = place
    if loss is None:
        corner = (column - 0.5, row - 0.5)
        panel.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="darkgrey", linewidth=0))
        panel.text(column, row, "diverged", ha="center", va="center", fontsize=8, bbox=_paper("lightgrey"))
        return
    # Relative luminance; beyond 0.18 black has more contrast than white (WCAG 2.2, 1.4.3).
    luminance = np.dot(np.array(SHADES(norm(loss)))[:3] ** 2.2, (0.2126, 0.7152, 0.0722))
    colour = "black" if luminance > 0.18 else "white"
    panel.text(column, row, _loss(loss), ha="center", va="center", color=colour, fontsize=9)


def _frame(panel: Axes, place: tuple[int, int]) -> None:
    corner = (place[1] - 0.5, place[0] - 0.5)
    frame = Rectangle(corner, 1, 1, fill=False, edgecolor=CHOSEN, linewidth=3, clip_on=False, zorder=3)
    # White around it: seen on the darkest cell too.
    frame.set_path_effects([withStroke(linewidth=5, foreground="white")])
    panel.add_patch(frame)


def _thinned(values: Sequence[Value]) -> tuple[list[int], list[str]]:
    """Which rows or columns of cells are named, and how."""
    step = -(-len(values) // NAMED)
    return list(range(0, len(values), step)), _names(values)[::step]


def _turned(texts: Sequence[str], room: int) -> dict[str, Any]:
    """Names below an axis are turned where one has more letters than there is room for."""
    return {"rotation": 30, "ha": "right"} if max(map(len, texts)) > room else {}


def _parallel(axes: Sequence[str], rows: Sequence[Row], losses: Losses, chosen: int) -> Figure:
    """An upright scale for each option, and at the right for the validation loss; a line for each member."""
    scales = [_scale_of(axis, [row[axis] for row in rows], losses) for axis in axes] + [_scale_of_losses(losses)]
    lines = [[(float(x), scale.heights[member]) for x, scale in enumerate(scales)] for member in range(len(rows))]
    said = [_text(rows[chosen][axis]) for axis in axes] + [_loss(losses[chosen])]
    top = 1.15 if None in losses else 1.03

    def draw(panel: Axes) -> None:
        _lines(panel, lines, losses, chosen)
        for x, scale in enumerate(scales):
            _upright(panel, x, scale, scale.heights[chosen], said[x])
        panel.set_xticks(range(len(scales)), [*(axis.replace(".", ".\n") for axis in axes), "validation\nloss"])
        panel.xaxis.tick_top()
        panel.tick_params(length=0)
        panel.set(xlim=(-0.35, len(axes) + 0.35), ylim=(-0.03, top), yticks=[])
        panel.spines[:].set_visible(False)
        panel.grid(visible=False)
        corner = (0, 0)
        handles = _legend(losses, has_bands=any(scale.band for scale in scales))
        panel.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=5, frameon=False, fontsize=9)

    return drawn(draw, size=(max(1.75 * len(scales), 5.2), 5.4))


def _lines(panel: Axes, lines: list[Line], losses: Losses, chosen: int) -> None:
    """Draw the members, the low losses above the high ones and the chosen one above all."""
    lost = [line for line, loss in zip(lines, losses, strict=True) if loss is None]
    kept = sorted(((loss, line) for line, loss in zip(lines, losses, strict=True) if loss is not None), reverse=True)
    shades = SHADES(_norm(losses)([loss for loss, _ in kept]))
    alpha = min(1.0, max(0.15, 60 / len(lines)))
    panel.add_collection(LineCollection(lost, colors=DIVERGED, linestyles="--", linewidths=1, alpha=alpha))
    panel.add_collection(LineCollection([line for _, line in kept], colors=shades, linewidths=1.4, alpha=alpha))
    bold = LineCollection([lines[chosen]], colors=CHOSEN, linewidths=4, zorder=4)
    bold.set_path_effects([withStroke(linewidth=6, foreground="white")])
    panel.add_collection(bold)


def _upright(panel: Axes, x: int, scale: Scale, height: float, said: str) -> None:
    """Draw a scale, and on it the chosen member's value: its tick if there is one, else beside it."""
    paper = _paper("white")
    for tick, text in scale.ticks:
        is_chosen = abs(tick - height) < scale.band
        bold: dict[str, Any] = {"color": CHOSEN, "fontweight": "bold"} if is_chosen else {}
        panel.text(x - 0.04, tick, text, ha="right", va="center", fontsize=9, bbox=paper, zorder=5, **bold)
        if scale.band:
            panel.plot([x, x], [tick - scale.band, tick + scale.band], solid_capstyle="butt", **GROUP)
        else:
            panel.plot([x - 0.02, x], [tick, tick], color="black", linewidth=1, zorder=3)
    if not scale.band:
        panel.plot([x, x], [0, 1], color="black", linewidth=1, zorder=3)
        panel.text(x + 0.05, height, said, va="center", color=CHOSEN, fontweight="bold", bbox=paper, zorder=5)


def _legend(losses: Losses, *, has_bands: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=CHOSEN, linewidth=4, label="chosen"),
        Line2D([], [], color=SHADES(0.0), linewidth=1.4, label="low loss"),
        Line2D([], [], color=SHADES(1.0), linewidth=1.4, label="high loss"),
    ]
    if None in losses:
        handles.append(Line2D([], [], color=DIVERGED, linewidth=1, linestyle="--", label="diverged"))
    if has_bands:
        handles.append(Line2D([], [], label="one value, low losses below", **GROUP))
    return handles


def _scale_of(axis: str, values: Sequence[Value], losses: Losses) -> Scale:
    """Numbers stand where they lie; words, and the few numbers that many share, are a band each."""
    numbers, distinct = _numbers(values), _ordered(values)
    if numbers and len(distinct) > min(EVEN, len(values) - 1):
        return _along(numbers, logarithmic=_is_amount(axis) and _spans(numbers))
    step = 1 / len(distinct)
    middle = {value: (index + 0.5) * step for index, value in enumerate(distinct)}
    heights = [0.0] * len(values)
    for value in distinct:
        sharing = [member for member, other in enumerate(values) if other == value]
        # By loss, low ones below: lines through one point would hide each other.
        sharing.sort(key=lambda member: math.inf if (loss := losses[member]) is None else loss)
        for place, member in enumerate(sharing):
            heights[member] = middle[value] + 2 * BAND * step * ((place + 0.5) / len(sharing) - 0.5)
    return Scale(heights, list(zip(middle.values(), _names(distinct), strict=True)), BAND * step)


def _scale_of_losses(losses: Losses) -> Scale:
    found = [loss for loss in losses if loss is not None]
    scale = _along(found, logarithmic=_spans(found))
    if len(found) == len(losses):
        return scale
    # Beside the scale, not on it.
    beside, rest = 1.1, iter(scale.heights)
    heights = [beside if loss is None else next(rest) for loss in losses]
    return Scale(heights, [*scale.ticks, (beside, "diverged")])


def _along(numbers: Sequence[float], *, logarithmic: bool) -> Scale:
    """A scale that begins and ends at a tick."""
    low, high = min(numbers), max(numbers)
    if low == high:
        return Scale([0.5] * len(numbers), [(0.5, _text(low))])
    whole = all(float(number).is_integer() for number in numbers)
    locator = LogLocator() if logarithmic else MaxNLocator(5, steps=[1, 2, 5, 10], integer=whole)
    ticks = [float(tick) for tick in locator.tick_values(low, high)]
    # A tick at the very end may lie a rounding inside it.
    first = max((tick for tick in ticks if tick <= low), default=low)
    last = min((tick for tick in ticks if tick >= high), default=high)
    ends = (math.log(first), math.log(last)) if logarithmic else (first, last)

    def height(number: float) -> float:
        place = math.log(number) if logarithmic else number
        return (place - ends[0]) / (ends[1] - ends[0])

    return Scale([height(number) for number in numbers], [(height(t), _text(t)) for t in ticks if first <= t <= last])


def _norm(losses: Losses) -> Normalize:
    found = [loss for loss in losses if loss is not None]
    return (LogNorm if _spans(found) else Normalize)(min(found), max(found))


def _numbers(values: Sequence[Value]) -> list[float]:
    """The values if all are numbers, else none."""
    are = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return [cast(float, value) for value in values] if are else []


def _spans(numbers: Sequence[float]) -> bool:
    """Whether they are spread more evenly by magnitude: those drawn evenly from 0 to 1 are not."""
    if not numbers or min(numbers) <= 0 or max(numbers) <= SPAN * min(numbers):
        return False
    plain, logs = (_middle(scaled) for scaled in (numbers, [math.log(number) for number in numbers]))
    return abs(logs - 0.5) <= abs(plain - 0.5)


def _middle(numbers: Sequence[float]) -> float:
    """Where their mean lies between the least, 0, and the greatest, 1."""
    low, high = min(numbers), max(numbers)
    return sum((number - low) / (high - low) for number in numbers) / len(numbers)


def _is_amount(axis: str) -> bool:
    """A seed is a name: none is larger than another, and nothing lies between two."""
    return not axis.endswith("seed")


def _ordered(values: Iterable[Value]) -> list[Value]:
    """The distinct values: numbers and lists of them ascending, then words."""

    def rank(value: Value) -> tuple[bool, list[float], str]:
        text = str(value) if isinstance(value, str) else repr(float(value))
        try:
            return False, [float(part) for part in text.split(",")], text
        except ValueError:
            return True, [], text

    return sorted(set(values), key=rank)


def _names(distinct: Sequence[Value]) -> list[str]:
    """Values in as few digits as tell them apart."""
    for digits in (3, 6, 12):
        names = [_text(value, digits) for value in distinct]
        if len(set(names)) == len(distinct):
            break
    return names


def _text(value: Value, digits: int = 3) -> str:
    """As short as it may be: `0.01`, `1e-5`, `true`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _plain(str(int(value)) if value.is_integer() and abs(value) < 1e5 else f"{value:.{digits}g}")
    return str(value)


def _loss(loss: float | None) -> str:
    """Three digits, of which no 0 is left out: `0.230` stands beside `0.247`."""
    return "diverged" if loss is None else _plain(f"{loss:#.3g}".rstrip("."))


def _plain(number: str) -> str:
    """`1e-05` is `1e-5`, and `1e+03` is `1e3`."""
    return re.sub(r"e\+?(-?)0*", r"e\1", number)


def _paper(colour: str) -> dict[str, object]:
    """A patch beneath a text, on which it stays legible."""
    return {"facecolor": colour, "edgecolor": "none", "pad": 1, "alpha": 0.8}
