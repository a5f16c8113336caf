"""Datasets: divided and laid once on disk under their digest."""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from tasks.ml.config import CNN, Loss, Model, OneCycle, Training, units
from tasks.ml.config_data import Data, Split
from tasks.ml.digests import SHOWN, check, digest_of, file_digest
from tasks.ml.errors import DamagedError, InputError
from tasks.ml.files import whole_folder
from tasks.ml.records import SPLITS, Dataset, SplitName
from tasks.ml.sources import Raw, Table
from tasks.ml.splits import divide, row_digests

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rows:
    """One split, memory-mapped."""

    x: Raw
    y: NDArray[np.int64]


def refuse_impossible(table: Table, split: Split, model: Model, training: Training) -> None:
    """Refuse what can be known to fail from the rows alone, before anything is written.

    Raises:
        InputError: a split would leave a class empty, a batch is larger than the training split, a schedule has
            too few updates, images are too small for the network, or the loss has not as many factors as it needs.
    """
    train = len(divide(table, split)["train"])
    if training.batch_size != "full" and training.batch_size > train:
        raise InputError(
            f"training.batch_size: {training.batch_size} is more than the {train} rows of the training split: "
            f"choose at most {train}, or 'full'"
        )
    updates = training.epochs * (1 if training.batch_size == "full" else math.ceil(train / training.batch_size))
    if isinstance(training.schedule, OneCycle) and training.schedule.warmup * (updates + 1) <= 1:
        raise InputError(
            f"training.schedule.warmup: {training.schedule.warmup} of {updates} updates leaves none in which the "
            "learning rate rises: give a larger share, or more epochs"
        )
    if isinstance(model, CNN) and min(min(sides) for sides in model.sides(table.x.shape[1:])) < 2:
        height, width = table.x.shape[1:]
        remedy = "give fewer" if model.padding == "same" else "give fewer, or model.padding 'same'"
        raise InputError(
            f"model.channels: {len(model.channels)} convolutions and poolings leave nothing of {height} x {width} "
            f"pixels: {remedy}"
        )
    _refuse_factors(model, training.loss, len(table.classes))


def prepare(table: Table, data: Data, home: Path) -> Dataset:
    """Lay the splits of `table` under `home/datasets/<digest>`, or reuse them if they lie there undamaged.

    Whoever comes first makes the folder, under a kernel lock; others wait and reuse it. Every file's digest
    is checked on reuse; a damaged dataset is made anew, which is logged.

    Args:
        table: every row, as `sources.read` gives it.
        data: what it is, and how it is divided.
        home: Hallmark's home folder.
    """
    divided = divide(table, data.split)
    arrays = {
        f"{split}.{suffix}.npy": array
        for split, rows in divided.items()
        for suffix, array in (
            ("x", table.x[rows]),
            ("y", table.y[rows]),
            ("rows", row_digests(table.x[rows])),
        )
    }
    dataset = outline(table, data)
    digest = digest_of([_describe(dataset), {name: _array_digest(array) for name, array in arrays.items()}])
    dataset = replace(dataset, digest=digest, folder=home / "datasets" / digest)
    (home / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(home / "locks" / f"dataset-{digest}.lock"):
        if not _is_intact(dataset.folder):
            _write(dataset, arrays)
    return dataset


def outline(table: Table, data: Data) -> Dataset:
    """What `prepare` would give, but nothing is written: without folder and digest."""
    divided = divide(table, data.split)
    return Dataset(
        name=data.name,
        folder=Path(),
        digest="",
        columns=table.columns,
        shape=table.x.shape[1:],
        dtype=str(table.x.dtype),
        largest=table.largest,
        classes=table.classes,
        rows={split: len(divided[split]) for split in SPLITS},
    )


def open_split(dataset: Dataset, split: SplitName) -> Rows:
    """Memory-map one split: nothing is read before it is used."""
    x, y = (np.load(dataset.folder / f"{split}.{part}.npy", mmap_mode="r") for part in ("x", "y"))
    return Rows(x=x, y=y)


def _refuse_factors(model: Model, loss: Loss, classes: int) -> None:
    wanted = units(model, loss, classes)
    for name in ("weight", "pos_weight"):
        factors = getattr(loss, name, None)
        if factors is not None and len(factors) != wanted:
            raise InputError(
                f"training.loss.{name}: expected {wanted} factors, one for each output of the network, "
                f"found {len(factors)}"
            )
    ignored = getattr(loss, "ignore_index", None)
    if ignored is not None and ignored >= classes:
        raise InputError(f"training.loss.ignore_index: there is no class {ignored}: expected 0 to {classes - 1}")


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
