"""Test metrics of weighted rows, for bootstrap resampling: each row counts as often as its weight says.

All weights of a resampling go through at once: a metric is prepared on the rows, and asked about `(N, R)` weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.ml.evaluation.metrics import bin_of

Floats = NDArray[np.float64]
Metric = Callable[[Floats], Floats]
"""From `(N, R)` weights, whole numbers from 0, to the metric under each of the R, `(R,)`; NaN where it has none."""


def f1_macro(y: NDArray[np.int64], label: NDArray[np.int64], classes: int) -> Metric:
    """Mean over classes of `2 tp / (predicted + true)`, 0 for a class that neither occurs nor is predicted.

    As scikit-learn's `f1_score` with `zero_division=0`.

    Args:
        y: `(N,)` class index.
        label: `(N,)` predicted.
        classes: how many there are.
    """
    rows = np.arange(len(y))
    right = _sums(y, rows, label == y, (classes, len(y)))
    either = _sums(np.r_[y, label], np.r_[rows, rows], np.ones(2 * len(y)), (classes, len(y)))

    def metric(weights: Floats) -> Floats:
        # Where the divisor is 0, so is the dividend; elsewhere it is at least 1.
        found: Floats = (2 * (right @ weights) / np.maximum(either @ weights, 1)).mean(axis=0)
        return found

    return metric


def roc_auc_macro(y: NDArray[np.int64], probabilities: Floats) -> Metric:
    """Mean over classes of the area under the ROC curve of one class against the rest.

    Args:
        y: `(N,)` class index.
        probabilities: `(N, C)`.
    """
    rows = np.arange(len(y))
    areas = [_roc_auc(y == one, probabilities[:, one], rows) for one in range(probabilities.shape[1])]

    def metric(weights: Floats) -> Floats:
        found: Floats = np.mean([area(weights) for area in areas], axis=0)
        return found

    return metric


def roc_auc_micro(y: NDArray[np.int64], probabilities: Floats) -> Metric:
    """Area under the ROC curve of all classes together: each row counts once for each class.

    Args:
        y: `(N,)` class index.
        probabilities: `(N, C)`.
    """
    rows, classes = probabilities.shape
    truth = y[:, None] == np.arange(classes)
    return _roc_auc(truth.ravel(), probabilities.ravel(), np.repeat(np.arange(rows), classes))


def calibration_gaps(y: NDArray[np.int64], probabilities: Floats) -> Metric:
    """Accuracy less confidence in each bin of `metrics.by_confidence`, times the bin's share of the rows.

    The sum of their sizes over the bins is the calibration error.

    Args:
        y: `(N,)` class index.
        probabilities: `(N, C)`.

    Returns:
        A metric with a value a bin, `(B, R)`.
    """
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == y) - confidence
    bins = bin_of(confidence)
    gaps = _sums(bins, np.arange(len(y)), gap, (int(bins.max()) + 1, len(y)))

    def metric(weights: Floats) -> Floats:
        found: Floats = (gaps @ weights) / weights.sum(axis=0)
        return found

    return metric


def _roc_auc(truth: NDArray[np.bool_], scores: Floats, row: NDArray[np.int64]) -> Metric:
    """Share of pairs, one positive and one negative, whose positive scores higher; ties count half.

    The distinct scores of positives are sorted once. A negative adds its weight from the first of them on that lies
    above it, and half of it from one that ties; cumulated, that is what each positive beats. NaN without a pair.
    Mann and Whitney's U, as in Hanley and McNeil, The meaning and use of the area under a ROC curve (1982).

    Args:
        truth: `(M,)` whether it is a positive; at least one is.
        scores: `(M,)`.
        row: `(M,)` whose weight it bears.
    """
    steps, place = np.unique(scores[truth], return_inverse=True)
    shape = (len(steps), int(row[-1]) + 1)
    positives = _sums(place, row[truth], np.ones(len(place)), shape)
    lower, of = scores[~truth], row[~truth]
    from_step = np.r_[np.searchsorted(steps, lower, "left"), np.searchsorted(steps, lower, "right")]
    beaten = from_step < len(steps)
    halves = _sums(from_step[beaten], np.r_[of, of][beaten], np.full(beaten.sum(), 0.5), shape)
    negatives = np.bincount(of, minlength=shape[1]).astype(np.float64)

    def metric(weights: Floats) -> Floats:
        there = positives @ weights
        won = np.einsum("gr,gr->r", there, np.cumsum(halves @ weights, axis=0))
        pairs = there.sum(axis=0) * (negatives @ weights)
        found: Floats = np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)
        return found

    return metric


def _sums(group: NDArray[np.int64], row: NDArray[np.int64], values: NDArray[Any], shape: tuple[int, int]) -> Any:  # noqa: ANN401 - scipy has no types
    """A sparse `(G, N)` matrix that sums weighted values by group; what meets in a place is added up."""
    from scipy.sparse import csr_array

    return csr_array((values.astype(np.float64), (group, row)), shape=shape)
