"""`hallmark doctor`."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from hallmark.flows.cli import execution
from hallmark.tasks.common.errors import HallmarkError


def doctor(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Look at versions, device, disk, servers, ports, schedules and mirror; say what would help.

    Exit code 0: all is well. 1: something is not; the last line says what.

    Example: hallmark doctor

    Parameters
    ----------
    json
        End with one line of JSON on stdout instead of a table.
    """
    from hallmark.flows.station import doctor as examination

    with execution.refusals(as_json=json):
        found = examination.examine()
    faults = [check for check in found if not check.is_well]
    if json:
        execution.print_json({"status": "faults" if faults else "well", "checks": [asdict(check) for check in found]})
    else:
        console = Console(soft_wrap=True, highlight=False)
        for check in found:
            state = ("well   ", "green") if check.is_well else ("fault  ", "bold red")
            console.print(Text.assemble((f"{check.name:<14}", "bold"), state, check.found))
    if faults:
        raise HallmarkError(f"not well: {', '.join(check.name for check in faults)}")
