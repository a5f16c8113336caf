"""Plots of an evaluation on the test split, as they are logged to MLflow.

Confusion matrix, ROC, calibration, mistakes, decision regions and fitted curves.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray

from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.config.data import Data, Points
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.evaluation import evaluator
from hallmark.tasks.ml.evaluation.calibration import Bins
from hallmark.tasks.ml.evaluation.evaluator import Evaluated
from hallmark.tasks.ml.evaluation.metrics import RocCurve
from hallmark.tasks.ml.models.networks import Classifier
from hallmark.tasks.ml.reports.mistakes import MISTAKES, most_confident_mistakes
from hallmark.tasks.ml.reports.plots.learning_curves import learning_curves
from hallmark.tasks.ml.reports.plots.style import (
    COLOURS,
    NAMED,
    Floats,
    Labels,
    class_points,
    colour_of,
    greys,
    make_figure,
    marker_of,
    outside_legend,
    plain_text,
    save,
)
from hallmark.tasks.ml.training.history import curves as recorded_curves

IMAGE = 1.1
"""Longer side of a misclassified image, in inches."""
CELL = (1.3, 1.55)
"""Width and height of a misclassified image with its two lines of text, in inches."""
CELLS_PER_ROW = 6


def draw(
    evaluated: Evaluated, classifier: Classifier, dataset: Dataset, fit: Fit, data: Data, folder: Path
) -> tuple[Path, ...]:
    """Draw learning curves, confusion matrix, ROC and reliability, and the plot that suits the data.

    Args:
        evaluated: the scores and predictions to draw.
        classifier: the trained model, on the CPU; predicts the regions and curves of one or two columns.
        dataset: the prepared splits.
        fit: holds the history of the training.
        data: the data part of the experiment; it may name extra points to mark.
        folder: where the PNG files are written.

    Returns:
        Paths of the files.
    """
    scores, classes = evaluated.scores, tuple(map(plain_text, dataset.classes))
    paths = [
        learning_curves(recorded_curves(fit.history), folder / "learning_curves.png"),
        confusion_matrix(scores.confusion, classes, folder / "confusion_matrix.png"),
        roc(scores.roc, folder / "roc.png"),
        reliability(scores.bins, folder / "reliability.png"),
    ]
    if dataset.is_table or len(dataset.columns) > 2:
        return tuple(paths)

    def predict(x: NDArray[np.floating]) -> NDArray[np.float32]:
        return evaluator.predict(classifier, x.astype(np.float32))

    rows = open_split(dataset, "test")
    x, y = rows.x, rows.y
    match dataset.columns:
        case ():
            path, images = folder / "mistakes.png", x.astype(np.uint8, copy=False)
            paths.append(mistakes(images, y, evaluated.probabilities, classes, path, light=dataset.resized))
        case (column,):
            path, extra = folder / "fitted_curve.png", data.asked if isinstance(data, Points) else ()
            paths.append(fitted_curve(predict, x.astype(np.float32), y, extra, column, classes, path))
        case columns:
            path = folder / "decision_regions.png"
            paths.append(decision_regions(predict, x.astype(np.float32), y, columns, classes, path))
    return tuple(paths)


def confusion_matrix(confusion: NDArray[np.int64], classes: tuple[str, ...], path: Path) -> Path:
    """Draw counts, true class by predicted class, shaded by the share of the true class.

    Args:
        confusion: `(C, C)` counts by true class (row) and predicted class (column); every class has rows.
        classes: the C class names.
        path: PNG file to write.
    """

    def draw(axes: Axes) -> None:
        share = confusion / confusion.sum(axis=1, keepdims=True)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(confusion):
            count = confusion[row, column]
            colour = "white" if share[row, column] > 0.5 else "black"
            size = 8 if len(str(count)) > 3 and len(classes) > 8 else 10
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
        ticks = range(len(classes))
        turned = max(map(len, classes)) > 3
        axes.set_xticks(ticks, classes, rotation=30 if turned else 0, ha="right" if turned else "center")
        axes.set_yticks(ticks, classes)
        axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix of the test split")
        axes.grid(visible=False)

    return save(make_figure(draw), path)


def roc(curves: dict[str, RocCurve], path: Path) -> Path:
    """Draw the ROC curve of each class against the rest, and the micro average.

    Args:
        curves: by class name; the last one is `micro`.
        path: PNG file to write.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
        for index, (name, curve) in enumerate(curves.items()):
            is_average = name == "micro"
            axes.plot(
                curve.false_positive_rate,
                curve.true_positive_rate,
                label=f"{'micro average' if is_average else plain_text(name)}  {curve.auc:.3f}",
                color="black" if is_average else COLOURS[index % (len(COLOURS) - 1)],
                # When the six colours repeat, the lines are dashed.
                linestyle="--" if index >= len(COLOURS) - 1 or is_average else "-",
                linewidth=2.5 if is_average else 1.5,
            )
        axes.set(
            xlabel="false positive rate",
            ylabel="true positive rate",
            aspect="equal",
            title="ROC on the test split",
        )
        handles, labels = axes.get_legend_handles_labels()
        named = [*handles[: NAMED - 1], handles[-1]], [*labels[: NAMED - 1], labels[-1]]  # the average comes last
        axes.legend(*named, title="area under the curve", fontsize=9, loc="lower right")

    return save(make_figure(draw), path)


