"""`hallmark up`, `hallmark status` and `hallmark down`."""

import sys
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hallmark.flows.cli import execution
from hallmark.flows.cli.printing import Flag, command_name, print_json, print_row
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import progress, settings, signals
from hallmark.tasks.runtime.station_file import MLFLOW, PREFECT, Part, Station

if TYPE_CHECKING:
    from hallmark.flows.station.upcoming_runs import Agenda, Planned


def up(*, detach: Flag = False) -> None:
    """Start a Prefect server, an MLflow server and the schedules, until Ctrl-C. Every other command uses them.

    Example: hallmark up --detach

    Parameters
    ----------
    detach
        Return when they answer; `hallmark down` ends them.
    """
    from hallmark.flows.station import supervisor

    machine = settings.from_environment()
    if detach:
        _announce(supervisor.detach(machine))
        progress.say("station", f"is up: `{command_name()} down` ends it")
        return
    with suppress(KeyboardInterrupt), signals.as_interrupt():
        supervisor.run(machine, _announce_foreground, lambda fault: progress.say("station", fault))
    progress.say("station", "ended; schedules stay active")


def status(*, json: Flag = False) -> None:
    """Say what is up, what is scheduled next, and what ran last.

    Exit code 0: everything is up. 2: nothing is, or a part is not; one line says which.

    Example: hallmark status

    Parameters
    ----------
    json
        End with one line of JSON on stdout instead of a table.
    """
    from hallmark.flows.station import supervisor, upcoming_runs

    machine = settings.from_environment()
    with execution.report_errors(as_json=json):
        found = supervisor.living(machine.home)
    broken = supervisor.faults(found)
    seen = None if PREFECT in broken else upcoming_runs.read(found, machine.credentials)
    if json:
        print_json(_result(found, broken, seen))
    else:
        _print(found, broken, seen)
    if broken:
        raise InputError("; ".join(broken.values()))


def down() -> None:
    """End the station that is up, and wait until it has ended. Its schedules stay active.

    Example: hallmark down
    """
    from hallmark.flows.station import supervisor

    found = supervisor.end(settings.from_environment().home)
    progress.say("station", f"ended (pid {found.pid}); schedules stay active")


def _announce(found: Station) -> None:
    sys.stdout.write(f"Prefect UI: {found.url(PREFECT)}\nMLflow UI:  {found.url(MLFLOW)}\n")
    sys.stdout.flush()


def _announce_foreground(found: Station) -> None:
    _announce(found)
    progress.say("station", "is up: Ctrl-C ends it")


def _result(found: Station, broken: dict[str, str], seen: "Agenda | None") -> dict[str, Any]:
    def plain(runs: "tuple[Planned, ...]") -> list[dict[str, Any]]:
        return [asdict(run) | {"at": run.at.isoformat() if run.at else None} for run in runs]

    return {
        "status": "broken" if broken else "up",
        "pid": found.pid,
        "started": found.started.isoformat(),
        "store": found.store,
        "parts": [part.model_dump(mode="json") | {"fault": broken.get(part.name)} for part in found.parts],
        "next": plain(seen.next) if seen else None,
        "running": plain(seen.running) if seen else None,
        "last": plain(seen.last) if seen else None,
    }


def _print(found: Station, broken: dict[str, str], seen: "Agenda | None") -> None:
    print_row("station", f"since {found.started.astimezone():%Y-%m-%d %H:%M}, pid {found.pid}", width=11)
    for part in found.parts:
        state = ("not up ", "bold red") if part.name in broken else ("up     ", "green")
        print_row(part.name, state, _where(part), width=11)
    if seen is None:
        return
    for name, runs in (("next", seen.next), ("running", seen.running), ("last", seen.last)):
        for run in runs:
            print_row(name, _line(run), width=11)
        if not runs and name != "running":
            print_row(name, "nothing", width=11)


def _where(part: Part) -> str:
    return part.url or f"pid {part.pid}"


def _line(run: "Planned") -> str:
    at = f"{run.at.astimezone():%Y-%m-%d %H:%M:%S}" if run.at else "no date"
    return f"{at}  {run.state.lower():<10} {run.schedule or '-'}  {run.name}"
