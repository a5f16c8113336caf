"""Values and losses of a sweep's members: their order, scale, shade and text."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

from hallmark.tasks.ml.reports.plots.style import COLOURS

Value = float | str | bool
Row = Mapping[str, Value]
"""The values of one member by option."""
Losses = Sequence[float | None]
"""The validation loss of each member; None if it diverged."""

SPAN = 20
"""Ratio of the largest to the smallest number above which a logarithmic scale is considered."""
SHADES = LinearSegmentedColormap.from_list(
    "losses", mpl.colormaps["viridis"](np.linspace(0, 0.9, 256)).tolist()
).with_extremes(bad="lightgrey")
"""viridis without its light end, which is illegible on white. Its order survives greyscale and colour blindness."""
CHOSEN = COLOURS[1]
DIVERGED = "grey"


def loss_norm(losses: Losses) -> Normalize:
    """Return the mapping from losses to shades, logarithmic where they span magnitudes."""
    finite = [loss for loss in losses if loss is not None]
    return (LogNorm if spans_magnitudes(finite) else Normalize)(min(finite), max(finite))


def as_numbers(values: Sequence[Value]) -> list[float]:
    """Return the values if all of them are numbers, else an empty list."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return [cast(float, value) for value in values] if numeric else []


def spans_magnitudes(numbers: Sequence[float]) -> bool:
    """Return whether positive numbers are spread more evenly on a logarithmic scale than on a linear one."""
    if not numbers or min(numbers) <= 0 or max(numbers) <= SPAN * min(numbers):
        return False
    plain, logs = (_middle(scaled) for scaled in (numbers, [math.log(number) for number in numbers]))
    return abs(logs - 0.5) <= abs(plain - 0.5)


def _middle(numbers: Sequence[float]) -> float:
    """Return the position of the mean between the smallest number, 0, and the largest, 1."""
    low, high = min(numbers), max(numbers)
    return sum((number - low) / (high - low) for number in numbers) / len(numbers)


def is_quantity(axis: str) -> bool:
    """Return whether an option's numbers have an order. Seeds are only names."""
    return not axis.endswith("seed")


def distinct_sorted(values: Iterable[Value]) -> list[Value]:
    """Return the distinct values: numbers and lists of numbers in ascending order, then words."""

    def rank(value: Value) -> tuple[bool, list[float], str]:
        text = str(value) if isinstance(value, str) else repr(float(value))
        try:
            return False, [float(part) for part in text.split(",")], text
        except ValueError:
            return True, [], text

    return sorted(set(values), key=rank)


def shortest_names(distinct: Sequence[Value]) -> list[str]:
    """Return the values as text, with just enough digits to distinguish them."""
    for digits in (3, 6, 12):
        names = [value_text(value, digits) for value in distinct]
        if len(set(names)) == len(distinct):
            break
    return names


def value_text(value: Value, digits: int = 3) -> str:
    """Return a value as short text: `0.01`, `1e-5`, `true`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _plain(str(int(value)) if value.is_integer() and abs(value) < 1e5 else f"{value:.{digits}g}")
    return str(value)


def loss_text(loss: float | None) -> str:
    """Return a loss in three significant digits, trailing zeros included: `0.230`."""
    return "diverged" if loss is None else _plain(f"{loss:#.3g}".rstrip("."))


def _plain(number: str) -> str:
    """Shorten exponents: `1e-05` to `1e-5`, `1e+03` to `1e3`."""
    return re.sub(r"e\+?(-?)0*", r"e\1", number)


def background(colour: str) -> dict[str, object]:
    """Return the style of a patch behind text that keeps it legible."""
    return {"facecolor": colour, "edgecolor": "none", "pad": 1, "alpha": 0.8}
