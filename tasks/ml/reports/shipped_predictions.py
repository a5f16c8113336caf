"""The predictions of the shipped file for the rows of the test split."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact import certificate, runtimes
from hallmark.tasks.ml.artifact.certificate import Certificate
from hallmark.tasks.ml.artifact.runtimes import Feeds
from hallmark.tasks.ml.data.dataset_store import category_values, open_split
from hallmark.tasks.ml.reports.mistakes import most_confident_mistakes


@dataclass(frozen=True, slots=True)
class ShippedPredictions:
    """The test rows, and what the shipped file predicts for them."""

    certificate: Certificate
    feeds: Feeds
    """The rows by input name."""
    y: NDArray[np.int64]
    """`(N,)` true class index."""
    label: NDArray[np.int64]
    """`(N,)` predicted class index."""
    probabilities: NDArray[np.floating]
    """`(N, C)`."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """`(N,)`: whether the predicted class is the true one."""
        correct: NDArray[np.bool_] = self.label == self.y
        return correct

    @property
    def confidence(self) -> NDArray[np.floating]:
        """`(N,)`: probability of the predicted class."""
        confidence: NDArray[np.floating] = self.probabilities.max(axis=1)
        return confidence

    @property
    def mistakes(self) -> list[int]:
        """Misclassified rows, the most confident first."""
        rows: list[int] = most_confident_mistakes(self.y, self.label, self.confidence).tolist()
        return rows

    def confusion(self) -> NDArray[np.int64]:
        """Return the `(C, C)` counts by true class (row) and predicted class (column)."""
        classes = len(self.certificate.classes)
        return np.bincount(self.y * classes + self.label, minlength=classes**2).reshape(classes, classes)


def predict_test_rows(outcome: Outcome) -> ShippedPredictions:
    """Predict the test rows with the shipped file.

    Raises:
        DamagedError: the file's seal is broken.
    """
    sealed, content = certificate.read(outcome.artifact.path)
    rows = open_split(outcome.dataset, "test")
    feeds = runtimes.feeds(outcome.dataset.columns, rows.x, category_values(outcome.dataset), outcome.dataset.wide)
    predicted = runtimes.predict_in_batches(
        runtimes.runner(runtimes.open_session(content)), feeds, runtimes.ROWS_AT_ONCE
    )
    return ShippedPredictions(sealed, feeds, np.asarray(rows.y), predicted.label, predicted.probabilities)
