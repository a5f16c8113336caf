"""Input columns of a table for training: the kind of each column, and its values as numbers."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from shlex import quote
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Column, ColumnKind
from hallmark.tasks.ml.config import data as config_data
from hallmark.tasks.ml.data.tables import spelling, values, wide_numbers
from hallmark.tasks.ml.data.tables.date_columns import date_reading
from hallmark.tasks.ml.data.tables.spelling import NumberFormat
from hallmark.tasks.ml.data.tables.values import Location
from hallmark.tasks.ml.data.tables.wide_numbers import Numbers

MIXED_SHARE = 0.5
"""A text column is reported as mixed if more than this share of its values are numbers."""
BOOLEAN_TEXT = {"true", "false"}
"""Text by which a boolean column is recognized. 1 and 0 are recognized as numbers."""

_SAMPLE = 1000
"""Number of values from which booleans and dates are first guessed."""
_DATES = 0.9
"""Share of the different values of a text column from which it holds dates."""
Looks: TypeAlias = Literal["", "numbers", "decimal comma", "dates", "codes"]
"""What most values of a text column look like; see `records.Column.looks`."""
_Converted: TypeAlias = tuple[Numbers, Column]
"""A column as numbers, `(N,)` with NaN where a value is missing, and its description."""


def convert(column: pa.ChunkedArray, data: config_data.Table, location: Location) -> _Converted:
    """Convert an input column to numbers, by the given kind or by the kind that its values suggest."""
    kind, raw = data.columns.get(location.column), column
    column = _require_input_type(column, kind, data, location)
    match kind or _guess_kind(column, data, location):
        case "date":
            x, described = _date(column, data, location)
        case "numeric":
            x, described = _numeric(column, data, location)
        case "boolean":
            described = Column(location.column, "boolean", column.null_count)
            x = values.boolean(column, location, data.missing)
        case "categorical":
            x, described = _categorical(column, data, location, was_given=kind is not None)
            described = replace(described, takes_na=data.missing is None and _has_na(raw, described.values))
    return x, replace(described, missing_text=data.missing)


def _require_input_type(
    column: pa.ChunkedArray, given: ColumnKind | None, data: config_data.Table, location: Location
) -> pa.ChunkedArray:
    """Return a column as numbers, booleans or text without surrounding whitespace; refuse any other type."""
    kind = column.type
    if given == "date":
        return column
    if pa.types.is_temporal(kind) and given == "categorical":
        return values.text(column, location)
    if pa.types.is_temporal(kind):
        raise _dates_error(column, location)
    if values.is_text(kind):
        return values.text(column, location, data.missing)
    if not (values.is_number(kind) or pa.types.is_boolean(kind)):
        raise InputError(
            f"{location.source}: column '{location.column}': expected numbers, booleans or text, found type {kind}: "
            f"leave the column out: {config_data.ignoring(location.column)}"
        )
    return column


def _guess_kind(column: pa.ChunkedArray, data: config_data.Table, location: Location) -> ColumnKind:
    if not values.is_text(column.type):
        return "boolean" if pa.types.is_boolean(column.type) else "numeric"
    if data.decimal == ",":
        if values.non_numbers(column, NumberFormat(",", underscores=False)) is None:
            return "numeric"
    elif values.parse_numbers(column) is not None:
        is_code = compute.any(compute.match_substring_regex(column, r"^0\d+$")).as_py()
        return "categorical" if is_code else "numeric"
    sample = column.drop_null().slice(0, _SAMPLE).to_pylist()
    if {text.lower() for text in sample} <= BOOLEAN_TEXT:
        lower = compute.unique(compute.utf8_lower(column)).drop_null().to_pylist()
        return "boolean" if set(lower) <= BOOLEAN_TEXT else "categorical"
    if all(map(spelling.is_date, sample)):
        raise _dates_error(column, location)
    return "categorical"


def _dates_error(column: pa.ChunkedArray, location: Location) -> InputError:
    name = location.column
    can_split = values.times(column.drop_null()) is not None
    split = f"; or split the rows by it: --data.split.time {quote(name)}" if can_split else ""
    first = f"write them as YYYY-MM-DD and add --data.columns.{quote(name)} date"
    if not values.is_text(column.type):
        first = "convert them to numbers, such as the hour"
    if date_reading.can_read(column, location):
        parts = "year, month, day of the week, hour and the time since the first"
        first = f"to learn from {parts}: --data.columns.{quote(name)} date"
    return InputError(
        f"{location.source}: column '{name}': expected numbers, booleans or text, found dates: {first}; or leave "
        f"the column out: {config_data.ignoring(name)}{split}; or treat each as a text: --data.columns.{quote(name)} "
        "categorical"
    )


def _date(column: pa.ChunkedArray, data: config_data.Table, location: Location) -> _Converted:
    form = date_reading.find_form(column, location, data.missing)
    x = date_reading.parse(column, location, data.missing, form)
    known = x[~np.isnan(x)]
    if spelling.are_written_dates(known):
        raise location.error(int((~np.isnan(x)).argmax()), date_reading.DATE, f"{known[0]:.0f}: write it as YYYY-MM-DD")
    return x, Column(location.column, "date", int(np.isnan(x).sum()), wide=True, date_form=form)


def _numeric(column: pa.ChunkedArray, data: config_data.Table, location: Location) -> _Converted:
    numbers, strange = None, None
    if values.is_text(column.type):
        numbers = _number_format(column, data)
        if numbers is not None or values.parse_numbers(column) is None:
            strange = values.non_numbers(column, numbers)
    read: Callable[..., NDArray[Any]] = partial(
        values.numeric, column, location, mixed=strange is not None, numbers=numbers
    )
    x = read()
    distinct, merged = _merged(column, x, read) if wide_numbers.is_coarse(x) else (0, 0)
    if is_wide := bool(distinct) and wide_numbers.is_gain(exact := read(wide=True), distinct, merged):
        x, (distinct, merged) = exact, _merged(column, wide_numbers.shifted(exact), read)
    return x, Column(
        location.column,
        "numeric",
        column.null_count,
        strange=0 if strange is None else len(strange),
        example="" if strange is None else str(strange[0]),
        decimal=numbers.decimal if numbers else "",
        unit=numbers.unit if numbers else "",
        distinct=distinct,
        merged=merged,
        wide=is_wide,
    )


def _number_format(column: pa.ChunkedArray, data: config_data.Table) -> NumberFormat | None:
    """Return the format of the numbers in text; None if it is that of programming languages."""
    if data.decimal == "," or values.parse_numbers(column) is None:
        other = values.non_numbers(column)
        sample = [] if other is None else compute.unique(other).slice(0, _SAMPLE).to_pylist()
        numbers = NumberFormat(data.decimal, spelling.unit_of(sample))
        strange = values.non_numbers(column, numbers)
        if data.decimal == "," or (0 if strange is None else len(strange)) < (0 if other is None else len(other)):
            return numbers
    return None


def _merged(column: pa.ChunkedArray, x: NDArray[np.float32], read: Callable[..., NDArray[Any]]) -> tuple[int, int]:
    """Return how many different values a column has, and how many are left in `x`, float32; zeros if it can hold them.

    `read` gives the values as float64.
    """
    is_whole = pa.types.is_integer(column.type)
    if values.is_text(column.type):
        is_whole = bool(compute.all(compute.match_substring_regex(column, r"^[+-]?\d+$")).as_py())
    if is_whole:  # as they are written, since they may exceed float64
        distinct = compute.count_distinct(column, mode="only_valid").as_py()
    else:  # 1 and 1.0 are one number, and programs write 1.0 once a value is missing
        exact = read(wide=True)
        distinct = wide_numbers.distinct_count(exact)
        is_whole = bool((exact == np.floor(exact))[~np.isnan(exact)].all())
    merged = wide_numbers.distinct_count(x)
    return (distinct, merged) if wide_numbers.is_harmful(x, distinct, merged, is_whole=is_whole) else (0, 0)


def _categorical(
    column: pa.ChunkedArray, data: config_data.Table, location: Location, *, was_given: bool
) -> _Converted:
    was_text, is_joined = values.is_text(column.type), data.spellings == "joined"
    texts = values.text(column, location, data.missing)
    codes_, categories = codes(join_spellings(texts, data))
    non_numbers, example = 0, ""
    looks: Looks = ""
    if was_text and categories:
        is_number = values.matches_number(pa.array(categories)).to_numpy(zero_copy_only=False)
        counts = np.bincount(codes_[codes_ >= 0], minlength=len(categories))
        looks, example = ("", "") if was_given else _looks(categories, is_number, data)
        if not looks and counts[is_number].sum() > MIXED_SHARE * counts.sum():
            non_numbers = int(counts[~is_number].sum())
            example = next((text for text, number in zip(categories, is_number, strict=True) if not number), "")
    x = np.where(codes_ < 0, np.nan, codes_).astype(np.float32)
    return x, Column(
        location.column,
        "categorical",
        texts.null_count,
        categories,
        non_numbers,
        example,
        looks=looks,
        joined=is_joined,
    )


def _has_na(raw: pa.ChunkedArray, categories: tuple[str, ...]) -> bool:
    """Return whether NA, which counts as missing, may be a code like most values, for example that of Namibia."""
    codes = [value for value in categories if re.fullmatch(r"[A-Z]{2}", value)]
    if not values.is_text(raw.type) or not codes or 2 * len(codes) <= len(categories):
        return False
    return bool(compute.any(compute.equal(compute.utf8_trim_whitespace(raw), "NA")).as_py())


def _looks(categories: tuple[str, ...], is_number: NDArray[np.bool_], data: config_data.Table) -> tuple[Looks, str]:
    """Return what most values of a text column look like if they are not plain text, and one of them as an example."""
    padded = next((text for text in categories if spelling.is_padded(text)), "")
    if is_number.all() and padded:
        return "codes", padded
    texts, plain = pa.array(categories), int(is_number.sum())
    other = [text for text, number in zip(categories, is_number, strict=True) if not number]
    unit = spelling.unit_of(other[:_SAMPLE])
    if 2 * sum(unit in text for text in other) <= len(categories):
        unit = ""  # 2, 3, 4, 5more
    found: list[tuple[int, Looks, NDArray[np.bool_]]] = []
    formats: tuple[tuple[Looks, Literal[".", ","]], ...] = (("numbers", "."), ("decimal comma", ","))
    for looks, decimal in formats:
        read = NumberFormat(decimal, unit, underscores=False).plain(texts).is_valid().to_numpy(zero_copy_only=False)
        found.append((int(read.sum()), looks, read))
    count, looks, read = max(found, key=lambda one: one[0])  # the first of equals: 1,234 is one thousand
    if count > MIXED_SHARE * len(categories) and count > plain and data.decimal == ".":
        return looks, categories[int((read & ~is_number).argmax())]
    dates = [text for text in categories[:_SAMPLE] if spelling.is_date(text) or spelling.is_written_date(text)]
    if len(dates) > _DATES * min(len(categories), _SAMPLE):
        return "dates", dates[0]
    return "", ""


def codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the sorted distinct values, and for each row the index of its value; -1 where it is missing."""
    encoded = column.combine_chunks().dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    order = sorted(range(len(distinct)), key=distinct.__getitem__)
    place = np.empty(len(distinct) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(distinct)), -1
    codes = place[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return codes, tuple(distinct[index] for index in order)


def join_spellings(texts: pa.ChunkedArray, data: config_data.Table, *, zeros: bool = False) -> pa.ChunkedArray:
    """Join values that differ by their spelling only, if that was asked for, in their most frequent spelling."""
    if data.spellings == "as_written":
        return texts
    counts = {one["values"]: one["counts"] for one in compute.value_counts(texts.drop_null()).to_pylist()}
    groups = spelling.alike(list(counts), zeros=zeros)
    chosen = {value: max(group, key=lambda one: (counts[one], one)) for group in groups for value in group}
    encoded = texts.combine_chunks().dictionary_encode()
    joined = pa.array([chosen.get(value, value) for value in encoded.dictionary.to_pylist()], texts.type)
    return pa.chunked_array([joined.take(encoded.indices)])
