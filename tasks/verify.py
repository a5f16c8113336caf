"""Prove that the graph predicts what the PyTorch model predicts."""

from dataclasses import asdict
from pathlib import Path

from hallmark.tasks.common.errors import ParityError
from hallmark.tasks.common.records import Artifact, Dataset, Fit, Proof, Run
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.artifact.proof import verifier
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.models import networks
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import run_logger


@step("verify", "{experiment.name}")
def verify(experiment: Experiment, dataset: Dataset, fit: Fit, artifact: Artifact, run: Run | None) -> Proof:
    """Compare the ONNX runtimes with PyTorch; see `hallmark.tasks.ml.artifact.proof.verifier.verify`.

    Args:
        experiment: the exported experiment.
        dataset: its data.
        fit: the result of its training.
        artifact: the exported graph.
        run: where the evidence is logged, also when the check fails; None logs nothing.

    Raises:
        ParityError: the graph predicts something else.
    """
    classifier = networks.load(fit, dataset, experiment.model, experiment.training.loss)
    report = artifact.path.with_name("parity.json")

    def log(*files: Path) -> None:
        if run:
            run_logger.log_files(run, [path for path in files if path.exists()], "parity")

    try:
        proof = verifier.verify(artifact, classifier, dataset, report)
    except ParityError:
        log(report, artifact.path)
        raise
    log(report)
    progress.report(f"passed: {certificate.proof_sentence(asdict(proof))}")
    return proof
