"""What torch says of the rows that a file is proven on: the oracle is the same model in float64."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.artifact.exporter import Served
from hallmark.tasks.ml.artifact.proof.probe_rows import Probes
from hallmark.tasks.ml.artifact.runtimes import Answer
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.models.networks import Classifier

FACTOR = 8.0
"""A probability may be wrong by so many times what torch's own float32 is wrong by, at the most, on like rows."""
FLOOR = 5e-7
"""And by this besides: four steps of float32 just below 1."""


class Oracle:
    """What torch says in float32 of all rows, in float64 of those chosen, and of others when it is asked."""

    def __init__(self, classifier: Classifier, dataset: Dataset, rows: Probes) -> None:
        """Ask torch.

        Args:
            classifier: the trained model, on the CPU.
            dataset: names its inputs.
            rows: of whom it is asked.
        """
        self._exact, self._dataset, self._x = exact(classifier), dataset, rows.x
        self.float32 = ask(Served(classifier).eval(), dataset, rows.x)
        self.known = self.float32.probabilities.astype(np.float64)
        """`(N, C)`: in float64 where that was asked for, in float32 elsewhere."""
        self.is_exact = np.zeros(len(rows.x), dtype=bool)
        self.look_up(rows.chosen)
        own = np.abs(self.float32.probabilities - self.known).max(axis=1)
        made = np.arange(len(rows.x)) >= rows.test
        self.own = {name: float(own[part].max()) for name, part in (("test", ~made), ("made", made))}
        """The largest error of a probability in torch's own float32, on test rows and on rows that were made."""
        self.tolerance = FLOOR + FACTOR * np.where(made, self.own["made"], self.own["test"])
        """`(N,)`: what a runtime's error may be; NaN, which nothing is within, where the model itself is not finite."""

    def look_up(self, rows: NDArray[np.int64]) -> None:
        """Ask for float64 where that has not been done yet."""
        new = rows[~self.is_exact[rows]]
        if len(new):
            self.known[new] = ask(self._exact, self._dataset, self._x[new]).probabilities
            self.is_exact[new] = True


def exact(classifier: Classifier) -> Served:
    """The same model in float64: its weights are those of float32, and nothing else is rounded to it."""
    return Served(copy.deepcopy(classifier).double()).eval()


def ask(served: Served, dataset: Dataset, x: RawRows) -> Answer:
    """What torch says, in the precision that the weights have."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(x), runtimes.ROWS_AT_ONCE):
            given = runtimes.feeds(dataset.columns, x[start : start + runtimes.ROWS_AT_ONCE])
            parts.append(served(*(torch.tensor(value) for value in given.values())))
    label, probabilities = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return Answer(label, probabilities)
