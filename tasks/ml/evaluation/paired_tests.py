"""What the rows tell on which exactly one of two models is right: p-value, interval, and the least they could show.

A *win* is a row on which only the challenger is right, a *loss* one on which only the champion is.
"""

import math
from bisect import bisect_right
from itertools import accumulate, count
from statistics import NormalDist

WHOLE_NUMBERS = 2000
"""Up to so many disagreements, p is computed in whole numbers: within a millisecond, and correct to the last bit."""
HALVINGS = 60
"""Of an interval no longer than 2: what is left is below the spacing of float64 near 1."""


def mcnemar(wins: int, losses: int) -> float:
    """The p-value of the exact two-sided McNemar test: 1 if there are no disagreements.

    `min(1, 2 * P(X <= min(wins, losses)))` with X of Binomial(wins + losses, 1/2), which is symmetric, so that doubling
    the tail and adding up all that is no likelier are the same.

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
    """Confidence interval of the difference of two accuracies on the same rows, at level `1 - alpha`.

    Tango's score interval: all differences d for which the score test does not reject "the true difference is d". It
    keeps its level where disagreements are few or one-sided, and stays within -1 and 1. It leaves out 0 if and only if
    McNemar's test without its exactness (`|wins - losses| > z * sqrt(wins + losses)`) rejects, so that it can leave out
    0 where the exact test, which is the stricter, is not significant.
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
    """The smallest difference in accuracy, as observed on these rows, that could have been significant.

    With so many disagreements, that is `(wins - losses) / rows` for the fewest wins among them with `p < alpha`. Where
    even wins alone would not reach that (fewer than six disagreements at alpha = 0.05), it is the smallest over any
    number of disagreements: the fewest that are significant if all are wins, divided by the rows. None if these are
    more than there are rows: then nothing that models say of these rows could be significant.

    It bounds what is observed. A true difference of this size is found significant about every second time.

    Args:
        disagreements: rows on which exactly one of the models is right.
        rows: all rows, at least one.
        alpha: significance level.
    """
    fewest = fewest_disagreements(alpha)
    if disagreements < fewest:
        return fewest / rows if fewest <= rows else None
    majorities = range(disagreements // 2 + 1, disagreements + 1)
    # p falls as the wins grow.
    first = bisect_right(majorities, -alpha, key=lambda wins: -mcnemar(wins, disagreements - wins))
    return (2 * majorities[first] - disagreements) / rows


def fewest_disagreements(alpha: float) -> int:
    """So many wins without a loss are significant."""
    return next(n for n in count(1) if mcnemar(n, 0) < alpha)


def _lower_bound(wins: int, losses: int, rows: int, z: float) -> float:
    """The difference below the observed one at which Tango's score is z. The score falls as the difference grows."""
    outside, inside = -1.0, (wins - losses) / rows
    for _ in range(HALVINGS):
        middle = (outside + inside) / 2
        if wins - losses - rows * middle > z * math.sqrt(_variance(wins, losses, rows, middle)):
            outside = middle
        else:
            inside = middle
    return outside


def _variance(wins: int, losses: int, rows: int, difference: float) -> float:
    """Variance of `wins - losses` if that is the true difference, from the likeliest share of losses under it."""
    a = 2 * rows
    b = (2 * rows - wins + losses) * difference - wins - losses
    c = -losses * difference * (1 - difference)
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return max(0.0, rows * ((root - b) / a + difference * (1 - difference)))
