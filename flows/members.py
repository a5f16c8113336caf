"""Train the members of a sweep: stacked, in a process pool, or both."""

from collections.abc import Sequence
from pathlib import Path

from prefect.futures import PrefectFuture

from hallmark.flows.experiments import sweep_grids
from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import Dataset, Fit, Run
from hallmark.tasks.common.results import Member
from hallmark.tasks.fit import fit
from hallmark.tasks.fit_stack import fit_stack
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import history, sweep_plan
from hallmark.tasks.runtime import progress, settings
from hallmark.tasks.runtime.process_pool import interrupted_together

_StackArguments = tuple[tuple[Experiment, ...], Dataset, tuple[Run, ...], tuple[Path, ...], Path]


def train_members(
    members: Sequence[Experiment], axes: Sequence[str], dataset: Dataset, runs: Sequence[Run], unfinished: Path
) -> tuple[Member, ...]:
    """Train each member in the fastest available way. Called within a flow that has a process pool.

    Args:
        members: experiments of one name on the same data.
        axes: the options in which they differ.
        dataset: their data.
        runs: the run of each member.
        unfinished: folder of the sweep's checkpoints.
    """
    plan = sweep_plan.plan(members, dataset)
    progress.line("fit", f"{len(members)} members: {describe(plan)}")
    home = settings.read().home / "sweeps" / unfinished.name

    def arguments(number: int, stack: tuple[int, ...]) -> _StackArguments:
        folders = tuple(home / str(index) for index in stack)
        own = tuple(members[index] for index in stack), dataset, tuple(runs[index] for index in stack)
        return *own, folders, unfinished / f"stack-{number}"

    with interrupted_together():
        alone = {index: fit.submit(members[index], dataset, runs[index], in_pool=True) for index in plan.single}
        stacked = [fit_stack.submit(*arguments(*each), in_pool=True) for each in enumerate(plan.pool_stacks)]
        ways: dict[int, str] = dict.fromkeys(alone, "process pool")
        fits: dict[int, Fit | str] = {}
        for number, stack in enumerate(plan.stacks, start=len(stacked)):
            fits |= dict(zip(stack, fit_stack(*arguments(number, stack)), strict=True))
            ways |= dict.fromkeys(stack, "stacked")
        for stack, stack_future in zip(plan.pool_stacks, stacked, strict=True):
            fits |= dict(zip(stack, stack_future.result(), strict=True))
            ways |= dict.fromkeys(stack, "stacked in the pool")
        fits |= {index: _result(future) for index, future in alone.items()}
    return tuple(_member(axes, member, runs[index], ways[index], fits[index]) for index, member in enumerate(members))


def describe(plan: sweep_plan.Plan) -> str:
    """Return in words how the members are trained."""
    parts = [f"{len(stack)} together" for stack in plan.stacks]
    parts += [f"{len(stack)} together in a process" for stack in plan.pool_stacks]
    if plan.single:
        parts.append(f"{len(plan.single)} in a pool of {min(sweep_plan.WORKERS, len(plan.single))} processes")
    return ", ".join(parts)


def _result(future: PrefectFuture[Fit]) -> Fit | str:
    """Wait for a member's training; return its fit, or the reason why it diverged."""
    try:
        return future.result()
    except DivergedError as error:
        return str(error)


def _member(axes: Sequence[str], member: Experiment, run: Run, way: str, result: Fit | str) -> Member:
    label, values = sweep_grids.label(axes, member), sweep_grids.axis_values(axes, member)
    if isinstance(result, str):
        return Member(label, values, run, way, fit=None, failed=result, loss=None)
    losses = history.curves(result.history)["val/loss"][1]
    return Member(label, values, run, way, fit=result, failed="", loss=losses[result.best_epoch - 1])
