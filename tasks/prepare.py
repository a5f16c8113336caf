"""Write the dataset to disk."""

from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.config.data import Own, Table
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data import dataset_store, sources, suitability
from hallmark.tasks.ml.data.splits import divide
from hallmark.tasks.ml.data.tables.formats import web_file
from hallmark.tasks.ml.reports import data_profile
from hallmark.tasks.runtime import progress, settings
from hallmark.tasks.runtime.steps import step


@step("prepare", "{experiment.name}")
def prepare(experiment: Experiment, *others: Experiment) -> Dataset:
    """Read, split and store the rows of one or several experiments on the same data; see `dataset_store.prepare`."""
    machine = settings.read()
    if sources.is_local(experiment.data):
        table = sources.read(experiment.data, machine.home, progress=progress.images)
    else:
        table = sources.read(experiment.data, machine.writable_home(), machine.mirror, progress.images)
    if isinstance(experiment.data, Own) and (downloaded := web_file.describe(experiment.data.path)):
        progress.line("source", downloaded)
    for note in table.notes:
        progress.line("columns" if isinstance(experiment.data, Table) else "images", note)
    divided = divide(table, experiment.data.split)
    for each in (experiment, *others):
        suitability.refuse_impossible(table, divided, each.model, each.training)
    dataset = dataset_store.prepare(table, experiment.data, machine.writable_home())
    rows = ", ".join(f"{count} {split}" for split, count in dataset.rows.items())
    progress.report(f"{dataset.name} {dataset.digest[:SHOWN]}: {rows} rows")
    if isinstance(experiment.data, Own):
        for label, text in data_profile.summary_lines(dataset, experiment):
            progress.line(label, text)
    return dataset
