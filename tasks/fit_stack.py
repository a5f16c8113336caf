"""Train members of equal shape together."""

from pathlib import Path

from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import Dataset, Fit, Run
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.ml.training.history import Log
from hallmark.tasks.ml.training.loop import CheckpointPolicy
from hallmark.tasks.runtime import progress, settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import metric_log, run_logger


@step("fit", "{unfinished.name}")
def fit_stack(
    members: tuple[Experiment, ...],
    dataset: Dataset,
    runs: tuple[Run, ...],
    folders: tuple[Path, ...],
    unfinished: Path,
    *,
    in_pool: bool = False,
) -> tuple[Fit | str, ...]:
    """Train all members at once, and log every epoch of each; see `hallmark.tasks.ml.training.trainer.fit_together`.

    Args:
        members: experiments that differ only in fields that may differ within a stack.
        dataset: their data.
        runs: the run of each member.
        folders: where the weights of each member appear.
        unfinished: folder of the stack's checkpoints.
        in_pool: whether the stack is one of several in a process pool, where epochs are not shown.

    Returns:
        For each member its fit, or the reason why it diverged.
    """
    first, trainings = members[0], [member.training for member in members]
    lowest: dict[int, dict[str, float]] = {}  # of the current epoch: the metrics with the lowest validation loss
    with (
        progress.epochs(first.training.epochs, shown=not in_pool) as show,
        metric_log.metric_logs(runs) as logs,
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

        policy = CheckpointPolicy(
            unfinished, lambda: bool(arrived), progress.resumed, settings.read().checkpoint_seconds
        )
        parts = first.data, first.model, trainings, folders
        results = trainer.fit_together(dataset, *parts, [reporting(log) for log in logs], policy)
        if lowest:
            show(*lowest.popitem())
    for run, result in zip(runs, results, strict=True):
        if isinstance(result, Fit):
            run_logger.log_fit(run, result)
    return tuple(str(result) if isinstance(result, DivergedError) else result for result in results)
