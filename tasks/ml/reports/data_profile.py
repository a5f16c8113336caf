"""A look at a dataset before anything is trained on it: numbers and a picture."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import SPLITS, Column, Dataset
from hallmark.tasks.ml.artifact.proof import probe_rows
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import Rows, columns_of, open_split, split_digests
from hallmark.tasks.ml.reports.plots import table_columns
from hallmark.tasks.ml.reports.plots.dataset_plots import histograms, points, sample_images, scatter
from hallmark.tasks.ml.reports.plots.style import plain_text


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

    `range` is `[smallest, largest]` over all pixels, or of each column by its name; of a table of one's own `columns`
    says what each is.
    """
    rows = {split: open_split(dataset, split) for split in SPLITS if dataset.rows[split]}
    trained_on = split_digests(dataset, "train")
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "rows": dataset.rows,
        "dtype": dataset.dtype,
        "shape": dataset.shape,
        **({"columns": _columns(dataset)} if dataset.is_table else {"range": _range(dataset, list(rows.values()))}),
        "class_shares": {
            name: {split: float((part.y == index).mean()) for split, part in rows.items()}
            for index, name in enumerate(dataset.classes)
        },
        "rows_also_in_train": {
            split: len(split_digests(dataset, split) & trained_on) for split in rows if split != "train"
        },
    }


def say(dataset: Dataset, experiment: Experiment) -> Iterator[tuple[str, str]]:
    """What was made of data of one's own, in lines that begin with a word each: columns, model and training."""
    columns = columns_of(dataset)
    for kind in ("numeric", "boolean", "categorical"):
        if named := [_short(column) for column in columns if column.kind == kind]:
            yield "columns", f"{kind}: {', '.join(named)}"
    model = experiment.model.model_dump(exclude_defaults=True) | {"kind": experiment.model.kind}
    training = experiment.training.model_dump(exclude_defaults=True)
    yield "model", ", ".join(f"{name} {_value(value)}" for name, value in model.items())
    yield "training", ", ".join(f"{name} {_value(value)}" for name, value in training.items()) or "defaults"


def _short(column: Column) -> str:
    told = [f"{len(column.values):,} values"] if column.kind == "categorical" else []
    told += [f"{column.missing:,} missing"] if column.missing else []
    return column.name + (f" ({', '.join(told)})" if told else "")


def _value(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(_value(part) if name == "kind" else f"{name} {_value(part)}" for name, part in value.items())
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _range(dataset: Dataset, rows: list[Rows]) -> dict[str, list[float]] | list[float]:
    lowest = np.min([split.x.min(axis=0) for split in rows], axis=0)
    highest = np.max([split.x.max(axis=0) for split in rows], axis=0)
    if not dataset.columns:
        return [float(lowest.min()), float(highest.max())]
    bounds = zip(dataset.columns, lowest, highest, strict=True)
    return {name: [float(low), float(high)] for name, low, high in bounds}


def _columns(dataset: Dataset) -> list[dict[str, Any]]:
    """Of a table of one's own what each column is, and the range of the training rows; of text how many values."""
    bounds = zip(columns_of(dataset), *probe_rows.seen(dataset), strict=True)
    return [
        {"name": column.name, "kind": column.kind, "missing": column.missing}
        | ({"values": len(column.values)} if column.kind == "categorical" else {"range": [float(low), float(high)]})
        for column, low, high in bounds
    ]


def _draw(dataset: Dataset, path: Path) -> Path:
    train, columns, classes = open_split(dataset, "train"), dataset.columns, tuple(map(plain_text, dataset.classes))
    if not columns:
        images = train.x.astype(np.uint8, copy=False)
        return sample_images(images, train.y, classes, path, light=dataset.resized)
    x = train.x.astype(np.float32, copy=False)
    if dataset.is_table:
        return table_columns.columns(x, train.y, columns_of(dataset), classes, path)
    match len(columns):
        case 1:
            return points(x, train.y, columns[0], classes, path)
        case 2:
            return scatter(x, train.y, columns, classes, path)
        case _:
            return histograms(x, train.y, columns, classes, path)
