"""`hallmark runs` and `hallmark ui`."""

import difflib
import socket
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators
from rich.table import Table

from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import Flag, print_json, print_text
from hallmark.tasks.common.digests import RUN_ID_DIGITS
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.terminal import Console
from hallmark.tasks.runtime import settings

if TYPE_CHECKING:
    from hallmark.tasks.common.results import RecentRun

COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("started", "left"),
    ("run", "left"),
    ("state", "left"),
    ("accuracy", "right"),
    ("loss", "right"),
    ("model", "left"),
    ("id", "left"),
)


def runs(
    name: str | None = None,
    /,
    *,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1000))] = 20,
    json: Flag = False,
) -> None:
    """List recent runs, newest first.

    Example: hallmark runs iris --limit 5

    Parameters
    ----------
    name
        List only the runs of the experiment with this name.
    limit
        Maximum number of runs.
    json
        Print the result as one line of JSON instead of a table.
    """
    with report_errors(as_json=json):
        from hallmark.tasks.tracking import run_queries

        recent = run_queries.recent_runs(name, limit)
        if name and not recent:
            names = sorted({run.experiment for run in run_queries.recent_runs(None, 1000)})
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            known = f"experiments with runs: {', '.join(names)}" if names else "there are no runs yet"
            hint = f"did you mean '{near[0]}'?" if near else known
            raise InputError(f"there is no run of an experiment '{name}': {hint}")
    if json:
        print_json({"status": "ok", "runs": [asdict(run) for run in recent]})
    elif recent:
        Console().print(_table(recent))
    else:
        print_text("no runs yet: run `hallmark train iris` to make the first\n")


def ui(*, port: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=65535))] = None) -> None:
    """Serve the MLflow UI for the project's runs on 127.0.0.1, until Ctrl-C.

    Example: hallmark ui --port 5001

    Parameters
    ----------
    port
        Port to serve on. If not given: HALLMARK_UI_PORT, or else 5000.
    """
    machine = settings.read()
    uri, port = machine.tracking_uri, port or machine.ui_port
    if settings.store_of_station():
        print_text(f"the station already serves the MLflow UI: {uri}\n")
        return
    if uri.startswith(("http://", "https://")):
        print_text(f"the server named by MLFLOW_TRACKING_URI serves the MLflow UI: {uri}\n")
        return
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise InputError(f"--port: {port} on 127.0.0.1: {error.strerror}: choose another port with --port") from error
    from hallmark.flows.station import mlflow_server
    from hallmark.tasks.tracking import client

    with listener:
        client.connect()  # creates the store if it does not exist yet, or fails with one line
        print_text(f"MLflow UI: http://127.0.0.1:{port} (press Ctrl-C to stop)\n")
        with suppress(KeyboardInterrupt):
            mlflow_server.serve(listener)


def _table(recent: "list[RecentRun]") -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading, justify in COLUMNS:
        table.add_column(heading, justify=justify, no_wrap=heading != "run", overflow="fold")
    for run in recent:
        started = datetime.fromtimestamp(run.started, UTC).astimezone()
        numbers = ["" if value is None else f"{value:.4f}" for value in (run.accuracy, run.loss)]
        version = f"v{run.model_version}" if run.model_version else ""
        when, run_id = f"{started:%Y-%m-%d %H:%M}", run.id[:RUN_ID_DIGITS]
        table.add_row(when, run.name, run.status.lower(), *numbers, version, run_id)
    return table
