"""Judge the predictions of one way of predicting, row by row, against those of torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.ml.artifact.proof.float64_reference import TorchReference
from hallmark.tasks.ml.artifact.runtimes import Asked, Predicted

SUM = 1e-5
"""Maximum deviation of the sum of probabilities from 1."""
MAX_WORST_ROWS = 5
"""Maximum number of worst rows in the report."""
MAX_DOUBTFUL_ROWS = 200
"""Maximum number of further rows that are computed in float64: those with the largest errors."""


@dataclass(frozen=True, slots=True)
class WayResult:
    """The result of one way of predicting."""

    way: str
    rows: NDArray[np.int64]
    """`(n,)`: positions of the rows predicted."""
    sizes: NDArray[np.int64]
    """`(n,)`: number of rows in the batch of each."""
    predicted: Predicted
    error: NDArray[np.float64]
    """`(n,)`: the largest error of a probability; NaN or infinite if there is no prediction."""
    is_wrong: NDArray[np.bool_]
    """`(n,)`: beyond the tolerance, inconsistent, or with another label that is not a tie."""
    is_tie: NDArray[np.bool_]
    """`(n,)`: with another label, whose class has the same probability within the measured error."""

    @property
    def worst(self) -> NDArray[np.int64]:
        """Positions of the worst rows, the worst first."""
        error = np.where(np.isfinite(self.error), self.error, np.inf)
        order = np.argsort(-np.where(self.is_wrong, error, -1.0), kind="stable")
        return order[: min(MAX_WORST_ROWS, int(self.is_wrong.sum()))]


def judge(asked: Asked, reference: TorchReference) -> WayResult:
    """Compare the predictions of one way with those of torch.

    Args:
        asked: the way of predicting and its predictions.
        reference: torch's predictions for all rows; float64 is computed for the rows that may be wrong.
    """
    positions, predicted = asked.rows, asked.predicted
    if problem := _misshapen(predicted, len(positions), reference.probabilities.shape[1]):
        never, always = np.zeros(len(positions), dtype=bool), np.ones(len(positions), dtype=bool)
        infinite = np.full(len(positions), np.inf)
        return WayResult(f"{asked.way}: {problem}", positions, asked.sizes, predicted, infinite, always, never)
    tolerance = reference.tolerance[positions]
    error = _error(predicted, reference.probabilities[positions])
    doubt = np.where(np.isfinite(error), error, np.inf)
    doubtful = np.flatnonzero((predicted.label != reference.float32.label[positions]) | (doubt > tolerance))
    reference.look_up(np.unique(positions[doubtful[np.argsort(-doubt[doubtful], kind="stable")][:MAX_DOUBTFUL_ROWS]]))
    expected = reference.probabilities[positions]
    is_asked = reference.is_asked[positions]
    error = np.where(is_asked, _error(predicted, expected), 0)
    margin = expected.max(axis=1) - expected[np.arange(len(positions)), predicted.label.clip(0, expected.shape[1] - 1)]
    is_flipped = predicted.label != expected.argmax(axis=1)
    is_tie = is_flipped & (margin <= 2 * error)
    is_wrong = ~(error <= tolerance) | (is_flipped & ~is_tie) | _is_inconsistent(predicted)
    is_wrong &= is_asked
    return WayResult(asked.way, positions, asked.sizes, predicted, error, is_wrong, is_tie & ~is_wrong & is_asked)


def _misshapen(predicted: Predicted, rows: int, classes: int) -> str:
    label, probabilities = predicted.label, predicted.probabilities
    found = label.shape, probabilities.shape, str(label.dtype), str(probabilities.dtype)
    expected = (rows,), (rows, classes), "int64", "float32"
    return "" if found == expected else f"expected label and probabilities {expected}, found {found}"


def _error(predicted: Predicted, expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest absolute error of each row's probabilities, `(n,)`; NaN if a probability is NaN."""
    errors: NDArray[np.float64] = np.abs(predicted.probabilities.astype(np.float64) - expected).max(axis=1)
    return errors


def _is_inconsistent(predicted: Predicted) -> NDArray[np.bool_]:
    """Return whether the label is not the class with the largest probability, or probabilities do not sum to 1."""
    sums = predicted.probabilities.astype(np.float64).sum(axis=1)
    is_largest = predicted.label == predicted.probabilities.argmax(axis=1)
    inconsistent: NDArray[np.bool_] = ~is_largest | ~(np.abs(sums - 1) <= SUM)
    return inconsistent
