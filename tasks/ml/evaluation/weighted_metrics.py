"""Test metrics of weighted rows, for bootstrap resampling: a weight says how often a row is drawn.

A metric is prepared on the rows once, and then computed for `(N, R)` weights of R resamples at a time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.ml.evaluation.calibration import bin_of

Floats = NDArray[np.float64]
WeightedMetric = Callable[[Floats], Floats]
"""From `(N, R)` weights, whole numbers from 0, to the metric of each resample, `(R,)`; NaN where it is undefined."""


def f1_macro(y: NDArray[np.int64], label: NDArray[np.int64], classes: int) -> WeightedMetric:
    """Prepare the mean over classes of `2 tp / (predicted + true)`, 0 for a class that is neither true nor predicted.

    The same as scikit-learn's `f1_score` with `zero_division=0`.

    Args:
        y: `(N,)` class index.
        label: `(N,)` predicted class index.
        classes: number of classes.
    """
    rows = np.arange(len(y))
    right = _sums(y, rows, label == y, (classes, len(y)))
    either = _sums(np.r_[y, label], np.r_[rows, rows], np.ones(2 * len(y)), (classes, len(y)))

    def metric(weights: Floats) -> Floats:
        # If the divisor is 0, so is the dividend; otherwise it is at least 1.
        f1: Floats = (2 * (right @ weights) / np.maximum(either @ weights, 1)).mean(axis=0)
        return f1

    return metric


def roc_auc_macro(y: NDArray[np.int64], probabilities: Floats) -> WeightedMetric:
    """Prepare the mean over classes of the area under the ROC curve of one class against the rest.

    Args:
        y: `(N,)` class index.
        probabilities: `(N, C)`.
    """
    rows = np.arange(len(y))
    areas = [_roc_auc(y == one, probabilities[:, one], rows) for one in range(probabilities.shape[1])]

    def metric(weights: Floats) -> Floats:
        mean: Floats = np.mean([area(weights) for area in areas], axis=0)
        return mean

    return metric


def roc_auc_micro(y: NDArray[np.int64], probabilities: Floats) -> WeightedMetric:
    """Prepare the area under the ROC curve of all classes together: each row counts once for each class.

    Args:
        y: `(N,)` class index.
        probabilities: `(N, C)`.
    """
    rows, classes = probabilities.shape
    truth = y[:, None] == np.arange(classes)
    return _roc_auc(truth.ravel(), probabilities.ravel(), np.repeat(np.arange(rows), classes))


def calibration_gaps(y: NDArray[np.int64], probabilities: Floats) -> WeightedMetric:
    """Prepare accuracy minus confidence in each bin of `calibration.by_confidence`, times the bin's share of the rows.

    The sum of absolute values over the bins is the calibration error.

    Args:
        y: `(N,)` class index.
        probabilities: `(N, C)`.

    Returns:
        A metric with one value for each bin, `(B, R)`.
    """
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == y) - confidence
    bins = bin_of(confidence)
    gaps = _sums(bins, np.arange(len(y)), gap, (int(bins.max()) + 1, len(y)))

    def metric(weights: Floats) -> Floats:
        mean_gaps: Floats = (gaps @ weights) / weights.sum(axis=0)
        return mean_gaps

    return metric


def _roc_auc(truth: NDArray[np.bool_], scores: Floats, row: NDArray[np.int64]) -> WeightedMetric:
    """Prepare the share of pairs of one positive and one negative in which the positive scores higher; ties count half.

    The distinct scores of positives are sorted once. Each negative adds its weight at the first of them above
    its own score, and half of its weight at one that ties. The cumulative sum is the weight that each positive beats.
    NaN if there is no pair. This is Mann and Whitney's U, as in Hanley and McNeil, The meaning and use of the area
    under a ROC curve (1982).

    Args:
        truth: `(M,)` whether a score belongs to a positive; at least one does.
        scores: `(M,)`.
        row: `(M,)` index of the row whose weight a score has.
    """
    steps, place = np.unique(scores[truth], return_inverse=True)
    shape = (len(steps), int(row[-1]) + 1)
    positives = _sums(place, row[truth], np.ones(len(place)), shape)
    negative_scores, negative_rows = scores[~truth], row[~truth]
    from_step = np.r_[np.searchsorted(steps, negative_scores, "left"), np.searchsorted(steps, negative_scores, "right")]
    is_beaten = from_step < len(steps)
    beaten_rows = np.r_[negative_rows, negative_rows][is_beaten]
    halves = _sums(from_step[is_beaten], beaten_rows, np.full(is_beaten.sum(), 0.5), shape)
    negatives = np.bincount(negative_rows, minlength=shape[1]).astype(np.float64)

    def metric(weights: Floats) -> Floats:
        weight_of_positives = positives @ weights
        won = np.einsum("gr,gr->r", weight_of_positives, np.cumsum(halves @ weights, axis=0))
        pairs = weight_of_positives.sum(axis=0) * (negatives @ weights)
        area: Floats = np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)
        return area

    return metric


def _sums(group: NDArray[np.int64], row: NDArray[np.int64], values: NDArray[Any], shape: tuple[int, int]) -> Any:  # noqa: ANN401 - scipy has no types
    """Build a sparse `(G, N)` matrix that sums weighted values by group; entries in the same place are added."""
    from scipy.sparse import csr_array

    return csr_array((values.astype(np.float64), (group, row)), shape=shape)
