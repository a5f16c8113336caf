"""Numbers that float32 cannot hold. They stay float64 until a number close to them has been subtracted."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

FINEST = 2.0**-16
"""Rounding to float32 matters if its step exceeds this share of the range of a column ..."""
EXACT_IN_FLOAT32 = 2.0**24
"""... or if there are larger whole numbers, some of which become equal, ..."""
FEWER = 0.9
"""... so that less than this share of the different values is left."""
REGAINED = 0.5
"""A column is wide if subtraction regains this share of the different values that float32 makes equal."""


def is_coarse(x: NDArray[np.float32]) -> bool:
    """Return whether numbers are so large, or so close together far from 0, that their rounding may matter."""
    known = x[~np.isnan(x)]
    return bool(len(known)) and (_is_step_large(known) or bool(np.abs(known).max() >= EXACT_IN_FLOAT32))


def is_harmful(x: NDArray[np.float32], distinct: int, merged: int, *, is_whole: bool) -> bool:
    """Return whether float32 makes values equal that matter.

    Rounding matters to whole numbers, which may be codes or times, and where the values lie close together far from 0.

    Args:
        x: `(N,)`, NaN where a value is missing.
        distinct: number of different values before the rounding.
        merged: number of different values in `x`.
        is_whole: whether all values are whole numbers.
    """
    if merged >= distinct:
        return False
    return _is_step_large(x[~np.isnan(x)]) or (is_whole and merged < FEWER * distinct)


def is_gain(x: NDArray[np.float64], distinct: int, merged: int) -> bool:
    """Return whether a column should be wide; see `is_harmful` for the numbers of values."""
    return distinct_count(shifted(x)) - merged >= REGAINED * (distinct - merged)


def distinct_count(x: Numbers) -> int:
    """Return the number of different known values."""
    return len(np.unique(x[~np.isnan(x)]))


def lower_median(x: Numbers) -> float:
    """Return the lower median of the known values, which is one of them; 0 if there is none."""
    known = x[~np.isnan(x)]
    middle = (len(known) - 1) // 2
    return float(np.partition(known, middle)[middle]) if len(known) else 0.0


def shifted(x: Numbers, offset: float | NDArray[np.float64] | None = None) -> NDArray[np.float32]:
    """Return what the model computes with: `x - offset` in float64, then rounded to float32.

    Args:
        x: `(N,)`, or `(N, F)` with one offset for each column.
        offset: the number to subtract; the lower median if it is None.
    """
    narrow: NDArray[np.float32] = (x - (lower_median(x) if offset is None else offset)).astype(np.float32)
    return narrow


def in_words(value: float) -> str:
    """Return a float64 with all its digits and without an exponent, such as `1700000000` or `499999998.48`."""
    return np.format_float_positional(value, trim="-")


def _is_step_large(known: Numbers) -> bool:
    """Return whether the step of float32 at the largest number is large, compared with the range."""
    step = float(np.spacing(np.float32(np.abs(known).max())))
    return step >= FINEST * (float(known.max()) - float(known.min()))
