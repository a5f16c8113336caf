"""Step 6: write the bare graph, which is still to be proven."""

from prefect import task

from tasks import progress
from tasks.ml import models, onnx_export
from tasks.ml.config import Experiment
from tasks.ml.records import Artifact, Dataset, Fit


@task(task_run_name="export {experiment.name}")
def export(experiment: Experiment, dataset: Dataset, fit: Fit) -> Artifact:
    """Write the graph; see `tasks.ml.onnx_export.export`."""
    classifier = models.load(fit, dataset, experiment.model, experiment.training.loss)
    path = fit.weights.parent / f"{experiment.name}.unproven.onnx"
    bare = onnx_export.export(classifier, dataset, experiment.export, path)
    progress.say("export", f"{bare.path.stat().st_size:,} bytes, operator set {experiment.export.opset}")
    return bare
