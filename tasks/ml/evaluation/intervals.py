"""95 % confidence intervals of test metrics: bootstrap, and exact ones for shares."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.ml.evaluation.weighted_metrics import Floats, WeightedMetric

LEVEL = 0.95
RESAMPLES = 5000
"""Resamples of a mean. Between two seeds, the bounds differ by at most a fortieth of the interval."""
BATCH = 100
"""Resamples of a mean drawn at a time: 8 MB for 10,000 rows."""
SEED = 0
METRIC_RESAMPLES = 2000
"""Resamples of a metric that is not a mean. Between two seeds, bounds differ by at most 1/20 of the interval."""
FEWEST = 200
"""Minimum number of resamples to draw, and of resamples in which the metric is defined. With this few, the bounds of
two seeds differ by a seventh of the interval."""
WORK = 200_000_000
"""Rows times classes times resamples beyond which fewer resamples are drawn: 0.8 s for MNIST on one core."""
LARGEST = 5_000_000
"""Rows times classes beyond which metrics that are not means have no interval: computing it would take over 5 s."""
WEIGHTS = 500_000
"""Weights held in memory at a time: 4 MB."""
FEWEST_AT_ONCE = 8
"""Minimum number of resamples held at a time, for any number of rows: one by one they take longer."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float
    method: Literal["bootstrap", "exact"]


def mean(values: NDArray[np.floating]) -> Interval | None:
    """Return the bootstrap percentile interval of a mean.

    Rows are resampled with replacement. The same values give the same interval. It is an approximation, too short for
    a few dozen rows.
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; computed by `scipy.stats.bootstrap`.

    Args:
        values: `(N,)`, one for each row, N at least 1.

    Returns:
        None if all values are equal, because resampling then gives no spread.
    """
    from scipy.stats import bootstrap

    if (values == values[0]).all():
        return None
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=BATCH,
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(float(interval.low), float(interval.high), "bootstrap")


def share(correct: NDArray[np.floating] | NDArray[np.bool_]) -> Interval:
    """Return the interval of an accuracy: that of `mean`, or the exact one if all rows are right or all are wrong.

    Args:
        correct: `(N,)` booleans or 0 and 1, N at least 1.
    """
    if interval := mean(correct.astype(np.float64)):
        return interval
    return exact(int(correct.sum()), len(correct))


def exact(right: int, rows: int) -> Interval:
    """Return the Clopper-Pearson interval of a share. It is never too short, for any number of rows.

    Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial, Biometrika 26
    (1934); computed by `scipy.stats.binomtest`.

    Args:
        right: number of rows counted.
        rows: number of all rows, at least 1.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, rows).proportion_ci(LEVEL, method="exact")
    return Interval(float(interval.low), float(interval.high), "exact")


def resampled(shape: tuple[int, ...], metrics: dict[str, WeightedMetric]) -> dict[str, tuple[Floats, Floats]]:
    """Compute metrics on the rows and on resamples of them.

    Each resample draws N rows with replacement, the same rows for all metrics. There are 2,000 resamples; beyond
    100,000 rows times classes fewer, in inverse proportion, down to 200. The same rows give the same numbers.

    A class that a resample has neither drawn nor predicted counts as 0 in its F1, as in the metric. A resample that
    lacks a class has no area under that class's ROC curve: the mean of the areas is NaN.

    Args:
        shape: number of rows and of classes.
        metrics: by name.

    Returns:
        By name, the metric of the rows, its last axis of length 1, and that of the R resamples, its last axis of
        length R.
    """
    rows, classes = shape
    values: dict[str, list[Floats]] = {name: [] for name in metrics}
    for weights in _weights(rows, resamples(rows * classes)):
        for name, metric in metrics.items():
            values[name].append(metric(weights))
    every_row = np.ones((rows, 1))
    return {name: (metric(every_row), np.concatenate(values[name], axis=-1)) for name, metric in metrics.items()}


def percentiles(_: Floats, values: Floats) -> Interval | None:
    """Return the interval that leaves out 2.5 % of the resamples at each end.

    Args:
        values: `(R,)` metric of each resample; NaN where it is undefined.

    Returns:
        None if the interval would have no length, or fewer than 200 resamples have the metric. Intervals are
        approximations, too short for a few dozen rows or a class of a few rows.
    """
    defined = values[~np.isnan(values)]
    if len(defined) < FEWEST:
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), "bootstrap") if low < high else None


def calibration_error(gaps: Floats, resampled: Floats) -> Interval | None:
    """Return the interval of the calibration error, a sum of absolute values.

    Chance alone creates gaps, so the rows have a larger error than the population, and resamples a larger one still:
    near 0, where a good model is, the percentile interval misses the true error. By the triangle inequality, the error
    is off by at most the sum of the absolute deviations of the gaps, and resampling estimates those well. So the lower
    bound is the error minus the upper percentile of that sum, and at least 0. The upper bound is the percentile of the
    resampled errors, which is high rather than low. In simulations of well and badly calibrated models, the interval
    holds the true error in 95 % or more of cases with 200 rows or more, and in 90 % with 30 rows.

    Args:
        gaps: `(B, 1)` signed gap of each bin; see `hallmark.tasks.ml.evaluation.weighted_metrics.calibration_gaps`.
        resampled: `(B, R)` gaps of the resamples.

    Returns:
        None if all resamples are equal.
    """
    if (resampled == resampled[:, :1]).all():
        return None
    error, errors, deviations = (np.abs(each).sum(axis=0) for each in (gaps, resampled, resampled - gaps))
    top = (1 + LEVEL) / 2
    low = max(float(error[0] - np.quantile(deviations, top)), 0.0)
    return Interval(low, float(np.quantile(errors, top)), "bootstrap")


def resamples(size: int) -> int:
    """Return the number of resamples for a number of rows times classes."""
    return min(max(WORK // size, FEWEST), METRIC_RESAMPLES)


def _weights(rows: int, count: int) -> Iterator[Floats]:
    """Yield how often each row is drawn, `(N, R)` for a few resamples at a time."""
    random = np.random.default_rng(SEED)
    at_once = max(WEIGHTS // rows, FEWEST_AT_ONCE)
    for start in range(0, count, at_once):
        columns = min(at_once, count - start)
        drawn = random.integers(rows, size=(columns, rows)) * columns + np.arange(columns)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * columns).reshape(rows, columns).astype(np.float64)
