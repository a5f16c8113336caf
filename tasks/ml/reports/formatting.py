"""Numbers as people read them, on pages and in the terminal."""

import math

NONE = "none"


def number(value: float | None) -> str:
    """Return a value with four decimals, or with two digits if it is smaller; `none` if it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.1e}" if 0 < abs(value) < 0.0001 else f"{value:.4f}"


def percent(share: float) -> str:
    """Return a share as a percentage that never rounds up to 100 %."""
    if share == 1 or share < 0.9995:
        return f"{share:.1%}"
    return f"{share:.3%}" if share < 0.999995 else "over 99.999%"
