"""Register the stamped artifact as a version of the registered model."""

from hallmark.tasks.common.records import Artifact, Dataset, ModelVersion, Proof, Run
from hallmark.tasks.ml.artifact.runtimes import feeds
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import category_values, open_split
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import known_models
from hallmark.tasks.tracking.registry import registration

EXAMPLE_ROWS = 3


@step("register", "{experiment.name}")
def register(experiment: Experiment, dataset: Dataset, artifact: Artifact, proof: Proof, run: Run) -> ModelVersion:
    """Register with signature, input example and proof; see `tracking.registry.registration.register`."""
    x = open_split(dataset, "test").x[:EXAMPLE_ROWS]
    example = feeds(dataset.columns, x, category_values(dataset), dataset.wide)
    version = registration.register(run, experiment.name, artifact, proof, dataset, example)
    known_models.remember(version.name, version.version)
    progress.report(version.title)
    return version
