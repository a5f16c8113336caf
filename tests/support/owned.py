"""A small user table: columns of every kind, missing values in each, and names that are not identifiers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from hallmark.flows.experiments import options
from hallmark.tasks.ml.config.data import Table
from hallmark.tasks.ml.config.experiment import Experiment

CITIES = ("São Paulo", "日本", "with, comma", 'a "quote"', "_under $x$", "a.b")
CLASSES = ("<=50K", ">50K", "ä / ö")
TARGET = "income, a year"
ROWS = 240


def mixed(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Return a table of numbers, booleans, text and labels. The label depends on age and city."""
    rng = np.random.default_rng(seed)
    age, city, member = rng.normal(40, 12, rows).round(2), rng.integers(0, len(CITIES), rows), rng.random(rows) < 0.5
    label = np.where(rng.random(rows) < 0.2, 2, (age > 40) ^ (city < 2))

    def gaps(share: float = 0.1) -> np.ndarray:
        return rng.random(rows) < share

    return pa.table(
        {
            "age": pa.array(age, mask=gaps()),
            "children, at home": pa.array(rng.integers(0, 4, rows), mask=gaps()),
            "is.member": pa.array(member, mask=gaps()),
            "c0": pa.array([CITIES[index] for index in city], mask=gaps()),
            TARGET: [CLASSES[index] for index in label],
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    """Write a table as CSV or Parquet, depending on the suffix."""
    csv.write_csv(table, path) if path.suffix == ".csv" else parquet.write_table(table, path)
    return path


def source(path: Path, **fields: object) -> Table:
    """Return the data configuration of an experiment on this table."""
    return Table.model_validate({"kind": "table", "path": str(path), "target": TARGET} | fields)


def experiment(path: Path, name: str = "", *tokens: str) -> Experiment:
    """Return a short experiment on this table, built from command-line options."""
    arguments = [
        "--target",
        TARGET,
        "--training.epochs",
        "4",
        "--training.device",
        "cpu",
        "--model.hidden",
        "8",
        *tokens,
    ]
    return options.experiment(str(path), [*arguments, *(("--name", name) if name else ())])
