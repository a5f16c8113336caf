"""`hallmark reproduce`: run a recorded experiment again, and say whether it came out the same."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from hallmark.flows.cli import execution
from hallmark.flows.cli.printing import Flag, print_json, print_row
from hallmark.tasks.common.errors import HallmarkError

if TYPE_CHECKING:
    from hallmark.tasks.common.records import Reproduction


def reproduce(run_id: str, /, *, json: Flag = False) -> None:
    """Run the experiment that an MLflow run has recorded again, and compare weights and file bit by bit.

    Nothing is logged or registered. Exit code 0: both are identical. 1: they are not; what the bits depend on and is
    another now is named.

    Example: hallmark reproduce 07309d70

    Parameters
    ----------
    run_id
        Of a run that shipped a file; `hallmark runs` shows its first digits, MLflow all.
    json
        End with one line of JSON on stdout instead of a table.
    """

    def load() -> "Callable[[], Reproduction]":
        from hallmark.flows.reproduce import reproduce as flow
        from hallmark.tasks.tracking import run_queries

        found = run_queries.recorded(run_id)[0].run
        return lambda: flow(found)

    with execution.report_errors(as_json=json):
        result = execution.execute("reproduce", "reproduce", load)
    if json:
        print_json({"status": "identical" if result.is_identical else "different"} | asdict(result))
    else:
        _print(result)
    if not result.is_identical:
        raise HallmarkError(f"{run_id}: came out different: {_cause(result)}")


def _print(result: "Reproduction") -> None:
    words = {name: "identical" if getattr(result, name) else "different" for name in ("weights", "file")}
    for name, value in words.items():
        print_row(name, value)
    for difference in result.differences:
        print_row("changed", difference)


def _cause(result: "Reproduction") -> str:
    return "; ".join(result.differences) or "nothing that was recorded has changed"
