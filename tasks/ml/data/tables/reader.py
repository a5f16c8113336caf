"""A table of one's own: what each column is, its rows as numbers, its labels, and what divides it."""

import re
from pathlib import Path
from shlex import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Column, ColumnKind
from hallmark.tasks.ml.config import data as config_data
from hallmark.tasks.ml.data.source_rows import SourceRows
from hallmark.tasks.ml.data.tables import encoding, files

CLASSES = 1000
"""A target of more values is a number to be predicted, or an identifier."""
MIXED = 0.5
"""A column of text of which more than this share are numbers is one of numbers with some text in it."""
BOOLEANS = {"true", "false"}
OUTPUTS = ("label", "probabilities")
"""Names that an input cannot have, since the outputs do."""
INSIDE = (encoding.INSIDE, encoding.BEHIND)
"""What no name of an input can begin with, since names within the graph do."""
SPLITS = ("train", "validation", "test")

_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})([T ].*)?")


_Read = tuple[NDArray[np.float32], Column]
"""A column as numbers, `(N,)`: indices of values, NaN where there is none; and what it is."""


def read(data: config_data.Table) -> SourceRows:
    """Read a table: rows without a label are left out and counted.

    Args:
        data: where it lies, which column is the target, and what the others are.

    Raises:
        InputError: it cannot be read, has no such column, no column to learn from, a target of one class or of too
            many, a date, or an infinite number.
    """
    path = Path(data.path)
    columns = files.read(path, data.separator)
    target, divider = _taken_out(columns, data, path)
    target = _text(data.target, target, path)
    labelled = compute.is_valid(target)
    y, classes = _labels(target.filter(labelled), data.target, path)
    x, described = np.empty((len(y), len(columns)), dtype=np.float32), []
    for index, name in enumerate(list(columns)):
        # Taken out one by one, so that the table goes as the numbers come.
        found = files.plain(columns.pop(name)).filter(labelled)
        x[:, index], column = _column(name, found, data.columns.get(name), path)
        described.append(column)
    pa.default_memory_pool().release_unused()  # the text of a large table, which Arrow would keep for the next one
    return SourceRows(
        x=x,
        y=y,
        columns=tuple(column.name for column in described),
        classes=classes,
        table_columns=tuple(described),
        split_key=None if divider is None else _divider(divider.filter(labelled), data, path),
        unlabelled=len(labelled) - len(y),
    )


def _taken_out(
    columns: files.Columns, data: config_data.Table, path: Path
) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Take the target and the column to divide by out of a table, and what is ignored; the rest are inputs."""
    names = list(columns)
    by = data.split.group or data.split.time or data.split.column
    files.require(data.target, names, "--target", path)
    for name in data.ignore:
        files.require(name, names, "--data.ignore", path)
    for name in data.columns:
        files.require(name, names, f"--data.columns.{name}", path)
    if by is not None:
        files.require(by, names, f"--data.split.{data.split.method}", path)
    target, divider = (files.plain(columns.pop(one)) if one else None for one in (data.target, by))
    for name in data.ignore:
        columns.pop(name, None)
    if not columns:
        raise InputError(f"{path}: no column is left to learn from beside the target '{data.target}'")
    for name in columns:
        if name in OUTPUTS or name.startswith(INSIDE):
            raise InputError(
                f"{path}: column '{name}' has the name of an output of the model, or of what lies inside it: rename "
                f"it, or {config_data.ignoring(name)}"
            )
    return target, divider


def _column(name: str, column: pa.ChunkedArray, kind: ColumnKind | None, path: Path) -> _Read:
    """Read one column as what it is said to be, or as what it is seen to be."""
    column = _plain(name, column, path)
    kind = kind or _kind(name, column, path)
    match kind:
        case "numeric":
            return _numeric(name, column, path)
        case "boolean":
            return _boolean(name, column, path)
        case "categorical":
            return _categorical(name, column)


def _plain(name: str, column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """The same as text without blanks around it, numbers or booleans; dates and what is nested are refused."""
    kind = column.type
    if pa.types.is_temporal(kind):
        raise InputError(_no_date(name, path))
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    if files.is_text(kind):
        return files.text(column)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        if not pa.types.is_null(kind):
            raise InputError(
                f"{path}: column '{name}' is of type {kind}, which is no input: {config_data.ignoring(name)}"
            )
        return column.cast(pa.float64())
    return column


def _kind(name: str, column: pa.ChunkedArray, path: Path) -> ColumnKind:
    """What a column is seen to be."""
    if not files.is_text(column.type):
        return "boolean" if pa.types.is_boolean(column.type) else "numeric"
    if _numbers(column) is not None:
        return "numeric"
    some = [text for text in column.slice(0, 1000).to_pylist() if text is not None]
    if {text.lower() for text in some} <= BOOLEANS:
        lower = compute.unique(compute.utf8_lower(column)).drop_null().to_pylist()
        return "boolean" if set(lower) <= BOOLEANS else "categorical"
    if all(map(_DATE.fullmatch, some)):
        raise InputError(_no_date(name, path))
    return "categorical"


def _no_date(name: str, path: Path) -> str:
    return (
        f"{path}: column '{name}' holds dates, which are no input: make numbers of them, such as the year or the days "
        f"since an event; or {config_data.ignoring(name)}; or divide by it: --data.split.time {quote(name)}"
    )


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Text as numbers, if all of it is."""
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        return None


