"""Step 2: look at the data, and at the experiment, before anything is trained."""

from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import task

from tasks import progress, tracking
from tasks.ml import data_profile, diagnosis, examination
from tasks.ml.config import Experiment
from tasks.ml.records import Dataset, Finding, Run


@task(task_run_name="examine {experiment.name}")
def examine(experiment: Experiment, dataset: Dataset, run: Run) -> tuple[Finding, ...]:
    """Log a look at the dataset and return what is known to be wrong; see `diagnosis.beforehand` and `examination`."""
    with TemporaryDirectory() as folder:
        tracking.log_files(run, data_profile.profile(dataset, Path(folder)), "dataset")
    findings = diagnosis.beforehand(experiment) + examination.examine(dataset, experiment.data)
    progress.warn(findings)
    tracking.log_findings(run, findings)
    return findings
