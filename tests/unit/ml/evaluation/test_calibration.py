import numpy as np
import pytest

from hallmark.tasks.ml.evaluation.calibration import by_confidence, calibration_error


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy() -> None:
    generator = np.random.default_rng(0)
    y, p = generator.integers(0, 3, 200), generator.dirichlet(np.ones(3), size=200)
    confidence, is_right = p.max(axis=1), p.argmax(axis=1) == y
    expected = 0.0
    for index in range(15):
        chosen = (confidence > index / 15) & (confidence <= (index + 1) / 15)
        if chosen.any():
            expected += chosen.sum() / 200 * abs(is_right[chosen].mean() - confidence[chosen].mean())
    assert calibration_error(by_confidence(y, p)) == pytest.approx(expected, rel=1e-5)


def test_calibration_error_is_0_if_always_right_and_1_if_never() -> None:
    certain = np.eye(2)[[0, 1, 0, 1]]
    assert calibration_error(by_confidence(np.array([0, 1, 0, 1]), certain)) == 0.0
    assert calibration_error(by_confidence(np.array([1, 0, 1, 0]), certain)) == 1.0
