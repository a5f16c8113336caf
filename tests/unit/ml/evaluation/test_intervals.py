import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from hallmark.tasks.ml.evaluation import intervals, metrics
from hallmark.tasks.ml.evaluation.intervals import Interval


def by_hand(values: NDArray[np.float64], resamples: int) -> tuple[float, float]:
    """Compute the interval by its definition."""
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
def test_the_interval_agrees_with_a_plain_loop(draw: Callable[[np.random.Generator], NDArray[np.float64]]) -> None:
    values = draw(np.random.default_rng(3))
    low, high = by_hand(values, 4000)
    found = intervals.mean(values)
    assert found is not None
    assert found.method == "bootstrap"
    # Two sets of resamples give bounds that differ by about a fortieth of the interval.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert found.low < values.mean() < found.high


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(1).exponential(size=50)
    assert intervals.mean(values) == intervals.mean(values.copy())


def test_many_rows_have_the_interval_of_the_normal_distribution() -> None:
    right = np.arange(10_000) % 10 > 0
    found = intervals.share(right)
    half = 1.96 * math.sqrt(0.9 * 0.1 / 10_000)
    assert (found.low, found.high) == pytest.approx((0.9 - half, 0.9 + half), abs=3e-4)


@pytest.mark.parametrize("values", [[0.25], [0.5, 0.5, 0.5]])
def test_equal_values_have_no_interval(values: list[float]) -> None:
    assert intervals.mean(np.array(values)) is None


@pytest.mark.parametrize("rows", [1, 30, 10_000])
def test_the_interval_is_exact_if_all_rows_are_right_or_all_are_wrong(rows: int) -> None:
    # (alpha / 2) ** (1 / n), from the likelihood of n successes in n.
    bound = 0.025 ** (1 / rows)
    right, wrong = (intervals.share(np.full(rows, value)) for value in (True, False))
    assert right == Interval(pytest.approx(bound), 1.0, "exact")
    assert wrong == Interval(0.0, pytest.approx(1 - bound), "exact")


@pytest.mark.parametrize(("right", "rows"), [(3, 10), (29, 30), (980, 1000)])
def test_each_tail_beyond_the_exact_interval_has_a_probability_of_2_5_percent(right: int, rows: int) -> None:
    found = intervals.exact(right, rows)

    def tail(share: float, counts: range) -> float:
        return sum(math.comb(rows, count) * share**count * (1 - share) ** (rows - count) for count in counts)

    assert tail(found.low, range(right, rows + 1)) == pytest.approx(0.025, rel=1e-6)
    assert tail(found.high, range(right + 1)) == pytest.approx(0.025, rel=1e-6)


# Metrics that are not means.

NAMES = ("f1_macro", "roc_auc_micro", "roc_auc_macro", "calibration_error")
LEVELS = np.arange(0.5, 0.96, 0.05)
"""Confidence of the model on the population below, each level equally often."""
SURE = 0.05
"""Difference between its confidence and its accuracy."""


def resampled(y: NDArray[np.int64], p: NDArray[np.float64]) -> dict[str, Interval | None]:
    return metrics.resampled_intervals(metrics.Predictions(y, p))


def predicted(rows: int, seed: int, over: float = SURE) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw rows of a population whose metrics are known: two classes, and ten levels of confidence."""
    random = np.random.default_rng(seed)
    sure, label = random.choice(LEVELS, size=rows) + 0.01, random.integers(2, size=rows)
    y = np.where(random.random(rows) < sure - over, label, 1 - label)
    p = np.where(np.arange(2) == label[:, None], sure[:, None], 1 - sure[:, None])
    return y, p


def population(over: float = SURE) -> dict[str, float]:
    """Return the metrics of the population. By symmetry they are the same for both classes."""
    sure = np.r_[LEVELS + 0.01, 1 - LEVELS - 0.01]
    right = LEVELS + 0.01 - over
    positive = np.r_[right, 1 - right]
    negative = 1 - positive
    wins = (sure[:, None] > sure) + 0.5 * (sure[:, None] == sure)
    area = float(positive @ wins @ negative / (positive.sum() * negative.sum()))
    return {
        "f1_macro": float(right.mean()),
        "roc_auc_macro": area,
        "roc_auc_micro": area,
        "calibration_error": over,
    }


def test_the_same_rows_give_the_same_intervals() -> None:
    y, p = predicted(80, 1)
    found = resampled(y, p)
    assert found == resampled(y.copy(), p.copy())
    assert tuple(found) == NAMES
    assert all(interval and interval.low < interval.high for interval in found.values())


@pytest.mark.parametrize("at_once", [1, 7, 3000])
def test_intervals_do_not_depend_on_the_number_of_resamples_in_memory(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, p = predicted(50, 2)
    expected = resampled(y, p)
    monkeypatch.setattr(intervals, "WEIGHTS", 0)
    monkeypatch.setattr(intervals, "FEWEST_AT_ONCE", at_once)
    found = resampled(y, p)
    for name in NAMES:
        one, other = found[name], expected[name]
        assert one is not None
        assert other is not None
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-12)


def test_perfect_predictions_have_no_interval() -> None:
    y = np.arange(60) % 3
    assert resampled(y, np.eye(3)[y]) == dict.fromkeys(NAMES)


def test_intervals_are_defined_with_a_class_of_one_row() -> None:
    y, p = predicted(40, 3)
    y[:] = 0
    y[5] = 1
    found = resampled(y, p)
    for name in NAMES:
        interval = found[name]
        assert interval is not None
        assert np.isfinite([interval.low, interval.high]).all()


def test_too_few_resamples_with_all_classes_give_no_interval() -> None:
    # With one row in each of 30 classes, a resample has all classes with probability 30! / 30**30.
    y = np.arange(30)
    p = np.random.default_rng(0).dirichlet(np.ones(30), size=30)
    found = resampled(y, p)
    assert found["roc_auc_macro"] is None
    assert found["roc_auc_micro"] is not None


@pytest.mark.parametrize(
    ("size", "resamples"), [(90, 2000), (100_000, 2000), (200_000, 1000), (1_000_000, 200), (5_000_000, 200)]
)
def test_more_rows_and_classes_get_fewer_resamples(size: int, resamples: int) -> None:
    assert intervals.resamples(size) == resamples


def test_too_many_rows_have_no_interval() -> None:
    rows = intervals.LARGEST // 2 + 1
    found = resampled(np.zeros(rows, dtype=np.int64), np.broadcast_to(np.array([0.5, 0.5]), (rows, 2)))
    assert found == dict.fromkeys(NAMES)
