"""Findings on a user's table, before anything is trained on it.

To add a finding, write a function that returns it or None, and list the function in `COLUMN_CHECKS` or `CHECKS`.
"""

from collections.abc import Callable
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import SPLITS, Column, Dataset, Finding
from hallmark.tasks.ml.config.data import Data, Table, ignoring
from hallmark.tasks.ml.data.dataset_store import columns_of, open_split, split_digests, unlabelled, unlabelled_as
from hallmark.tasks.ml.evaluation.findings import class_counts, spellings
from hallmark.tasks.ml.evaluation.findings.examined import ExaminedColumn, ExaminedTable

LEAK = 0.99
"""A column leaks the target if it alone predicts the class of this share of rows ..."""
LEAK_BEYOND_PRIOR = 0.9
"""... and of this share of the rows that the most frequent class gets wrong."""
LOOKED_AT = 20_000
"""Evenly spread training rows that are examined."""
LEAVES = 8
"""Maximum number of leaves, per class, of the decision tree fitted on one numeric column."""
DISTINCT = 0.95
"""A column of text or whole numbers identifies rows if it has different values in more than this share of them ..."""
ENOUGH_ROWS = 50
"""... and at least this many rows are examined."""
CONSECUTIVE = 2.0
"""... and, if they are numbers, their range is less than this many times the number of rows."""
FEW = 10
"""A text column with at most this many values ..."""
STRAY = 0.2
"""... more than this share of which are not numbers, is a scale and no column of numbers with errors."""
MANY = 1000
"""Values from which a column has many categories."""


def find(dataset: Dataset, data: Data) -> tuple[Finding, ...]:
    """Return what is wrong with a user's table; empty for any other dataset.

    Args:
        dataset: the prepared splits.
        data: the data part of the experiment.
    """
    if not isinstance(data, Table):
        return ()
    train = open_split(dataset, "train")
    table = ExaminedTable(dataset, data, train.y)
    some = np.linspace(0, len(train.y) - 1, min(len(train.y), LOOKED_AT)).astype(np.int64)
    columns = []
    for index, column in enumerate(columns_of(dataset)):
        examined = ExaminedColumn(column, train.x[some, index].astype(np.float64), train.y[some], table)
        columns.append(examined)
    # What costs most comes first: a leak in the last column before a constant in the first.
    findings = [check(examined) for check in COLUMN_CHECKS for examined in columns]
    findings += [check(table) for check in CHECKS]
    return tuple(finding for finding in findings if finding)


def _constant_column(examined: ExaminedColumn) -> Finding | None:
    if len(np.unique(examined.x)) > 1 or examined.column.distinct > 1:  # all NaN count as one value
        return None
    if np.isnan(examined.x).all() and examined.column.strange:
        return None  # its values are not numbers: mixed_types
    values = "no value" if np.isnan(examined.x).all() else "only one value"
    return Finding(
        "constant_column",
        f"column '{examined.column.name}' has {values} in the {len(examined.x):,} training rows examined, so it cannot "
        "help to predict",
        ignoring(examined.column.name),
    )


def _identifier_column(examined: ExaminedColumn) -> Finding | None:
    column, x = examined.column, examined.x
    present = x[~np.isnan(x)]
    distinct, rows, all_rows = len(np.unique(present)), len(x), sum(examined.table.dataset.rows.values())
    if column.distinct:  # different values that the model cannot tell apart
        distinct, rows = column.distinct, all_rows
    if rows < ENOUGH_ROWS or distinct <= DISTINCT * rows or not _may_identify(column, present, all_rows):
        return None
    if column.kind == "categorical":  # the values of all rows are known
        distinct, rows = len(column.values), all_rows
    return Finding(
        "identifier_column",
        f"column '{column.name}' has {distinct:,} values in {rows:,} rows: it identifies rows, so it will not help on "
        "new data",
        ignoring(column.name),
    )


def _may_identify(column: Column, present: NDArray[np.float64], rows: int) -> bool:
    """Return whether different values may be identifiers: text, or whole numbers that are nearly consecutive.

    Amounts may all differ, too, but they leave most whole numbers of their range out; so may texts that are numbers.
    """
    if column.kind == "date":
        return False
    if column.kind == "categorical":
        return not column.strange and column.looks in ("", "codes")
    return bool((present == np.floor(present)).all()) and float(np.ptp(present)) < CONSECUTIVE * rows


