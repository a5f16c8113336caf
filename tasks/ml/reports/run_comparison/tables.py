"""A contrast in tables, for a terminal and for a page."""

import math
from collections.abc import Iterator

from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.ml.evaluation.intervals import LEVEL, Interval
from hallmark.tasks.ml.reports.pages import Table
from hallmark.tasks.ml.reports.run_comparison.differences import Contrast, Measured, Pair

NONE = "none"
_PERCENT = f"{LEVEL:.0%}".replace("%", " %")


def runs(contrast: Contrast, *, digits: int = 32) -> Table:
    """Which run bears which number in all other tables.

    Args:
        contrast: the runs.
        digits: so many of each id are shown.
    """
    rows = tuple(
        (str(number), side.run_id[:digits], side.status.lower(), side.model or NONE, side.name)
        for number, side in enumerate(contrast.sides, 1)
    )
    return Table("Runs", "", ("run", "id", "state", "model", "name"), rows, has_numbers=False)


def options(contrast: Contrast) -> Table | None:
    """In what the runs differ; None if in nothing."""
    rows = tuple((name, *map(_short, values)) for name, values in contrast.differences.items())
    return Table("What differs", "", ("", *_numbers(contrast)), rows, has_numbers=False) if rows else None


def metrics(contrast: Contrast) -> Table:
    """Metrics of the whole test split, an interval below those that have one."""
    whole = {name: found for name, found in contrast.metrics.items() if name.count("/") == 1}
    rows = [row for name, found in whole.items() for row in _rows(name.removeprefix("test/"), found)]
    return Table("Test metrics", "", ("", *_numbers(contrast)), tuple(rows), has_numbers=True)


def classes(contrast: Contrast) -> list[Table]:
    """Metrics of single classes, such as their recall: a table for each metric, a row for each class."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    for name, found in contrast.metrics.items():
        if name.count("/") > 1:
            _, metric, label = name.split("/", 2)
            tables.setdefault(metric, []).append((label, *(number(one.value) for one in found)))
    headings = ("", *_numbers(contrast))
    return [
        Table(f"Test {name} of each class", "", headings, tuple(rows), has_numbers=True)
        for name, rows in tables.items()
    ]


def pairs(contrast: Contrast) -> Table | None:
    """Each run against the first on the same rows; None where the rows of none are."""
    if not contrast.pairs:
        return None
    names = (
        "rows",
        "wins",
        "losses",
        "p",
        "accuracy",
        f"  {_PERCENT} from",
        f"  {_PERCENT} to",
        "log_loss",
        f"  {_PERCENT} from",
        f"  {_PERCENT} to",
    )
    remark = "wins: rows that it alone gets right; p: exact McNemar test; below, its metric minus run 1's"
    headings = ("", *(f"run {one.run}" for one in contrast.pairs))
    rows = tuple(zip(names, *map(_against, contrast.pairs), strict=True))
    return Table("Against run 1, on the same test rows", remark, headings, rows, has_numbers=True)


def number(value: float | None) -> str:
    """Four decimals, or two digits where these would show none."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.1e}" if 0 < abs(value) < 0.0001 else f"{value:.4f}"


def _numbers(contrast: Contrast) -> tuple[str, ...]:
    return tuple(f"run {position}" for position in range(1, len(contrast.sides) + 1))


def _rows(name: str, found: list[Measured]) -> Iterator[tuple[str, ...]]:
    yield (name, *(number(one.value) for one in found))
    if any(one.interval for one in found):
        bounds = [_bounds(one.interval) for one in found]
        yield (f"  {_PERCENT} from", *(low for low, _ in bounds))
        yield (f"  {_PERCENT} to", *(high for _, high in bounds))


def _against(pair: Pair) -> tuple[str, ...]:
    counts = (f"{count:,}" for count in (pair.rows, pair.wins, pair.losses))
    accuracy = (number(value) for value in (pair.p, pair.accuracy, *pair.interval))
    return (*counts, *accuracy, number(pair.log_loss), *_bounds(pair.log_loss_interval))


def _bounds(interval: Interval | None) -> tuple[str, str]:
    return (number(interval.low), number(interval.high)) if interval else (NONE, NONE)


def _short(value: object) -> str:
    """A value as people read it: a digest by its first digits."""
    text = NONE if value is None else str(value)
    return text[:SHOWN] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text
