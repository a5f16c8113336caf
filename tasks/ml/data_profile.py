"""A look at a dataset before anything is trained on it: numbers and a picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tasks.ml import plots
from tasks.ml.data import open_split
from tasks.ml.files import whole_file
from tasks.ml.records import SPLITS, Dataset


def profile(dataset: Dataset, folder: Path) -> tuple[Path, Path]:
    """Write `dataset.json` and `dataset.png` into `folder`.

    The picture shows sample images, the points of one or two columns, or the histograms of more.
    """
    report = folder / "dataset.json"
    with whole_file(report) as temporary:
        temporary.write_text(json.dumps(describe(dataset), indent=2) + "\n")
    return report, _draw(dataset, folder / "dataset.png")


def describe(dataset: Dataset) -> dict[str, Any]:
    """Counts, dtype, shape, value range and class shares by split, and rows that two splits share.

    `range` is `[smallest, largest]` over all pixels, or of each column by its name.
    """
    rows = {split: open_split(dataset, split) for split in SPLITS if dataset.rows[split]}
    lowest = np.min([split.x.min(axis=0) for split in rows.values()], axis=0)
    highest = np.max([split.x.max(axis=0) for split in rows.values()], axis=0)
    trained_on = _digests(dataset, "train")
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "rows": dataset.rows,
        "dtype": dataset.dtype,
        "shape": dataset.shape,
        "range": {
            name: [float(low), float(high)] for name, low, high in zip(dataset.columns, lowest, highest, strict=True)
        }
        if dataset.columns
        else [float(lowest.min()), float(highest.max())],
        "class_shares": {
            name: {split: float((part.y == index).mean()) for split, part in rows.items()}
            for index, name in enumerate(dataset.classes)
        },
        "rows_also_in_train": {split: len(_digests(dataset, split) & trained_on) for split in rows if split != "train"},
    }


def _digests(dataset: Dataset, split: str) -> set[bytes]:
    return {row.tobytes() for row in np.load(dataset.folder / f"{split}.rows.npy", mmap_mode="r")}


def _draw(dataset: Dataset, path: Path) -> Path:
    train, columns, classes = open_split(dataset, "train"), dataset.columns, dataset.classes
    if not columns:
        return plots.sample_images(train.x.astype(np.uint8), train.y, classes, path)
    x = train.x.astype(np.float32)
    match len(columns):
        case 1:
            return plots.points(x, train.y, columns[0], classes, path)
        case 2:
            return plots.scatter(x, train.y, columns, classes, path)
        case _:
            return plots.histograms(x, train.y, columns, classes, path)
