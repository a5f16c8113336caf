"""How far a metric of test rows may be from that of all rows there could be: its 95 % interval."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.ml.evaluation import weighted_metrics
from hallmark.tasks.ml.evaluation.weighted_metrics import Floats, Metric

LEVEL = 0.95
RESAMPLES = 5000
"""Two seeds of so many put the bounds a fortieth of the interval apart, or less."""
AT_ONCE = 100
"""So many resamples are drawn together: 10,000 rows then take 8 MB."""
SEED = 0
METRIC_RESAMPLES = 2000
"""Of a metric that is no mean. Two seeds of so many put the bounds a twentieth of the interval apart, or less."""
FEWEST = 200
"""Not fewer are drawn for any size, nor used where some have no such metric; then it is a seventh."""
WORK = 200_000_000
"""Rows times classes times resamples from which fewer are drawn: MNIST's 10,000 by 10 take 0.8 s on one core."""
LARGEST = 5_000_000
"""Rows times classes, beyond which these metrics have no interval: more take over 5 s."""
COUNTS = 500_000
"""So many weights are held together: 4 MB."""
TOGETHER = 8
"""Resamples that are held together at least, however many rows there are: one by one they take longer."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true value may be."""

    low: float
    high: float
    method: Literal["bootstrap", "exact"]


def mean(values: NDArray[np.floating]) -> Interval | None:
    """Percentile interval of the bootstrap: rows are drawn anew, with replacement, and their means are sorted.

    The same values give the same interval. It is an approximation, too short for a few dozen rows.
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; computed by `scipy.stats.bootstrap`.

    Args:
        values: `(N,)`, one a row, N at least 1.

    Returns:
        None where all values are equal: what has not varied once cannot show how far it may.
    """
    from scipy.stats import bootstrap

    if (values == values[0]).all():
        return None
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=AT_ONCE,
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(float(found.low), float(found.high), "bootstrap")


def share(right: NDArray[np.bool_]) -> Interval:
    """Interval of an accuracy: that of `mean`, and the exact one where all rows are right, or none.

    Args:
        right: `(N,)`, N at least 1.
    """
    if found := mean(right.astype(np.float64)):
        return found
    return exact(int(right.sum()), len(right))


def metrics(y: NDArray[np.int64], probabilities: NDArray[np.floating]) -> dict[str, Interval | None]:
    """Intervals of those metrics of `hallmark.tasks.ml.evaluation.metrics` that are no means over rows.

    Each resample draws N rows anew, with replacement, the same for all metrics: rows by the integer weights that it
    gives them. There are 2,000 resamples; beyond 100,000 rows times classes fewer, in inverse proportion, down to 200.
    The same rows give the same intervals. They are approximations, too short for a few dozen rows, or for a class of a
    few rows.

    A class that a resample has neither drawn nor predicted counts as 0 in its F1, as in the metric. A resample that
    lacks a class has no area under that class's ROC curve, and is left out for the mean of the areas.

    Args:
        y: `(N,)` class index.
        probabilities: `(N, C)`.

    Returns:
        By `f1_macro`, `roc_auc_macro`, `roc_auc_micro`, `calibration_error`. None where it would have no length,
        where fewer than 200 resamples have such a metric, and for all beyond 5,000,000 rows times classes.
    """
    if probabilities.size > LARGEST:
        return dict.fromkeys(("f1_macro", "roc_auc_macro", "roc_auc_micro", "calibration_error"))
    p = probabilities.astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    gaps = weighted_metrics.calibration_gaps(y, p)
    found = _resampled(
        p.shape,
        {
            "f1_macro": weighted_metrics.f1_macro(y, p.argmax(axis=1), p.shape[1]),
            "roc_auc_macro": weighted_metrics.roc_auc_macro(y, p),
            "roc_auc_micro": weighted_metrics.roc_auc_micro(y, p),
            "gaps": gaps,
        },
    )
    error = calibration_error(gaps(np.ones((len(y), 1))), found.pop("gaps"))
    return {name: percentiles(values) for name, values in found.items()} | {"calibration_error": error}


def percentiles(values: Floats) -> Interval | None:
    """The interval that leaves out a fortieth of the resamples at each end.

    Args:
        values: `(R,)` metric of each resample; NaN where it has none.

    Returns:
        None where it would have no length, or fewer than 200 have one.
    """
    defined = values[~np.isnan(values)]
    if len(defined) < FEWEST:
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), "bootstrap") if low < high else None


def calibration_error(gaps: Floats, resampled: Floats) -> Interval | None:
    """Interval of a sum of sizes, which has to be asked otherwise.

    Chance alone makes gaps, so that rows have a larger error than all rows there could be, and resamples a larger one
    still: near 0, where the error of a good model lies, no interval of percentiles holds the true one. By the triangle
    inequality the error is off by at most the sum of the sizes by which the gaps are off, and how far these are off,
    resamples tell truly. So the lower bound is the error less the upper percentile of that sum, and at least 0. The
    upper bound is the percentile, which is high rather than low. Together they hold the true error in 95 % or more, of
    simulated models as well calibrated as can be or far from it, with 200 rows or more; with 30 in 90 %.

    Args:
        gaps: `(B, 1)` signed gap of each bin, see `hallmark.tasks.ml.evaluation.weighted_metrics.calibration_gaps`.
        resampled: `(B, R)` those of the resamples.

    Returns:
        None where all resamples are equal.
    """
    if (resampled == resampled[:, :1]).all():
        return None
    error, errors, off = (np.abs(each).sum(axis=0) for each in (gaps, resampled, resampled - gaps))
    top = (1 + LEVEL) / 2
    low = max(float(error[0] - np.quantile(off, top)), 0.0)
    return Interval(low, float(np.quantile(errors, top)), "bootstrap")


def exact(right: int, rows: int) -> Interval:
    """Clopper and Pearson's interval of a share: never too short, and as good for few rows as for many.

    Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial, Biometrika 26
    (1934); computed by `scipy.stats.binomtest`.

    Args:
        right: so many of the rows are.
        rows: at least 1.
    """
    from scipy.stats import binomtest

    found = binomtest(right, rows).proportion_ci(LEVEL, method="exact")
    return Interval(float(found.low), float(found.high), "exact")


def resamples(size: int) -> int:
    """How many are drawn for so many rows times classes."""
    return min(max(WORK // size, FEWEST), METRIC_RESAMPLES)


def _resampled(shape: tuple[int, int], asked: dict[str, Metric]) -> dict[str, Floats]:
    """What each metric gives, its last axis as long as there are resamples."""
    rows, classes = shape
    found: dict[str, list[Floats]] = {name: [] for name in asked}
    for weights in _weights(rows, resamples(rows * classes)):
        for name, metric in asked.items():
            found[name].append(metric(weights))
    return {name: np.concatenate(parts, axis=-1) for name, parts in found.items()}


def _weights(rows: int, count: int) -> Iterator[Floats]:
    """How often each row is drawn, `(N, R)` for some resamples after others."""
    random = np.random.default_rng(SEED)
    at_once = max(COUNTS // rows, TOGETHER)
    for start in range(0, count, at_once):
        columns = min(at_once, count - start)
        drawn = random.integers(rows, size=(columns, rows)) * columns + np.arange(columns)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * columns).reshape(rows, columns).astype(np.float64)
