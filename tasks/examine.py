"""Step 2: look at the data, and at the experiment, before anything is trained."""

from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import task

from hallmark.tasks.common.records import Dataset, Finding, Run
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.findings import before_training, table_data
from hallmark.tasks.ml.reports import data_profile
from hallmark.tasks.runtime import progress
from hallmark.tasks.tracking import run_logger


@task(task_run_name="examine {experiment.name}")
def examine(experiment: Experiment, dataset: Dataset, run: Run) -> tuple[Finding, ...]:
    """Log a look at the dataset and return what is known to be wrong; see `before_training` and `table_data`."""
    with TemporaryDirectory() as folder:
        run_logger.log_files(run, data_profile.profile(dataset, Path(folder)), "dataset")
    findings = before_training.find(experiment) + table_data.find(dataset, experiment.data)
    progress.warn(findings)
    run_logger.log_findings(run, findings)
    return findings
