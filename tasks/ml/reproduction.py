"""A recorded training once more: from an experiment to weights and shipped file, in a folder of its own."""

from pathlib import Path

from hallmark.tasks.common.records import Artifact, Dataset, Fit
from hallmark.tasks.ml.artifact import exporter, stamping
from hallmark.tasks.ml.artifact.proof import verifier
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation import evaluator
from hallmark.tasks.ml.models import networks
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.ml.training.history import Log


def reproduce(
    experiment: Experiment, dataset: Dataset, initial_seed: int, folder: Path, log: Log
) -> tuple[Fit, Artifact]:
    """Train, evaluate, export, prove and stamp, as the flow `train` does, but tell nobody.

    Args:
        experiment: as recorded, on a device that is there.
        dataset: its rows.
        initial_seed: the initial weights are drawn from it, which an unseeded experiment had to record.
        folder: where everything appears.
        log: of the training.
    """
    recorded = experiment.training
    seeds = {"initial_weights": "seeded", "seed": initial_seed, "shuffle_seed": recorded.order_seed}
    fit = trainer.fit(dataset, experiment.data, experiment.model, recorded.model_copy(update=seeds), folder, log)
    evaluated = evaluator.evaluate(dataset, fit, experiment.data, experiment.model, recorded.loss, folder)
    classifier = networks.load(fit, dataset, experiment.model, recorded.loss)
    bare = exporter.export(classifier, dataset, experiment.export, folder / "unproven.onnx")
    proof = verifier.verify(bare, classifier, dataset, folder / "parity.json")
    artifact = stamping.stamp(bare, classifier, experiment, dataset, evaluated, proof, folder / "model.onnx")
    return fit, artifact
