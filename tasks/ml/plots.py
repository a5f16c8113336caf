"""Pictures of a run, in one style, readable at the size the MLflow UI shows them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.ml.files import whole_file
from tasks.ml.metrics import Curve

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart by colour-blind eyes (https://jfly.uni-koeln.de/color/)."""

SPLITS = (("train", "training", COLOURS[0]), ("val", "validation", COLOURS[1]))

Curves = dict[str, tuple[list[int], list[float]]]


def learning_curves(curves: Curves, path: Path) -> Path:
    """Draw loss and accuracy by epoch, training and validation in one picture."""

    def draw(loss: Axes, accuracy: Axes) -> None:
        for axes, metric in ((loss, "loss"), (accuracy, "accuracy")):
            for split, label, colour in SPLITS:
                if f"{split}/{metric}" in curves:
                    # One epoch is a point, not a line.
                    marker = "o" if len(curves[f"{split}/{metric}"][0]) == 1 else None
                    axes.plot(*curves[f"{split}/{metric}"], label=label, color=colour, marker=marker)
            axes.set(xlabel="epoch", ylabel=metric)
            axes.legend()
        accuracy.set_ylim(top=1.01)

    return _save(path, draw, panels=2)


def confusion_matrix(confusion: NDArray[np.int64], classes: tuple[str, ...], path: Path) -> Path:
    """Draw counts, true class by predicted class, shaded by the share of the true class."""

    def draw(axes: Axes) -> None:
        share = confusion / confusion.sum(axis=1, keepdims=True)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(confusion):
            count = confusion[row, column]
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
        ticks = range(len(classes))
        turned = max(map(len, classes)) > 3
        axes.set_xticks(ticks, classes, rotation=30 if turned else 0, ha="right" if turned else "center")
        axes.set_yticks(ticks, classes)
        axes.set(xlabel="predicted", ylabel="true", title="Rows of the test split")
        axes.grid(visible=False)

    return _save(path, draw)


def roc(curves: dict[str, Curve], path: Path) -> Path:
    """Draw the ROC curve of each class against the rest and the micro average."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
        for index, (name, curve) in enumerate(curves.items()):
            is_average = name == "micro"
            axes.plot(
                curve.false_positive_rate,
                curve.true_positive_rate,
                label=f"{'micro average' if is_average else name}  {curve.auc:.3f}",
                color="black" if is_average else COLOURS[index % (len(COLOURS) - 1)],
                # Beyond the palette's six colours the same ones come back dashed.
                linestyle="--" if index >= len(COLOURS) - 1 or is_average else "-",
                linewidth=2.5 if is_average else 1.5,
            )
        axes.set(
            xlabel="false positive rate",
            ylabel="true positive rate",
            aspect="equal",
            title="ROC on the test split",
        )
        axes.legend(title="area under the curve", fontsize=9, loc="lower right")

    return _save(path, draw)


def _save(path: Path, draw: Callable[..., None], panels: int = 1) -> Path:
    """Draw on fresh axes and write a PNG, without pyplot's global state."""
    figure = Figure(figsize=(5.2 * panels, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for each in axes:
        each.grid(visible=True, alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
    draw(*axes)
    with whole_file(path) as temporary:
        # No software version and no date in the file: the same picture has the same bytes.
        figure.savefig(temporary, metadata={"Software": None})
    return path
