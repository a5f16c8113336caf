"""Columns of a table as the inputs of a model. Values are parsed by the same functions as in training."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.artifact.certificate import Input
from hallmark.tasks.ml.data.tables import values
from hallmark.tasks.ml.data.tables.values import FINITE, Location


def is_table(inputs: Sequence[Input]) -> bool:
    """Return whether the model was trained on a user's table, so that values may be missing."""
    return any(one.kind is not None for one in inputs)


def select(names: Sequence[str], inputs: Sequence[Input], source: str) -> tuple[list[int], list[str]]:
    """Find the model's inputs among the columns of a file, in any order.

    A user's table may have more columns than the model uses, as it had in training. Its column names are compared
    without surrounding whitespace, as in training.

    Returns:
        The position of each input's column, and the names of the columns that the model does not use.

    Raises:
        InputError: columns are missing, duplicated, or (for models of other data) not used; the message names them.
    """
    expected = [one.name for one in inputs]
    stripped = [name.strip() for name in names] if is_table(inputs) else list(names)
    unused = [name for name in stripped if name not in expected]
    problems = {
        "missing": [name for name in expected if name not in stripped],
        "unexpected": [] if is_table(inputs) else unused,
        "duplicated": sorted({name for name in stripped if stripped.count(name) > 1}),
    }
    if wrong := [f"{problem}: {', '.join(map(repr, those))}" for problem, those in problems.items() if those]:
        raise InputError(f"{source}: expected the columns {', '.join(expected)}; {'; '.join(wrong)}")
    return [stripped.index(name) for name in expected], unused


def convert(column: pa.Array, location: Location, one: Input, *, is_text: bool) -> NDArray[np.generic]:
    """Convert a column to an input of the model.

    Args:
        column: the values of one batch.
        location: where they come from.
        one: the input.
        is_text: whether the file holds text only, as CSV does, so that text may stand for a number.

    Returns:
        Numbers, `(N, 1) float32`, or text, `(N, 1)`. Missing values are NaN or empty text.

    Raises:
        InputError: a value is not of the kind that the input takes, or missing where none may be.
    """
    if one.kind is None:
        return _complete(column, location, is_text=is_text).reshape(-1, 1)
    column = values.decode_input(column)
    match one.kind:
        case "categorical":
            texts = values.text(column, location).fill_null("").to_pylist()
            return np.array(texts, dtype=object).reshape(-1, 1)
        case "boolean":
            return values.boolean(column, location).reshape(-1, 1)
    if values.is_text(column.type):
        column = values.text(column, location)
    return values.numeric(column, location, mixed=one.mixed).reshape(-1, 1)


def _complete(column: pa.Array, location: Location, *, is_text: bool) -> NDArray[np.float32]:
    """Convert a column of numbers without missing values."""
    if is_text:
        column = compute.utf8_trim_whitespace(column)
        numbers = values.parse_numbers(column)
        if numbers is None:
            index = values.first_non_number(column)
            raise location.error(index, FINITE, f"'{column[index]}'" if str(column[index]) else "nothing")
        column = numbers
    if column.null_count:
        raise location.error(column.is_null().index(True).as_py(), FINITE, "null")
    if not values.is_number(column.type):
        raise location.error(0, FINITE, f"{column[0].as_py()!r} (type {column.type})")
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return values.as_float32(values.to_numpy(column), location, may_be_missing=False)
