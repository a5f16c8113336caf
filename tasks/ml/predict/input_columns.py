"""Columns of a table as a model takes them: float32 and finite, refused with row and column where they are not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.artifact.certificate import Input
from hallmark.tasks.ml.data.tables import files


@dataclass(frozen=True, slots=True)
class Place:
    """Where the values of a column lie."""

    source: str
    column: str
    first: int
    """Number of the first row at hand: rows count from 1, and a heading is no row."""

    def misfit(self, index: int, found: object, expected: str = "a finite number within float32") -> InputError:
        """What to say of the value at `index`, counted from the first row at hand."""
        place = f"{self.source}: row {self.first + index}, column '{self.column}'"
        return InputError(f"{place}: expected {expected}, found {found}")


def check(found: Sequence[str], inputs: Sequence[Input], source: str) -> list[str]:
    """Refuse a table that has other columns than these, in whatever order.

    A model of one's own table was trained on some of its columns: those that it does not take may stand there.

    Returns:
        The columns that it does not take.

    Raises:
        InputError: it names all that are missing, surplus or there twice.
    """
    names = [one.name for one in inputs]
    surplus = [name for name in found if name not in names]
    may_be_more = any(one.kind is not None for one in inputs)
    said = {
        "missing": [name for name in names if name not in found],
        "surplus": [] if may_be_more else surplus,
        "there twice": sorted({name for name in found if found.count(name) > 1}),
    }
    if wrong := [f"{what}: {', '.join(map(repr, those))}" for what, those in said.items() if those]:
        raise InputError(f"{source}: expected the columns {', '.join(names)}; {'; '.join(wrong)}")
    return surplus


def parse(column: pa.Array, place: Place, one: Input) -> NDArray[np.generic]:
    """Make of text what an input takes: numbers, `(N, 1) float32`, or text, `(N, 1)`.

    Raises:
        InputError: a text is no number where one must be, or none that `fit` takes.
    """
    if one.kind is None:
        return _numbers(compute.utf8_trim_whitespace(column), place)
    return _of_a_table(files.text(column), place, one)


def _of_a_table(texts: pa.Array, place: Place, one: Input) -> NDArray[np.generic]:
    """The fields of a column that may be missing, as numbers or text."""
    match one.kind:
        case "categorical":
            return _text(texts)
        case "boolean":
            return _truths(texts, place)
    if one.mixed:
        texts = files.numbers_alone(texts)
    return _with_gaps(_numbers(texts.fill_null("0"), place), texts)


def _truths(texts: pa.Array, place: Place) -> NDArray[np.float32]:
    truths = files.truths(texts)
    is_wrong = compute.and_(compute.is_valid(texts), compute.is_null(truths))
    if (index := is_wrong.index(True).as_py()) >= 0:
        raise place.misfit(index, f"'{texts[index]}'", "true or false")
    return _with_gaps(_stored(truths.fill_null(0), place), truths)


def _with_gaps(numbers: NDArray[np.float32], column: pa.Array) -> NDArray[np.float32]:
    """NaN where a column has no number, whatever stands there."""
    is_there = _numpy(column.is_valid()).astype(bool)
    return np.where(is_there[:, None], numbers, np.float32(np.nan))


def _text(column: pa.Array) -> NDArray[np.object_]:
    found: NDArray[np.object_] = np.array(column.fill_null("").to_pylist(), dtype=object)
    return found.reshape(-1, 1)


def _numbers(texts: pa.Array, place: Place) -> NDArray[np.float32]:
    try:
        numbers = texts.cast(pa.float64())
    except pa.ArrowInvalid as error:
        index = _first_text(texts)
        raise place.misfit(index, f"'{texts[index]}'" if str(texts[index]) else "nothing") from error
    return fit(_numpy(numbers), place)


def convert(column: pa.Array, place: Place, one: Input) -> NDArray[np.generic]:
    """Take values as they were stored: numbers, `(N, 1) float32`, or text, `(N, 1)`.

    Raises:
        InputError: the column holds no numbers, or none that `fit` takes, or a null where none may be.
    """
    if one.kind is None:
        return _stored(column, place)
    column = files.plain(column)
    if one.kind != "numeric" or files.is_text(column.type):
        return _of_a_table(_as_text(column, place), place, one)
    if pa.types.is_boolean(column.type) or pa.types.is_null(column.type):
        column = column.cast(pa.float32())
    # What holds no numbers is refused by its first value, and takes no 0 for a gap.
    return _with_gaps(_stored(column.fill_null(0) if _is_number(column.type) else column.drop_null(), place), column)


def _as_text(column: pa.Array, place: Place) -> pa.Array:
    try:
        return files.text(column)
    except InputError as error:
        raise InputError(f"{place.source}: column '{place.column}' {error}") from error


def _stored(column: pa.Array, place: Place) -> NDArray[np.float32]:
    kind = column.type
    if column.null_count:
        raise place.misfit(column.is_null().index(True).as_py(), "null")
    if not _is_number(kind):
        raise place.misfit(0, f"{column[0].as_py()!r} ({kind})" if len(column) else str(kind))
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    return fit(_numpy(column), place)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def fit(values: NDArray[np.generic], place: Place) -> NDArray[np.float32]:
    """Numbers `(N,)` of any kind as `(N, 1) float32`.

    Raises:
        InputError: one is not finite, or too large for float32.
    """
    with np.errstate(over="ignore"):
        fitted = np.ascontiguousarray(values, dtype=np.float32)
    finite = np.isfinite(fitted)
    if not finite.all():
        index = int(finite.argmin())
        raise place.misfit(index, values[index])
    return fitted.reshape(-1, 1)


def _first_text(texts: pa.Array) -> int:
    """Position of the first that is no number. By halves, so that Arrow alone decides what is one."""
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            texts[low:middle].cast(pa.float64())
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low


def _numpy(column: pa.Array) -> NDArray[np.generic]:
    array: NDArray[np.generic] = column.to_numpy(zero_copy_only=False)
    return array
