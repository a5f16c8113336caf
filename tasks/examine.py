"""Look for problems in the data and the experiment before training."""

from hallmark.tasks.common.files import temporary_folder
from hallmark.tasks.common.records import Dataset, Finding, Run
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.findings import before_training, image_data, table_data
from hallmark.tasks.ml.reports import data_profile
from hallmark.tasks.runtime import progress, settings
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import run_logger


@step("examine", "{experiment.name}")
def examine(experiment: Experiment, dataset: Dataset, run: Run) -> tuple[Finding, ...]:
    """Log a profile of the dataset, and return the findings that need no training."""
    with temporary_folder() as folder:
        run_logger.log_files(run, data_profile.profile(dataset, folder), "dataset")
    findings = (
        before_training.find(experiment)
        + table_data.find(dataset, experiment.data)
        + image_data.find(dataset, experiment.data, settings.read().home)
    )
    progress.findings(findings)
    run_logger.log_findings(run, findings)
    return findings
