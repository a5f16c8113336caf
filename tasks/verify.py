"""Step 7: prove that the graph predicts what torch predicts, and keep the evidence with the run."""

from prefect import task

from tasks import progress, tracking
from tasks.ml import models, parity
from tasks.ml.config import Experiment
from tasks.ml.errors import ParityError
from tasks.ml.records import Artifact, Dataset, Fit, Proof, Run


@task(task_run_name="verify {experiment.name}")
def verify(experiment: Experiment, dataset: Dataset, fit: Fit, artifact: Artifact, run: Run) -> Proof:
    """Hold the runtimes against torch, or raise; see `tasks.ml.parity.verify`."""
    classifier = models.load(fit, dataset, experiment.model, experiment.training.loss)
    report = artifact.path.with_name("parity.json")
    try:
        proof = parity.verify(artifact, classifier, dataset, report)
    except ParityError:
        tracking.log_files(run, [path for path in (report, artifact.path) if path.exists()], "parity")
        raise
    tracking.log_files(run, [report], "parity")
    asked = f"{proof.rows} test rows and {proof.rows_made} more in {len(proof.ways)} ways"
    progress.say("verify", f"passed: {asked}, largest error {proof.largest_error:.1e}, own {proof.own_error:.1e}")
    return proof
