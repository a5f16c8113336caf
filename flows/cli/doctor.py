"""`hallmark doctor`."""

from dataclasses import asdict

from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import Flag, print_json, print_row
from hallmark.tasks.common.errors import HallmarkError


def doctor(*, repair: Flag = False, json: Flag = False) -> None:
    """Check versions, device, disk, servers, ports, schedules and the download mirror, and suggest fixes.

    With --repair, also close and remove what killed processes and machines that are gone have left: temporary files,
    runs in MLflow and flow runs in Prefect that are still shown as running.

    Exit code 0: no problem was found. 1: the last line names the checks that failed.

    Example: hallmark doctor --repair

    Parameters
    ----------
    repair
        Close and remove what killed processes have left.
    json
        Print the result as one line of JSON instead of a table.
    """
    from hallmark.flows.station.doctor import examine

    with report_errors(as_json=json):
        checks = examine()
        repaired = _repair() if repair else []  # afterwards, since it may start a Prefect server
    failed = [check.name for check in checks if not check.is_well]
    if json:
        result = {"status": "faults" if failed else "well", "checks": [asdict(check) for check in checks]}
        print_json(result | ({"repaired": repaired} if repair else {}))
    else:
        for line in repaired or ["nothing to repair"] * repair:
            print_row("repair", line, width=14)
        for check in checks:
            state = ("ok       ", "green") if check.is_well else ("problem  ", "bold red")
            print_row(check.name, state, check.found, width=14)
    if failed:
        raise HallmarkError(f"{len(failed)} problem{'s' * (len(failed) > 1)} found: {', '.join(failed)}")


def _repair() -> list[str]:
    from hallmark.flows.station import repair
    from hallmark.tasks.runtime import signals

    with signals.as_interrupt():
        return repair.repair()
