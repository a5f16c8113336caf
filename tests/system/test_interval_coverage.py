"""Coverage of the bootstrap intervals on simulated rows: too slow for a unit test."""

import pytest

from hallmark.tasks.ml.evaluation import metrics
from tests.unit.ml.evaluation.test_intervals import NAMES, SURE, population, predicted, resampled


@pytest.mark.parametrize("over", [SURE, 0.0])
def test_95_percent_of_the_intervals_contain_the_true_metric(over: float) -> None:
    truth, covered = population(over), dict.fromkeys(NAMES, 0)
    for seed in range(150):
        for name, found in resampled(*predicted(400, seed, over)).items():
            assert found is not None
            covered[name] += found.low <= truth[name] <= found.high
    # 95 % of 150 are 142.5, with a standard deviation of 2.7.
    for name in NAMES[:3]:
        assert 134 <= covered[name] <= 149
    assert covered["calibration_error"] >= 142


def test_a_million_rows_have_the_metrics_of_the_population() -> None:
    found = metrics.score(*predicted(1_000_000, 0), ("a", "b")).metrics
    assert [found[name] for name in NAMES] == pytest.approx([population()[name] for name in NAMES], abs=2e-3)
