"""Register the stamped artifact as a version of the registered model."""

from typing import TYPE_CHECKING

from hallmark.tasks.common.records import Artifact, Dataset, ModelVersion, Proof, Run
from hallmark.tasks.ml.artifact.runtimes import feeds
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import category_values, open_split
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import client, known_models, registration

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

EXAMPLE_ROWS = 3


def _is_retryable(task: object, task_run: object, state: "State") -> bool:  # noqa: ARG001 - Prefect's signature
    error = state.result(raise_on_failure=False)
    return isinstance(error, Exception) and client.is_network_failure(error)


# The only step with retries: it only talks to the registry, and a retry does not create a second version.
@step("register", "{experiment.name}", retries=2, retry_delay_seconds=[1, 5], retry_condition_fn=_is_retryable)
def register(experiment: Experiment, dataset: Dataset, artifact: Artifact, proof: Proof, run: Run) -> ModelVersion:
    """Register with signature, input example and proof; see `hallmark.tasks.tracking.registration.register`."""
    example = feeds(dataset.columns, open_split(dataset, "test").x[:EXAMPLE_ROWS], category_values(dataset))
    version = registration.register(run, experiment.name, artifact, proof, dataset, example)
    known_models.remember(version.name, version.version)
    progress.report(version.title)
    return version
