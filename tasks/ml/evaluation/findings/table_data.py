"""What is wrong with a table of one's own, or may be: looked at before anything is trained on it."""

from collections.abc import Iterator
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import SPLITS, Column, Dataset, Finding
from hallmark.tasks.ml.config.data import Data, Table, ignoring
from hallmark.tasks.ml.data.dataset_store import Rows, columns_of, open_split, split_digests, unlabelled

GIVEN_AWAY = 0.99
"""A column gives the target away if it alone tells the class of so large a share of rows ..."""
BEYOND_PRIOR = 0.9
"""... and of those that the most frequent class does not, so large a share."""
LOOKED_AT = 20_000
"""Of more training rows, so many evenly spread ones tell as much."""
LEAVES = 8
"""A number tells a class if so many intervals for each class suffice."""
DISTINCT = 0.95
"""A column of text or whole numbers that differ in more than this share of the rows names the row ..."""
ENOUGH = 50
"""... where there are so many rows."""
RARE = 10
"""A class of fewer training rows is rare."""
IMBALANCE = 20.0
"""The most frequent class has so many times the training rows of the rarest."""
MANY = 1000
"""So many values of one column are thousands of categories."""
NAMED = 5


def examine(dataset: Dataset, data: Data) -> tuple[Finding, ...]:
    """Look at a table of one's own; nothing is said of any other dataset.

    Args:
        dataset: as it was prepared.
        data: where it came from.
    """
    if not isinstance(data, Table):
        return ()
    train, columns = open_split(dataset, "train"), columns_of(dataset)
    found = [*_by_column(columns, train, dataset, data), *_rows(dataset, data), *_classes(train, dataset)]
    return tuple(found)


def _by_column(columns: tuple[Column, ...], train: Rows, dataset: Dataset, data: Table) -> Iterator[Finding]:
    some = np.linspace(0, len(train.y) - 1, min(len(train.y), LOOKED_AT)).astype(np.int64)
    y = train.y[some]
    for index, column in enumerate(columns):
        x = train.x[some, index].astype(np.float64)
        for finding in (
            _constant(column, x),
            _identifier(column, x, sum(dataset.rows.values())),
            _gives_away(column, x, y, data.target),
            _mixed(column),
            _many(column, data),
        ):
            if finding:
                yield finding
                break  # what is said first explains what would be said next


def _constant(column: Column, x: NDArray[np.float64]) -> Finding | None:
    values = np.unique(x)  # all NaN count as one
    if len(values) > 1:
        return None
    said = "has no value" if np.isnan(values).all() else "has one value alone"
    return Finding(
        "constant_column",
        f"column '{column.name}' {said} in the training rows that were looked at: it tells nothing",
        ignoring(column.name),
    )


def _identifier(column: Column, x: NDArray[np.float64], rows: int) -> Finding | None:
    present = x[~np.isnan(x)]
    is_whole = column.kind == "categorical" or bool((present == np.floor(present)).all())
    distinct = len(np.unique(present))
    if not is_whole or len(x) < ENOUGH or distinct <= DISTINCT * len(x):
        return None
    found = (distinct, len(x)) if column.kind == "numeric" else (len(column.values), rows)
    return Finding(
        "identifier_column",
        f"column '{column.name}' has {found[0]:,} values in {found[1]:,} rows: it names the row, and says nothing of a "
        "new one",
        ignoring(column.name),
    )


def _gives_away(column: Column, x: NDArray[np.float64], y: NDArray[np.int64], target: str) -> Finding | None:
    """Learn the class from one column on every second row, and try it on the others."""
    if len(y) < ENOUGH:
        return None
    right = _by_value(x, y) if column.kind == "categorical" else _by_number(x, y)
    prior = float((y[1::2] == np.bincount(y[::2]).argmax()).mean())
    if right < GIVEN_AWAY or (right - prior) < BEYOND_PRIOR * (1 - prior):
        return None
    return Finding(
        "target_given_away",
        f"column '{column.name}' alone tells '{target}' of {right:.1%} of the rows: it may be the target in other "
        "words, or known only after it",
        f"if a new row will not have it: {ignoring(column.name)}",
    )


