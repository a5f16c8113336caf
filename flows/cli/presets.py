"""`hallmark presets` and `hallmark show`."""

import sys

from rich.console import Console
from rich.table import Table

from hallmark.flows.cli.printing import Flag, Token, print_json
from hallmark.flows.experiments import presets as named
from hallmark.tasks.ml.config import toml


def presets(*, json: Flag = False) -> None:
    """List the presets: name, kind, what it is.

    published: a tutorial as it stands, mistakes included. corrected: the same, put right.

    Example: hallmark presets

    Parameters
    ----------
    json
        Print one JSON object instead of a table.
    """
    described = {name: (kind, (build.__doc__ or "").strip()) for name, (kind, build) in named.PRESETS.items()}
    if json:
        rows = [{"name": name, "kind": kind, "what": what} for name, (kind, what) in described.items()]
        print_json({"status": "ok", "presets": rows})
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("preset", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("what it is")
    for name, (kind, what) in described.items():
        table.add_row(name, kind, what)
    Console().print(table)


def show(source: str, /, *tokens: Token) -> None:
    """Print an experiment as TOML that `hallmark train FILE.toml` reads back to the same digest.

    Takes the options of `hallmark train` too.

    Example: hallmark show digits > mine.toml

    Parameters
    ----------
    source
        Name of a preset, a table that ends in .csv or .parquet, a folder of images, or a file that ends in .toml.
    """
    from hallmark.flows.experiments import options

    sys.stdout.write(toml.dump(options.experiment(source, tokens)))
