"""The curves of several runs in one picture."""

import io
import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hallmark.tasks.ml.reports.plots.figures import COLOURS, LINES, drawn
from hallmark.tasks.ml.reports.run_comparison.differences import CURVES, Curve

WORDS = {"val/loss": "validation loss", "train/loss": "training loss"}
FAR = 30.0
"""So many times the smallest value the largest may be before the axis counts in powers."""

LONG = 100
"""Characters of a name that the legend has room for, or two names of half as many beside each other."""
LINE = 0.22
"""Of the legend, in inches."""


def overlaid(names: Sequence[str], curves: Sequence[dict[str, Curve]]) -> str:
    """Draw the losses of several runs by epoch, as an SVG element that holds everything it needs.

    Args:
        names: of the runs, for the legend.
        curves: of each, by metric.
    """

    def draw(*panels: Axes) -> None:
        for axes, metric in zip(panels, CURVES, strict=True):
            for index, (name, each) in enumerate(zip(names, curves, strict=True)):
                if metric in each:
                    _line(axes, index, name, each[metric])
            axes.set(xlabel="epoch", ylabel=WORDS[metric])
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            values = [value for each in curves for value in each.get(metric, ([], []))[1] if math.isfinite(value)]
            if values and min(values) > 0 and max(values) > FAR * min(values):
                axes.set_yscale("log")
            if not axes.lines:
                axes.text(0.5, 0.5, "not recorded", ha="center", transform=axes.transAxes)

    figure = drawn(draw, columns=2)
    known = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    labels = sorted(known)
    columns = 2 if max(map(len, labels), default=0) <= LONG / 2 else 1
    figure.set_figheight(figure.get_figheight() + LINE * math.ceil(len(labels) / columns))
    # Beside eight curves there is no corner in which a legend would hide nothing.
    figure.legend([known[label] for label in labels], labels, loc="outside lower left", frameon=False, ncols=columns)
    with mpl.rc_context({"svg.hashsalt": "hallmark", "svg.fonttype": "path"}):  # no random ids, and no fonts to miss
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    return text[text.index("<svg") :]


def _line(axes: Axes, index: int, name: str, curve: Curve) -> None:
    # Colours come back after seven, in another line: eight runs are told apart, and in grey by their lines.
    colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
    marker = "o" if len(curve[0]) == 1 else None  # one epoch is a point, not a line
    label = name if len(name) <= LONG else f"{name[: LONG - 1]}…"
    axes.plot(*curve, label=label.replace("$", r"\$"), color=colour, linestyle=line, marker=marker)
