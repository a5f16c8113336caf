"""Coverage of the bootstrap intervals on simulated rows: too slow for a unit test."""

import pytest

from hallmark.tasks.ml.evaluation import metrics
from tests.unit.ml.evaluation.test_intervals import NAMES, SURE, population, predicted, resampled


@pytest.mark.parametrize("over", [SURE, 0.0])
def test_95_percent_of_the_intervals_contain_the_true_metric(over: float) -> None:
    truth, covered = population(over), dict.fromkeys(NAMES, 0)
    for seed in range(80):
        for name, found in resampled(*predicted(400, seed, over)).items():
            assert found is not None
            covered[name] += found.low <= truth[name] <= found.high
    # 95 % of 80 are 76, with a standard deviation of 1.9.
    for name in NAMES[:3]:
        assert 70 <= covered[name] <= 79
    assert covered["calibration_error"] >= 75


def test_a_million_rows_have_the_metrics_of_the_population() -> None:
    found = metrics.score(*predicted(1_000_000, 0), ("a", "b")).metrics
    assert [found[name] for name in NAMES] == pytest.approx([population()[name] for name in NAMES], abs=2e-3)
