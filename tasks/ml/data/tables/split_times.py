"""Times in text by which rows are split, in other forms than ISO 8601: 30/11/2026, 11/30/2026 10:30, May 2024."""

import re
from itertools import product

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 1000
"""Number of texts with which forms are tried first."""
_ORDERS = ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y", "%Y{0}%m{0}%d", "%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d")
_MONTHS = ("%Y{0}%m", "%m{0}%Y")
_WRITTEN = (
    "%d %b %Y",
    "%d %B %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%b %Y",
    "%B %Y",
    "%b-%y",
    "%b-%Y",
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M", "T%H:%M:%S")


def parse(texts: list[str]) -> list[NDArray[np.datetime64]]:
    """Return the times that texts stand for, for each form that all of them have and that orders them differently.

    Args:
        texts: values of a column, without missing ones.

    Returns:
        `(N,)` for each form: none if the texts are no dates, several if it is unclear which number is the day.
    """
    separator = next(iter(re.findall(r"[-/.]", texts[0])), "-") if texts else "-"
    dates = [*(order.format(separator) for order in (*_ORDERS, *_MONTHS)), *_WRITTEN]
    found: list[NDArray[np.datetime64]] = []
    ranks: list[NDArray[np.int64]] = []
    for date, clock in product(dates, _CLOCKS):
        if _read(texts[:_SAMPLE], date + clock) is None or (times := _read(texts, date + clock)) is None:
            continue
        rank = np.unique(times, return_inverse=True)[1]
        if not any(np.array_equal(rank, other) for other in ranks):
            ranks.append(rank)
            found.append(times)
    return found


def _read(texts: list[str], form: str) -> NDArray[np.datetime64] | None:
    import pandas as pd

    times = pd.to_datetime(pd.Series(texts, dtype=object), format=form, errors="coerce")
    return None if times.isna().any() else times.to_numpy()
