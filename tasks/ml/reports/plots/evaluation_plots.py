"""Plots of an evaluation on the test split, as they are logged to MLflow."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.config.data import Data, Points
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.evaluation import evaluator
from hallmark.tasks.ml.evaluation.evaluator import Evaluated
from hallmark.tasks.ml.models.networks import Classifier
from hallmark.tasks.ml.reports.plots import figures
from hallmark.tasks.ml.training.history import curves


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
    scores, classes = evaluated.scores, tuple(map(figures.shown, dataset.classes))
    paths = [
        figures.learning_curves(curves(fit.history), folder / "learning_curves.png"),
        figures.confusion_matrix(scores.confusion, classes, folder / "confusion_matrix.png"),
        figures.roc(scores.roc, folder / "roc.png"),
        figures.reliability(scores.bins, folder / "reliability.png"),
    ]
    if dataset.kinds or len(dataset.columns) > 2:
        return tuple(paths)

    def predict(x: NDArray[np.floating]) -> NDArray[np.float32]:
        return evaluator.predict(classifier, x.astype(np.float32))

    rows = open_split(dataset, "test")
    x, y = rows.x, rows.y
    match dataset.columns:
        case ():
            path, images = folder / "mistakes.png", x.astype(np.uint8, copy=False)
            paths.append(figures.mistakes(images, y, evaluated.probabilities, classes, path, light=dataset.resized))
        case (column,):
            path, points = folder / "fitted_curve.png", data.asked if isinstance(data, Points) else ()
            paths.append(figures.fitted_curve(predict, x.astype(np.float32), y, points, column, classes, path))
        case columns:
            path = folder / "decision_regions.png"
            paths.append(figures.decision_regions(predict, x.astype(np.float32), y, columns, classes, path))
    return tuple(paths)
