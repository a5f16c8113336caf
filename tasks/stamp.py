"""Step 8: write the certificate into the proven graph, which makes it the artifact."""

from prefect import task

from tasks import progress
from tasks.ml import models, stamping
from tasks.ml.config import Experiment
from tasks.ml.digests import SHOWN
from tasks.ml.records import Artifact, Dataset, Evaluation, Fit, Proof


@task(task_run_name="stamp {experiment.name}")
def stamp(
    experiment: Experiment, dataset: Dataset, fit: Fit, evaluation: Evaluation, bare: Artifact, proof: Proof
) -> Artifact:
    """Write the shipped file; see `tasks.ml.stamping.stamp`."""
    classifier = models.load(fit, dataset, experiment.model, experiment.training.loss)
    path = bare.path.with_name(f"{experiment.name}.onnx")
    artifact = stamping.stamp(bare, classifier, experiment, dataset, evaluation, proof, path)
    progress.say("stamp", f"{artifact.path.name}, sha256 {artifact.sha256[:SHOWN]}")
    return artifact
