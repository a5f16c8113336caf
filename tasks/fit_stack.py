"""Step 3 of a sweep: train members of equal shape as one."""

from pathlib import Path

from prefect import task

from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import Dataset, Fit, Run
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.ml.training.history import Log
from hallmark.tasks.ml.training.loop import CheckpointPolicy
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import run_logger


@task(task_run_name="fit {unfinished.name}")
def fit_stack(
    members: tuple[Experiment, ...],
    dataset: Dataset,
    runs: tuple[Run, ...],
    folders: tuple[Path, ...],
    unfinished: Path,
    *,
    in_pool: bool = False,
) -> tuple[Fit | str, ...]:
    """Train all at once, logging every epoch of each; see `hallmark.tasks.ml.training.trainer.fit_together`.

    Args:
        members: equal but for what a stack may have several of.
        dataset: what they are trained on.
        runs: of each.
        folders: where the weights of each appear.
        unfinished: where the checkpoints of all lie.
        in_pool: whether others train beside them, in a pool of processes: their epochs are not shown then.

    Returns:
        Of each its fit, or why there is none.
    """
    first, trainings = members[0], [member.training for member in members]
    lowest: dict[int, dict[str, float]] = {}  # of the running epoch, that of the member which does best
    with (
        progress.epochs(first.training.epochs, shown=not in_pool) as show,
        run_logger.metric_logs(runs) as logs,
        held() as arrived,
    ):

        def reporting(log: Log) -> Log:
            def report(step: int, metrics: dict[str, float], clock: int) -> None:
                log(step, metrics, clock)
                if "val/loss" in metrics:
                    if lowest and step not in lowest:
                        show(*lowest.popitem())
                    lowest[step] = min(lowest.get(step, metrics), metrics, key=lambda one: one["val/loss"])

            return report

        policy = CheckpointPolicy(unfinished, lambda: bool(arrived), progress.resumed)
        parts = first.data, first.model, trainings, folders
        results = trainer.fit_together(dataset, *parts, [reporting(log) for log in logs], policy)
        if lowest:
            show(*lowest.popitem())
    for run, result in zip(runs, results, strict=True):
        if isinstance(result, Fit):
            run_logger.log_fit(run, result)
    return tuple(str(result) if isinstance(result, DivergedError) else result for result in results)
