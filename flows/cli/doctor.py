"""`hallmark doctor`."""

from dataclasses import asdict

from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import Flag, print_json, print_row
from hallmark.tasks.common.errors import HallmarkError


def doctor(*, json: Flag = False) -> None:
    """Check versions, device, disk, servers, ports, schedules and the download mirror, and suggest fixes.

    Exit code 0: no problem was found. 1: the last line names the checks that failed.

    Example: hallmark doctor

    Parameters
    ----------
    json
        Print the result as one line of JSON instead of a table.
    """
    from hallmark.flows.station.doctor import examine

    with report_errors(as_json=json):
        checks = examine()
    failed = [check.name for check in checks if not check.is_well]
    if json:
        print_json({"status": "faults" if failed else "well", "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            state = ("ok       ", "green") if check.is_well else ("problem  ", "bold red")
            print_row(check.name, state, check.found, width=14)
    if failed:
        raise HallmarkError(f"{len(failed)} problem{'s' * (len(failed) > 1)} found: {', '.join(failed)}")
