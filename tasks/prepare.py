"""Step 1: lay the dataset on disk."""

from prefect import task

from tasks import progress, settings
from tasks.ml import data, data_profile, sources
from tasks.ml.config import Experiment
from tasks.ml.config_data import Own
from tasks.ml.digests import SHOWN
from tasks.ml.records import Dataset


@task(task_run_name="prepare {experiment.name}")
def prepare(experiment: Experiment, *others: Experiment) -> Dataset:
    """Read, divide and store the rows of one or several experiments on the same; see `tasks.ml.data.prepare`."""
    machine = settings.read()
    table = sources.read(experiment.data, machine.home, machine.mirror, progress.images)
    for note in table.notes:
        progress.say("images", note)
    for each in (experiment, *others):
        data.refuse_impossible(table, each.data.split, each.model, each.training)
    dataset = data.prepare(table, experiment.data, machine.home)
    rows = ", ".join(f"{count} {split}" for split, count in dataset.rows.items())
    progress.say("prepare", f"{dataset.name} {dataset.digest[:SHOWN]}: {rows} rows")
    if isinstance(experiment.data, Own):
        for step, text in data_profile.say(dataset, experiment):
            progress.say(step, text)
    return dataset
