"""Datasets: read from their source, divided by seed, and laid once on disk under their digest."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from tasks.ml.config import Data, Digits, Iris, Split, Training
from tasks.ml.digests import SHOWN, check, digest_of, file_digest
from tasks.ml.errors import DamagedError, InputError
from tasks.ml.files import whole_folder
from tasks.ml.records import SPLITS, Dataset, SplitName

logger = logging.getLogger(__name__)

Indices = NDArray[np.int64]
Raw = NDArray[np.float32] | NDArray[np.uint8]
"""Rows as a consumer feeds them: `(N, F) float32` columns or `(N, H, W) uint8` grey images."""


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of a source, undivided."""

    x: Raw
    y: NDArray[np.int64]
    """`(N,)` class index."""
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    largest: float | None


@dataclass(frozen=True, slots=True)
class Rows:
    """One split, memory-mapped."""

    x: Raw
    y: NDArray[np.int64]


def read(data: Data) -> Table:
    """Read every row of the source that `data` names, in the source's own order."""
    from sklearn.datasets import load_digits, load_iris

    match data:
        case Iris():
            bunch = load_iris()
            return Table(
                x=bunch.data.astype(np.float32),
                y=bunch.target.astype(np.int64),
                # scikit-learn says "sepal length (cm)"; an ONNX input is better off with an identifier.
                columns=tuple(name.removesuffix(" (cm)").replace(" ", "_") for name in bunch.feature_names),
                classes=tuple(str(name) for name in bunch.target_names),
                largest=None,
            )
        case Digits():
            bunch = load_digits()
            return Table(
                x=bunch.images.astype(np.uint8),
                y=bunch.target.astype(np.int64),
                columns=(),
                classes=tuple(str(digit) for digit in bunch.target_names),
                largest=16.0,
            )


def divide(y: NDArray[np.int64], split: Split) -> dict[SplitName, Indices]:
    """Divide rows by `split`, with scikit-learn's `train_test_split`: first test, then validation.

    Args:
        y: `(N,)` class index of every row.
        split: shares, method and seed.

    Returns:
        The row numbers of each split; `validation` is empty if its share is 0.

    Raises:
        InputError: a split would have no row of some class.
    """
    from sklearn.model_selection import train_test_split

    def cut(rows: Indices, size: float | int) -> tuple[Indices, Indices]:
        labels = y[rows] if split.method == "stratified" else None
        kept, taken = train_test_split(rows, test_size=size, random_state=split.seed, stratify=labels)
        return kept, taken

    try:
        rest, test = cut(np.arange(len(y)), split.test)
        train, validation = rest, rest[:0]
        if split.validation:
            train, validation = cut(rest, max(1, round(split.validation * len(y))))
    except ValueError as error:  # scikit-learn's refusal of a split that cannot hold every class
        raise InputError(
            f"data.split: validation {split.validation} and test {split.test} of {len(y)} rows leave a split "
            f"without rows of every class ({error}): choose larger shares"
        ) from error
    divided: dict[SplitName, Indices] = {"train": train, "validation": validation, "test": test}
    _refuse_empty_classes(y, divided, split)
    return divided


def _refuse_empty_classes(y: NDArray[np.int64], divided: dict[SplitName, Indices], split: Split) -> None:
    classes = set(np.unique(y).tolist())
    for name, rows in divided.items():
        if missing := classes - set(y[rows].tolist()):
            if name == "validation" and not split.validation:
                continue
            raise InputError(
                f"data.split: {len(rows)} {name} rows hold none of class {min(missing)} "
                f"(method '{split.method}', seed {split.seed}): choose a larger share or method 'stratified'"
            )


def refuse_impossible(data: Data, training: Training) -> None:
    """Refuse what can be known to fail from the labels alone, before anything is written.

    Raises:
        InputError: a split would leave a class empty, or a batch is larger than the training split.
    """
    train = len(divide(read(data).y, data.split)["train"])
    if training.batch_size != "full" and training.batch_size > train:
        raise InputError(
            f"training.batch_size: {training.batch_size} is more than the {train} rows of the training split: "
            f"choose at most {train}, or 'full'"
        )


def prepare(data: Data, home: Path) -> Dataset:
    """Lay the splits of `data` under `home/datasets/<digest>`, or reuse them if they lie there undamaged.

    Whoever comes first makes the folder, under a kernel lock; others wait and reuse it. Every file's digest
    is checked on reuse; a damaged dataset is made anew, which is logged.

    Args:
        data: which rows, and how they are divided.
        home: Hallmark's home folder.
    """
    table = read(data)
    divided = divide(table.y, data.split)
    arrays = {
        f"{split}.{suffix}.npy": array
        for split, rows in divided.items()
        for suffix, array in (
            ("x", table.x[rows]),
            ("y", table.y[rows]),
            ("rows", row_digests(table.x[rows])),
        )
    }
    dataset = Dataset(
        name=data.kind,
        folder=Path(),
        digest="",
        columns=table.columns,
        shape=table.x.shape[1:],
        dtype=str(table.x.dtype),
        largest=table.largest,
        classes=table.classes,
        rows={split: len(divided[split]) for split in SPLITS},
    )
    digest = digest_of([_describe(dataset), {name: _array_digest(array) for name, array in arrays.items()}])
    dataset = replace(dataset, digest=digest, folder=home / "datasets" / digest)
    (home / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(home / "locks" / f"dataset-{digest}.lock"):
        if not _is_intact(dataset.folder):
            _write(dataset, arrays)
    return dataset


def row_digests(x: Raw) -> NDArray[np.uint8]:
    """SHA-256 of each row's raw input bytes, without its label: `(N, 32) uint8`.

    Two rows with the same input share a digest even where their labels disagree, so that whoever asks
    "was this row trained on?" gets the cautious answer.
    """
    digests = b"".join(hashlib.sha256(row.tobytes()).digest() for row in x)
    return np.frombuffer(digests, dtype=np.uint8).reshape(len(x), 32)


def open_split(dataset: Dataset, split: SplitName) -> Rows:
    """Memory-map one split: nothing is read before it is used."""
    x, y = (np.load(dataset.folder / f"{split}.{part}.npy", mmap_mode="r") for part in ("x", "y"))
    return Rows(x=x, y=y)


def _array_digest(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _is_intact(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        files = json.loads((folder / "dataset.json").read_text())["files"]
        for name, digest in files.items():
            check(folder / name, digest)
    except (DamagedError, OSError, ValueError, KeyError) as error:
        logger.warning("dataset %s is damaged and is made anew: %s", folder.name[:SHOWN], error)
        return False
    return True


def _write(dataset: Dataset, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    with whole_folder(dataset.folder) as temporary:
        for name, array in arrays.items():
            np.save(temporary / name, array, allow_pickle=False)
        files = {name: file_digest(temporary / name) for name in arrays}
        text = json.dumps(_describe(dataset) | {"files": files}, indent=2)
        (temporary / "dataset.json").write_text(text + "\n")


def _describe(dataset: Dataset) -> dict[str, object]:
    """What the dataset is, wherever it lies."""
    return {key: value for key, value in asdict(dataset).items() if key not in ("folder", "digest")}
