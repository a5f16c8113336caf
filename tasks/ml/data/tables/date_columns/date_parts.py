"""Parts of a date: year, month, day of the week, hour, and the seconds since the first, from Unix seconds in UTC.

The rule needs only `+`, `-`, `*`, `/` and `floor` on float64, so that NumPy, torch and an ONNX graph follow one rule.
Its source is Howard Hinnant's `civil_from_days` (https://howardhinnant.github.io/date_algorithms.html).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T", bound=Any)

NAMES = ("year", "month", "weekday", "hour", "seconds")
"""Names of the parts. A weekday is a number from 0 (Monday) to 6."""
EARLIEST, LATEST = -62_135_596_800, 253_402_300_799
"""Seconds of the first and the last date that is accepted, in the years 1 and 9999."""


def of(seconds: T, floor: Callable[[T], T]) -> tuple[T, T, T, T, T]:
    """Return the parts of dates, in the order of `NAMES`; NaN for NaN.

    Args:
        seconds: Unix seconds, an array or tensor of float64, or a value of a graph.
        floor: rounds such values down to whole numbers.
    """
    days = floor(seconds / 86_400)
    hour = floor((seconds - days * 86_400) / 3600)
    weekday = days + 3 - floor((days + 3) / 7) * 7  # 1970-01-01 was a Thursday
    # Years begin in March, so that the leap day is the last day of a year.
    since_zero = days + 719_468  # 0000-03-01
    era = floor(since_zero / 146_097)  # 400 years
    day_of_era = since_zero - era * 146_097
    leap_days = floor(day_of_era / 1460) - floor(day_of_era / 36_524) + floor(day_of_era / 146_096)
    year_of_era = floor((day_of_era - leap_days) / 365)
    before = year_of_era * 365 + floor(year_of_era / 4) - floor(year_of_era / 100)
    month_from_march = floor(((day_of_era - before) * 5 + 2) / 153)
    is_next_year = floor(month_from_march / 10)  # January and February
    month = month_from_march + 3 - is_next_year * 12
    return year_of_era + era * 400 + is_next_year, month, weekday, hour, seconds


def months(first: float, last: float, count: int) -> list[str]:
    """Return the first days of at most `count` months within a range of Unix seconds, evenly spread, in ISO 8601."""
    start, end = (np.datetime64(int(second), "s").astype("datetime64[M]") for second in (first, last))
    found = np.arange(start + 1, end + 1)
    return [
        f"{month}-01" for month in found[np.unique(np.linspace(0, len(found) - 1, min(len(found), count)).astype(int))]
    ]


def in_words(seconds: float) -> str:
    """Return a date in ISO 8601, such as `2026-11-30` or `2026-11-30T10:30:00Z`."""
    time = datetime.fromtimestamp(int(min(max(seconds, EARLIEST), LATEST)), UTC).replace(tzinfo=None)
    return time.date().isoformat() if seconds % 86_400 == 0 else f"{time.isoformat()}Z"


def rule(first: float) -> str:
    """Return in words what the file computes from a date.

    Args:
        first: Unix seconds of the first date in the training rows.
    """
    return f"year, month, day of the week (Monday is 0), hour and the seconds since {in_words(first)}, all in UTC"
