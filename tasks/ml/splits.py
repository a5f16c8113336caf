"""The division of rows into training, validation and test."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from tasks.ml.config_data import Split
from tasks.ml.errors import InputError
from tasks.ml.records import SplitName
from tasks.ml.sources import Raw, Table

Indices = NDArray[np.int64]


def divide(table: Table, split: Split) -> dict[SplitName, Indices]:
    """Divide rows as `split` says.

    Args:
        table: every row of the source.
        split: method, shares and seed.

    Returns:
        The row numbers of each split; `validation` is empty if its share is 0.

    Raises:
        InputError: a split would have no row of some class.
    """
    everything = np.arange(len(table.y))
    match split.method:
        case "resubstitution":
            # The source's own test rows stay out of it.
            rows = everything[: len(everything) - table.own_test]
            divided: dict[SplitName, Indices] = {"train": rows, "validation": rows[:0], "test": rows}
        case "content":
            divided = _by_content(table.x, split)
        case "given":
            cut = len(everything) - table.own_test
            divided = _by_seed(table.y, everything[:cut], everything[cut:], split)
        case "stratified" | "shuffled":
            divided = _by_seed(table.y, everything, None, split)
    _refuse_empty_classes(table, divided, split)
    return divided


def row_digests(x: Raw) -> NDArray[np.uint8]:
    """SHA-256 of each row's raw input bytes, without its label: `(N, 32) uint8`.

    Two rows with the same input share a digest even where their labels disagree, so that whoever asks
    "was this row trained on?" gets the cautious answer.
    """
    if x.dtype == np.float32:
        x = x + np.float32(0)  # -0.0 and 0.0 are one number
    digests = b"".join(hashlib.sha256(row.tobytes()).digest() for row in x)
    return np.frombuffer(digests, dtype=np.uint8).reshape(len(x), 32)


def _by_content(x: Raw, split: Split) -> dict[SplitName, Indices]:
    """Place each row by a number in [0, 1) that its own digest gives: no other row has a say."""
    seed = split.seed.to_bytes(4, "big")
    salted = b"".join(hashlib.sha256(seed + row.tobytes()).digest()[:8] for row in row_digests(x))
    place = np.frombuffer(salted, dtype=">u8") / 2.0**64
    is_test = place < split.test
    is_validation = ~is_test & (place < split.test + split.validation)
    return {
        "train": np.flatnonzero(~is_test & ~is_validation),
        "validation": np.flatnonzero(is_validation),
        "test": np.flatnonzero(is_test),
    }


def _by_seed(y: NDArray[np.int64], rows: Indices, test: Indices | None, split: Split) -> dict[SplitName, Indices]:
    """Cut `rows` with scikit-learn's `train_test_split`: first the test split, if there is none, then validation."""
    from sklearn.model_selection import train_test_split

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
    except ValueError as error:  # scikit-learn's refusal of a split that cannot hold every class
        raise InputError(
            f"data.split: validation {split.validation} and test {split.test} of {len(y)} rows leave a split "
            f"without rows of every class ({error}): choose larger shares"
        ) from error
    return {"train": train, "validation": validation, "test": test}


def _refuse_empty_classes(table: Table, divided: dict[SplitName, Indices], split: Split) -> None:
    classes = set(range(len(table.classes)))
    for name, rows in divided.items():
        if missing := classes - set(table.y[rows].tolist()):
            if name == "validation" and not split.validation:
                continue
            raise InputError(
                f"data.split: {len(rows)} {name} rows hold none of class {min(missing)} "
                f"(method '{split.method}', seed {split.seed}): choose a larger share or method 'stratified'"
            )
