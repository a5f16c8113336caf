"""Write the certificate into the verified graph, which makes it the artifact."""

from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.records import Artifact, Dataset, Evaluation, Fit, Proof
from hallmark.tasks.ml.artifact import stamping
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.models import networks
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step


@step("stamp", "{experiment.name}")
def stamp(
    experiment: Experiment, dataset: Dataset, fit: Fit, evaluation: Evaluation, bare: Artifact, proof: Proof
) -> Artifact:
    """Write the file to ship; see `hallmark.tasks.ml.artifact.stamping.stamp`."""
    classifier = networks.load(fit, dataset, experiment.model, experiment.training.loss)
    path = bare.path.with_name(f"{experiment.name}.onnx")
    artifact = stamping.stamp(bare, classifier, experiment, dataset, evaluation, proof, path)
    progress.report(f"{artifact.path.name}, sha256 {artifact.sha256[:SHOWN]}")
    return artifact
