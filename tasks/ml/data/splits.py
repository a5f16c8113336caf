"""Split rows into training, validation and test."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import SPLITS, Column, SplitName
from hallmark.tasks.ml.config.data import Split
from hallmark.tasks.ml.data.source_rows import RawRows, SourceRows

Indices = NDArray[np.int64]

REMEDY = "use a larger fraction or method 'stratified'"
REMEDIES = {
    "stratified": "use larger fractions, or collect more rows of this class",
    "group": "use a larger fraction or another seed",
    "time": "use a smaller fraction if the class occurs in late rows only, else a larger one",
    "column": "assign rows of every class to each split",
    "given": "add rows of every class to each split",
}
"""Remedies for a split that has no rows of some class, by split method."""

_CHUNK_ROWS = 10_000
"""Number of rows that are converted at a time to compute their digests."""


def divide(source: SourceRows, split: Split) -> dict[SplitName, Indices]:
    """Split rows by the method of `split`.

    Args:
        source: all rows of the source.
        split: method, fractions and seed.

    Returns:
        Row indices of each split; `validation` is empty if its fraction is 0.

    Raises:
        InputError: a split has no rows of some class.
    """
    everything = np.arange(len(source.y))
    match split.method:
        case "resubstitution":
            # The source's own test rows are not used.
            rows = everything[: len(everything) - source.test_rows]
            divided: dict[SplitName, Indices] = {"train": rows, "validation": rows[:0], "test": rows}
        case "content":
            divided = _by_content(source, split)
        case "group":
            divided = _by_group(_split_key(source), split)
        case "time":
            divided = _by_time(_split_key(source), split)
        case "column":
            key = _split_key(source)
            divided = {name: np.flatnonzero(key == index) for index, name in enumerate(SPLITS)}
        case "given":
            divided = _as_given(source, split)
        case "stratified" | "shuffled":
            divided = _by_seed(source, everything, None, split)
    _refuse_empty_classes(source, divided, split)
    return divided


def row_digests(x: RawRows, columns: tuple[Column, ...] = ()) -> NDArray[np.uint8]:
    """Return the SHA-256 of each row's raw input, without its label: `(N, 32) uint8`.

    Rows with the same input have the same digest even if their labels differ, so that "was this row trained on?" is
    answered cautiously. For a user's table the digest covers categorical values and not their indices, so that new
    rows in the table change no existing digest.

    Args:
        x: raw rows.
        columns: columns of a user's table; empty for other data.
    """
    values = {index: _value_digests(one) for index, one in enumerate(columns) if one.kind == "categorical"}
    digests = np.empty((len(x), 32), dtype=np.uint8)
    for start in range(0, len(x), _CHUNK_ROWS):
        part = _contents(x[start : start + _CHUNK_ROWS], values)
        joined = b"".join(hashlib.sha256(row.tobytes()).digest() for row in part)
        digests[start : start + len(part)] = np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)
    return digests


def _contents(x: RawRows, values: dict[int, NDArray[np.uint64]]) -> NDArray[np.generic]:
    """Return the content to hash: numbers; for rows with categorical columns, eight bytes per field."""
    if x.dtype == np.uint8:
        return x
    x = x + x.dtype.type(0)  # -0.0 and 0.0 get the same digest
    if not values:
        return x
    bits = np.uint32 if x.dtype == np.float32 else np.uint64
    contents = np.where(np.isnan(x), x.dtype.type(np.nan), x).view(bits).astype(np.uint64)
    for index, known in values.items():
        contents[:, index] = known[np.where(np.isnan(x[:, index]), -1, x[:, index]).astype(np.int64)]
    return contents


def _value_digests(column: Column) -> NDArray[np.uint64]:
    """Return eight bytes of the digest of each value, and last those of a missing value."""
    texts = [*(f"={value}" for value in column.values), ""]
    return np.frombuffer(b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts), dtype=np.uint64)


def _split_key(source: SourceRows) -> NDArray[np.int64]:
    assert source.split_key is not None  # noqa: S101 - reading the source sets it
    return source.split_key


def _by_group(group: NDArray[np.int64], split: Split) -> dict[SplitName, Indices]:
    """Split groups with scikit-learn's `GroupShuffleSplit`: the fractions are of groups, not of rows."""
    from sklearn.model_selection import GroupShuffleSplit

    def cut(rows: Indices, size: float) -> tuple[Indices, Indices]:
        if not size:
            return rows, rows[:0]
        splitter = GroupShuffleSplit(n_splits=1, test_size=size, random_state=split.seed)
        kept, taken = next(splitter.split(rows, groups=group[rows]))
        return rows[kept], rows[taken]

    try:
        rows, test = cut(np.arange(len(group)), split.test)
        train, validation = cut(rows, split.validation / (1 - split.test))
    except ValueError as error:  # scikit-learn rejects fewer groups than splits
        raise InputError(
            f"data.split.group: column '{split.group}' has {group.max() + 1} groups, too few for every split: "
            "use larger fractions, or split by another column"
        ) from error
    return {"train": train, "validation": validation, "test": test}


