"""Plot the validation losses of a sweep's members against the options that vary.

In every plot, dark means a low loss, grey a member that diverged, and the frame or the bold line the chosen member.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from hallmark.tasks.ml.reports.plots.parallel_coordinates import parallel_coordinates
from hallmark.tasks.ml.reports.plots.style import COLOURS, make_figure, save
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

APART = 0.08
"""Minimum distance between two labelled values, as a share of the width."""
ANNOTATED = (24, 16)
"""Maximum number of rows and columns of a heat map whose losses are written in the cells."""
NAMED = 24
"""Maximum number of labels on an axis of a heat map."""


def picture(axes: Sequence[str], rows: Sequence[Row], losses: Losses, chosen: int, path: Path) -> Path:
    """Write a plot of the validation losses of a sweep as a PNG file. The same members give the same bytes.

    Args:
        axes: the options that vary, such as `training.lr`; at least one.
        rows: the values of each member by option.
        losses: the validation loss of each member; None if it diverged.
        chosen: index of the chosen member, which must have a loss.
        path: file to write.
    """
    return save(figure(axes, rows, losses, chosen), path)


def figure(axes: Sequence[str], rows: Sequence[Row], losses: Losses, chosen: int) -> Figure:
    """Draw a curve for one option, a heat map for a complete grid of two, else parallel coordinates."""
    if len(axes) == 1:
        return _curve(axes[0], [row[axes[0]] for row in rows], losses, chosen)
    places = {tuple(row[axis] for axis in axes) for row in rows}
    if len(axes) == 2 and len(places) == len(rows) == math.prod(len({row[axis] for row in rows}) for axis in axes):
        return _heat_map(axes, rows, losses, chosen)
    return parallel_coordinates(axes, rows, losses, chosen)


def _curve(axis: str, values: Sequence[Value], losses: Losses, chosen: int) -> Figure:
    """Draw the validation loss against the one option that varies."""
    numbers, distinct = as_numbers(values), distinct_sorted(values)
    x = numbers or [float(distinct.index(value)) for value in values]
    label = f"chosen: {value_text(values[chosen])}, loss {loss_text(losses[chosen])}"

    def draw(panel: Axes) -> None:
        # Words and seeds have no values in between, so no line joins them.
        line = "-" if numbers and is_quantity(axis) else ""
        points = [(place, math.nan if loss is None else loss) for place, loss in zip(x, losses, strict=True)]
        panel.plot(*np.array(sorted(points)).T, color=COLOURS[0], marker="o", linestyle=line, linewidth=1)
        panel.plot(*points[chosen], color=CHOSEN, marker="o", markersize=11, linestyle="", label=label)
        _mark_diverged(panel, [place for place, loss in zip(x, losses, strict=True) if loss is None])
        panel.set(xlabel=axis, ylabel="validation loss")
        panel.set_xscale(**_axis_scale(numbers if is_quantity(axis) else []))
        panel.set_yscale(**_axis_scale([loss for loss in losses if loss is not None]))
        for side in (panel.xaxis, panel.yaxis):
            if side.get_scale() != "linear":
                side.set_major_formatter(lambda number, _: value_text(float(number)))
        _label_points(panel, sorted(x), shortest_names(distinct), always=not numbers)
        panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)

    return make_figure(draw, size=(6.6, 4.6))


def _mark_diverged(panel: Axes, diverged: Sequence[float]) -> None:
    """Mark diverged members at the top edge."""
    if diverged:
        across, top = panel.get_xaxis_transform(), [0.97] * len(diverged)
        panel.plot(diverged, top, transform=across, color=DIVERGED, marker="X", linestyle="", label="diverged")


def _axis_scale(numbers: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic scale for positive numbers of several magnitudes, symmetric if 0 is among them."""
    positive = [number for number in numbers if number > 0]
    if not spans_magnitudes(positive) or min(numbers) < 0:
        return {"value": "linear"}
    if len(positive) == len(numbers):
        return {"value": "log"}
    return {"value": "symlog", "linthresh": min(positive), "linscale": 0.5}


