import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.ml import bootstrap
from tasks.ml.bootstrap import Interval


def by_hand(values: NDArray[np.float64], resamples: int) -> tuple[float, float]:
    """What it is by its definition."""
    random = np.random.default_rng(7)
    means = []
    for _ in range(resamples):
        drawn = [values[random.integers(len(values))] for _ in values]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]


@pytest.mark.parametrize(
    "draw",
    [
        lambda random: random.exponential(size=40),
        lambda random: (random.random(60) < 0.9).astype(float),
        lambda random: random.normal(size=25),
    ],
)
def test_the_interval_is_that_of_a_loop(draw: Callable[[np.random.Generator], NDArray[np.float64]]) -> None:
    values = draw(np.random.default_rng(3))
    low, high = by_hand(values, 4000)
    found = bootstrap.mean(values)
    assert found is not None
    assert found.method == "bootstrap"
    # Two sets of resamples give bounds that differ by about a fortieth of the interval.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert found.low < values.mean() < found.high


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(1).exponential(size=50)
    assert bootstrap.mean(values) == bootstrap.mean(values.copy())


def test_many_rows_have_the_interval_of_the_normal_distribution() -> None:
    right = np.arange(10_000) % 10 > 0
    found = bootstrap.share(right)
    half = 1.96 * math.sqrt(0.9 * 0.1 / 10_000)
    assert (found.low, found.high) == pytest.approx((0.9 - half, 0.9 + half), abs=3e-4)


@pytest.mark.parametrize("values", [[0.25], [0.5, 0.5, 0.5]])
def test_what_does_not_vary_has_no_interval(values: list[float]) -> None:
    assert bootstrap.mean(np.array(values)) is None


@pytest.mark.parametrize("rows", [1, 30, 10_000])
def test_where_all_rows_are_alike_the_interval_is_exact(rows: int) -> None:
    # (alpha / 2) ** (1 / n), from the likelihood of n successes in n.
    bound = 0.025 ** (1 / rows)
    right, wrong = (bootstrap.share(np.full(rows, value)) for value in (True, False))
    assert right == Interval(pytest.approx(bound), 1.0, "exact")
    assert wrong == Interval(0.0, pytest.approx(1 - bound), "exact")


@pytest.mark.parametrize(("right", "rows"), [(3, 10), (29, 30), (980, 1000)])
def test_at_the_bounds_of_the_exact_interval_a_fortieth_lies_beyond(right: int, rows: int) -> None:
    found = bootstrap.exact(right, rows)

    def tail(share: float, counts: range) -> float:
        return sum(math.comb(rows, count) * share**count * (1 - share) ** (rows - count) for count in counts)

    assert tail(found.low, range(right, rows + 1)) == pytest.approx(0.025, rel=1e-6)
    assert tail(found.high, range(right + 1)) == pytest.approx(0.025, rel=1e-6)
