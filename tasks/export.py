"""Export the model as an ONNX graph, not yet verified."""

from hallmark.tasks.common.records import Artifact, Dataset, Fit
from hallmark.tasks.ml.artifact import exporter
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.models import networks
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step


@step("export", "{experiment.name}")
def export(experiment: Experiment, dataset: Dataset, fit: Fit) -> Artifact:
    """Write the graph; see `hallmark.tasks.ml.artifact.exporter.export`."""
    classifier = networks.load(fit, dataset, experiment.model, experiment.training.loss)
    path = fit.weights.parent / f"{experiment.name}.unproven.onnx"
    bare = exporter.export(classifier, dataset, experiment.export, path)
    progress.report(f"{bare.path.stat().st_size:,} bytes, operator set {experiment.export.opset}")
    return bare
