"""Parsing of table values, shared by training and prediction: missing values, numbers, booleans and text.

Every function takes an Arrow array or chunked array and works on whole columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.tables import split_times
from hallmark.tasks.ml.data.tables.spelling import NumberFormat
from hallmark.tasks.ml.data.tables.wide_numbers import Numbers

Array: TypeAlias = pa.Array | pa.ChunkedArray

MISSING_TEXT = [
    "", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NULL", "null", "NaN", "nan", "-NaN", "-nan",
]  # fmt: skip
"""Text that marks a missing value, after surrounding whitespace is removed."""
TRUE_TEXT, FALSE_TEXT = ("true", "1", "1.0", "yes", "y", "t", "on"), ("false", "0", "0.0", "no", "n", "f", "off")
"""Text of boolean values, in lower case."""

FINITE = "a finite number within float32"
"""Name of an acceptable number in error messages."""

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_EXACT_INTEGERS = 2.0**53
"""Smallest number from which float64 no longer represents every integer."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where the values of a column come from, for error messages."""

    source: str
    """File name, or `stdin`."""
    column: str
    rows: Sequence[int] | NDArray[np.int64]
    """Row number in the file of each value. The first row below the heading is row 1."""
    advice: str = ""
    """Advice about a wrong value, if there is more to say than to correct it."""

    def error(self, index: int, expected: str, found: object) -> InputError:
        """Build the error for the value at position `index` of the column."""
        advice = f": {self.advice}" if self.advice else ""
        row = self.rows[index]
        return InputError(
            f"{self.source}: row {row}, column '{self.column}': expected {expected}, found {found}{advice}"
        )


