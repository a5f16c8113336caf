"""The reference of a proof: the torch model in float64, and in float32 to measure its own rounding."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.artifact.exporter import Served
from hallmark.tasks.ml.artifact.proof.probe_rows import Probes
from hallmark.tasks.ml.artifact.runtimes import Predicted
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.models.networks import Classifier

FACTOR = 8.0
"""A probability may be off by this many times the largest error of torch's own float32 on rows of the same kind."""
FLOOR = 5e-7
"""Tolerance added to that: four steps of float32 just below 1."""


class TorchReference:
    """Predictions by torch: in float32 for all rows, in float64 for the chosen rows and for others on request."""

    def __init__(self, classifier: Classifier, dataset: Dataset, rows: Probes) -> None:
        """Predict with torch.

        Args:
            classifier: the trained model, on the CPU.
            dataset: gives the names of the inputs.
            rows: the rows to predict.
        """
        self._exact, self._dataset, self._x = exact(classifier), dataset, rows.x
        self.float32 = predict(Served(classifier).eval(), dataset, rows.x)
        self.probabilities = self.float32.probabilities.astype(np.float64)
        """`(N, C)`: probabilities in float64 where `is_exact`, in float32 elsewhere."""
        self.is_exact = np.zeros(len(rows.x), dtype=bool)
        self.look_up(rows.chosen)
        error = np.abs(self.float32.probabilities - self.probabilities).max(axis=1)
        made = np.arange(len(rows.x)) >= rows.test
        self.float32_error = {name: float(error[part].max()) for name, part in (("test", ~made), ("made", made))}
        """The largest error of a probability in torch's float32: `test` on test rows, `made` on synthetic rows."""
        self.tolerance = FLOOR + FACTOR * np.where(made, self.float32_error["made"], self.float32_error["test"])
        """`(N,)`: largest allowed error of a runtime; NaN, which no error meets, if the model itself is not finite."""

    def look_up(self, rows: NDArray[np.int64]) -> None:
        """Compute float64 predictions for the rows that have none yet."""
        new = rows[~self.is_exact[rows]]
        if len(new):
            self.probabilities[new] = predict(self._exact, self._dataset, self._x[new]).probabilities
            self.is_exact[new] = True


def exact(classifier: Classifier) -> Served:
    """Return the same model in float64: the weights are those of float32, and nothing else is rounded."""
    return Served(copy.deepcopy(classifier).double()).eval()


def predict(served: Served, dataset: Dataset, x: RawRows) -> Predicted:
    """Predict rows with torch, in the precision of the weights."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(x), runtimes.ROWS_AT_ONCE):
            given = runtimes.feeds(dataset.columns, x[start : start + runtimes.ROWS_AT_ONCE])
            parts.append(served(*(torch.tensor(value) for value in given.values())))
    label, probabilities = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return Predicted(label, probabilities)
