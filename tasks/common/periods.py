"""Periods of time as people write them: `90d`, `6h`."""

import re
from datetime import timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def period(value: object) -> timedelta:
    """Parse a number and one of s, m, h and d.

    Raises:
        ValueError: it is something else, or longer than a million days.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,11})\s*([smhd])", value.strip())):
        try:
            return timedelta(**{_UNITS[match[2]]: int(match[1])})
        except OverflowError:
            pass
    raise ValueError("expected a number and s, m, h or d, such as '6h'")
