"""The tables of a comparison, for the terminal and for the page."""

from collections.abc import Iterator
from dataclasses import dataclass

from hallmark.tasks.common.digests import shortened
from hallmark.tasks.ml.evaluation.intervals import LEVEL, Interval
from hallmark.tasks.ml.reports.formatting import NONE, number
from hallmark.tasks.ml.reports.run_comparison.comparison import Comparison, MetricValue, PairedComparison

NO_DIFFERENCES = "The runs do not differ in options, data, code or machine."

_PERCENT = f"{LEVEL:.0%}".replace("%", " %")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts. The first cell of a row is its heading; leading blanks attach the row to the one above."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remark: str = ""
    """Sentence below the table; empty for none."""
    has_numbers: bool = False
    """Whether all cells except the headings are numbers, and aligned to the right."""


def runs(comparison: Comparison, *, digits: int = 32) -> Table:
    """Return the list of runs, with the numbers that identify them in the other tables.

    Args:
        comparison: the compared runs.
        digits: number of digits of each run id.
    """
    rows = tuple(
        (str(position), run.run_id[:digits], run.status.lower(), run.model or NONE, run.name)
        for position, run in enumerate(comparison.runs, 1)
    )
    return Table("Runs", ("run", "id", "state", "model", "name"), rows)


def options(comparison: Comparison) -> Table | None:
    """Return the options and other facts that differ; None if there are none."""
    rows = tuple((name, *map(_short, values)) for name, values in comparison.differences.items())
    return Table("Differences", ("", *_run_headings(comparison)), rows) if rows else None


def metrics(comparison: Comparison) -> Table:
    """Return the metrics of the whole test split, with their intervals."""
    whole = {name: values for name, values in comparison.metrics.items() if name.count("/") == 1}
    rows = [row for name, values in whole.items() for row in _metric_rows(name.removeprefix("test/"), values)]
    return Table("Test metrics", ("", *_run_headings(comparison)), tuple(rows), has_numbers=True)


def classes(comparison: Comparison) -> list[Table]:
    """Return a table for each metric of single classes, such as recall, with a row for each class."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    for name, values in comparison.metrics.items():
        if name.count("/") > 1:
            _, metric, label = name.split("/", 2)
            tables.setdefault(metric, []).append((label, *(number(one.value) for one in values)))
    headings = ("", *_run_headings(comparison))
    return [Table(f"Test {name} by class", headings, tuple(rows), has_numbers=True) for name, rows in tables.items()]


def pairs(comparison: Comparison) -> Table | None:
    """Return the comparison of each run with the first on the same rows; None if no run has the same rows."""
    if not comparison.pairs:
        return None
    bounds = (f"  {_PERCENT} from", f"  {_PERCENT} to")
    names = ("rows", "wins", "losses", "p", "accuracy", *bounds, "log_loss", *bounds)
    remark = (
        "wins: rows that only this run classifies correctly; losses: rows that only run 1 does; "
        "p: exact McNemar test; below: this run's metric minus run 1's"
    )
    headings = ("", *(f"run {one.run}" for one in comparison.pairs))
    rows = tuple(zip(names, *map(_pair_column, comparison.pairs), strict=True))
    return Table("Compared with run 1, on the same test rows", headings, rows, remark, has_numbers=True)


def _run_headings(comparison: Comparison) -> tuple[str, ...]:
    return tuple(f"run {position}" for position in range(1, len(comparison.runs) + 1))


def _metric_rows(name: str, values: list[MetricValue]) -> Iterator[tuple[str, ...]]:
    yield (name, *(number(one.value) for one in values))
    if any(one.interval for one in values):
        bounds = [_bounds(one.interval) for one in values]
        yield (f"  {_PERCENT} from", *(low for low, _ in bounds))
        yield (f"  {_PERCENT} to", *(high for _, high in bounds))


def _pair_column(pair: PairedComparison) -> tuple[str, ...]:
    counts = (f"{count:,}" for count in (pair.rows, pair.wins, pair.losses))
    accuracy = (number(value) for value in (pair.p, pair.accuracy, *pair.interval))
    return (*counts, *accuracy, number(pair.log_loss), *_bounds(pair.log_loss_interval))


def _bounds(interval: Interval | None) -> tuple[str, str]:
    return (number(interval.low), number(interval.high)) if interval else (NONE, NONE)


def _short(value: object) -> str:
    """Return a value as text, digests shortened."""
    return NONE if value is None else shortened(str(value))
