"""`hallmark sweep`: check the input, run the flow, print the result."""

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cyclopts import App
from rich.table import Table

from hallmark.flows.cli.shared import execution, outcomes
from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.experiment_source import ExperimentSource
from hallmark.flows.cli.shared.printing import (
    Flag,
    Token,
    command_name,
    print_json,
    print_rows,
    print_table,
    print_text,
)
from hallmark.flows.experiments import options, sweep_grids, taken_names
from hallmark.tasks.ml.config.experiment import Experiment

if TYPE_CHECKING:
    from hallmark.tasks.common.results import SweepOutcome

MAX_ROWS = 12
"""Number of members in the printed table, best first. MLflow and --json have all of them."""

EXAMPLES = """

Examples:
  hallmark sweep iris --training.lr 0.001,0.01,0.1 --training.seed 0..4
  hallmark sweep mnist --random 32 --training.lr loguniform:1e-4:1"""

command = App(name="sweep", help_epilogue=sweep_grids.GRAMMAR + EXAMPLES)


@command.default
def sweep(
    source: ExperimentSource,
    /,
    *tokens: Token,
    random: int | None = None,
    random_seed: int = 0,
    fresh: Flag = False,
    json: Flag = False,
) -> None:
    """Train many configurations of one experiment and register the one with the lowest validation loss.

    Members with the same shape are trained together as one stacked network; large stacks are split across processes.
    Other members, such as convolutional networks, are trained in a pool of processes. Each member is a child run of
    the sweep's run in MLflow. Only the chosen member is evaluated on the test split, exported, verified and registered.
    If a sweep is interrupted, the same command resumes it.

    Parameters
    ----------
    random
        Number of members to draw at random, instead of every combination.
    random_seed
        Seed of the random draws.
    fresh
        Start from the beginning instead of resuming an interrupted sweep.
    json
        Print the result as one line of JSON instead of a table.
    """

    def load() -> "Callable[[], SweepOutcome]":
        from hallmark.flows.sweep import sweep as flow

        execution.refuse_impossible(*grid.members)
        taken_names.refuse(source, tokens, grid.members[0])
        return lambda: flow(grid.members, grid.axes, fresh=fresh)

    with report_errors(as_json=json):
        is_random = random is not None
        grid = (
            sweep_grids.random(source, tokens, random, random_seed) if is_random else sweep_grids.grid(source, tokens)
        )
        result = execution.execute("sweep", grid.members[0].name, load)
    if json:
        print_json(_result(grid.members, result))
    else:
        _print_table(result, _again(source, tokens, result))


def _result(members: tuple[Experiment, ...], result: "SweepOutcome") -> dict[str, Any]:
    outcome = result.outcome
    return {
        "status": "finished",
        "name": outcome.model_version.name,
        "run_id": result.run.id,
        "experiment_digest": members[result.chosen].digest,
        "axes": result.axes,
        "members": [
            {
                "values": member.values,
                "run_id": member.run.id,
                "val_loss": member.loss,
                "way": member.way,
                "failed": member.failed or None,
            }
            for member in result.members
        ],
        "chosen": result.chosen,
        "chosen_run_id": outcome.run.id,
        **outcomes.result(outcome),
    }


def _titles(axes: tuple[str, ...]) -> list[str]:
    """Return the last part of each option's path, or the whole path if two options end alike."""
    last = [axis.rpartition(".")[2] for axis in axes]
    return [axis if last.count(name) > 1 else name for axis, name in zip(axes, last, strict=True)]


def _again(source: str, tokens: Sequence[str], result: "SweepOutcome") -> str:
    """Return source and options of the chosen member, as a command takes them."""
    fixed = [(path, value) for path, value in options.parse_tokens(tokens) if path not in result.axes]
    chosen = [(path, str(value)) for path, value in result.members[result.chosen].values.items()]
    return shlex.join([source, *(part for path, value in fixed + chosen for part in (f"--{path}", value))])


def _print_table(result: "SweepOutcome", again: str) -> None:
    order = result.by_loss
    table = Table("", *_titles(result.axes), "val loss", box=None, pad_edge=False)
    for index in order[:MAX_ROWS]:
        member = result.members[index]
        loss = "diverged" if member.loss is None else f"{member.loss:.4f}"
        values = (str(member.values[axis]) for axis in result.axes)
        table.add_row("chosen" if index == result.chosen else "", *values, loss)
    print_table(table)
    if len(order) > MAX_ROWS:
        print_text(f"... and {len(order) - MAX_ROWS} more\n")
    rows = {
        "accuracy": outcomes.accuracy(result.outcome),
        **outcomes.rows(result.outcome, again),
        "sweep": result.run.url,
        "next": f"{command_name()} ui",
    }
    print_rows(rows)
