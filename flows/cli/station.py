"""`hallmark up`, `hallmark status` and `hallmark down`."""

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import Flag, command_name, print_json, print_row, print_text
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import progress, settings, signals
from hallmark.tasks.runtime.station_file import MLFLOW, PREFECT, Station

if TYPE_CHECKING:
    from hallmark.flows.station.upcoming_runs import ListedRun, StationRuns

KEPT = "schedules are kept and run again after `hallmark up`"


def up(*, detach: Flag = False) -> None:
    """Start a Prefect server, an MLflow server and the schedules, until Ctrl-C. All other commands then use them.

    Example: hallmark up --detach

    Parameters
    ----------
    detach
        Run in the background: return when both servers answer. `hallmark down` stops them.
    """
    from hallmark.flows.station import control, supervisor

    machine = settings.from_environment()
    if detach:
        _print_urls(control.start_detached(machine))
        progress.line("station", f"is up: stop it with `{command_name()} down`")
        return

    def on_ready(station: Station) -> None:
        _print_urls(station)
        progress.line("station", "is up: press Ctrl-C to stop it")

    with suppress(KeyboardInterrupt), signals.as_interrupt():
        supervisor.run(machine, on_ready, lambda fault: progress.line("station", fault))
    progress.line("station", f"stopped; {KEPT}")


def status(*, json: Flag = False) -> None:
    """Show what is running, what is scheduled next, and what ran last.

    Exit code 0: the station is up. 2: no station is up, or one of its parts is not; one line says which.

    Example: hallmark status

    Parameters
    ----------
    json
        Print the result as one line of JSON instead of a table.
    """
    from hallmark.flows.station import control, upcoming_runs

    with report_errors(as_json=json):
        machine = settings.from_environment()
        station = control.find(machine.home)
        faults = control.faults(station)
        runs = None if PREFECT in faults else upcoming_runs.read(station, machine.credentials)
    if json:
        print_json(_result(station, faults, runs))
    else:
        _print(station, faults, runs)
    if faults:
        raise InputError("; ".join(faults.values()))


def down() -> None:
    """Stop the station and wait until it has stopped. Its schedules are kept and run again after `hallmark up`.

    Example: hallmark down
    """
    from hallmark.flows.station import control

    station = control.stop(settings.from_environment().home)
    progress.line("station", f"stopped (pid {station.pid}); {KEPT}")


def _print_urls(station: Station) -> None:
    print_text(f"Prefect UI: {station.url(PREFECT)}\nMLflow UI:  {station.url(MLFLOW)}\n")


def _result(station: Station, faults: dict[str, str], runs: "StationRuns | None") -> dict[str, Any]:
    def plain(some: "tuple[ListedRun, ...]") -> list[dict[str, Any]]:
        return [asdict(run) | {"at": run.at.isoformat() if run.at else None} for run in some]

    return {
        "status": "broken" if faults else "up",
        "pid": station.pid,
        "started": station.started.isoformat(),
        "store": station.store,
        "parts": [part.model_dump(mode="json") | {"fault": faults.get(part.name)} for part in station.parts],
        "next": plain(runs.next) if runs else None,
        "running": plain(runs.running) if runs else None,
        "last": plain(runs.last) if runs else None,
    }


def _print(station: Station, faults: dict[str, str], runs: "StationRuns | None") -> None:
    def row(label: str, *text: str | tuple[str, str]) -> None:
        print_row(label, *text, width=11)

    row("station", f"since {station.started.astimezone():%Y-%m-%d %H:%M}, pid {station.pid}")
    for part in station.parts:
        state = ("not up ", "bold red") if part.name in faults else ("up     ", "green")
        row(part.name, state, part.url or f"pid {part.pid}")
    if runs is None:
        return
    for label, some in (("next", runs.next), ("running", runs.running), ("last", runs.last)):
        for run in some:
            at = f"{run.at.astimezone():%Y-%m-%d %H:%M:%S}" if run.at else "no date"
            row(label, f"{at}  {run.state.lower():<10} {run.schedule or '-'}  {run.name}")
        if not some and label != "running":
            row(label, "nothing")
