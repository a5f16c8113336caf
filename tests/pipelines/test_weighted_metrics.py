"""Weighted metrics against scikit-learn on rows that are repeated as often as their weight."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from hallmark.tasks.ml.evaluation import calibration, metrics, weighted_metrics

Rows = tuple[NDArray[np.int64], NDArray[np.float64]]
EXACT = {"rel": 0, "abs": 1e-12}
RESAMPLES = 100


def rows(count: int, classes: int, steps: int | None) -> Rows:
    """Return rows and informative predictions. Few steps make many ties, between and within rows."""
    random = np.random.default_rng(count + classes)
    y = np.r_[np.arange(classes), random.integers(classes, size=count - classes)]
    p = random.dirichlet(np.ones(classes), size=count) + 0.4 * np.eye(classes)[y]
    p = np.ceil(p * steps) if steps else p
    return y, p / p.sum(axis=1, keepdims=True)


def draws(count: int) -> list[NDArray[np.int64]]:
    random = np.random.default_rng(4)
    return [random.integers(count, size=count) for _ in range(RESAMPLES)]


def weights(drawn: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    return np.stack([np.bincount(each, minlength=len(each)) for each in drawn], axis=1).astype(np.float64)


def area(y: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    return float(roc_auc_score(y, scores)) if 0 < y.sum() < len(y) else np.nan


def f1_macro(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    every = np.arange(p.shape[1])
    return float(f1_score(y, p.argmax(axis=1), labels=every, average="macro", zero_division=0.0))


def roc_auc_macro(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    return float(np.mean([area(y == one, p[:, one]) for one in range(p.shape[1])]))


def roc_auc_micro(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    return area((y[:, None] == np.arange(p.shape[1])).ravel(), p.ravel())


def calibration_error(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    return calibration.calibration_error(calibration.by_confidence(y, p))


METRICS: dict[
    Callable[[NDArray[np.int64], NDArray[np.float64]], float], Callable[[Rows], weighted_metrics.WeightedMetric]
] = {
    f1_macro: lambda each: weighted_metrics.f1_macro(each[0], each[1].argmax(axis=1), each[1].shape[1]),
    roc_auc_macro: lambda each: weighted_metrics.roc_auc_macro(*each),
    roc_auc_micro: lambda each: weighted_metrics.roc_auc_micro(*each),
    calibration_error: lambda each: lambda drawn: np.abs(weighted_metrics.calibration_gaps(*each)(drawn)).sum(axis=0),
}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize("steps", [None, 3], ids=["few ties", "many ties"])
@pytest.mark.parametrize(("count", "classes"), [(12, 2), (60, 2), (20, 5), (90, 4)])
def test_weighted_metrics_equal_the_metrics_of_the_drawn_rows(
    metric: Callable[[NDArray[np.int64], NDArray[np.float64]], float], count: int, classes: int, steps: int | None
) -> None:
    y, p = rows(count, classes, steps)
    drawn = draws(count)
    expected = np.array([metric(y[each], p[each]) for each in drawn])
    found = METRICS[metric]((y, p))(weights(drawn))
    assert np.unique(expected[~np.isnan(expected)]).size > RESAMPLES / 10
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert found[~np.isnan(found)] == pytest.approx(expected[~np.isnan(expected)], **EXACT)
    if count == 20:  # five classes in twenty rows: some resamples lack one
        assert np.isnan(found).any() == (metric is roc_auc_macro)


def test_weights_of_one_give_the_recorded_metrics() -> None:
    y, p = rows(80, 3, 6)
    recorded = metrics.score(y, p, ("a", "b", "c")).metrics
    p /= p.sum(axis=1, keepdims=True)  # as `metrics.score` does: rounding breaks some ties
    for metric, weighted in METRICS.items():
        assert weighted((y, p))(np.ones((80, 1))) == pytest.approx(recorded[metric.__name__], **EXACT)


def test_a_class_that_is_neither_true_nor_predicted_counts_as_zero() -> None:
    y = np.array([0, 1, 2])
    right = weighted_metrics.f1_macro(y, y, 3)
    assert right(np.array([[1.0, 2], [1, 1], [1, 0]])).tolist() == pytest.approx([1, 2 / 3], **EXACT)


def test_a_class_without_rows_has_no_area() -> None:
    y, p = rows(30, 3, None)
    without = weighted_metrics.roc_auc_macro(np.where(y == 2, 1, y), p)
    assert np.isnan(without(np.ones((30, 2)))).all()
