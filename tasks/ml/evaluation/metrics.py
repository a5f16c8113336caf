"""Test metrics. Every metric is one entry of `METRICS`: evaluation, model card, comparison and intervals read it there.

Values come from scikit-learn where it has the metric.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.ml.evaluation import intervals, weighted_metrics
from hallmark.tasks.ml.evaluation.calibration import Bins, by_confidence, calibration_error
from hallmark.tasks.ml.evaluation.intervals import Interval
from hallmark.tasks.ml.evaluation.weighted_metrics import WeightedMetric

Floats = NDArray[np.floating]

LONGEST_CLASS = 100
"""Maximum length of a class name in the name of a metric, in characters."""


@dataclass(frozen=True, slots=True)
class RocCurve:
    """A ROC curve and the area under it."""

    false_positive_rate: Floats
    true_positive_rate: Floats
    auc: float


class Predictions:
    """Predictions for the rows of one split, with what several metrics share."""

    def __init__(self, y: NDArray[np.int64], probabilities: Floats, label: NDArray[np.int64] | None = None) -> None:
        """Normalise the probabilities.

        Args:
            y: `(N,)` true class index.
            probabilities: `(N, C)`, rows that sum to one up to float32 rounding.
            label: `(N,)` predicted class index; the class with the largest probability by default.
        """
        # Rows of float64 sum to one more closely than scikit-learn's check requires.
        p = probabilities.astype(np.float64)
        p /= p.sum(axis=1, keepdims=True)
        self.y, self.p = y, p
        self.label: NDArray[np.int64] = p.argmax(axis=1) if label is None else label
        self.classes = np.arange(p.shape[1])

    @property
    def correct(self) -> NDArray[np.bool_]:
        """`(N,)` whether the predicted class is the true one."""
        correct: NDArray[np.bool_] = self.label == self.y
        return correct

    @cached_property
    def roc(self) -> list[RocCurve]:
        """The ROC curve of each class against the rest."""
        return [_roc(self.y == each, self.p[:, each]) for each in self.classes]

    @cached_property
    def roc_micro(self) -> RocCurve:
        """The ROC curve of all classes together: each row counts once for each class."""
        return _roc((self.y[:, None] == self.classes).ravel(), self.p.ravel())

    @cached_property
    def bins(self) -> Bins:
        """The rows, grouped by confidence."""
        return by_confidence(self.y, self.p)


@dataclass(frozen=True, slots=True)
class OfRows:
    """The interval of a metric that is a mean over rows."""

    values: Callable[[Predictions], Floats]
    """`(N,)`: one value for each row."""
    interval: Callable[[Floats], Interval | None] = intervals.mean


@dataclass(frozen=True, slots=True)
class OfResamples:
    """The interval of a metric that is not a mean over rows: the metric is computed on resampled rows."""

    weighted: Callable[[Predictions], WeightedMetric]
    interval: Callable[[weighted_metrics.Floats, weighted_metrics.Floats], Interval | None] = intervals.percentiles
    """From the metric of the rows, `(1,)`, and of the resamples, `(R,)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of the test split, recorded in MLflow as `test/<name>`."""

    name: str
    meaning: str
    """One sentence for the model card. `{even}` stands for the log-loss of equal probabilities, `log(C)`."""
    higher_is_better: bool
    value: Callable[[Predictions], float] | None
    """None if the metric is not computed from labels and probabilities: the evaluator adds it."""
    interval: OfRows | OfResamples | None = None
    """The model card shows it for both kinds; a comparison of runs for means over rows, which take no time."""


def _accuracy(predictions: Predictions) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(predictions.y, predictions.label))


def _log_loss(predictions: Predictions) -> float:
    from sklearn.metrics import log_loss

    return float(log_loss(predictions.y, predictions.p, labels=predictions.classes))


def _f1_macro(predictions: Predictions) -> float:
    from sklearn.metrics import f1_score

    f1 = f1_score(predictions.y, predictions.label, labels=predictions.classes, average="macro", zero_division=0.0)
    return float(f1)


def _brier(predictions: Predictions) -> float:
    from sklearn.metrics import brier_score_loss

    return float(brier_score_loss(predictions.y, predictions.p, labels=predictions.classes, scale_by_half=False))


def row_log_losses(predictions: Predictions) -> Floats:
    """Return the log-loss of each row, `(N,)`; its mean is the metric `log_loss`."""
    p = predictions.p[np.arange(len(predictions.y)), predictions.y]
    losses: Floats = -np.log(np.clip(p, np.finfo(np.float64).eps, 1))
    return losses


def _row_brier(predictions: Predictions) -> Floats:
    squares: Floats = ((predictions.p - np.eye(len(predictions.classes))[predictions.y]) ** 2).sum(axis=1)
    return squares


METRICS = (
    Metric(
        name="accuracy",
        meaning="share of rows that are predicted correctly",
        higher_is_better=True,
        value=_accuracy,
        interval=OfRows(lambda each: each.correct.astype(np.float64), intervals.share),
    ),
    Metric(
        name="log_loss",
        meaning="log-loss of the probabilities: 0 is best, {even:.4f} is what equal probabilities give",
        higher_is_better=False,
        value=_log_loss,
        interval=OfRows(row_log_losses),
    ),
    Metric(
        name="loss",
        meaning="mean of the training loss",
        higher_is_better=False,
        value=None,
    ),
    Metric(
        name="f1_macro",
        meaning="mean over classes of the harmonic mean of precision and recall",
        higher_is_better=True,
        value=_f1_macro,
        interval=OfResamples(lambda each: weighted_metrics.f1_macro(each.y, each.label, len(each.classes))),
    ),
    Metric(
        name="roc_auc_micro",
        meaning="area under the ROC curve of all classes together",
        higher_is_better=True,
        value=lambda each: each.roc_micro.auc,
        interval=OfResamples(lambda each: weighted_metrics.roc_auc_micro(each.y, each.p)),
    ),
    Metric(
        name="roc_auc_macro",
        meaning="mean over classes of the area under the ROC curve",
        higher_is_better=True,
        value=lambda each: float(np.mean([curve.auc for curve in each.roc])),
        interval=OfResamples(lambda each: weighted_metrics.roc_auc_macro(each.y, each.p)),
    ),
    Metric(
        name="brier",
        meaning="squared error of the probabilities: 0 is best, 2 is worst",
        higher_is_better=False,
        value=_brier,
        interval=OfRows(_row_brier),
    ),
    Metric(
        name="calibration_error",
        meaning="mean gap between confidence and accuracy",
        higher_is_better=False,
        value=lambda each: calibration_error(each.bins),
        interval=OfResamples(
            lambda each: weighted_metrics.calibration_gaps(each.y, each.p), intervals.calibration_error
        ),
    ),
)
"""All metrics. The model card and comparisons list the metrics in this order. The certificate does too, except that
`loss` comes first."""


@dataclass(frozen=True, slots=True)
class Scores:
    """All numbers that are computed on one split."""

    metrics: dict[str, float]
    """By metric name without the split: `accuracy`, `log_loss`, `precision/<class>`, ..."""
    confusion: NDArray[np.int64]
    """`(C, C)` counts: rows are true classes, columns are predicted classes."""
    roc: dict[str, RocCurve]
    """One against the rest for each class, and the `micro` average."""
    bins: Bins


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Counts and scores of each class, all `(C,)`."""

    rows: NDArray[np.int64]
    """Number of rows of the class."""
    predicted: NDArray[np.int64]
    """Number of rows for which the class is predicted."""
    correct: NDArray[np.int64]
    """Number of rows of the class for which it is predicted."""

    @property
    def precision(self) -> Floats:
        """Share of the predictions that are correct; 0 for a class that is never predicted."""
        return self.correct / np.maximum(self.predicted, 1)

    @property
    def recall(self) -> Floats:
        """Share of the rows that are predicted correctly; 0 for a class without rows."""
        return self.correct / np.maximum(self.rows, 1)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall; 0 if both are 0."""
        f1: Floats = 2 * self.correct / np.maximum(self.predicted + self.rows, 1)
        return f1


def class_scores(confusion: NDArray[np.int64]) -> ClassScores:
    """Return counts and scores of each class.

    Args:
        confusion: `(C, C)` counts by true class (row) and predicted class (column).
    """
    return ClassScores(confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal())


def score(y: NDArray[np.int64], probabilities: Floats, classes: tuple[str, ...]) -> Scores:
    """Compute every metric.

    Args:
        y: `(N,)` class index; every class occurs.
        probabilities: `(N, C)`, rows that sum to one.
        classes: the C names.
    """
    from sklearn.metrics import confusion_matrix

    predictions = Predictions(y, probabilities)
    confusion = confusion_matrix(y, predictions.label, labels=predictions.classes)
    by_class, names = class_scores(confusion), metric_names(classes)
    return Scores(
        metrics={metric.name: metric.value(predictions) for metric in METRICS if metric.value}
        | {f"precision/{name}": float(value) for name, value in zip(names, by_class.precision, strict=True)}
        | {f"recall/{name}": float(value) for name, value in zip(names, by_class.recall, strict=True)},
        confusion=confusion,
        roc=dict(zip(classes, predictions.roc, strict=True)) | {"micro": predictions.roc_micro},
        bins=predictions.bins,
    )


def confidence_intervals(predictions: Predictions) -> dict[str, Interval | None]:
    """Return the 95 % interval of every metric that can have one, by name; None where the rows give none."""
    of_rows = {
        metric.name: metric.interval.interval(metric.interval.values(predictions))
        for metric in METRICS
        if isinstance(metric.interval, OfRows)
    }
    return of_rows | resampled_intervals(predictions)


def resampled_intervals(predictions: Predictions) -> dict[str, Interval | None]:
    """Return the intervals of those metrics that are not means over rows, by name.

    All metrics are computed on the same resamples; see `hallmark.tasks.ml.evaluation.intervals.resampled`. An interval
    is None if it would have no length, if fewer than 200 resamples have the metric, and for more than 5,000,000 rows
    times classes.
    """
    kinds = {metric.name: metric.interval for metric in METRICS if isinstance(metric.interval, OfResamples)}
    if predictions.p.size > intervals.LARGEST:
        return dict.fromkeys(kinds)
    values = intervals.resampled(
        predictions.p.shape, {name: kind.weighted(predictions) for name, kind in kinds.items()}
    )
    return {name: kind.interval(*values[name]) for name, kind in kinds.items()}


def metric_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes in a form that MLflow accepts in metric names: letters, digits, blanks and `_ - . :`.

    MLflow allows 250 characters, and no name that would differ as a path. Other characters are replaced and long names
    are cut. If two classes become equal that way, each changed one gets its index appended.
    """
    plain = [re.sub(r"[^\w\-. :]|^\.+$", "_", name)[:LONGEST_CLASS] for name in classes]
    counts, names = Counter(plain), list[str]()
    for index, (original, name) in enumerate(zip(classes, plain, strict=True)):
        unique = name if original == name or counts[name] == 1 else f"{name}_{index}"
        while unique in names:
            unique = f"{unique}_{index}"
        names.append(unique)
    return tuple(names)


def _roc(truth: NDArray[np.bool_], scores: Floats) -> RocCurve:
    from sklearn.metrics import auc, roc_curve

    false_positive_rate, true_positive_rate, _ = roc_curve(truth, scores)
    return RocCurve(false_positive_rate, true_positive_rate, float(auc(false_positive_rate, true_positive_rate)))
