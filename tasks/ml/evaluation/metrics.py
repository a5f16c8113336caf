"""Test metrics from labels and probabilities: scikit-learn's where it has them."""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

CALIBRATION_BINS = 15
LONGEST = 100
"""Characters of a class in the name of a metric."""
"""As in Guo et al., On Calibration of Modern Neural Networks (2017)."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A ROC curve and the area under it."""

    false_positive_rate: Floats
    true_positive_rate: Floats
    auc: float


@dataclass(frozen=True, slots=True)
class Bins:
    """Rows gathered by confidence, the largest probability of a row, in bins of equal width on (0, 1]."""

    rows: NDArray[np.int64]
    """`(B,)` rows in each bin."""
    confidence: Floats
    """`(B,)` mean confidence; 0 where there are no rows."""
    accuracy: Floats
    """`(B,)` share of right rows; 0 where there are none."""


@dataclass(frozen=True, slots=True)
class Scores:
    """All that is computed on one split."""

    metrics: dict[str, float]
    """By metric name without the split: `accuracy`, `log_loss`, `precision/<class>`, ..."""
    confusion: NDArray[np.int64]
    """`(C, C)` counts: row the true class, column the predicted one."""
    roc: dict[str, Curve]
    """One against the rest for each class, and the `micro` average."""
    bins: Bins


def score(y: NDArray[np.int64], probabilities: Floats, classes: tuple[str, ...]) -> Scores:
    """Compute every metric.

    Args:
        y: `(N,)` class index; every class occurs.
        probabilities: `(N, C)`, rows summing to one.
        classes: the C names.
    """
    from sklearn import metrics

    # float64 rows sum to one more closely than scikit-learn's check asks for.
    p = probabilities.astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    label = p.argmax(axis=1)
    every = np.arange(len(classes))
    truth = y[:, None] == every
    precision, recall, _, _ = metrics.precision_recall_fscore_support(y, label, labels=every, zero_division=0.0)
    roc = {name: _roc(truth[:, index], p[:, index]) for index, name in enumerate(classes)}
    macro = float(np.mean([curve.auc for curve in roc.values()]))
    roc["micro"] = _roc(truth.ravel(), p.ravel())
    bins = by_confidence(y, p)
    return Scores(
        metrics={
            "accuracy": float(metrics.accuracy_score(y, label)),
            "log_loss": float(metrics.log_loss(y, p, labels=every)),
            "f1_macro": float(metrics.f1_score(y, label, labels=every, average="macro", zero_division=0.0)),
            "roc_auc_micro": roc["micro"].auc,
            "roc_auc_macro": macro,
            "brier": float(metrics.brier_score_loss(y, p, labels=every, scale_by_half=False)),
            "calibration_error": calibration_error(bins),
        }
        | {f"precision/{name}": float(value) for name, value in zip(named(classes), precision, strict=True)}
        | {f"recall/{name}": float(value) for name, value in zip(named(classes), recall, strict=True)},
        confusion=metrics.confusion_matrix(y, label, labels=every),
        roc=roc,
        bins=bins,
    )


def named(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Classes as the names of metrics may have them: letters, digits, blanks and `_ - . :`, which MLflow takes.

    It takes 250 characters, and no name that would be another as a path. Where others are replaced or cut and two
    classes become one name, each class that was changed bears its index.
    """
    plain = [re.sub(r"[^\w\-. :]|^\.+$", "_", name)[:LONGEST] for name in classes]
    shared, found = Counter(plain), list[str]()
    for index, (own, name) in enumerate(zip(classes, plain, strict=True)):
        unique = name if own == name or shared[name] == 1 else f"{name}_{index}"
        while unique in found:
            unique = f"{unique}_{index}"
        found.append(unique)
    return tuple(found)


def by_confidence(y: NDArray[np.int64], probabilities: Floats, bins: int = CALIBRATION_BINS) -> Bins:
    """Gather rows by confidence, for the reliability diagram and the calibration error.

    Args:
        y: `(N,)` class index.
        probabilities: `(N, C)`.
        bins: number of bins on (0, 1].
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == y
    place = bin_of(confidence, bins)
    rows = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=weights, minlength=bins) for weights in (confidence, right)]
    return Bins(rows, *(values / np.maximum(rows, 1) for values in sums))


def bin_of(confidence: Floats, bins: int = CALIBRATION_BINS) -> NDArray[np.int64]:
    """Each row's bin of equal width on (0, 1], `(N,)` from 0.

    Args:
        confidence: `(N,)`.
        bins: number of bins.
    """
    found: NDArray[np.int64] = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return found


def calibration_error(bins: Bins) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over the bins.

    `sum over bins of (rows in bin / N) * |accuracy - mean confidence|`: equation 3 of Guo et al. (2017).
    scikit-learn has only the curve behind it.
    """
    return float((bins.rows * np.abs(bins.accuracy - bins.confidence)).sum() / bins.rows.sum())


def _roc(truth: NDArray[np.bool_], scores: Floats) -> Curve:
    from sklearn import metrics

    false_positive_rate, true_positive_rate, _ = metrics.roc_curve(truth, scores)
    return Curve(false_positive_rate, true_positive_rate, float(metrics.auc(false_positive_rate, true_positive_rate)))
