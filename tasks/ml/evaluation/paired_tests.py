"""Paired tests of two models on the same rows: p-value, interval, and the smallest detectable difference.

A *win* is a row on which only the challenger is right, a *loss* one on which only the champion is.
"""

import math
from bisect import bisect_right
from itertools import accumulate, count
from statistics import NormalDist

WHOLE_NUMBERS = 2000
"""Up to this number of disagreements, p is computed in whole numbers: in under a millisecond, exact to the last bit.

`scipy.stats.binomtest` differs in the last bits, takes 100 times as long, and is slow to import."""
HALVINGS = 60
"""Bisections of an interval of length 2: the rest is below the spacing of float64 near 1."""


def mcnemar(wins: int, losses: int) -> float:
    """Return the p-value of the exact two-sided McNemar test; 1 if there are no disagreements.

    `min(1, 2 * P(X <= min(wins, losses)))` with X of Binomial(wins + losses, 1/2), which is symmetric, so doubling the
    tail equals the sum over all outcomes that are no more likely.

    Args:
        wins: rows on which only the challenger is right.
        losses: rows on which only the champion is right.
    """
    if wins == losses:
        return 1.0
    n, least = wins + losses, min(wins, losses)
    if n <= WHOLE_NUMBERS:
        # The binomial coefficients of n from 0 to `least`, each from the one before.
        tail = sum(accumulate(range(least), lambda term, k: term * (n - k) // (k + 1), initial=1))
        return tail / (1 << (n - 1))
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(least, n, 0.5)))


def paired_interval(wins: int, losses: int, rows: int, alpha: float) -> tuple[float, float]:
    """Return the confidence interval of the difference of two accuracies on the same rows, at level `1 - alpha`.

    Tango's score interval: all differences d for which the score test does not reject "the true difference is d". It
    keeps its level where disagreements are few or one-sided, and stays within -1 and 1. It leaves out 0 if and only if
    the asymptotic McNemar test (`|wins - losses| > z * sqrt(wins + losses)`) rejects. So it can leave out 0
    although the exact test, which is stricter, is not significant.
    Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample design,
    Statistics in Medicine 17 (1998), equations 24 to 26; recommended by Fagerland, Lydersen and Laake, Recommended
    tests and confidence intervals for paired binomial proportions, Statistics in Medicine 33 (2014).

    Args:
        wins: rows on which only the challenger is right.
        losses: rows on which only the champion is right.
        rows: all rows, at least one.
        alpha: chance that the interval misses the true difference, half of it on each side.
    """
    z = -NormalDist().inv_cdf(alpha / 2)
    return _lower_bound(wins, losses, rows, z), -_lower_bound(losses, wins, rows, z)


def smallest_detectable(disagreements: int, rows: int, alpha: float) -> float | None:
    """Return the smallest observed difference in accuracy that could have been significant on these rows.

    This is about observed differences. A true difference of this size is found significant about every second time.

    Args:
        disagreements: rows on which exactly one of the models is right.
        rows: all rows, at least one.
        alpha: significance level.

    Returns:
        `(wins - losses) / rows` for this number of disagreements and the fewest wins with `p < alpha`. If even wins
        alone are not significant (fewer than six disagreements at alpha = 0.05), the fewest significant disagreements
        divided by `rows`, or None if there are fewer rows than that.
    """
    fewest = fewest_disagreements(alpha)
    if disagreements < fewest:
        return fewest / rows if fewest <= rows else None
    majorities = range(disagreements // 2 + 1, disagreements + 1)
    # p falls as the wins grow.
    first = bisect_right(majorities, -alpha, key=lambda wins: -mcnemar(wins, disagreements - wins))
    return (2 * majorities[first] - disagreements) / rows


def fewest_disagreements(alpha: float) -> int:
    """Return the fewest wins that are significant without a loss."""
    return next(n for n in count(1) if mcnemar(n, 0) < alpha)


def _lower_bound(wins: int, losses: int, rows: int, z: float) -> float:
    """Return the difference below the observed one at which Tango's score is z. The score falls with the difference."""
    outside, inside = -1.0, (wins - losses) / rows
    for _ in range(HALVINGS):
        middle = (outside + inside) / 2
        if wins - losses - rows * middle > z * math.sqrt(_variance(wins, losses, rows, middle)):
            outside = middle
        else:
            inside = middle
    return outside


def _variance(wins: int, losses: int, rows: int, difference: float) -> float:
    """Return the variance of `wins - losses` for a true difference, from the likeliest share of losses."""
    a = 2 * rows
    b = (2 * rows - wins + losses) * difference - wins - losses
    c = -losses * difference * (1 - difference)
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return max(0.0, rows * ((root - b) / a + difference * (1 - difference)))
