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
from hallmark.tasks.common.records import OUTPUT_NAMES, SPLITS, Column, ColumnKind
from hallmark.tasks.ml.config import data as config_data
from hallmark.tasks.ml.data.source_rows import SourceRows
from hallmark.tasks.ml.data.tables import encoding, files, values
from hallmark.tasks.ml.data.tables.values import Location

MAX_CLASSES = 1000
"""Maximum number of classes. A target with more values is probably a number or an identifier."""
MIXED_SHARE = 0.5
"""A text column is reported as mixed if more than this share of its values are numbers."""
BOOLEAN_TEXT = {"true", "false"}
"""Text by which a boolean column is recognized. 1 and 0 are recognized as numbers."""

_SAMPLE = 1000
"""Number of values from which booleans and dates are first guessed."""
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})([T ].*)?")

_Converted = tuple[NDArray[np.float32], Column]
"""A column as numbers, `(N,)` with NaN where a value is missing, and its description."""


def read(data: config_data.Table) -> SourceRows:
    """Read a table for training. Rows without a label are left out and counted.

    Args:
        data: path of the table, target, and the options for its columns.

    Raises:
        InputError: the table cannot be read, lacks a named column or has no input column; the target has one class or
            too many; an input holds dates, or a number that is infinite or exceeds the range of float32.
    """
    source = str(Path(data.path))
    columns = files.read(Path(source), data.separator)
    target, split_column = _take_out(columns, data, source)
    labels = values.text(target, Location(source, data.target, ()))
    is_labelled = compute.is_valid(labels)
    rows = np.flatnonzero(is_labelled) + 1 if labels.null_count else range(1, len(labels) + 1)
    y, classes = _labels(labels.filter(is_labelled), data.target, source)
    x, described = np.empty((len(y), len(columns)), dtype=np.float32), []
    for index, name in enumerate(list(columns)):
        # Columns are removed one by one, so that their memory is freed while the numbers are added.
        column = values.decode_input(columns.pop(name)).filter(is_labelled)
        location = Location(source, name, rows, f"correct it, or leave the column out: {config_data.ignoring(name)}")
        x[:, index], description = _convert(column, data.columns.get(name), location)
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


def _convert(column: pa.ChunkedArray, kind: ColumnKind | None, location: Location) -> _Converted:
    """Convert an input column to numbers, by the given kind or by the kind that its values suggest."""
    name, column = location.column, _require_input_type(column, location)
    match kind or _guess_kind(column, location):
        case "numeric":
            return _numeric(column, location)
        case "boolean":
            return values.boolean(column, location), Column(name, "boolean", column.null_count)
        case "categorical":
            return _categorical(name, values.text(column, location), was_text=values.is_text(column.type))


def _require_input_type(column: pa.ChunkedArray, location: Location) -> pa.ChunkedArray:
    """Return a column as numbers, booleans or text without surrounding whitespace; refuse any other type."""
    kind = column.type
    if pa.types.is_temporal(kind):
        raise _dates_error(location)
    if values.is_text(kind):
        return values.text(column, location)
    if not (values.is_number(kind) or pa.types.is_boolean(kind)):
        raise InputError(
            f"{location.source}: column '{location.column}': expected numbers, booleans or text, found type {kind}: "
            f"leave the column out: {config_data.ignoring(location.column)}"
        )
    return column


def _guess_kind(column: pa.ChunkedArray, location: Location) -> ColumnKind:
    if not values.is_text(column.type):
        return "boolean" if pa.types.is_boolean(column.type) else "numeric"
    if values.parse_numbers(column) is not None:
        return "numeric"
    sample = [text for text in column.slice(0, _SAMPLE).to_pylist() if text is not None]
    if {text.lower() for text in sample} <= BOOLEAN_TEXT:
        lower = compute.unique(compute.utf8_lower(column)).drop_null().to_pylist()
        return "boolean" if set(lower) <= BOOLEAN_TEXT else "categorical"
    if all(map(_DATE.fullmatch, sample)):
        raise _dates_error(location)
    return "categorical"


def _dates_error(location: Location) -> InputError:
    name = location.column
    return InputError(
        f"{location.source}: column '{name}': expected numbers, booleans or text, found dates: convert them to "
        "numbers, such as the year or the days since an event; or leave the column out: "
        f"{config_data.ignoring(name)}; or split the rows by it: --data.split.time {quote(name)}"
    )


def _numeric(column: pa.ChunkedArray, location: Location) -> _Converted:
    mixed, non_numbers = False, pa.chunked_array([[]], pa.string())
    if values.is_text(column.type):
        mixed = values.parse_numbers(column) is None
        if mixed:
            non_numbers = column.filter(compute.invert(values.matches_number(column)))
    x = values.numeric(column, location, mixed=mixed)
    example = str(non_numbers[0]) if len(non_numbers) else ""
    return x, Column(location.column, "numeric", column.null_count, strange=len(non_numbers), example=example)


def _categorical(name: str, texts: pa.ChunkedArray, *, was_text: bool) -> _Converted:
    codes, categories = _codes(texts)
    non_numbers, example = 0, ""
    if was_text and categories:
        is_number = values.matches_number(pa.array(categories)).to_numpy(zero_copy_only=False)
        counts = np.bincount(codes[codes >= 0], minlength=len(categories))
        if counts[is_number].sum() > MIXED_SHARE * counts.sum():
            non_numbers = int(counts[~is_number].sum())
            example = next((text for text, number in zip(categories, is_number, strict=True) if not number), "")
    x = np.where(codes < 0, np.nan, codes).astype(np.float32)
    return x, Column(name, "categorical", texts.null_count, categories, non_numbers, example)


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the sorted distinct values, and for each row the index of its value; -1 where it is missing."""
    encoded = column.combine_chunks().dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    order = sorted(range(len(distinct)), key=distinct.__getitem__)
    place = np.empty(len(distinct) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(distinct)), -1
    codes = place[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return codes, tuple(distinct[index] for index in order)


def _labels(labels: pa.ChunkedArray, target: str, source: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return class indices `(N,)` and class names, sorted, as numbers if all of them are integers."""
    codes, classes = _codes(_normalize_labels(labels))
    if len(classes) < 2:
        found = f"only '{classes[0]}'" if classes else "no value"
        raise InputError(f"{source}: target '{target}': expected at least two classes, found {found}")
    if len(classes) == len(codes) or len(classes) > MAX_CLASSES:
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
    if all(text.lower() in BOOLEAN_TEXT for text in distinct):
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
        column = values.text(column, location)
    if column.null_count:
        raise location.error(compute.index(column.is_null(), value=True).as_py(), "a value to split by", "none")
    if data.split.method == "time":
        return _ranks(column, location)
    codes, distinct = _codes(values.text(column, location))
    if data.split.method == "group":
        return codes
    if unknown := [index for index, text in enumerate(distinct) if text not in SPLITS]:
        first = int(np.isin(codes, unknown).argmax())
        raise location.error(first, ", ".join(SPLITS[:-1]) + f" or {SPLITS[-1]}", f"'{distinct[codes[first]]}'")
    return np.array([SPLITS.index(text) for text in distinct])[codes]


def _ranks(column: pa.ChunkedArray, location: Location) -> NDArray[np.int64]:
    """Return the rank of each row's time among all distinct times."""
    for kind in (None, pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            times = column if kind is None else column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        if not values.is_text(times.type):
            return np.unique(times.to_numpy(), return_inverse=True)[1].astype(np.int64)
    raise location.error(0, "numbers, or dates such as 2026-11-30", f"'{column[0]}'")