def reliability(bins: Bins, path: Path) -> Path:
    """Draw accuracy against confidence, and below it the number of rows in each bin of confidence.

    Args:
        bins: the rows grouped by confidence.
        path: PNG file to write.
    """

    def draw(axes: Axes, below: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1, label="perfectly calibrated")
        filled = bins.rows > 0
        axes.plot(bins.confidence[filled], bins.accuracy[filled], color=COLOURS[0], marker="o", label="test split")
        axes.set(ylabel="accuracy", xlim=(0, 1), ylim=(-0.02, 1.02), title="Calibration: accuracy by confidence")
        axes.legend(loc="upper left")
        width = 1 / len(bins.rows)
        below.bar((np.arange(len(bins.rows)) + 0.5) * width, bins.rows, width=width * 0.9, color=COLOURS[5])
        below.set(xlabel="confidence (largest probability)", ylabel="rows", xlim=(0, 1))

    return save(make_figure(draw, rows=2, heights=(3, 1)), path)


def mistakes(
    x: NDArray[np.uint8], y: Labels, probabilities: Floats, classes: tuple[str, ...], path: Path, *, light: bool = False
) -> Path:
    """Draw the misclassified images with the highest confidence, the most confident first.

    Args:
        x: `(N, H, W)` or `(N, H, W, 3)` test rows.
        y: `(N,)` true class index.
        probabilities: `(N, C)`.
        classes: the C class names.
        path: PNG file to write.
        light: whether high values of grey images are light; see `dataset_plots.sample_images`.
    """
    label, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    worst = most_confident_mistakes(y, label, confidence)[:MISTAKES]
    size = CELL[0] * CELLS_PER_ROW, CELL[1] * MISTAKES / CELLS_PER_ROW
    height, width = (IMAGE * side / max(x.shape[1:3]) for side in x.shape[1:3])

    def draw(axes: Axes) -> None:
        # One axes with coordinates in inches: laying out one for each image would take half a second.
        axes.axis("off")
        axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
        for place, row in enumerate(worst):
            middle, top = (place % CELLS_PER_ROW + 0.5) * CELL[0], (place // CELLS_PER_ROW + 1) * CELL[1] - IMAGE
            sides = middle - width / 2, middle + width / 2, top + height, top
            axes.imshow(x[row], cmap=greys(light=light), extent=sides)
            text = f"{classes[label[row]]}? {confidence[row]:.0%}\nis {classes[y[row]]}"
            axes.text(middle, top - 0.05, text, fontsize=9, ha="center", va="bottom")
        if not len(worst):
            axes.text(0, 0.5, f"none: all {len(y)} test rows are classified correctly", fontsize=11)

    return save(make_figure(draw, size=size, title="Most confident mistakes on the test split"), path)


def decision_regions(
    probabilities: Callable[[Floats], Floats],
    x: Floats,
    y: Labels,
    columns: tuple[str, ...],
    classes: tuple[str, ...],
    path: Path,
) -> Path:
    """Draw the predicted class over the plane of two features, and the test rows on it.

    Args:
        probabilities: the model, `(N, 2) float32` to `(N, C)`.
        x: `(N, 2)` test rows.
        y: `(N,)` true class index.
        columns: the two column names.
        classes: the C class names.
        path: PNG file to write.
    """

    def draw(axes: Axes) -> None:
        low, high = x.min(axis=0), x.max(axis=0)
        margin = (high - low) * 0.08
        sides = [np.linspace(*ends, 300) for ends in zip(low - margin, high + margin, strict=True)]
        grid = np.stack(np.meshgrid(*sides), axis=-1).astype(np.float32)
        regions = probabilities(grid.reshape(-1, 2)).argmax(axis=1).reshape(grid.shape[:2])
        shades = ListedColormap([colour_of(index) for index in range(len(classes))])
        axes.pcolormesh(*sides, regions, cmap=shades, vmin=-0.5, vmax=len(classes) - 0.5, alpha=0.22, linewidth=0)
        class_points(axes, x, y, classes)
        axes.set(xlabel=columns[0], ylabel=columns[1], title="Decision regions, with the rows of the test split")
        outside_legend(axes, "true class")
        axes.grid(visible=False)

    return save(make_figure(draw, size=(6.6, 4.6)), path)


def fitted_curve(
    probabilities: Callable[[Floats], Floats],
    x: Floats,
    y: Labels,
    extra: Sequence[float],
    column: str,
    classes: tuple[str, ...],
    path: Path,
) -> Path:
    """Draw the predicted probabilities along one feature, and the test rows at the values they should have.

    Args:
        probabilities: the model, `(N, 1) float32` to `(N, C)`.
        x: `(N, 1)` test rows.
        y: `(N,)` true class index.
        extra: further values of the feature whose predictions are marked.
        column: the column name.
        classes: the C class names. With two classes, only the second probability is drawn.
        path: PNG file to write.
    """
    curves = range(len(classes)) if len(classes) > 2 else range(1, 2)

    def draw(axes: Axes) -> None:
        low, high = np.append(x, extra).min(), np.append(x, extra).max()
        margin = (high - low) * 0.05
        along = np.linspace(low - margin, high + margin, 400, dtype=np.float32)[:, None]
        predicted = probabilities(along)
        for index in curves:
            label = f"P(class {classes[index]})"
            axes.plot(along[:, 0], predicted[:, index], color=colour_of(index), label=label)
        for index, name in enumerate(classes):
            rows = x[y == index, 0]
            height = np.full(len(rows), float(index in curves))
            label = f"test rows of class {name}"
            axes.scatter(rows, height, color=colour_of(index), marker=marker_of(index), s=16, alpha=0.6, label=label)
        if extra:
            axes.axvspan(x.min(), x.max(), color="grey", alpha=0.1, label="range of the test rows")
            marked = probabilities(np.array(extra, dtype=np.float32)[:, None])[:, list(curves)]
            axes.scatter(
                np.repeat(extra, len(curves)), marked, color="black", marker="*", s=90, zorder=3, label="predicted"
            )
        axes.set(xlabel=column, ylabel="probability", ylim=(-0.05, 1.05), title=f"Predictions along {column}")
        outside_legend(axes)

    return save(make_figure(draw, size=(6.6, 4.6)), path)
