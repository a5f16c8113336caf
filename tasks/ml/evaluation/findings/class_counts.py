"""Findings on how many training rows each class has, for tables and for images."""

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import Finding

RARE = 10
"""A class with fewer training rows is rare."""
IMBALANCE = 20.0
"""Classes are imbalanced if the most frequent has at least this many times the training rows of the rarest."""
NAMED = 5
"""Classes that a finding names."""


def rare(y: NDArray[np.int64], classes: tuple[str, ...]) -> Finding | None:
    """Return the finding that classes have few training rows, or None.

    Args:
        y: `(N,)` class index of the training rows.
        classes: class names.
    """
    counts = np.bincount(y, minlength=len(classes))
    names = [name for name, count in zip(classes, counts, strict=True) if count < RARE]
    if not names:
        return None
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return Finding(
        "rare_classes",
        f"fewer than {RARE} training rows each have the class {', '.join(names[:NAMED])}{more}: too few to learn from",
        "collect more rows, or merge rare classes",
    )


def imbalanced(y: NDArray[np.int64], classes: tuple[str, ...]) -> Finding | None:
    """Return the finding that the most frequent class is much more frequent than the rarest, or None."""
    counts = np.bincount(y, minlength=len(classes))
    if counts.max() < IMBALANCE * counts.min():
        return None
    most, least = int(counts.argmax()), int(counts.argmin())
    frequent, infrequent = classes[most], classes[least]
    return Finding(
        "imbalanced_classes",
        f"class '{frequent}' has {counts[most]:,} training rows and class '{infrequent}' has {counts[least]:,}: always "
        f"predicting '{frequent}' gives an accuracy of {counts[most] / counts.sum():.1%}",
        _balancing(counts),
    )


def _balancing(counts: NDArray[np.int64]) -> str:
    """Suggest weighting errors by the inverse share of a class, as scikit-learn's `balanced` does."""
    remedy = "check the recall of each class"
    if len(counts) > NAMED:
        return remedy
    factors = ",".join(f"{counts.sum() / len(counts) / max(int(count), 1):.3g}" for count in counts)
    return f"{remedy}; to make errors on rare classes cost more: --training.loss.weight {factors}"
