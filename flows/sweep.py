"""The sweep: from many experiments that differ in few options to the one that does best on the validation split."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import prefect.runtime
from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner

from hallmark.flows.experiments import presets, sweep_grids
from hallmark.tasks.card import card
from hallmark.tasks.choose import choose
from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import Dataset, Fit, Member, Outcome, Run, SweepOutcome
from hallmark.tasks.diagnose import diagnose
from hallmark.tasks.evaluate import evaluate
from hallmark.tasks.examine import examine
from hallmark.tasks.export import export
from hallmark.tasks.fit import fit
from hallmark.tasks.fit_stack import fit_stack
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import history, sweep_plan
from hallmark.tasks.prepare import prepare
from hallmark.tasks.register import register
from hallmark.tasks.runtime import flow_artifacts, progress, settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.stamp import stamp
from hallmark.tasks.tracking import resume, run_logger
from hallmark.tasks.verify import verify

_Parts = tuple[tuple[Experiment, ...], Dataset, tuple[Run, ...], tuple[Path, ...], Path]


def _start_worker() -> None:
    """Give a worker of the pool its share of the processor, one thread, and let it end when its owner has died."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_follow_owner, daemon=True).start()


def _follow_owner() -> None:
    owner = multiprocessing.parent_process()
    assert owner  # noqa: S101 - a worker has one
    multiprocessing.connection.wait([owner.sentinel])
    # What is in training writes a checkpoint first; what waits for work would wait for ever.
    os.kill(os.getpid(), signal.SIGTERM)


def _run_name() -> str:
    given = prefect.runtime.flow_run.parameters
    return _name(given["members"], given["axes"])


def _name(members: Sequence[Experiment], axes: Sequence[str]) -> str:
    return f"{members[0].name} sweep of {', '.join(axes)}"


@flow(
    name="sweep",
    flow_run_name=_run_name,
    task_runner=ProcessPoolTaskRunner(max_workers=sweep_plan.WORKERS, initializer=_start_worker),  # type: ignore[arg-type]
)
def sweep(members: tuple[Experiment, ...], axes: tuple[str, ...], fresh: bool = False) -> SweepOutcome:  # noqa: FBT001, FBT002 - Prefect calls by name
    """Train all members, choose by the validation split, and evaluate, export, prove and register the one chosen.

    Args:
        members: experiments of one name on the same data.
        axes: the options in which they differ.
        fresh: begin anew, where an interrupted sweep of the same members could be resumed.
    """
    dataset = prepare(*members)
    sweep_plan.refuse_too_many(members, dataset)
    flow_run = {"hallmark.prefect_flow_run": str(prefect.runtime.flow_run.id)}
    with (
        resume.claim(members, dataset, axes, fresh=fresh) as attempt,
        run_logger.open_sweep(dataset, attempt, _name(members, axes), axes, flow_run) as parent,
        ExitStack() as opened,
    ):
        # Each member's run is closed when it is through; what goes wrong closes all that are open.
        doors = [opened.enter_context(ExitStack()) for _ in members]
        runs = []
        for index, (member, door) in enumerate(zip(members, doors, strict=True)):
            own, label = resume.of_member(attempt, index), sweep_grids.label(axes, member)
            tags = flow_run | {"mlflow.parentRunId": parent.id, "hallmark.preset_kind": presets.kind_of(member)}
            runs.append(door.enter_context(run_logger.open_run(member, dataset, own, label, tags)))
        trained = _train(members, axes, dataset, runs, attempt.folder)
        for member in trained:
            if member.failed:
                run_logger.fail(member.run, member.failed)
        chosen = choose(trained, axes, parent)
        for index, door in enumerate(doors):
            if index != chosen:
                door.close()
        outcome = _ship(members[chosen], dataset, trained[chosen])
        result = SweepOutcome(parent, tuple(axes), trained, chosen, outcome)
        flow_artifacts.markdown(summary(result), "sweep", "What this sweep found")
    return result


