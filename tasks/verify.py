"""Step 7: prove that the artifact predicts what torch predicts."""

from prefect import task

from tasks import progress
from tasks.ml import models, parity
from tasks.ml.config import Experiment
from tasks.ml.records import Artifact, Dataset, Fit, Proof


@task(task_run_name="verify {experiment.name}")
def verify(experiment: Experiment, dataset: Dataset, fit: Fit, artifact: Artifact) -> Proof:
    """Compare onnxruntime with torch, or raise; see `tasks.ml.parity.verify`."""
    classifier = models.load(fit, dataset, experiment.model, experiment.training.loss)
    proof = parity.verify(artifact, classifier, dataset)
    progress.say("verify", f"passed on {proof.rows} rows, largest difference {proof.max_abs_diff:.1e}")
    return proof
