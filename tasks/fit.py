"""Step 3: train."""

from prefect import task

from tasks import progress, settings, tracking
from tasks.ml import devices, training
from tasks.ml.config import Experiment
from tasks.ml.digests import SHOWN, digest_of
from tasks.ml.records import Dataset, Fit, Run


@task(task_run_name="fit {experiment.name}")
def fit(experiment: Experiment, dataset: Dataset, run: Run) -> Fit:
    """Train, logging every epoch as it ends; see `tasks.ml.training.fit`."""
    device = devices.choose(experiment.training.device).type
    inputs = [experiment.digest, dataset.digest, device, training.VERSION]
    if experiment.training.initial_weights == "unseeded":
        inputs.append(run.id)  # no two runs are the same
    folder = settings.read().home / "fits" / digest_of(inputs)[:SHOWN]
    with progress.epochs(experiment.training.epochs) as show, tracking.metric_log(run) as log:

        def report(step: int, metrics: dict[str, float]) -> None:
            log(step, metrics)
            if "train/loss" in metrics:
                show(step, metrics)

        result = training.fit(dataset, experiment.data, experiment.model, experiment.training, folder, report)
    if result.best_epoch < experiment.training.epochs:
        progress.say("fit", f"epoch {result.epochs}: {result.stopped}; kept epoch {result.best_epoch}")
    tracking.log_fit(run, result)
    return result
