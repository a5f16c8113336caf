"""`hallmark compare`: runs next to each other, in the terminal and as a page."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hallmark.flows.cli.shared import output_file
from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import MAX_WIDTH, Flag, print_json, short_path
from hallmark.tasks.common.digests import RUN_ID_DIGITS
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.terminal import Console

if TYPE_CHECKING:
    from hallmark.tasks.ml.reports.run_comparison import comparison_tables
    from hallmark.tasks.ml.reports.run_comparison.comparison import Comparison

MAX_RUNS = 8
"""Maximum number of runs: the number of curves that a plot can distinguish."""


def compare(
    *run: str,
    html: Path | None = None,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Show what differs between runs, and compare their test metrics.

    Accuracy and log-loss have 95 % bootstrap intervals, for which the shipped files predict the test rows again. Runs
    with the same test rows as the first run are compared with it row by row (exact McNemar test).

    Example: hallmark compare iris@champion 07309d70 --html compared.html

    Parameters
    ----------
    run
        Two to eight runs: the first digits of a run id, the name of an experiment (its newest finished run),
        MODEL@ALIAS or models:/MODEL/VERSION.
    html
        Also write one HTML file, readable offline, with the learning curves of all runs.
    overwrite
        Replace the file if it exists.
    json
        Print one JSON object instead of tables.
    """
    from hallmark.tasks.runtime import signals

    with report_errors(as_json=json), signals.as_interrupt():
        if not 2 <= len(run) <= MAX_RUNS:
            raise InputError(f"expected 2 to {MAX_RUNS} runs, found {len(run)}: `hallmark runs` lists them")
        if html:
            from hallmark.tasks.ml.predict import output_files

            output_files.check_output(html, "", overwrite=overwrite)
        from hallmark.tasks.ml.reports.run_comparison import comparison
        from hallmark.tasks.tracking import compared_runs

        compared = comparison.compare(compared_runs.gather(run))
        if html:
            from hallmark.tasks.ml.reports.run_comparison import comparison_page

            output_file.write(html, comparison_page.build(compared).encode())
    if json:
        print_json(_result(compared, html))
    else:
        _print(compared, html)


def _print(compared: "Comparison", html: Path | None) -> None:
    from hallmark.tasks.ml.reports.run_comparison import comparison_tables as tables

    console, options = Console(highlight=False), tables.options(compared)
    if options is None:
        console.print(f"{tables.NO_DIFFERENCES}\n")
    metrics = tables.metrics(compared)
    for table in (tables.runs(compared, digits=RUN_ID_DIGITS), options, metrics, tables.pairs(compared)):
        if table:
            console.print(Text(table.caption, "bold"), *([Text(table.remark)] if table.remark else []), sep="\n")
            for part in _fitting_parts(table, console):
                console.print(_rich_table(part), "")
    for note in compared.notes:
        console.print(Text(note))
    if html:
        console.print(Text(f"page: {short_path(html.absolute())}"), soft_wrap=True)


def _fitting_parts(table: "comparison_tables.Table", console: Console) -> "list[comparison_tables.Table]":
    """Split a table that is wider than the console, except for the last two columns of runs."""
    half = (len(table.headings) + 2) // 2
    width = console.measure(_rich_table(table), options=console.options.update(width=MAX_WIDTH)).maximum
    if width <= console.width or table.headings[0] or len(table.headings) <= 3:
        return [table]
    halves = [[0, *range(1, half)], [0, *range(half, len(table.headings))]]
    return [part for columns in halves for part in _fitting_parts(_select(table, columns), console)]


def _select(table: "comparison_tables.Table", columns: list[int]) -> "comparison_tables.Table":
    rows = tuple(tuple(row[column] for column in columns) for row in table.rows)
    return replace(table, headings=tuple(table.headings[column] for column in columns), rows=rows)


def _rich_table(table: "comparison_tables.Table") -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for position, heading in enumerate(table.headings):
        # Never truncate numbers and ids.
        is_whole = table.has_numbers or heading in ("", "run", "id", "state")
        justify = "right" if table.has_numbers and position > 0 else "left"
        drawn.add_column(heading, justify=justify, no_wrap=is_whole, overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(escape, row))
    return drawn


def _result(compared: "Comparison", html: Path | None) -> dict[str, Any]:
    runs = [
        {
            "given": run.given,
            "run_id": run.run_id,
            "name": run.name,
            "state": run.status,
            "model": run.model or None,
            "dataset_digest": run.dataset,
        }
        for run in compared.runs
    ]
    return {
        "status": "compared",
        "runs": runs,
        "differences": compared.differences,
        "metrics": {name: [asdict(one) for one in each] for name, each in compared.metrics.items()},
        "pairs": [asdict(pair) for pair in compared.pairs],
        "notes": compared.notes,
        "html": str(html.absolute()) if html else None,
    }
