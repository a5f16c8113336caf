"""The HTML page of a comparison, readable offline."""

from hallmark.tasks.ml.reports import templating
from hallmark.tasks.ml.reports.run_comparison import comparison_tables, run_curves
from hallmark.tasks.ml.reports.run_comparison.comparison import Comparison
from hallmark.tasks.ml.reports.run_comparison.comparison_tables import NO_DIFFERENCES

WRITTEN_BY = "Written by hallmark compare."


def build(comparison: Comparison) -> str:
    """Return the page as HTML. The same comparison gives the same page."""
    names = [f"run {position}: {run.name}" for position, run in enumerate(comparison.runs, 1)]
    tables = (
        comparison_tables.runs(comparison),
        comparison_tables.options(comparison),
        comparison_tables.metrics(comparison),
        comparison_tables.pairs(comparison),
        *comparison_tables.classes(comparison),
    )
    return templating.render(
        "run_comparison.html.jinja",
        title=f"Comparison: {', '.join(run.given for run in comparison.runs)}",
        lead=WRITTEN_BY if comparison.differences else f"{WRITTEN_BY} {NO_DIFFERENCES}",
        tables=[table for table in tables if table],
        notes=comparison.notes,
        curves=run_curves.overlaid(names, [run.curves for run in comparison.runs]),
    )
