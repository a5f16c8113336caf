"""What commands have in common: the types of their options, and how they print.

Nothing here wraps lines: a path, a URL or a digest that is broken in two can be neither clicked nor copied. Whatever
commands print goes through here or through `terminal.Console`, which remove secrets and escape control characters.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from hallmark.tasks.common.errors import printable, without_secrets

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
    sys.stdout.write(json.dumps(_without_secrets(result)) + "\n")


def _without_secrets(value: Any) -> Any:  # noqa: ANN401 - JSON
    match value:
        case str():
            return without_secrets(value)
        case dict():
            return {key: _without_secrets(one) for key, one in value.items()}
        case list() | tuple():
            return [_without_secrets(one) for one in value]
        case _:
            return value


def print_text(text: str) -> None:
    """Write lines to stdout at once, without secrets and control characters."""
    sys.stdout.write(printable(without_secrets(text), keep="\n\t"))
    sys.stdout.flush()


def print_row(label: str, *text: str | tuple[str, str], width: int = 9) -> None:
    """Print one line: a bold label, then text.

    Args:
        label: padded to `width` columns.
        text: strings, or pairs of a string and its rich style.
        width: columns of the label.
    """
    from rich.text import Text

    from hallmark.tasks.common.terminal import Console

    # A newline in a name must not look like a row of its own.
    parts = [(printable(one), "") if isinstance(one, str) else (printable(one[0]), one[1]) for one in text]
    Console(soft_wrap=True, highlight=False).print(Text.assemble((f"{label:<{width}}", "bold"), *parts))


def print_rows(rows: dict[str, str], width: int = 9) -> None:
    """Print each entry on one line; see `print_row`."""
    for label, text in rows.items():
        print_row(label, text, width=width)


def print_table(table: "Table") -> None:
    """Print a table at its natural width, whatever the width of the terminal."""
    from hallmark.tasks.common.terminal import Console

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
