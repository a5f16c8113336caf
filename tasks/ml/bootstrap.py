"""How far a mean over test rows may be from that of all rows there could be: its 95 % interval."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 5000
"""Two seeds of so many put the bounds a fortieth of the interval apart, or less."""
AT_ONCE = 100
"""So many resamples are drawn together: 10,000 rows then take 8 MB."""
SEED = 0


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true mean may be."""

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