def _target_given_away(examined: ExaminedColumn) -> Finding | None:
    """Learn the class from one column on every second row, and test on the others."""
    column, x, y = examined.column, examined.x, examined.y
    if len(y) < ENOUGH_ROWS:
        return None
    # The decision tree computes in float32, too.
    accuracy = _accuracy_by_value(x, y) if column.kind == "categorical" else _accuracy_by_number(x - column.offset, y)
    prior = float((y[1::2] == np.bincount(y[::2]).argmax()).mean())
    if accuracy < LEAK or (accuracy - prior) < LEAK_BEYOND_PRIOR * (1 - prior):
        return None
    return Finding(
        "target_given_away",
        f"column '{column.name}' alone predicts '{examined.table.data.target}' in {100 * accuracy:.3g} % of rows: "
        "probable leak",
        f"if new rows will not have it: {ignoring(column.name)}",
    )


def _accuracy_by_value(x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """Return the share of odd rows whose class is the most frequent one of their value in the even rows."""
    values, code = np.unique(x, return_inverse=True)
    counts = np.zeros((len(values), int(y.max()) + 1))
    np.add.at(counts, (code[::2], y[::2]), 1)
    counts += 1e-3 * np.bincount(y[::2], minlength=counts.shape[1])  # a new value gets the most frequent class
    return float((counts.argmax(axis=1)[code[1::2]] == y[1::2]).mean())


def _accuracy_by_number(x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """Return the share of odd rows that a decision tree with few leaves, fitted on the even rows, predicts."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES * (int(y.max()) + 1), random_state=0)
    return float(tree.fit(x[::2, None], y[::2]).score(x[1::2, None], y[1::2]))


def _mixed_types(examined: ExaminedColumn) -> Finding | None:
    column = examined.column
    if not column.strange or _is_scale(column, sum(examined.table.dataset.rows.values())):
        return None
    if column.kind == "numeric":
        return Finding(
            "mixed_types",
            f"{column.strange:,} values of column '{column.name}' are not numbers, such as '{column.example}': they "
            "are treated as missing",
            "correct them in the file",
        )
    return Finding(
        "mixed_types",
        f"column '{column.name}' holds numbers, except for {column.strange:,} values such as '{column.example}': it is "
        "treated as categorical",
        f"correct them, or treat them as missing: --data.columns.{quote(column.name)} numeric",
    )


def _is_scale(column: Column, rows: int) -> bool:
    """Return whether a few categories are written as numbers, and others not, such as `2`, `3`, `4` and `5more`."""
    return column.kind == "categorical" and len(column.values) <= FEW and column.strange > STRAY * rows


def _many_categories(examined: ExaminedColumn) -> Finding | None:
    column, kept = examined.column, examined.table.data.categories
    if len(column.values) < MANY:
        return None
    return Finding(
        "many_categories",
        f"column '{column.name}' has {len(column.values):,} values: the {kept} most frequent are kept, all others are "
        "unknown to the model",
        f"group them, ignore the column ({ignoring(column.name)}), or keep more: --data.categories {2 * kept}",
    )


def _missing_labels(table: ExaminedTable) -> Finding | None:
    if not (count := unlabelled(table.dataset)):
        return None
    mark = unlabelled_as(table.dataset)
    marked = f" or a text that counts as missing, '{mark}'," if mark else ""
    keep = f"; if '{mark}' is a class: --data.missing ''" if mark else ""
    return Finding(
        "missing_labels",
        f"{count:,} rows have no value in '{table.data.target}'{marked} and are left out",
        f"label them, or make sure that they do not differ from the others{keep}",
    )


def _duplicates_across_splits(table: ExaminedTable) -> Finding | None:
    trained_on = split_digests(table.dataset, "train")
    shared = [(len(split_digests(table.dataset, split) & trained_on), split) for split in SPLITS[1:]]
    if table.data.split.method == "content" or not any(count for count, _ in shared):
        return None
    rows = " and ".join(f"{count:,} {split} rows" for count, split in shared if count)
    return Finding(
        "duplicates_across_splits",
        f"{rows} are duplicates of training rows, so scores are optimistic",
        "remove the duplicates, or keep them in one split: --data.split.method content",
    )


def _rare_classes(table: ExaminedTable) -> Finding | None:
    return class_counts.rare(table.y, table.dataset.classes)


def _imbalanced_classes(table: ExaminedTable) -> Finding | None:
    return class_counts.imbalanced(table.y, table.dataset.classes)


COLUMN_CHECKS: tuple[Callable[[ExaminedColumn], Finding | None], ...] = (
    _target_given_away,
    spellings.rounded_numbers,
    spellings.spelt_numbers,
    _mixed_types,
    spellings.missing_code,
    spellings.same_values,
    _many_categories,
    _identifier_column,
    _constant_column,
    spellings.spelt_booleans,
)
"""Checks of one column, those of what costs most first. All findings that hold are reported."""
CHECKS: tuple[Callable[[ExaminedTable], Finding | None], ...] = (
    spellings.same_classes,
    _missing_labels,
    _duplicates_across_splits,
    _rare_classes,
    _imbalanced_classes,
)
"""Checks of the whole table. Findings are listed in this order, after those of the columns."""
