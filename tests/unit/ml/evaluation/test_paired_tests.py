import itertools
import math
from fractions import Fraction
from functools import cache
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binomtest

from hallmark.tasks.ml.evaluation import paired_tests
from hallmark.tasks.ml.evaluation.paired_tests import mcnemar, paired_interval, smallest_detectable

steadily = settings(derandomize=True)
alphas = st.floats(1e-4, 0.5)


@st.composite
def outcomes(draw: st.DrawFn, most: int = 60) -> tuple[int, int, int, int]:
    """Draw counts of wins, losses, rows on which both are right and rows on which neither is: at least one row."""
    counts = draw(st.tuples(*[st.integers(0, most)] * 4))
    return counts if any(counts) else (0, 0, 1, 0)


def score(difference: float, wins: int, losses: int, rows: int) -> float:
    """Compute Tango's score by its definition, with a numerical search for the maximum-likelihood shares."""

    def negative_log_likelihood(share: float) -> float:
        shares = (share + difference, share, 1 - 2 * share - difference)
        counts = (wins, losses, rows - wins - losses)
        return -sum(n * math.log(max(p, 1e-300)) for n, p in zip(counts, shares, strict=True) if n)

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    share = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    return float((wins - losses - rows * difference) / math.sqrt(rows * (2 * share + difference * (1 - difference))))


# The exact test.


@steadily
@given(wins=st.integers(0, 4000), losses=st.integers(0, 4000))
def test_p_equals_that_of_the_exact_binomial_test_of_scipy(wins: int, losses: int) -> None:
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(losses, wins) == mcnemar(wins, losses)


def test_p_is_the_share_of_outcomes_that_are_at_least_as_extreme() -> None:
    for n in range(1, 13):
        sums = [sum(signs) for signs in itertools.product((-1, 1), repeat=n)]
        for wins in range(n + 1):
            extreme = sum(abs(total) >= abs(2 * wins - n) for total in sums)
            assert Fraction(mcnemar(wins, n - wins)) == Fraction(extreme, 2**n)


def test_integer_and_floating_point_computation_give_the_same_p(monkeypatch: pytest.MonkeyPatch) -> None:
    n = paired_tests.WHOLE_NUMBERS
    cases = [(wins, n - wins) for wins in (0, 500, 900, 999, 1000)]
    whole = [mcnemar(*case) for case in cases]
    monkeypatch.setattr(paired_tests, "WHOLE_NUMBERS", 0)
    assert [mcnemar(*case) for case in cases] == pytest.approx(whole, rel=1e-9)


def test_a_million_disagreements_can_be_tested() -> None:
    assert mcnemar(501_000, 499_000) == pytest.approx(binomtest(501_000, 1_000_000).pvalue, rel=1e-6)
    assert 0 < smallest_detectable(1_000_000, 2_000_000, 0.05) < 0.001


def test_p_equals_a_published_value() -> None:
    # Cavo et al. (2012), in Fagerland, Lydersen and Laake, The McNemar test for binary matched-pairs data (2013).
    assert mcnemar(6, 16) == pytest.approx(0.052479, abs=5e-7)


# The interval.


@pytest.mark.parametrize(
    ("wins", "losses", "rows", "alpha", "low", "high", "digits"),
    [
        (9, 3, 32, 0.05, -0.027, 0.390, 3),  # Tango (1998), section 6.2
        (0, 1, 44, 0.10, -0.096, None, 3),  # Tango (1998), section 6.1
        (6, 16, 161, 0.05, -0.1240, -0.0054, 4),  # Cavo et al., in Fagerland, Lydersen and Laake (2014)
        (28, 25, 618, 0.10, -0.0148, 0.0247, 4),  # R, PropCIs::scoreci.mp(25, 28, 618, 0.9)
    ],
)
def test_intervals_equal_published_values(
    wins: int, losses: int, rows: int, alpha: float, low: float, high: float | None, digits: int
) -> None:
    found = paired_interval(wins, losses, rows, alpha)
    assert round(found[0], digits) == low
    assert high is None or round(found[1], digits) == high


@steadily
@given(counts=outcomes(), alpha=alphas)
def test_the_bounds_are_where_the_score_is_the_quantile(counts: tuple[int, int, int, int], alpha: float) -> None:
    wins, losses, rows = counts[0], counts[1], sum(counts)
    difference, z = (wins - losses) / rows, -NormalDist().inv_cdf(alpha / 2)
    low, high = paired_interval(wins, losses, rows, alpha)
    assert -1 <= low <= difference <= high <= 1
    if difference > -1:
        expected = brentq(lambda d: score(d, wins, losses, rows) - z, -1 + 1e-9, difference - 1e-9)
        assert low == pytest.approx(expected, abs=1e-5)


@steadily
@given(counts=outcomes(), alpha=alphas)
def test_the_interval_excludes_0_if_mcnemars_score_exceeds_the_quantile(
    counts: tuple[int, int, int, int], alpha: float
) -> None:
    wins, losses, rows = counts[0], counts[1], sum(counts)
    exceeds = abs(wins - losses) - math.sqrt(wins + losses) * -NormalDist().inv_cdf(alpha / 2)
    low, high = paired_interval(wins, losses, rows, alpha)
    if abs(exceeds) > 1e-9:
        assert (low > 0 or high < 0) == (exceeds > 0)


def test_the_interval_of_models_that_always_agree_shrinks_with_the_rows() -> None:
    z = NormalDist().inv_cdf(0.975)
    for rows in (1, 30, 10_000):
        low, high = paired_interval(0, 0, rows, 0.05)
        assert (low, high) == pytest.approx((-(z**2) / (rows + z**2), z**2 / (rows + z**2)))


def test_the_interval_reaches_1_if_exactly_one_model_is_always_right() -> None:
    assert paired_interval(0, 9, 9, 0.05)[0] == -1
    assert paired_interval(9, 0, 9, 0.05)[1] == 1


# The smallest detectable difference.


@cache
def binomial_p(wins: int, n: int) -> float:
    return float(binomtest(wins, n).pvalue)


@steadily
@given(counts=outcomes(30), alpha=alphas)
def test_the_smallest_detectable_difference_is_the_first_that_is_significant(
    counts: tuple[int, int, int, int], alpha: float
) -> None:
    disagreements, rows = counts[0] + counts[1], sum(counts)

    def significant(n: int) -> list[int]:
        return [2 * wins - n for wins in range(n + 1) if 2 * wins > n and binomial_p(wins, n) < alpha - 1e-12]

    detectable = significant(disagreements) if disagreements else []
    detectable = detectable or [d for n in range(1, rows + 1) for d in significant(n)]
    assert smallest_detectable(disagreements, rows, alpha) == (min(detectable) / rows if detectable else None)
