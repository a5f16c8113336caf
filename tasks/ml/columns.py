"""Columns of a table as a model takes them: float32 and finite, refused with row and column where they are not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from tasks.ml.errors import InputError


@dataclass(frozen=True, slots=True)
class Place:
    """Where the values of a column lie."""

    source: str
    column: str
    first: int
    """Number of the first row at hand: rows count from 1, and a heading is no row."""

    def misfit(self, index: int, found: object) -> InputError:
        """What to say of the value at `index`, counted from the first row at hand."""
        return InputError(
            f"{self.source}: row {self.first + index}, column '{self.column}': "
            f"expected a finite number within float32, found {found}"
        )


def check(found: Sequence[str], names: Sequence[str], source: str) -> None:
    """Refuse a table that has other columns than these, in whatever order.

    Raises:
        InputError: it names all that are missing, surplus or there twice.
    """
    said = {
        "missing": [name for name in names if name not in found],
        "surplus": [name for name in found if name not in names],
        "there twice": sorted({name for name in found if found.count(name) > 1}),
    }
    if wrong := [f"{what}: {', '.join(map(repr, those))}" for what, those in said.items() if those]:
        raise InputError(f"{source}: expected the columns {', '.join(names)}; {'; '.join(wrong)}")


def parse(column: pa.Array, place: Place) -> NDArray[np.float32]:
    """Make numbers of text: `(N, 1) float32`.

    Raises:
        InputError: a text is no number, or none that `fit` takes.
    """
    texts = compute.utf8_trim_whitespace(column)
    try:
        numbers = texts.cast(pa.float64())
    except pa.ArrowInvalid as error:
        index = _first_text(texts)
        raise place.misfit(index, f"'{texts[index]}'" if str(texts[index]) else "nothing") from error
    return fit(_numpy(numbers), place)


def convert(column: pa.Array, place: Place) -> NDArray[np.float32]:
    """Take numbers as they were stored: `(N, 1) float32`.

    Raises:
        InputError: the column holds no numbers, or none that `fit` takes, or a null.
    """
    kind = column.type
    if column.null_count:
        raise place.misfit(column.is_null().index(True).as_py(), "null")
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise place.misfit(0, f"{column[0].as_py()!r} ({kind})")
    return fit(_numpy(column), place)


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
