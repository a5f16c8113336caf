"""Columns of a table as the inputs of a model. Values are parsed by the same functions as in training."""

from collections.abc import Sequence
from unicodedata import normalize

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.artifact.certificate import Input
from hallmark.tasks.ml.data.tables import spelling, values
from hallmark.tasks.ml.data.tables.date_columns import date_reading
from hallmark.tasks.ml.data.tables.values import FINITE, Location
from hallmark.tasks.ml.data.tables.wide_numbers import Numbers


def is_table(inputs: Sequence[Input]) -> bool:
    """Return whether the model was trained on a user's table, so that values may be missing."""
    return any(one.kind is not None for one in inputs)


def select(names: Sequence[str], inputs: Sequence[Input], source: str) -> tuple[list[int], list[str]]:
    """Find the model's inputs among the columns of a file, in any order.

    A user's table may have more columns than the model uses, as it had in training. Its column names are compared
    without surrounding whitespace, as in training, and in any Unicode form.

    Returns:
        The position of each input's column, and the names of the columns that the model does not use.

    Raises:
        InputError: columns are missing, duplicated, or (for models of other data) not used; the message names them.
    """
    expected = [one.name for one in inputs]
    stripped = [name.strip() for name in names] if is_table(inputs) else list(names)
    by_form = {normalize("NFC", name): name for name in expected}
    stripped = [name if name in expected else by_form.get(normalize("NFC", name), name) for name in stripped]
    unused = [name for name in stripped if name not in expected]
    problems = {
        "missing": [name for name in expected if name not in stripped],
        "unexpected": [] if is_table(inputs) else unused,
        "duplicated": sorted({name for name in stripped if name and stripped.count(name) > 1}),
    }
    if wrong := [f"{problem}: {', '.join(map(repr, those))}" for problem, those in problems.items() if those]:
        alike = {name.casefold(): name for name in unused}
        near = [(name, alike[name.casefold()]) for name in problems["missing"] if name.casefold() in alike]
        wrong += [f"is '{found}' the column '{name}'? Rename it" for name, found in near[:1]]
        raise InputError(f"{source}: expected the columns {', '.join(expected)}; {'; '.join(wrong)}")
    return [stripped.index(name) for name in expected], unused


def convert(
    column: pa.Array, location: Location, one: Input, *, is_text: bool
) -> tuple[NDArray[np.generic], pa.Array | None]:
    """Convert a column to an input of the model.

    Args:
        column: the values of one batch.
        location: where they come from.
        one: the input.
        is_text: whether the file holds text only, as CSV does, so that text may stand for a number.

    Returns:
        Numbers, `(N, 1) float32` or float64, or text, `(N, 1)`, where missing values are NaN or empty text; and the
        texts that count as missing because they are not numbers, or None if there are none.

    Raises:
        InputError: a value is not of the kind that the input takes, or missing where none may be.
    """
    if one.kind is None:
        return _complete(column, location, is_text=is_text).reshape(-1, 1), None
    column = values.decode_input(column)
    match one.kind:
        case "categorical":
            texts = _in_known_spelling(values.text(column, location, one.missing_text).fill_null(""), one).to_pylist()
            return np.array(texts, dtype=object).reshape(-1, 1), None
        case "date":
            return date_reading.parse(column, location, one.missing_text, one.date_form).reshape(-1, 1), None
        case "boolean":
            return values.boolean(column, location, one.missing_text).reshape(-1, 1), None
    is_wide = one.dtype == "float64"
    if not values.is_text(column.type):
        return values.numeric(column, location, wide=is_wide).reshape(-1, 1), None
    column = values.text(column, location, one.missing_text)
    numbers = spelling.number_format(one.decimal, one.unit)
    strange = values.non_numbers(column, numbers) if one.mixed else None
    found = values.numeric(column, location, mixed=one.mixed, numbers=numbers, wide=is_wide)
    return found.reshape(-1, 1), strange


def _in_known_spelling(texts: pa.Array, one: Input) -> pa.Array:
    """Replace a text that is no known value by the known spelling of it: `1.0` by `1`, decomposed accents by composed.

    Programs write a column of whole numbers as `1.0` once a value is missing. Where training joined values that differ
    by their spelling only, the same is done for any text.
    """
    encoded = texts.dictionary_encode()
    found = encoded.dictionary.to_pylist()
    if not (unknown := set(found).difference(one.values)):
        return texts
    key = spelling.folded if one.joined else spelling.composed
    known = {key(value): value for value in reversed(one.values)}
    spelt = [known.get(key(text), text) if text in unknown else text for text in found]
    return pa.array(spelt, texts.type).take(encoded.indices)


def _complete(column: pa.Array, location: Location, *, is_text: bool) -> Numbers:
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
    return values.as_numbers(values.to_numpy(column), location, may_be_missing=False)
