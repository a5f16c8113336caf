"""Step 6: write the artifact."""

from prefect import task

from tasks import progress
from tasks.ml import models, onnx_export
from tasks.ml.config import Experiment
from tasks.ml.digests import SHOWN
from tasks.ml.records import Artifact, Dataset, Fit


@task(task_run_name="export {experiment.name}")
def export(experiment: Experiment, dataset: Dataset, fit: Fit) -> Artifact:
    """Write one ONNX file; see `tasks.ml.onnx_export.export`."""
    classifier = models.load(fit, dataset, experiment.model, experiment.training.loss)
    path = fit.weights.parent / f"{experiment.name}.onnx"
    artifact = onnx_export.export(classifier, dataset, experiment.export, path)
    progress.say("export", f"{artifact.path.name}, sha256 {artifact.sha256[:SHOWN]}")
    return artifact
