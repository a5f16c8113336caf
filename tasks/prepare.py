"""Step 1: lay the dataset on disk."""

from prefect import task

from tasks import progress, settings
from tasks.ml import data, sources
from tasks.ml.config import Experiment
from tasks.ml.digests import SHOWN
from tasks.ml.records import Dataset


@task(task_run_name="prepare {experiment.name}")
def prepare(experiment: Experiment) -> Dataset:
    """Read, divide and store the rows; see `tasks.ml.data.prepare`."""
    machine = settings.read()
    table = sources.read(experiment.data, machine.home, machine.mirror)
    data.refuse_impossible(table, experiment.data.split, experiment.model, experiment.training)
    dataset = data.prepare(table, experiment.data, machine.home)
    rows = ", ".join(f"{count} {split}" for split, count in dataset.rows.items())
    progress.say("prepare", f"{dataset.name} {dataset.digest[:SHOWN]}: {rows} rows")
    return dataset
