"""A recorded training once more: from an experiment to weights and shipped file, in a folder of its own."""

from pathlib import Path

from tasks.ml import evaluation, models, onnx_export, parity, stamping, training
from tasks.ml.config import Experiment
from tasks.ml.history import Log
from tasks.ml.records import Artifact, Dataset, Fit


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
    fit = training.fit(dataset, experiment.data, experiment.model, recorded.model_copy(update=seeds), folder, log)
    evaluated = evaluation.evaluate(dataset, fit, experiment.data, experiment.model, recorded.loss, folder)
    classifier = models.load(fit, dataset, experiment.model, recorded.loss)
    bare = onnx_export.export(classifier, dataset, experiment.export, folder / "unproven.onnx")
    proof = parity.verify(bare, classifier, dataset, folder / "parity.json")
    artifact = stamping.stamp(bare, classifier, experiment, dataset, evaluated, proof, folder / "model.onnx")
    return fit, artifact
