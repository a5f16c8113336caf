"""A profile of a dataset before training: statistics and a plot."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import SPLITS, Column, Dataset
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import Rows, columns_of, open_split, split_digests, training_range
from hallmark.tasks.ml.data.tables.date_columns import date_parts
from hallmark.tasks.ml.data.tables.wide_numbers import in_words
from hallmark.tasks.ml.reports.plots import table_columns
from hallmark.tasks.ml.reports.plots.dataset_plots import histograms, points, sample_images, scatter
from hallmark.tasks.ml.reports.plots.style import plain_text


def profile(dataset: Dataset, folder: Path) -> tuple[Path, Path]:
    """Write `dataset.json` and `dataset.png` to `folder`, and return their paths.

    The plot shows sample images, the points of one or two columns, or histograms of more columns.
    """
    report = folder / "dataset.json"
    with whole_file(report) as temporary:
        temporary.write_text(json.dumps(describe(dataset), indent=2) + "\n")
    return report, _draw(dataset, folder / "dataset.png")


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return counts, dtype, shape, value range and class shares by split, and the number of rows shared with `train`.

    `range` is `[smallest, largest]` over all pixels, or by column name. A user's table has `columns` instead, with the
    kind of each column.
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


def summary_lines(dataset: Dataset, experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Yield how a user's data is interpreted, as pairs of a heading and a text: columns, split, model and training."""
    columns = columns_of(dataset)
    for kind in ("numeric", "boolean", "categorical", "date"):
        if named := [_column_text(column) for column in columns if column.kind == kind]:
            yield "columns", f"{kind}: {', '.join(named)}"
    model = experiment.model.model_dump(exclude_defaults=True) | {"kind": experiment.model.kind}
    training = experiment.training.model_dump(exclude_defaults=True)
    split = {"method": experiment.data.split.method} | experiment.data.split.model_dump(exclude_defaults=True)
    yield "split", ", ".join(f"{name} {_value_text(value)}" for name, value in split.items())
    yield "model", ", ".join(f"{name} {_value_text(value)}" for name, value in model.items())
    yield "training", ", ".join(f"{name} {_value_text(value)}" for name, value in training.items()) or "defaults"


def _column_text(column: Column) -> str:
    details = [f"{len(column.values):,} values"] if column.kind == "categorical" else []
    details += [f"{column.missing:,} missing"] if column.missing else []
    if column.kind == "date":
        details += [f"read as {column.date_form}"] if column.date_form else []
        details += [date_parts.rule(column.offset)]
    elif column.wide:
        details += [f"float64, less {in_words(column.offset)}"]
    return column.name + (f" ({', '.join(details)})" if details else "")


def _value_text(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(
            _value_text(part) if name == "kind" else f"{name} {_value_text(part)}" for name, part in value.items()
        )
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _range(dataset: Dataset, rows: list[Rows]) -> dict[str, list[float]] | list[float]:
    lowest = np.min([split.x.min(axis=0) for split in rows], axis=0)
    highest = np.max([split.x.max(axis=0) for split in rows], axis=0)
    if not dataset.columns:
        return [float(lowest.min()), float(highest.max())]
    bounds = zip(dataset.columns, lowest, highest, strict=True)
    return {name: [float(low), float(high)] for name, low, high in bounds}


def _columns(dataset: Dataset) -> list[dict[str, Any]]:
    """Return kind and missing values of each column of a user's table, with its range or its number of values."""
    bounds = zip(columns_of(dataset), *training_range(dataset), strict=True)
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
    if dataset.is_table:
        stored = np.asarray(train.x, dtype=dataset.dtype)
        return table_columns.columns(stored, train.y, columns_of(dataset), classes, path)
    x = train.x.astype(np.float32, copy=False)
    match len(columns):
        case 1:
            return points(x, train.y, columns[0], classes, path)
        case 2:
            return scatter(x, train.y, columns, classes, path)
        case _:
            return histograms(x, train.y, columns, classes, path)
