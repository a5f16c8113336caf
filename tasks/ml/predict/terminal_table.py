"""Predictions as a table on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape as escape_markup
from rich.table import Table

from hallmark.tasks.common.errors import printable
from hallmark.tasks.common.terminal import Console
from hallmark.tasks.ml.predict.predictions import Heading, PredictedBatch, Write

MAX_ROWS = 20
"""Maximum number of rows in the table."""

_MAX_WIDTH = 1000
"""Width, in columns, of a table that does not fit the terminal: a truncated name could be mistaken for another."""


@contextmanager
def open_table(heading: Heading) -> Iterator[Write]:
    """Yield a function that takes predictions, and print the first of them at the end of the block.

    If the probabilities of all classes do not fit the terminal, only that of the predicted class is printed.
    """
    shown: list[tuple[str, int, NDArray[np.float32]]] = []
    passed = 0

    def write(predictions: PredictedBatch) -> None:
        nonlocal passed
        passed += len(predictions.label)
        for row, label, values in zip(predictions.rows, predictions.label, predictions.probabilities, strict=True):
            if len(shown) == MAX_ROWS:
                break
            shown.append((str(row), int(label), values))

    yield write
    console = Console()
    tables = [_draw(heading, shown, classes) for classes in (heading.classes, ())]
    unbounded = console.options.update(width=_MAX_WIDTH)
    fitting = [table for table in tables if console.measure(table, options=unbounded).maximum <= console.width]
    if fitting:
        console.print(fitting[0])
    else:
        Console(width=_MAX_WIDTH).print(tables[1])
    if passed > MAX_ROWS:
        console.print(f"... and {passed - MAX_ROWS:,} more rows: add --output FILE to get all of them", highlight=False)


def _draw(heading: Heading, shown: list[tuple[str, int, NDArray[np.float32]]], classes: tuple[str, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(heading.identity, justify="right" if heading.identity == "row" else "left", no_wrap=True)
    table.add_column("class", no_wrap=True)
    for name in ("probability", *(f"p_{name}" for name in classes)):
        table.add_column(_escape(name), justify="right", no_wrap=True)
    for row, label, values in shown:
        cells = [f"{value:.4f}" for value in (values[label], *values[: len(classes)])]
        table.add_row(_escape(row), _escape(heading.classes[label]), *cells)
    return table


def _escape(name: str) -> str:
    """Return a name as one line of rich's markup: a newline in it must not look like a row of its own."""
    return escape_markup(printable(name))
