"""Train one network."""

from hallmark.tasks.common.digests import SHOWN, digest_of
from hallmark.tasks.common.records import Dataset, Fit, Run
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import devices, trainer
from hallmark.tasks.ml.training.loop import CheckpointPolicy
from hallmark.tasks.runtime import progress, settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import metric_log, run_logger


@step("fit", "{experiment.name}")
def fit(experiment: Experiment, dataset: Dataset, run: Run, *, in_pool: bool = False) -> Fit:
    """Train, and log every epoch when it ends; see `hallmark.tasks.ml.training.trainer.fit`.

    Args:
        experiment: the experiment to train.
        dataset: its data.
        run: where it is logged.
        in_pool: whether it is one of several in a process pool, where epochs are not shown.
    """
    device = devices.choose(experiment.training.device).type
    inputs = [experiment.digest, dataset.digest, device, trainer.VERSION]
    if experiment.training.initial_weights == "unseeded":
        inputs.append(run.id)  # no two runs are the same
    machine = settings.read()
    folder = machine.home / "fits" / digest_of(inputs)[:SHOWN]
    parts = experiment.data, experiment.model, experiment.training
    with (
        progress.epochs(experiment.training.epochs, shown=not in_pool) as show,
        metric_log.metric_log(run) as log,
        held() as arrived,
    ):

        def report(step: int, metrics: dict[str, float], clock: int) -> None:
            log(step, metrics, clock)
            if "train/loss" in metrics:
                show(step, metrics)

        policy = CheckpointPolicy(
            run.attempt.folder, lambda: bool(arrived), progress.resumed, machine.checkpoint_seconds
        )
        result = trainer.fit(dataset, *parts, folder, report, policy)
    if result.best_epoch < experiment.training.epochs:
        progress.report(f"epoch {result.epochs}: {result.stopped}; kept epoch {result.best_epoch}")
    run_logger.log_fit(run, result)
    return result
