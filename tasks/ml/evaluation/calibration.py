"""Calibration: confidence against accuracy in bins."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

BINS = 15
"""As in Guo et al., On Calibration of Modern Neural Networks (2017)."""


@dataclass(frozen=True, slots=True)
class Bins:
    """Rows grouped by confidence, the largest probability of a row, in bins of equal width on (0, 1]."""

    rows: NDArray[np.int64]
    """`(B,)` number of rows in each bin."""
    confidence: Floats
    """`(B,)` mean confidence; 0 in an empty bin."""
    accuracy: Floats
    """`(B,)` share of rows predicted correctly; 0 in an empty bin."""


def by_confidence(y: NDArray[np.int64], probabilities: Floats, bins: int = BINS) -> Bins:
    """Group rows by confidence, for the reliability diagram and the calibration error.

    Args:
        y: `(N,)` class index.
        probabilities: `(N, C)`.
        bins: number of bins on (0, 1].
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == y
    index = bin_of(confidence, bins)
    rows = np.bincount(index, minlength=bins)
    sums = [np.bincount(index, weights=weights, minlength=bins) for weights in (confidence, is_right)]
    return Bins(rows, *(values / np.maximum(rows, 1) for values in sums))


def bin_of(confidence: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each row, `(N,)` from 0, for bins of equal width on (0, 1].

    Args:
        confidence: `(N,)`.
        bins: number of bins.
    """
    index: NDArray[np.int64] = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return index


def calibration_error(bins: Bins) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy over the bins.

    `sum over bins of (rows in bin / N) * |accuracy - mean confidence|`: equation 3 of Guo et al. (2017).
    scikit-learn has only the curve, not the error.
    """
    return float((bins.rows * np.abs(bins.accuracy - bins.confidence)).sum() / bins.rows.sum())
