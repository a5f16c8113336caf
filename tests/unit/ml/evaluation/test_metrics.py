import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from hallmark.tasks.ml.evaluation import calibration, metrics
from hallmark.tasks.ml.evaluation.intervals import Interval

CLASSES = ("a", "b", "c")


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 200)
    scores = generator.normal(size=(200, 3)) + 1.5 * np.eye(3)[y]
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return y, p.astype(np.float32)


def area(truth: np.ndarray, scores: np.ndarray) -> float:
    """Compute the area under the ROC curve as the probability that a positive scores above a negative."""
    positive, negative = scores[truth][:, None], scores[~truth][None]
    return float(np.mean((positive > negative) + 0.5 * (positive == negative)))


def test_every_metric_equals_its_formula(case: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = case
    label, truth = p.argmax(axis=1), np.eye(3)[y] == 1
    scores = metrics.score(y, p, CLASSES)
    confusion = np.zeros((3, 3), dtype=int)
    for true, predicted in zip(y, label, strict=True):
        confusion[true, predicted] += 1
    np.testing.assert_array_equal(scores.confusion, confusion)
    right = np.diag(confusion)
    precision, recall = right / confusion.sum(axis=0), right / confusion.sum(axis=1)
    expected = {
        "accuracy": np.mean(label == y),
        "log_loss": -np.mean(np.log(p[np.arange(200), y])),
        "f1_macro": np.mean(2 * precision * recall / (precision + recall)),
        "brier": np.mean(np.sum((p - truth) ** 2, axis=1)),
        "roc_auc_micro": area(truth.ravel(), p.ravel()),
        "roc_auc_macro": np.mean([area(truth[:, index], p[:, index]) for index in range(3)]),
        **{f"precision/{name}": value for name, value in zip(CLASSES, precision, strict=True)},
        **{f"recall/{name}": value for name, value in zip(CLASSES, recall, strict=True)},
    }
    error = scores.metrics.pop("calibration_error")
    assert error == pytest.approx(calibration.calibration_error(calibration.by_confidence(y, p)))
    assert scores.metrics == pytest.approx(expected, rel=1e-5)
    assert set(scores.roc) == {*CLASSES, "micro"}


def test_scores_of_single_classes_equal_those_of_scikit_learn_to_the_last_bit() -> None:
    generator = np.random.default_rng(0)
    every = np.arange(7)
    for rows in range(1, 60):
        y, label = generator.integers(0, 7, rows), generator.integers(0, 6, rows)  # class 6 is never predicted
        found = metrics.class_scores(confusion_matrix(y, label, labels=every))
        precision, recall, f1, _ = precision_recall_fscore_support(y, label, labels=every, zero_division=0.0)
        np.testing.assert_array_equal([found.precision, found.recall, found.f1], [precision, recall, f1])


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    y = np.array([0, 1, 2, 2])
    p = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.6, 0.4, 0.0], [0.4, 0.6, 0.0]], dtype=np.float32)
    scores = metrics.score(y, p, CLASSES)
    assert (scores.metrics["precision/c"], scores.metrics["recall/c"]) == (0.0, 0.0)
    assert np.isfinite(scores.metrics["log_loss"])


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (("setosa", "versicolor"), ("setosa", "versicolor")),
        ((">50K", "<=50K"), ("_50K", "__50K")),
        (("a<", "a>", "a"), ("a__0", "a__1", "a")),
        (("a_", "a<"), ("a_", "a__1")),
        (("a<", "a__0", "a_"), ("a__0", "a__0_1", "a_")),
        (("a/b", "../x", ".", ".."), ("a_b", ".._x", "__2", "__3")),
        (("日本", "São Paulo", "a\nb"), ("日本", "São Paulo", "a_b")),
        (("x" * 300, "x" * 301), ("x" * 100 + "_0", "x" * 100 + "_1")),
    ],
)
def test_classes_of_any_text_have_distinct_names_that_mlflow_accepts(
    classes: tuple[str, ...], names: tuple[str, ...]
) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert metrics.metric_names(classes) == names
    assert len(set(names)) == len(names)
    for name in names:
        _validate_metric_name(f"test/precision/{name}")


def test_classes_that_would_share_a_name_keep_their_own_metrics() -> None:
    probabilities = np.eye(3)[[0, 1, 2, 0]] * 0.8 + 0.1
    found = metrics.score(
        np.array([0, 1, 2, 2]), probabilities / probabilities.sum(1, keepdims=True), ("a<", "a>", "b")
    )
    assert [name for name in found.metrics if name.startswith("recall/")] == ["recall/a__0", "recall/a__1", "recall/b"]
    assert found.metrics["precision/a__0"] == 0.5


def test_the_table_says_which_direction_is_better() -> None:
    y = np.arange(60) % 3
    noise = np.random.default_rng(0).dirichlet(np.ones(3), size=60)
    better, worse = (metrics.Predictions(y, weight * np.eye(3)[y] + (1 - weight) * noise) for weight in (0.9, 0.1))
    for metric in metrics.METRICS:
        if metric.value:
            assert (metric.value(better) > metric.value(worse)) == metric.higher_is_better, metric.name


def test_the_order_of_the_metrics_is_kept() -> None:
    # The certificate lists them in this order, so another order changes the bytes of a shipped file.
    expected = ["accuracy", "log_loss", "f1_macro", "roc_auc_micro", "roc_auc_macro", "brier", "calibration_error"]
    found = metrics.score(np.arange(4) % 2, np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]]), ("a", "b"))
    assert [*found.metrics] == [*expected, "precision/a", "precision/b", "recall/a", "recall/b"]


def test_an_interval_contains_its_metric(case: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = case
    values = metrics.score(y, p, CLASSES).metrics
    found = metrics.confidence_intervals(metrics.Predictions(y, p))
    assert found.keys() == {metric.name for metric in metrics.METRICS if metric.interval}
    for name, interval in found.items():
        assert isinstance(interval, Interval)
        assert interval.low < values[name] < interval.high
