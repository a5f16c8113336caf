"""The reference of a proof: the torch model in float64, and in float32 to measure its own rounding."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.artifact.certificate_schema import FACTOR, FLOOR
from hallmark.tasks.ml.artifact.exporter import Served
from hallmark.tasks.ml.artifact.proof.probe_rows import Probes
from hallmark.tasks.ml.artifact.runtimes import Predicted
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.models.networks import Classifier


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
        far = np.zeros(len(rows.x), dtype=bool)
        far[rows.far.start : rows.far.stop] = True
        self.is_asked = ~far | np.isfinite(error)
        """`(N,)`: False for a row so far from the training range that the model itself overflows."""
        parts = {"test": ~made, "made": made & ~far, "far": far & self.is_asked}
        self.float32_error = {name: float(error[part].max(initial=0.0)) for name, part in parts.items()}
        """The largest error of a probability in torch's float32: on `test` rows, rows `made` within the range of the
        training rows, and rows `far` beyond it."""
        self.tolerance = np.full(len(rows.x), np.inf)
        """`(N,)`: largest allowed error of a runtime; NaN, which no error meets, if the model itself is not finite."""
        for name, part in parts.items():
            self.tolerance[part] = FLOOR + FACTOR * self.float32_error[name]

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
            given = runtimes.feeds(dataset.columns, x[start : start + runtimes.ROWS_AT_ONCE], wide=dataset.wide)
            parts.append(served(*(torch.tensor(value) for value in given.values())))
    label, probabilities = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return Predicted(label, probabilities)