def _label_points(panel: Axes, x: Sequence[float], texts: Sequence[str], *, always: bool) -> None:
    """Label each point with its value, unless the points are too close together."""
    places = panel.xaxis.get_transform().transform(np.array(x, dtype=float))
    if always or np.diff(places).min(initial=np.inf) >= APART * np.ptp(places):
        panel.set_xticks(x, texts, **_rotation(texts, room=60 // len(texts)))
        panel.set_xticks([], minor=True)


def _heat_map(axes: Sequence[str], rows: Sequence[Row], losses: Losses, chosen: int) -> Figure:
    """Draw a cell for each member: the first option upwards, the second to the right."""
    up, right = (distinct_sorted(row[axis] for row in rows) for axis in axes)
    places = [(up.index(row[axes[0]]), right.index(row[axes[1]])) for row in rows]
    cells = np.full((len(up), len(right)), np.nan)
    for place, loss in zip(places, losses, strict=True):
        cells[place] = np.nan if loss is None else loss
    annotated = len(up) <= ANNOTATED[0] and len(right) <= ANNOTATED[1]

    def draw(panel: Axes) -> None:
        norm = loss_norm(losses)
        image = panel.imshow(
            np.ma.masked_invalid(cells), cmap=SHADES, norm=norm, aspect="auto", origin="lower", interpolation="nearest"
        )
        if annotated:
            for place, loss in zip(places, losses, strict=True):
                _cell(panel, place, loss, norm)
        else:
            panel.figure.colorbar(image, label="validation loss")
        _frame_chosen(panel, places[chosen])
        panel.set_yticks(*_labels(up))
        positions, texts = _labels(right)
        panel.set_xticks(positions, texts, **_rotation(texts, room=9 if annotated else 3))
        panel.set(xlabel=axes[1], ylabel=axes[0], title="Validation loss; the chosen member is framed")
        panel.grid(visible=False)
        panel.tick_params(length=0)

    width = 0.75 * len(right) + 1.6 if annotated else 8.0
    height = 0.42 * len(up) + 1.2 if annotated else 6.0
    return make_figure(draw, size=(max(width, 5.2), max(height, 3.2)))


def _cell(panel: Axes, place: tuple[int, int], loss: float | None, norm: Normalize) -> None:
    """Write the loss in its cell, or hatch the cell of a diverged member."""
    row, column = place
    if loss is None:
        corner = (column - 0.5, row - 0.5)
        panel.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="darkgrey", linewidth=0))
        panel.text(column, row, "diverged", ha="center", va="center", fontsize=8, bbox=background("lightgrey"))
        return
    # Relative luminance: above 0.18, black has more contrast than white (WCAG 2.2, 1.4.3).
    luminance = np.dot(np.array(SHADES(norm(loss)))[:3] ** 2.2, (0.2126, 0.7152, 0.0722))
    colour = "black" if luminance > 0.18 else "white"
    panel.text(column, row, loss_text(loss), ha="center", va="center", color=colour, fontsize=9)


def _frame_chosen(panel: Axes, place: tuple[int, int]) -> None:
    corner = (place[1] - 0.5, place[0] - 0.5)
    frame = Rectangle(corner, 1, 1, fill=False, edgecolor=CHOSEN, linewidth=3, clip_on=False, zorder=3)
    # A white edge keeps the frame visible on dark cells.
    frame.set_path_effects([withStroke(linewidth=5, foreground="white")])
    panel.add_patch(frame)


def _labels(values: Sequence[Value]) -> tuple[list[int], list[str]]:
    """Return the positions and the texts of at most `NAMED` labels."""
    step = -(-len(values) // NAMED)
    return list(range(0, len(values), step)), shortest_names(values)[::step]


def _rotation(texts: Sequence[str], room: int) -> dict[str, Any]:
    """Return the rotation of axis labels: turned if one is longer than `room` characters."""
    return {"rotation": 30, "ha": "right"} if max(map(len, texts)) > room else {}
