"""Reading a table for training: the kind of each column, inputs as numbers, labels, and the column to split by."""

import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import OUTPUT_NAMES, SPLITS, Column
from hallmark.tasks.ml.config import data as config_data
from hallmark.tasks.ml.data.source_rows import SourceRows
from hallmark.tasks.ml.data.tables import encoding, files, spelling, typed_columns, values
from hallmark.tasks.ml.data.tables.formats import web_file
from hallmark.tasks.ml.data.tables.values import Location
from hallmark.tasks.ml.data.tables.wide_numbers import Numbers

MAX_CLASSES = 1000
"""Maximum number of classes. A target with more values is probably a number or an identifier."""
MAX_NUMBERS = 20
"""A target with more numbers is probably a measurement if they are more than a third of the rows, too."""


def read(data: config_data.Table) -> SourceRows:
    """Read a table for training. Rows without a label are left out and counted.

    Args:
        data: path of the table, target, and the options for its columns.

    Raises:
        InputError: the table cannot be read, lacks a named column or has no input column; the target has one class or
            too many; an input holds dates, or a number that is infinite or exceeds the range of float32.
    """
    path = web_file.local(data.path)
    source = data.path if path != Path(data.path) else str(path)
    columns = files.read(path, data.separator, data.sheet)
    target, split_column = _take_out(columns, data, source)
    labels = values.text(target, Location(source, data.target, ()), data.missing)
    labels = typed_columns.join_spellings(labels, data, zeros=True)
    is_labelled = compute.is_valid(labels)
    rows = np.flatnonzero(is_labelled) + 1 if labels.null_count else range(1, len(labels) + 1)
    mark = _marked(target.filter(compute.invert(is_labelled)))
    y, classes = _labels(labels.filter(is_labelled), data.target, source, mark)
    x: Numbers = np.empty((len(y), len(columns)), dtype=np.float32)
    described: list[Column] = []
    for index, name in enumerate(list(columns)):
        # Columns are removed one by one, so that their memory is freed while the numbers are added.
        column = values.decode_input(columns.pop(name)).filter(is_labelled)
        location = Location(source, name, rows, f"correct it, or leave the column out: {config_data.ignoring(name)}")
        numbers, description = typed_columns.convert(column, data, location)
        if description.wide and x.dtype == np.float32:
            narrow, x = x, np.empty(x.shape, dtype=np.float64)
            x[:, :index] = narrow[:, :index]
        x[:, index] = numbers
        described.append(description)
    pa.default_memory_pool().release_unused()  # the text of a large table, which Arrow would keep for the next one
    return SourceRows(
        x=x,
        y=y,
        columns=tuple(column.name for column in described),
        classes=classes,
        table_columns=tuple(described),
        split_key=None if split_column is None else _split_key(split_column.filter(is_labelled), data, source, rows),
        unlabelled=labels.null_count,
        notes=files.notes(path, data.separator, data.sheet),
        unlabelled_as=mark,
    )


