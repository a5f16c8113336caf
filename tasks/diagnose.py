"""Look for problems in how the training and the evaluation went."""

from hallmark.tasks.common.records import Dataset, Evaluation, Finding, Fit, Run
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.findings import after_training
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import run_logger


@step("diagnose", "{experiment.name}")
def diagnose(
    experiment: Experiment, dataset: Dataset, fit: Fit, evaluation: Evaluation, known: tuple[Finding, ...], run: Run
) -> tuple[Finding, ...]:
    """Return all findings: those `known` from before the training, then those of `after_training.find`."""
    new = after_training.find(experiment, dataset, fit, evaluation)
    progress.findings(new)
    run_logger.log_findings(run, known + new)
    return known + new