def is_text(kind: pa.DataType) -> bool:
    """Return whether a decoded column (see `decode`) holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(kind: pa.DataType) -> bool:
    """Return whether a column holds integers, floats or decimals."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def decode(column: Array) -> Array:
    """Replace dictionary, view and half-float types by plain ones, and NaN by null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    if pa.types.is_floating(column.type):
        column = compute.if_else(compute.is_nan(column), None, column)
    return column


def decode_input(column: Array) -> Array:
    """Decode a model input: as `decode`, with decimals as float64 and an untyped column as missing numbers."""
    column = decode(column)
    if pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
        return column.cast(pa.float64())
    return column


def text(column: Array, location: Location, missing: Sequence[str] | None = None) -> Array:
    """Convert a decoded column to text without surrounding whitespace; null where the value is missing.

    Integers have no decimal point, whether they were stored as integers or floats.

    Args:
        column: the values.
        location: where they come from.
        missing: texts that mark a missing value, besides empty text; `MISSING_TEXT` if it is None.

    Raises:
        InputError: the column holds lists, structs or binary data.
    """
    kind = column.type
    if is_text(kind):
        trimmed = compute.utf8_trim_whitespace(column)
        marks = MISSING_TEXT if missing is None else ["", *missing]
        return compute.if_else(compute.is_in(trimmed, pa.array(marks, kind)), None, trimmed)
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    if pa.types.is_nested(kind) or any(is_binary(kind) for is_binary in binary):
        raise InputError(
            f"{location.source}: column '{location.column}': expected text, numbers or booleans, found type {kind}"
        )
    if not pa.types.is_floating(kind):
        return column.cast(pa.string())
    is_whole = compute.and_(
        compute.equal(column, compute.floor(column)), compute.less(compute.abs(column), _EXACT_INTEGERS)
    )
    whole = compute.if_else(is_whole, column, 0).cast(pa.int64())
    return compute.if_else(is_whole, whole.cast(pa.string()), column.cast(pa.string()))


def matches_number(texts: Array) -> Array:
    """Return for each text whether it is written as a number; null where it is missing."""
    return compute.match_substring_regex(texts, _NUMBER)


def non_numbers(texts: Array, numbers: NumberFormat | None = None) -> Array | None:
    """Return the texts that are not numbers in this format, or None if there are none; see `numeric`."""
    is_number = matches_number(texts) if numbers is None else compute.is_valid(numbers.plain(texts))
    strange = texts.filter(compute.and_(compute.is_valid(texts), compute.invert(is_number)))
    return strange if len(strange) else None


def parse_numbers(texts: Array) -> Array | None:
    """Parse text as float64, or return None if any value is not a number."""
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        return None


def numeric(
    column: Array,
    location: Location,
    *,
    mixed: bool = False,
    numbers: NumberFormat | None = None,
    wide: bool = False,
) -> Numbers:
    """Convert a decoded input column (see `decode_input`) to numbers.

    Args:
        column: numbers, booleans, or text as `text` returns it.
        location: where the values come from.
        mixed: whether text that is not a number counts as missing; it is refused otherwise.
        numbers: how numbers are written in text; None for those of programming languages.
        wide: whether the numbers stay float64.

    Returns:
        `(N,)`, float32 or float64, NaN where a value is missing.

    Raises:
        InputError: a value is not a number, is infinite, or exceeds the range of float32.
    """
    kind = column.type
    if is_text(kind):
        column = _parse(column, location, mixed, numbers)
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.float32())
    elif pa.types.is_integer(kind):
        column = column.cast(pa.float64(), safe=False)
    elif not pa.types.is_floating(kind):
        index = compute.index(column.is_valid(), value=True).as_py()
        found = f"{column[index].as_py()!r} (type {kind})" if index >= 0 else f"type {kind}"
        raise location.error(max(index, 0), FINITE, found)
    return as_numbers(to_numpy(column), location, may_be_missing=True, wide=wide)


def _parse(column: Array, location: Location, mixed: bool, numbers: NumberFormat | None) -> Array:  # noqa: FBT001
    """Parse text as float64; see `numeric`."""
    if numbers is not None:
        texts = numbers.plain(column)
        is_wrong = compute.and_(compute.is_valid(column), compute.is_null(texts))
        if not mixed and (index := compute.index(is_wrong, value=True).as_py()) >= 0:
            expected = f"{FINITE}, with ',' before its fraction" if numbers.decimal == "," else FINITE
            raise location.error(index, expected, f"'{column[index]}'")
        return texts.cast(pa.float64())
    texts = compute.if_else(matches_number(column), column, None) if mixed else column
    parsed = parse_numbers(texts)
    if parsed is None:
        index = first_non_number(texts)
        raise location.error(index, FINITE, f"'{texts[index]}'")
    return parsed


def as_numbers(values: NDArray[np.generic], location: Location, *, may_be_missing: bool, wide: bool = False) -> Numbers:
    """Convert numbers to float32, or to float64 within the range of float32.

    Args:
        values: `(N,)`.
        location: where the values come from.
        may_be_missing: whether NaN, which stands for a missing value, is accepted.
        wide: whether the result is float64.

    Raises:
        InputError: a value is infinite, exceeds the range of float32, or is NaN where no value may be missing.
    """
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(values, dtype=np.float32)
    is_good = ~np.isinf(converted) if may_be_missing else np.isfinite(converted)
    if not is_good.all():
        index = int(is_good.argmin())
        raise location.error(index, FINITE, values[index])
    return np.ascontiguousarray(values, dtype=np.float64) if wide else converted


def boolean(column: Array, location: Location, missing: Sequence[str] | None = None) -> NDArray[np.float32]:
    """Convert a decoded column to 1 for true and 0 for false; see `text` for `missing`.

    Returns:
        `(N,)`, NaN where a value is missing.

    Raises:
        InputError: a value is none of `TRUE_TEXT` and `FALSE_TEXT`, in upper or lower case.
    """
    texts = text(column, location, missing)
    lower = compute.utf8_lower(texts)
    is_true, is_false = (compute.is_in(lower, pa.array(words, lower.type)) for words in (TRUE_TEXT, FALSE_TEXT))
    truths = compute.if_else(is_true, 1.0, compute.if_else(is_false, 0.0, None)).cast(pa.float32())
    if truths.null_count > texts.null_count:
        index = compute.index(compute.and_(compute.is_valid(texts), compute.is_null(truths)), value=True).as_py()
        raise location.error(index, "true or false (or 1 or 0)", f"'{texts[index]}'")
    values: NDArray[np.float32] = to_numpy(truths).astype(np.float32, copy=False)
    return values


def suggest_schema(table: pa.Table) -> pa.Schema:
    """Return the types that the texts of a table suggest: numbers, booleans or text."""
    fields = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        texts = text(column, Location("", name, ()))
        if parse_numbers(texts) is not None:
            fields.append((name, pa.float64()))
        else:
            is_boolean = compute.all(compute.is_in(compute.utf8_lower(texts), pa.array(["true", "false", None])))
            fields.append((name, pa.bool_() if is_boolean.as_py() else pa.string()))
    return pa.schema(fields)


def times(column: Array) -> NDArray[np.generic] | None:
    """Return times as values that can be compared, `(N,)`, of a column without missing values.

    Returns None if the column holds neither numbers nor dates, or dates of which day and month cannot be told apart.
    """
    for kind in (None, pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            found = column if kind is None else column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        if not is_text(found.type):
            return to_numpy(found)
    forms = split_times.parse(column.to_pylist()) if is_text(column.type) else []
    return forms[0] if len(forms) == 1 else None


def to_numpy(column: Array) -> NDArray[np.generic]:
    """Convert a column to an array, without a copy where possible; missing numbers become NaN."""
    if isinstance(column, pa.ChunkedArray):
        array: NDArray[np.generic] = column.to_numpy()
    else:
        array = column.to_numpy(zero_copy_only=False)
    return array


def first_non_number(texts: Array) -> int:
    """Find the first text that is not a number."""
    return bisect(texts, lambda part: parse_numbers(part) is None)


def bisect(texts: Array, fails: Callable[[Array], bool]) -> int:
    """Find the first text with which something fails, by bisection: Arrow does not report its position."""
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(texts[low:middle]) else (middle, high)
    return low