def _numeric(name: str, column: pa.ChunkedArray, path: Path) -> _Read:
    missing, strange, example = column.null_count, 0, ""
    if files.is_text(column.type) and (numbers := _numbers(column)) is None:
        texts = column.filter(compute.invert(files.are_numbers(column)))
        strange, example = len(texts), str(texts[0])
        numbers = files.numbers_alone(column).cast(pa.float64())
    elif not files.is_text(column.type):
        numbers = column
    assert numbers is not None  # noqa: S101 - text that is no number was made none
    values = numbers.cast(pa.float64(), safe=False).to_numpy()
    with np.errstate(over="ignore"):
        x = values.astype(np.float32)
    if infinite := int(np.isinf(x).sum()):
        first = int(np.isinf(x).argmax())
        raise InputError(
            f"{path}: column '{name}' has {infinite} values that are infinite or too large for float32, the first is "
            f"{values[first]:g}: correct them, or {config_data.ignoring(name)}"
        )
    return x, Column(name, "numeric", missing, strange=strange, example=example)


def _boolean(name: str, column: pa.ChunkedArray, path: Path) -> _Read:
    texts = files.text(column)
    truths = files.truths(texts)
    if truths.null_count > texts.null_count:
        unknown = compute.min(texts.filter(compute.and_(compute.is_valid(texts), compute.is_null(truths))))
        raise InputError(
            f"{path}: column '{name}': expected true or false, as --data.columns.{quote(name)} says, found '{unknown}'"
        )
    return truths.to_numpy().astype(np.float32, copy=False), Column(name, "boolean", column.null_count)


def _categorical(name: str, column: pa.ChunkedArray) -> _Read:
    codes, values = _codes(files.text(column))
    strange, example = 0, ""
    if files.is_text(column.type) and values:
        are_numbers = files.are_numbers(pa.array(values)).to_numpy(zero_copy_only=False)
        counts = np.bincount(codes[codes >= 0], minlength=len(values))
        if counts[are_numbers].sum() > MIXED * counts.sum():
            strange = int(counts[~are_numbers].sum())
            example = next((value for value, is_number in zip(values, are_numbers, strict=True) if not is_number), "")
    x = np.where(codes < 0, np.nan, codes).astype(np.float32)
    return x, Column(name, "categorical", column.null_count, values, strange, example)


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Each row's value as an index into all values, sorted; -1 where there is none."""
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    order = sorted(range(len(values)), key=values.__getitem__)
    place = np.empty(len(values) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(values)), -1
    codes = place[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return codes, tuple(values[index] for index in order)


def _labels(labels: pa.ChunkedArray, target: str, path: Path) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class indices `(N,)` and the classes: sorted, as numbers where all are whole numbers."""
    codes, values = _codes(_spelt(labels))
    if len(values) < 2:
        found = f"'{values[0]}' alone" if values else "no value"
        raise InputError(f"{path}: the target '{target}' has {found}: expected two classes at least")
    if len(values) == len(codes) or len(values) > CLASSES:
        raise InputError(
            f"{path}: the target '{target}' has {len(values):,} classes in {len(codes):,} rows: expected a column that "
            f"names a class, of at most {CLASSES:,}; a number or an identifier is none"
        )
    if all(re.fullmatch(r"-?\d{1,18}", value) for value in values):
        order = sorted(range(len(values)), key=lambda index: int(values[index]))
        place = np.empty(len(values), dtype=np.int64)
        place[order] = np.arange(len(values))
        codes, values = place[codes], tuple(values[index] for index in order)
    return codes, values


def _spelt(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers and truths the one way, where all are: CSV has `1.0` and `True` too, Parquet `1` and `true`."""
    values = compute.unique(labels).to_pylist()
    if all(re.fullmatch(r"-?\d+\.0+", value) for value in values):
        return compute.replace_substring_regex(labels, r"\.0+$", "")
    if all(value.lower() in BOOLEANS for value in values):
        return compute.utf8_lower(labels)
    return labels


def _divider(column: pa.ChunkedArray, data: config_data.Table, path: Path) -> NDArray[np.int64]:
    """What the rows are divided by, `(N,)`: the group's index, the rank in time, or 0, 1, 2 of the split's name."""
    name, by = str(data.split.group or data.split.time or data.split.column), f"--data.split.{data.split.method}"
    if not pa.types.is_temporal(column.type):
        column = _text(name, column, path)
    if column.null_count:
        row = int(compute.index(column.is_null(), value=True).as_py()) + 1
        raise InputError(f"{path}: {by}: labelled row {row} has no value in column '{name}': expected one in every row")
    if data.split.method == "time":
        return _ranks(column, name, path)
    codes, values = _codes(files.text(column))
    if data.split.method == "group":
        return codes
    if unknown := [value for value in values if value not in SPLITS]:
        raise InputError(f"{path}: {by}: column '{name}' holds '{unknown[0]}': expected {', '.join(SPLITS)} alone")
    return np.array([SPLITS.index(value) for value in values])[codes]


def _ranks(column: pa.ChunkedArray, name: str, path: Path) -> NDArray[np.int64]:
    """The place of each row's time among all times."""
    for kind in (None, pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            times = column if kind is None else column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        if not files.is_text(times.type):
            values = times.to_numpy()
            return np.unique(values, return_inverse=True)[1].astype(np.int64)
    raise InputError(
        f"{path}: --data.split.time: column '{name}' holds '{column[0]}': expected numbers, or dates such as 2026-11-30"
    )


def _text(name: str, column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    try:
        return files.text(column)
    except InputError as error:
        raise InputError(f"{path}: column '{name}' {error}") from error
