"""Plot the columns of a user's table by class: numbers as histograms, everything else as bars."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from hallmark.tasks.common.records import Column
from hallmark.tasks.ml.reports.plots import style

COLUMNS = 12
"""Maximum number of columns that are drawn."""
BARS = 8
"""Maximum number of values of a column that are drawn, the most frequent first."""
CLASSES = 7
"""Maximum number of classes that are drawn, each in its own colour."""
_LONG = 24


def columns(
    x: NDArray[np.floating], y: NDArray[np.int64], described: tuple[Column, ...], classes: tuple[str, ...], path: Path
) -> Path:
    """Draw the first columns of the training rows by class. Heights are shares of the class."""
    shown = described[:COLUMNS]

    def draw(*axes: Axes) -> None:
        for index, (column, panel) in enumerate(zip(shown, axes, strict=False)):
            _draw(panel, column, x[:, index], y, classes)
        for panel in axes[len(shown) :]:
            panel.set_visible(False)
        axes[0].legend(fontsize=9, loc="upper right")

    rows = (len(shown) + 2) // 3
    title = "Training rows: shares of each class" + f", first {COLUMNS} columns" * (len(described) > COLUMNS)
    return style.save(style.make_figure(draw, rows=rows, columns=3, size=(4.2, 2.6), title=title), path)


def _draw(panel: Axes, column: Column, x: NDArray[np.floating], y: NDArray[np.int64], classes: tuple[str, ...]) -> None:
    missing = np.isnan(x).mean()
    label = style.plain_text(column.name, _LONG) + (f" ({missing:.0%} missing)" if missing else "")
    panel.set(xlabel=label)
    for index, name in enumerate(classes[:CLASSES]):
        values, colour = x[y == index], style.COLOURS[index]
        if column.kind in ("numeric", "date"):
            _histogram(panel, values, x, colour, name)
        else:
            _bars(panel, column, values, x, index / min(len(classes), CLASSES), colour, name, len(classes))


def _histogram(panel: Axes, values: NDArray[np.floating], x: NDArray[np.floating], colour: str, name: str) -> None:
    present, known = (part[~np.isnan(part)].astype(np.float64) for part in (values, x))
    if not len(known):
        panel.plot([], [], color=colour, linewidth=2, label=name)  # only for the legend
        return
    # Clip to the 1st and 99th percentile: outliers would squeeze all other values into one bar.
    low, high = np.percentile(known, [1, 99])
    edges = style.bin_edges(known.clip(low, high))
    weights = np.full(len(present), 1 / max(len(values), 1))
    panel.hist(
        present.clip(low, high), bins=edges, weights=weights, histtype="step", color=colour, linewidth=2, label=name
    )


def _bars(
    panel: Axes,
    column: Column,
    values: NDArray[np.floating],
    x: NDArray[np.floating],
    offset: float,
    colour: str,
    name: str,
    classes: int,
) -> None:
    texts = column.values if column.kind == "categorical" else ("false", "true")
    present = x[~np.isnan(x)].astype(np.int64)
    frequent = np.argsort(-np.bincount(present, minlength=len(texts)), kind="stable")[:BARS]
    shares = [float((values == code).sum()) / max(len(values), 1) for code in frequent]
    width = 0.8 / min(classes, CLASSES)
    places = np.arange(len(frequent)) + 0.8 * offset
    panel.bar(places, shares, width, align="edge", color=colour, label=name)
    more = ["…"] if len(texts) > BARS else []
    ticks = [style.plain_text(texts[code], _LONG) for code in frequent]
    panel.set_xticks(
        [*(np.arange(len(frequent)) + 0.4), *([len(frequent)] if more else [])], [*ticks, *more], fontsize=8
    )
    if max(map(len, ticks), default=0) * len(ticks) > _LONG:
        panel.tick_params(axis="x", rotation=30)
