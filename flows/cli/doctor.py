"""`hallmark doctor`."""

from dataclasses import asdict

from hallmark.flows.cli import execution
from hallmark.flows.cli.printing import Flag, print_json, print_row
from hallmark.tasks.common.errors import HallmarkError


def doctor(*, json: Flag = False) -> None:
    """Look at versions, device, disk, servers, ports, schedules and mirror; say what would help.

    Exit code 0: all is well. 1: something is not; the last line says what.

    Example: hallmark doctor

    Parameters
    ----------
    json
        End with one line of JSON on stdout instead of a table.
    """
    from hallmark.flows.station import doctor as examination

    with execution.report_errors(as_json=json):
        found = examination.examine()
    faults = [check for check in found if not check.is_well]
    if json:
        print_json({"status": "faults" if faults else "well", "checks": [asdict(check) for check in found]})
    else:
        for check in found:
            state = ("well   ", "green") if check.is_well else ("fault  ", "bold red")
            print_row(check.name, state, check.found, width=14)
    if faults:
        raise HallmarkError(f"not well: {', '.join(check.name for check in faults)}")