def _as_given(source: SourceRows, split: Split) -> dict[SplitName, Indices]:
    """Use the source's own test rows. Rows for validation are taken from those for training if there are none."""
    key, rows = source.split_key, len(source.y)
    if key is None and not source.test_rows:
        raise InputError(
            "data.split.method 'given': the source has no test rows of its own: expected folders named train and test "
            "that contain the class folders, or choose another method"
        )
    if key is None:
        key = np.where(np.arange(rows) < rows - source.test_rows, 0, 2)
    divided: dict[SplitName, Indices] = {name: np.flatnonzero(key == index) for index, name in enumerate(SPLITS)}
    if len(divided["validation"]) or not split.validation:
        return divided
    return _by_seed(source, divided["train"], divided["test"], split)


def _by_time(rank: NDArray[np.int64], split: Split) -> dict[SplitName, Indices]:
    """Split by time: earliest rows for training, latest for testing. Rows with the same time share a split."""
    order = np.argsort(rank, kind="stable")
    latest = rank[order]
    ends = [round(len(rank) * share) for share in (1 - split.test - split.validation, 1 - split.test)]
    # A boundary within rows of the same time moves to the first of them.
    first, second = (int(np.searchsorted(latest, latest[min(end, len(rank) - 1)])) for end in ends)
    if not split.validation:
        first = second
    parts = (order[:first], order[first:second], order[second:])
    return dict(zip(SPLITS, map(np.sort, parts), strict=True))


def _by_content(source: SourceRows, split: Split) -> dict[SplitName, Indices]:
    """Place each row by a number in [0, 1) derived from its own digest, independent of all other rows."""
    seed = split.seed.to_bytes(4, "big")
    digests = row_digests(source.x, source.table_columns)
    salted = b"".join(hashlib.sha256(seed + row.tobytes()).digest()[:8] for row in digests)
    place = np.frombuffer(salted, dtype=">u8") / 2.0**64
    is_test = place < split.test
    is_validation = ~is_test & (place < split.test + split.validation)
    return {
        "train": np.flatnonzero(~is_test & ~is_validation),
        "validation": np.flatnonzero(is_validation),
        "test": np.flatnonzero(is_test),
    }


def _by_seed(source: SourceRows, rows: Indices, test: Indices | None, split: Split) -> dict[SplitName, Indices]:
    """Split `rows` with scikit-learn's `train_test_split`: first the test split if it is not given, then validation."""
    from sklearn.model_selection import train_test_split

    y, counts = source.y, np.bincount(source.y, minlength=len(source.classes))

    def cut(rows: Indices, size: float | int) -> tuple[Indices, Indices]:
        labels = None if split.method == "shuffled" else y[rows]
        kept, taken = train_test_split(rows, test_size=size, random_state=split.seed, stratify=labels)
        return kept, taken

    try:
        if test is None:
            rows, test = cut(rows, split.test)
        train, validation = rows, rows[:0]
        if split.validation:
            train, validation = cut(rows, max(1, round(split.validation * len(y))))
    except ValueError as error:  # scikit-learn rejects a split that cannot hold every class
        rarest = int(counts.argmin())
        if counts[rarest] < len(SPLITS):
            raise InputError(
                f"data.split: class '{source.classes[rarest]}' has {counts[rarest]} of {len(y)} rows, too few for "
                "every split: collect more rows, remove the class, or merge rare classes"
            ) from error
        raise InputError(
            f"data.split: validation {split.validation} and test {split.test} of {len(y)} rows leave a split "
            f"without rows of every class ({error}): use larger fractions"
        ) from error
    return {"train": train, "validation": validation, "test": test}


def _refuse_empty_classes(source: SourceRows, divided: dict[SplitName, Indices], split: Split) -> None:
    classes = set(range(len(source.classes)))
    for name, rows in divided.items():
        if missing := classes - set(source.y[rows].tolist()):
            if name == "validation" and not split.validation:
                continue
            rare, needed = min(missing), len(SPLITS) if split.validation else len(SPLITS) - 1
            count = int((source.y == rare).sum())
            if count < needed and split.method in ("stratified", "shuffled", "content"):
                raise InputError(
                    f"data.split: class '{source.classes[rare]}' has {count} of {len(source.y)} rows, too few for "
                    "every split: collect more rows, remove the class, or merge rare classes"
                )
            raise InputError(
                f"data.split: {len(rows)} {name} rows include none of class '{source.classes[min(missing)]}' "
                f"(method '{split.method}', seed {split.seed}): {REMEDIES.get(split.method, REMEDY)}"
            )
