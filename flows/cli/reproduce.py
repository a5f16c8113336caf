"""`hallmark reproduce`: repeat a recorded run and compare the results."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from hallmark.flows.cli.shared import execution
from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import Flag, print_json, print_row
from hallmark.tasks.common.errors import HallmarkError

if TYPE_CHECKING:
    from hallmark.tasks.common.results import Reproduction


def reproduce(run_id: str, /, *, json: Flag = False) -> None:
    """Repeat the experiment of an MLflow run, and compare weights and exported file bit by bit.

    Nothing is logged or registered. Exit code 0: both are identical. 1: they differ; the command lists what has changed
    since the run, such as the code or the version of a library.

    Example: hallmark reproduce 07309d70

    Parameters
    ----------
    run_id
        Id of a run that exported a file, or its first digits, as listed by `hallmark runs`.
    json
        Print the result as one line of JSON instead of a table.
    """

    def load() -> "Callable[[], Reproduction]":
        from hallmark.flows.reproduce import reproduce as flow
        from hallmark.tasks.tracking import run_queries

        full_id = run_queries.recorded(run_id)[0].run
        return lambda: flow(full_id)

    with report_errors(as_json=json):
        result = execution.execute("reproduce", "reproduce", load)
    if json:
        print_json({"status": "identical" if result.is_identical else "different"} | asdict(result))
    else:
        _print(result)
    if not result.is_identical:
        cause = "; ".join(result.differences) or "no recorded property of code, data or machine has changed"
        raise HallmarkError(f"{run_id}: the result is different: {cause}")


def _print(result: "Reproduction") -> None:
    for name in ("weights", "file"):
        print_row(name, "identical" if getattr(result, name) else "different")
    for difference in result.differences:
        print_row("changed", difference)
