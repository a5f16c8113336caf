"""What commands have in common: the types of their options, and how they print.

Nothing here wraps lines: a path, a URL or a digest that is broken in two can be neither clicked nor copied.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

Flag = Annotated[bool, Parameter(negative="")]
"""A boolean option without a `--no-` form."""

Token = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
"""A token that the command parses itself, such as `--training.epochs` or its value."""

MAX_WIDTH = 1000
"""Console width, in columns, of tables that are not fitted to the terminal."""


def print_json(result: dict[str, Any]) -> None:
    """Print one JSON object on a line of its own, the last on stdout."""
    sys.stdout.write(json.dumps(result) + "\n")


def print_row(label: str, *text: str | tuple[str, str], width: int = 9) -> None:
    """Print one line: a bold label, then text.

    Args:
        label: padded to `width` columns.
        text: strings, or pairs of a string and its rich style.
        width: columns of the label.
    """
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True, highlight=False).print(Text.assemble((f"{label:<{width}}", "bold"), *text))


def print_rows(rows: dict[str, str], width: int = 9) -> None:
    """Print each entry on one line; see `print_row`."""
    for label, text in rows.items():
        print_row(label, text, width=width)


def print_table(table: "Table") -> None:
    """Print a table at its natural width, whatever the width of the terminal."""
    from rich.console import Console

    console = Console(width=MAX_WIDTH, highlight=False)
    with console.capture() as rendered:
        console.print(table)
    # rich pads the last column with spaces, which would wrap into empty lines.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in rendered.get().splitlines()))


def short_path(path: Path) -> str:
    """Return a path relative to the current folder if it is inside it, else the path as it is."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def command_name() -> str:
    """Return what to type to run `hallmark` from the current folder."""
    return "hallmark" if shutil.which("hallmark") else short_path(Path(sys.argv[0]).absolute())