def _take_out(
    columns: dict[str, pa.ChunkedArray], data: config_data.Table, source: str
) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Remove the target, the column to split by and ignored columns from a table. The remaining columns are inputs."""
    names, path = list(columns), Path(source)
    split_by = data.split.group or data.split.time or data.split.column
    files.require(data.target, names, "--target", path)
    for name in data.ignore:
        files.require(name, names, "--data.ignore", path)
    for name in data.columns:
        files.require(name, names, f"--data.columns.{name}", path)
    if split_by is not None:
        files.require(split_by, names, f"--data.split.{data.split.method}", path)
    target, split_column = (values.decode(columns.pop(one)) if one else None for one in (data.target, split_by))
    for name in data.ignore:
        columns.pop(name, None)
    if not columns:
        raise InputError(f"{source}: no input column is left besides the target '{data.target}'")
    for name in columns:
        if name in OUTPUT_NAMES or name.startswith((encoding.ENCODING_PREFIX, encoding.NETWORK_PREFIX)):
            raise InputError(
                f"{source}: column '{name}' has a name that the exported model uses itself: rename the column, or "
                f"leave it out: {config_data.ignoring(name)}"
            )
    return target, split_column


def _marked(labels: pa.ChunkedArray) -> str:
    """Return the first text, other than an empty one, that marks a missing label; empty if there is none."""
    if not values.is_text(labels.type):
        return ""
    return next((text for text in compute.unique(labels).to_pylist() if text and text.strip()), "")


def _labels(labels: pa.ChunkedArray, target: str, source: str, mark: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return class indices `(N,)` and class names, sorted, as numbers if all of them are integers."""
    codes, classes = typed_columns.codes(_normalize_labels(labels))
    if len(classes) < 2:
        found = f"only '{classes[0]}'" if classes else "no value"
        remedy = f": if '{mark}' is a class and not a missing value, add --data.missing ''" if mark else ""
        raise InputError(f"{source}: target '{target}': expected at least two classes, found {found}{remedy}")
    are_numbers = all(map(spelling.plain_number, classes)) and len(classes) > MAX_NUMBERS
    if len(classes) == len(codes) or len(classes) > MAX_CLASSES or (are_numbers and 3 * len(classes) > len(codes)):
        raise InputError(
            f"{source}: target '{target}': expected the name of a class in each row, and at most {MAX_CLASSES:,} "
            f"classes, found {len(classes):,} different values in {len(codes):,} rows: choose a column that is neither "
            "a measured number nor an identifier"
        )
    if all(re.fullmatch(r"-?\d{1,18}", name) for name in classes):
        order = sorted(range(len(classes)), key=lambda index: int(classes[index]))
        place = np.empty(len(classes), dtype=np.int64)
        place[order] = np.arange(len(classes))
        codes, classes = place[codes], tuple(classes[index] for index in order)
    return codes, classes


def _normalize_labels(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write integers and booleans as Parquet stores them, `1` and `true`, where a CSV has `1.0` and `True`."""
    distinct = compute.unique(labels).to_pylist()
    if all(re.fullmatch(r"-?\d+\.0+", text) for text in distinct):
        return compute.replace_substring_regex(labels, r"\.0+$", "")
    if all(text.lower() in typed_columns.BOOLEAN_TEXT for text in distinct):
        return compute.utf8_lower(labels)
    return labels


def _split_key(
    column: pa.ChunkedArray, data: config_data.Table, source: str, rows: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return what the rows are split by, `(N,)`: index of the group, rank in time, or index of the split."""
    name = str(data.split.group or data.split.time or data.split.column)
    option = f"--data.split.{data.split.method} {quote(name)}"
    location = Location(source, name, rows, f"correct it, or leave out {option}")
    if not pa.types.is_temporal(column.type):
        column = values.text(column, location, data.missing)
    if column.null_count:
        raise location.error(compute.index(column.is_null(), value=True).as_py(), "a value to split by", "none")
    if data.split.method == "time":
        if (times := values.times(column)) is None:
            unclear = ", of which day and month can be told apart" if spelling.is_date(str(column[0])) else ""
            raise location.error(0, f"numbers, or dates such as 2026-11-30{unclear}", f"'{column[0]}'")
        ranks: NDArray[np.int64] = np.unique(times, return_inverse=True)[1].astype(np.int64)
        return ranks
    codes, distinct = typed_columns.codes(values.text(column, location))
    if data.split.method == "group":
        return codes
    if unknown := [index for index, text in enumerate(distinct) if text not in SPLITS]:
        first = int(np.isin(codes, unknown).argmax())
        raise location.error(first, ", ".join(SPLITS[:-1]) + f" or {SPLITS[-1]}", f"'{distinct[codes[first]]}'")
    return np.array([SPLITS.index(text) for text in distinct])[codes]
