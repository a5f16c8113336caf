"""`hallmark presets` and `hallmark show`."""

from rich.table import Table

from hallmark.flows.cli.shared.experiment_source import ExperimentSource
from hallmark.flows.cli.shared.printing import Flag, Token, print_json, print_text
from hallmark.flows.experiments import presets as named
from hallmark.tasks.common.terminal import Console
from hallmark.tasks.ml.config import toml


def presets(*, json: Flag = False) -> None:
    """List the presets: name, kind and description.

    Kinds: `published` follows a published tutorial, including its mistakes; `corrected` is the same without the
    mistakes; `reference` has a known solution in scikit-learn.

    Example: hallmark presets

    Parameters
    ----------
    json
        Print the result as one line of JSON instead of a table.
    """
    described = {name: (kind, (build.__doc__ or "").strip()) for name, (kind, build) in named.PRESETS.items()}
    if json:
        rows = [{"name": name, "kind": kind, "what": text} for name, (kind, text) in described.items()]
        print_json({"status": "ok", "presets": rows})
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("preset", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("description")
    for name, (kind, text) in described.items():
        table.add_row(name, kind, text)
    Console().print(table)


def show(source: ExperimentSource, /, *tokens: Token) -> None:
    """Print an experiment as TOML. `hallmark train FILE.toml` reads it back with the same digest.

    All options of `hallmark train` for the experiment, such as --training.epochs, are accepted.

    Example: hallmark show digits > mine.toml
    """
    from hallmark.flows.experiments import options

    print_text(toml.dump(options.experiment(source, tokens)))
