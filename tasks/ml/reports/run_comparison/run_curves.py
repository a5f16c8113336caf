"""Plot the learning curves of several runs in one picture."""

import io
import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hallmark.tasks.ml.reports.charts import needs_log_axis
from hallmark.tasks.ml.reports.plots.style import COLOURS, LINES, make_figure
from hallmark.tasks.ml.reports.run_comparison.comparison import CURVES, Curve

WORDS = {"val/loss": "validation loss", "train/loss": "training loss"}
LONG = 100
"""Characters that fit on a line of the legend. Shorter names are set in two columns."""
LINE = 0.22
"""Height of a line of the legend, in inches."""


def overlaid(names: Sequence[str], curves: Sequence[dict[str, Curve]]) -> str:
    """Draw the losses of several runs by epoch, as a self-contained SVG element.

    Args:
        names: name of each run, for the legend.
        curves: curves of each run, by metric.
    """

    def draw(*panels: Axes) -> None:
        for axes, metric in zip(panels, CURVES, strict=True):
            for index, (name, each) in enumerate(zip(names, curves, strict=True)):
                if metric in each:
                    _line(axes, index, name, each[metric])
            axes.set(xlabel="epoch", ylabel=WORDS[metric])
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            values = [value for each in curves for value in each.get(metric, ([], []))[1] if math.isfinite(value)]
            if values and needs_log_axis(values):
                axes.set_yscale("log")
            if not axes.lines:
                axes.text(0.5, 0.5, "not recorded", ha="center", transform=axes.transAxes)

    figure = make_figure(draw, columns=2)
    known = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    labels = sorted(known)
    columns = 2 if max(map(len, labels), default=0) <= LONG / 2 else 1
    figure.set_figheight(figure.get_figheight() + LINE * math.ceil(len(labels) / columns))
    # Below the axes: with eight curves, a legend inside would always hide something.
    figure.legend([known[label] for label in labels], labels, loc="outside lower left", frameon=False, ncols=columns)
    with mpl.rc_context({"svg.hashsalt": "hallmark", "svg.fonttype": "path"}):  # fixed ids, and text as paths
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    return text[text.index("<svg") :]


def _line(axes: Axes, index: int, name: str, curve: Curve) -> None:
    # Colours repeat after seven, lines after four: no two of eight runs share both.
    colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
    isolated = _isolated(curve[1])  # no segment of the line shows them
    marker = "o" if isolated else None
    label = name if len(name) <= LONG else f"{name[: LONG - 1]}…"
    axes.plot(
        *curve, label=label.replace("$", r"\$"), color=colour, linestyle=line, marker=marker, markevery=isolated or None
    )


def _isolated(values: Sequence[float]) -> list[int]:
    """Return the indices of finite values without a finite neighbour, such as that of a single epoch."""
    finite = [False, *map(math.isfinite, values), False]
    return [index for index in range(len(values)) if finite[index : index + 3] == [False, True, False]]
