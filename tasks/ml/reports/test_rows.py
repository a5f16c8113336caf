"""The test rows, and what the shipped file says of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import Outcome
from hallmark.tasks.ml.artifact import certificate, runtimes
from hallmark.tasks.ml.artifact.certificate import Certificate
from hallmark.tasks.ml.artifact.runtimes import Feeds
from hallmark.tasks.ml.data.dataset_store import category_values, open_split


@dataclass(frozen=True, slots=True)
class Tested:
    """The test rows, and what the shipped file says of them."""

    said: Certificate
    feeds: Feeds
    y: NDArray[np.int64]
    """`(N,)` true class."""
    label: NDArray[np.int64]
    """`(N,)` predicted."""
    probabilities: NDArray[np.floating]
    """`(N, C)`."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """`(N,)`."""
        found: NDArray[np.bool_] = self.label == self.y
        return found

    @property
    def worst(self) -> list[int]:
        """The rows that it got wrong, those first of which it was most sure."""
        wrong = np.flatnonzero(~self.right)
        found: list[int] = wrong[np.argsort(-self._confidence[wrong], kind="stable")].tolist()
        return found

    @property
    def _confidence(self) -> NDArray[np.floating]:
        found: NDArray[np.floating] = self.probabilities.max(axis=1)
        return found

    def verdict(self, row: int) -> tuple[str, float, str]:
        """What it said of a row, how sure it was, from 0 to 1, and what the row is."""
        classes = self.said.classes
        return classes[self.label[row]], float(self._confidence[row]), classes[self.y[row]]

    def confusion(self) -> NDArray[np.int64]:
        """`(C, C)` counts: row the true class, column the predicted one."""
        classes = len(self.said.classes)
        return np.bincount(self.y * classes + self.label, minlength=classes**2).reshape(classes, classes)


def ask(outcome: Outcome) -> Tested:
    """Let the shipped file predict the test rows."""
    said, content = certificate.read(outcome.artifact.path)
    rows = open_split(outcome.dataset, "test")
    feeds = runtimes.feeds(outcome.dataset.columns, rows.x, category_values(outcome.dataset))
    answer = runtimes.ask(runtimes.runner(runtimes.open_session(content)), feeds, runtimes.ROWS_AT_ONCE)
    return Tested(said, feeds, np.asarray(rows.y), answer.label, answer.probabilities)
