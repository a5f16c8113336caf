"""Step 7: prove that the graph predicts what torch predicts, and keep the evidence with the run."""

from prefect import task

from hallmark.tasks.common.errors import ParityError
from hallmark.tasks.common.records import Artifact, Dataset, Fit, Proof, Run
from hallmark.tasks.ml.artifact.proof import verifier
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.models import networks
from hallmark.tasks.runtime import progress
from hallmark.tasks.tracking import run_logger


@task(task_run_name="verify {experiment.name}")
def verify(experiment: Experiment, dataset: Dataset, fit: Fit, artifact: Artifact, run: Run) -> Proof:
    """Hold the runtimes against torch, or raise; see `hallmark.tasks.ml.artifact.proof.verifier.verify`."""
    classifier = networks.load(fit, dataset, experiment.model, experiment.training.loss)
    report = artifact.path.with_name("parity.json")
    try:
        proof = verifier.verify(artifact, classifier, dataset, report)
    except ParityError:
        run_logger.log_files(run, [path for path in (report, artifact.path) if path.exists()], "parity")
        raise
    run_logger.log_files(run, [report], "parity")
    asked = f"{proof.rows} test rows and {proof.rows_made} more in {len(proof.ways)} ways"
    progress.say("verify", f"passed: {asked}, largest error {proof.largest_error:.1e}, own {proof.own_error:.1e}")
    return proof
