"""Train many experiments that differ in a few options, and ship the best."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import prefect.runtime
from prefect import flow
from prefect.task_runners import ProcessPoolTaskRunner

from hallmark.flows.experiments import presets, sweep_grids
from hallmark.flows.members import train_members
from hallmark.flows.ship import ship
from hallmark.tasks.choose import choose
from hallmark.tasks.common.records import Dataset, Run
from hallmark.tasks.common.results import SweepOutcome
from hallmark.tasks.examine import examine
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.reports import flow_pages
from hallmark.tasks.ml.training import sweep_plan
from hallmark.tasks.prepare import prepare
from hallmark.tasks.runtime import flow_artifacts
from hallmark.tasks.runtime.process_pool import start_worker
from hallmark.tasks.runtime.running_commands import tag_flow_run
from hallmark.tasks.tracking import resume, run_lifecycle, tags


def _run_name() -> str:
    given = prefect.runtime.flow_run.parameters
    return _name(given["members"], given["axes"])


def _name(members: Sequence[Experiment], axes: Sequence[str]) -> str:
    return f"{members[0].name} sweep of {', '.join(axes)}"


@flow(
    name="sweep",
    flow_run_name=_run_name,
    on_running=[tag_flow_run],
    task_runner=ProcessPoolTaskRunner(max_workers=sweep_plan.WORKERS, initializer=start_worker),  # type: ignore[arg-type]
)
def sweep(members: tuple[Experiment, ...], axes: tuple[str, ...], fresh: bool = False) -> SweepOutcome:  # noqa: FBT001, FBT002 - Prefect calls by name
    """Train all members, choose one by the validation split, and evaluate, export, verify and register it.

    Args:
        members: experiments of one name on the same data.
        axes: the options in which they differ.
        fresh: discard an interrupted sweep of the same members instead of resuming it.
    """
    dataset = prepare(*members)
    sweep_plan.refuse_too_many(members, dataset)
    flow_run = str(prefect.runtime.flow_run.id)
    with (
        resume.claim(members, dataset, axes, fresh=fresh) as attempt,
        run_lifecycle.open_sweep(dataset, attempt, _name(members, axes), axes, tags.origin(flow_run)) as parent,
        _member_runs(members, axes, dataset, parent, flow_run) as (runs, closers),
    ):
        trained = train_members(members, axes, dataset, runs, attempt.folder)
        for member in trained:
            if member.failed:
                run_lifecycle.fail(member.run, member.failed)
        chosen = choose(trained, axes, parent)
        for index, closer in enumerate(closers):
            if index != chosen:
                closer.close()
        fitted, run = trained[chosen].fit, trained[chosen].run
        assert fitted  # noqa: S101 - the chosen member has a validation loss, so it was trained
        outcome = ship(members[chosen], dataset, fitted, examine(members[chosen], dataset, run), run)
        result = SweepOutcome(parent, tuple(axes), trained, chosen, outcome)
    flow_artifacts.markdown(flow_pages.sweep(result), "sweep", "What this sweep found")
    return flow_artifacts.finished(result)


@contextmanager
def _member_runs(
    members: Sequence[Experiment], axes: Sequence[str], dataset: Dataset, parent: Run, flow_run: str
) -> Iterator[tuple[list[Run], list[ExitStack]]]:
    """Open the MLflow run of each member, and close those that are still open at the end.

    Yields:
        The runs, and for each a stack that closes it earlier.
    """
    with ExitStack() as opened:
        closers = [opened.enter_context(ExitStack()) for _ in members]
        runs = []
        for index, (member, closer) in enumerate(zip(members, closers, strict=True)):
            attempt, label = resume.of_member(parent.attempt, index), sweep_grids.label(axes, member)
            origin = tags.origin(flow_run, presets.kind_of(member), parent)
            runs.append(closer.enter_context(run_lifecycle.open_run(member, dataset, attempt, label, origin)))
        yield runs, closers
