"""Plot the loss and the accuracy of one run by epoch."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hallmark.tasks.ml.reports.plots.style import COLOURS, make_figure, save

SPLITS = (("train", "training", COLOURS[0]), ("val", "validation", COLOURS[1]), ("test", "test", COLOURS[2]))

Curves = dict[str, tuple[list[int], list[float]]]
"""Epochs and values by metric, such as `val/loss`."""


def learning_curves(curves: Curves, path: Path) -> Path:
    """Draw loss and accuracy by epoch for every split that was measured."""

    def draw(loss: Axes, accuracy: Axes) -> None:
        for axes, metric in ((loss, "loss"), (accuracy, "accuracy")):
            for split, label, colour in SPLITS:
                if f"{split}/{metric}" in curves:
                    # A single epoch is a point, not a line.
                    marker = "o" if len(curves[f"{split}/{metric}"][0]) == 1 else None
                    axes.plot(*curves[f"{split}/{metric}"], label=label, color=colour, marker=marker)
            axes.set(xlabel="epoch", ylabel=metric)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(loc="upper right" if metric == "loss" else "lower right")
        accuracy.set_ylim(top=1.01)

    return save(make_figure(draw, columns=2), path)
