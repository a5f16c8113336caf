"""Step 5: say what training and evaluation showed."""

from prefect import task

from hallmark.tasks.common.records import Dataset, Evaluation, Finding, Fit, Run
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.findings import after_training
from hallmark.tasks.runtime import progress
from hallmark.tasks.tracking import run_logger


@task(task_run_name="diagnose {experiment.name}")
def diagnose(
    experiment: Experiment, dataset: Dataset, fit: Fit, evaluation: Evaluation, known: tuple[Finding, ...], run: Run
) -> tuple[Finding, ...]:
    """Return all findings, those known before training first; see `after_training.find`."""
    shown = after_training.find(experiment, dataset, fit, evaluation)
    progress.warn(shown)
    run_logger.log_findings(run, known + shown)
    return known + shown
