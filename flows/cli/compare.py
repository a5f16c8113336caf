"""`hallmark compare`: runs beside each other, in the terminal and as a page."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hallmark.flows.cli import execution
from hallmark.flows.cli.printing import MAX_WIDTH, Flag, print_json, short_path
from hallmark.tasks.common.errors import HallmarkError, InputError

if TYPE_CHECKING:
    from hallmark.tasks.ml.reports import pages
    from hallmark.tasks.ml.reports.run_comparison.differences import Contrast

MOST = 8
"""So many curves are told apart."""
_DIGITS = 8
"""Of an id, in the terminal, as in `hallmark runs`."""
_MADE = "Made by hallmark compare."
_SAME = "Nothing differs in options, data, code or machine."


def compare(
    *run: str,
    html: Path | None = None,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Say in what runs differ, and put their test metrics beside each other.

    Accuracy and log-loss have a 95 % interval, by resampling the test rows, which the shipped file predicts again.
    Where another run is tested on the rows of the first, the two are compared row by row: the exact McNemar test.

    Example: hallmark compare iris@champion 07309d70 --html compared.html

    Parameters
    ----------
    run
        Two to eight: the first digits of an id, the name of an experiment (its newest finished run), MODEL@ALIAS or
        models:/MODEL/VERSION.
    html
        Write a page too, with the curves of all runs: one file, which opens offline.
    overwrite
        Replace that file if it exists.
    json
        Print one JSON object instead of tables.
    """
    from hallmark.tasks.runtime import signals

    with execution.report_errors(as_json=json), signals.as_interrupt():
        if not 2 <= len(run) <= MOST:
            raise InputError(f"expected 2 to {MOST} runs, found {len(run)}: `hallmark runs` lists them")
        if html:
            from hallmark.tasks.ml.predict import output_files

            output_files.refuse(html, "", overwrite=overwrite)
        from hallmark.tasks.ml.reports.run_comparison import differences
        from hallmark.tasks.tracking import run_lookup

        found = differences.contrast(run_lookup.gather(run))
        if html:
            _write(found, html)
    if json:
        print_json(_result(found, html))
    else:
        _print(found, html)


def _print(found: "Contrast", html: Path | None) -> None:
    from hallmark.tasks.ml.reports.run_comparison import tables

    console, options = Console(highlight=False), tables.options(found)
    if options is None:
        console.print(f"{_SAME}\n")
    metrics = tables.metrics(found)
    for table in (tables.runs(found, digits=_DIGITS), options, metrics, tables.pairs(found)):
        if table:
            console.print(Text(table.caption, "bold"), *([Text(table.remark)] if table.remark else []), sep="\n")
            for part in _parts(table, console):
                console.print(_drawn(part), "")
    for note in found.notes:
        console.print(Text(note))
    if html:
        console.print(Text(f"page: {short_path(html.absolute())}"), soft_wrap=True)


def _parts(table: "pages.Table", console: Console) -> "list[pages.Table]":
    """The columns of the runs below each other where they are too wide beside each other; two stay together."""
    half = (len(table.headings) + 2) // 2
    wide = console.measure(_drawn(table), options=console.options.update(width=MAX_WIDTH)).maximum
    if wide <= console.width or table.headings[0] or len(table.headings) <= 3:
        return [table]
    cuts = [[0, *range(1, half)], [0, *range(half, len(table.headings))]]
    return [part for cut in cuts for part in _parts(_columns(table, cut), console)]


def _columns(table: "pages.Table", cut: list[int]) -> "pages.Table":
    rows = tuple(tuple(row[column] for column in cut) for row in table.rows)
    return replace(table, headings=tuple(table.headings[column] for column in cut), rows=rows)


def _drawn(table: "pages.Table") -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for position, heading in enumerate(table.headings):
        # A number, or an id, that is cut is another one.
        is_whole = table.has_numbers or heading in ("", "run", "id", "state")
        justify = "right" if table.has_numbers and position > 0 else "left"
        drawn.add_column(heading, justify=justify, no_wrap=is_whole, overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(escape, row))
    return drawn


def _write(found: "Contrast", html: Path) -> None:
    from hallmark.tasks.common.files import whole_file
    from hallmark.tasks.ml.reports import pages
    from hallmark.tasks.ml.reports.plots import run_curves
    from hallmark.tasks.ml.reports.run_comparison import tables

    names = [f"run {number}: {side.name}" for number, side in enumerate(found.sides, 1)]
    whole = (tables.runs(found), tables.options(found), tables.metrics(found), tables.pairs(found))
    shown = [table for table in (*whole, *tables.classes(found)) if table]
    picture = pages.Picture("Curves", run_curves.overlaid(names, [side.curves for side in found.sides]))
    lead = _MADE if found.differences else f"{_MADE} {_SAME}"
    title = f"Compared: {', '.join(side.given for side in found.sides)}"
    text = pages.page(title, lead, shown, found.notes, [picture])
    try:
        with whole_file(html) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HallmarkError(f"{html}: cannot be written: {error.strerror or error}") from error


def _result(found: "Contrast", html: Path | None) -> dict[str, Any]:
    runs = [
        {
            "given": side.given,
            "run_id": side.run_id,
            "name": side.name,
            "state": side.status,
            "model": side.model or None,
            "dataset_digest": side.dataset,
        }
        for side in found.sides
    ]
    return {
        "status": "compared",
        "runs": runs,
        "differences": found.differences,
        "metrics": {name: [asdict(one) for one in each] for name, each in found.metrics.items()},
        "pairs": [asdict(pair) for pair in found.pairs],
        "notes": found.notes,
        "html": str(html.absolute()) if html else None,
    }