def _train(
    members: Sequence[Experiment], axes: Sequence[str], dataset: Dataset, runs: Sequence[Run], unfinished: Path
) -> tuple[Member, ...]:
    """Train each member the fastest way there is."""
    plan = sweep_plan.plan(members, dataset)
    progress.say("fit", f"{len(members)} members: {describe(plan)}")
    home = settings.read().home / "sweeps" / unfinished.name

    def parts(number: int, stack: tuple[int, ...]) -> _Parts:
        folders = tuple(home / str(index) for index in stack)
        own = tuple(members[index] for index in stack), dataset, tuple(runs[index] for index in stack)
        return *own, folders, unfinished / f"stack-{number}"

    with _followed_by_workers():
        alone = {index: fit.submit(members[index], dataset, runs[index], in_pool=True) for index in plan.single}
        shares = [fit_stack.submit(*parts(*each), in_pool=True) for each in enumerate(plan.pool_stacks)]
        ways: dict[int, str] = dict.fromkeys(alone, "process pool")
        fits: dict[int, Fit | str] = {}
        for number, stack in enumerate(plan.stacks, start=len(shares)):
            fits |= dict(zip(stack, fit_stack(*parts(number, stack)), strict=True))
            ways |= dict.fromkeys(stack, "stacked")
        for share, future in zip(plan.pool_stacks, shares, strict=True):
            fits |= dict(zip(share, future.result(), strict=True))
            ways |= dict.fromkeys(share, "stacked in the pool")
        fits |= _gather(alone)
    return tuple(_member(axes, member, runs[index], ways[index], fits[index]) for index, member in enumerate(members))


@contextmanager
def _followed_by_workers() -> Iterator[None]:
    """Pass an interrupt on to the workers of the pool, which then write their checkpoints."""
    try:
        yield
    except BaseException:
        with held():
            for worker in multiprocessing.active_children():
                worker.terminate()
        raise


def _gather(futures: dict[int, PrefectFuture[Fit]]) -> dict[int, Fit | str]:
    """Wait for the pool: of each member its fit, or why there is none."""
    found: dict[int, Fit | str] = {}
    for index, future in futures.items():
        try:
            found[index] = future.result()
        except DivergedError as error:
            found[index] = str(error)
    return found


def _member(axes: Sequence[str], member: Experiment, run: Run, way: str, result: Fit | str) -> Member:
    label, values = sweep_grids.label(axes, member), sweep_grids.row(axes, member)
    if isinstance(result, str):
        return Member(label, values, run, way, fit=None, failed=result, loss=None)
    losses = history.curves(result.history)["val/loss"][1]
    return Member(label, values, run, way, fit=result, failed="", loss=losses[result.best_epoch - 1])


def _ship(experiment: Experiment, dataset: Dataset, member: Member) -> Outcome:
    """Do with the chosen member what the flow `train` does after the fit."""
    assert member.fit  # noqa: S101 - what was chosen has a loss
    run, fitted = member.run, member.fit
    known = examine(experiment, dataset, run)
    evaluation = evaluate(experiment, dataset, fitted, run)
    findings = diagnose(experiment, dataset, fitted, evaluation, known, run)
    bare = export(experiment, dataset, fitted)
    proof = verify(experiment, dataset, fitted, bare, run)
    artifact = stamp(experiment, dataset, fitted, evaluation, bare, proof)
    version = register(experiment, dataset, artifact, proof, run)
    outcome = Outcome(dataset, run, fitted, evaluation, findings, artifact, proof, version)
    card(experiment, outcome)
    return outcome


def describe(plan: sweep_plan.Plan) -> str:
    """Which way each member goes, in words."""
    told = [f"{len(stack)} as one" for stack in plan.stacks]
    told += [f"{len(share)} as one in a process" for share in plan.pool_stacks]
    if plan.single:
        told.append(f"{len(plan.single)} in a pool of {min(sweep_plan.WORKERS, len(plan.single))} processes")
    return ", ".join(told)


def summary(result: SweepOutcome) -> str:
    """The members by validation loss as a markdown table, for the Prefect UI."""
    rows = []
    for index in result.by_loss:
        member, mark = result.members[index], "**chosen**" if index == result.chosen else ""
        loss = "diverged" if member.loss is None else f"{member.loss:.4f}"
        cells = [mark, *(str(member.values[axis]) for axis in result.axes), loss, member.way]
        rows.append(f"| {' | '.join(cells)} | [{member.label}]({member.run.url}) |")
    head = f"| | {' | '.join(result.axes)} | validation loss | trained | run |"
    accuracy = result.outcome.evaluation.metrics["test/accuracy"]
    version = result.outcome.model_version
    told = f"Chosen by the validation split: test accuracy {accuracy:.4f}, {version.name} version {version.version}"
    return "\n".join([f"# {result.run.name}", "", told, "", head, "|" + "---|" * (len(result.axes) + 4), *rows])
