"""Step 5: say what training and evaluation showed."""

from prefect import task

from tasks import progress, tracking
from tasks.ml import diagnosis
from tasks.ml.config import Experiment
from tasks.ml.records import Dataset, Evaluation, Finding, Fit, Run


@task(task_run_name="diagnose {experiment.name}")
def diagnose(
    experiment: Experiment, dataset: Dataset, fit: Fit, evaluation: Evaluation, known: tuple[Finding, ...], run: Run
) -> tuple[Finding, ...]:
    """Return all findings, those known beforehand first; see `tasks.ml.diagnosis.afterwards`."""
    shown = diagnosis.afterwards(experiment, dataset, fit, evaluation)
    progress.warn(shown)
    tracking.log_findings(run, known + shown)
    return known + shown