def _by_value(x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """The share of odd rows whose class is the most frequent that its value has in the even rows."""
    values, code = np.unique(x, return_inverse=True)
    counts = np.zeros((len(values), int(y.max()) + 1))
    np.add.at(counts, (code[::2], y[::2]), 1)
    counts += 1e-3 * np.bincount(y[::2], minlength=counts.shape[1])  # of a value that is new, the most frequent
    return float((counts.argmax(axis=1)[code[1::2]] == y[1::2]).mean())


def _by_number(x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """The same by a decision tree of few intervals."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES * (int(y.max()) + 1), random_state=0)
    return float(tree.fit(x[::2, None], y[::2]).score(x[1::2, None], y[1::2]))


def _mixed(column: Column) -> Finding | None:
    if not column.strange:
        return None
    if column.kind == "numeric":
        return Finding(
            "mixed_types",
            f"{column.strange:,} values of column '{column.name}' are no numbers, such as '{column.example}': they "
            "count as missing",
            "correct them in the file",
        )
    return Finding(
        "mixed_types",
        f"column '{column.name}' holds numbers, but for {column.strange:,} values such as '{column.example}': it is "
        "taken for categorical",
        f"correct them, or let them count as missing: --data.columns.{quote(column.name)} numeric",
    )


def _many(column: Column, data: Table) -> Finding | None:
    if len(column.values) < MANY:
        return None
    return Finding(
        "many_categories",
        f"column '{column.name}' has {len(column.values):,} values: the {data.categories} most frequent count, all "
        "others are unknown to the model",
        f"group them, or {ignoring(column.name)}, or more: --data.categories {2 * data.categories}",
    )


def _rows(dataset: Dataset, data: Table) -> Iterator[Finding]:
    if dropped := unlabelled(dataset):
        yield Finding(
            "missing_labels",
            f"{dropped:,} rows have no value in '{data.target}' and are left out",
            "label them, or make sure that nothing sets them apart from the others",
        )
    trained_on = split_digests(dataset, "train")
    shared = [(len(split_digests(dataset, split) & trained_on), split) for split in SPLITS[1:]]
    if data.split.method != "content" and any(count for count, _ in shared):
        said = " and ".join(f"{count:,} {split} rows" for count, split in shared if count)
        yield Finding(
            "duplicates_across_splits",
            f"{said} stand among the training rows too, column by column: the model is asked what it was told",
            "take the duplicates out, or keep them together: --data.split.method content",
        )


def _classes(train: Rows, dataset: Dataset) -> Iterator[Finding]:
    counts = np.bincount(train.y, minlength=len(dataset.classes))
    rare = [name for name, count in zip(dataset.classes, counts, strict=True) if count < RARE]
    if rare:
        more = f" and {len(rare) - NAMED} more" if len(rare) > NAMED else ""
        yield Finding(
            "rare_classes",
            f"fewer than {RARE} training rows have the class {', '.join(rare[:NAMED])}{more}: what is learnt of it is "
            "chance",
            "gather more rows, or give several rare classes one name",
        )
    if counts.max() >= IMBALANCE * counts.min():
        most, least = int(counts.argmax()), int(counts.argmin())
        name = dataset.classes[most]
        yield Finding(
            "imbalanced_classes",
            f"'{name}' has {counts[most]:,} training rows and '{dataset.classes[least]}' {counts[least]:,}: who always "
            f"says '{name}' has an accuracy of {counts[most] / counts.sum():.1%}",
            _weights(counts),
        )


def _weights(counts: NDArray[np.int64]) -> str:
    """How to let errors on rare classes cost more: by the inverse of their share, as scikit-learn's `balanced`."""
    remedy = "look at the recall of each class"
    if len(counts) > NAMED:
        return remedy
    factors = ",".join(f"{counts.sum() / len(counts) / max(int(count), 1):.3g}" for count in counts)
    return f"{remedy}; errors on rare ones cost more by --training.loss.weight {factors}"
