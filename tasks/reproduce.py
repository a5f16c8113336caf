"""The one step of a reproduction: train anew what a run has recorded, and compare."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import task

from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Artifact, Dataset, Fit, Recorded, Reproduction
from hallmark.tasks.ml.artifact import exporter, stamping
from hallmark.tasks.ml.artifact.proof import verifier
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation import evaluator
from hallmark.tasks.ml.models import networks
from hallmark.tasks.ml.training import devices, trainer
from hallmark.tasks.ml.training.history import Log
from hallmark.tasks.runtime import progress, provenance, settings


@task(task_run_name="reproduce {recorded.run}")
def reproduce(recorded: Recorded, experiment: Experiment, dataset: Dataset) -> Reproduction:
    """Train and ship the recorded experiment again, and compare weights and file with the recorded digests."""
    home = settings.read().home
    wanted = experiment.training.model_copy(update={"device": _device(recorded)})
    with (
        TemporaryDirectory(dir=home, prefix=".reproduce-") as folder,
        progress.epochs(wanted.epochs) as show,
    ):

        def log(step: int, metrics: dict[str, float], clock: int) -> None:  # noqa: ARG001 - nobody records it
            if "train/loss" in metrics:
                show(step, metrics)

        anew = experiment.model_copy(update={"training": wanted})
        fit, artifact = train_again(anew, dataset, recorded.initial_seed, Path(folder), log)
    now = provenance.marks() | fit.fingerprint | {"networks": str(fit.networks)}
    found = Reproduction(
        weights=fit.weights_sha256 == recorded.weights_sha256,
        file=artifact.sha256 == recorded.onnx_sha256,
        differences=tuple(_differences(recorded, replace(recorded, dataset=dataset.digest, marks=now))),
    )
    progress.say("compare", f"weights {_word(found.weights)}, file {_word(found.file)}")
    return found


def train_again(
    experiment: Experiment, dataset: Dataset, initial_seed: int, folder: Path, log: Log
) -> tuple[Fit, Artifact]:
    """Train, evaluate, export, prove and stamp in one folder. Nothing is drawn, logged to MLflow or registered.

    Args:
        experiment: the recorded experiment, on a device of this machine.
        dataset: the prepared splits.
        initial_seed: seed of the initial weights; an unseeded experiment has recorded the one it drew.
        folder: where all files are written.
        log: receives the metrics of each epoch.
    """
    recorded = experiment.training
    seeds = {"initial_weights": "seeded", "seed": initial_seed, "shuffle_seed": recorded.order_seed}
    fit = trainer.fit(dataset, experiment.data, experiment.model, recorded.model_copy(update=seeds), folder, log)
    classifier = networks.load(fit, dataset, experiment.model, recorded.loss)
    evaluation = evaluator.evaluate(classifier, dataset, experiment.data, folder).record
    bare = exporter.export(classifier, dataset, experiment.export, folder / "unproven.onnx")
    proof = verifier.verify(bare, classifier, dataset, folder / "parity.json")
    return fit, stamping.stamp(bare, classifier, experiment, dataset, evaluation, proof, folder / "model.onnx")


def _device(recorded: Recorded) -> str:
    """The recorded kind, or what there is instead: the result then says so."""
    try:
        return devices.choose(recorded.marks["device"]).type  # type: ignore[arg-type]
    except InputError:
        return "auto"


def _differences(then: Recorded, now: Recorded) -> Iterator[str]:
    """What a result depends on, where it is another now."""
    if then.dataset != now.dataset:
        yield f"dataset: was {then.dataset[:SHOWN]}, is {now.dataset[:SHOWN]}"
    for name, before in sorted(then.marks.items()):
        after = now.marks.get(name, "none")
        if before != after:
            yield f"{name}: was {_short(before)}, is {_short(after)}"


def _short(mark: str) -> str:
    return mark[:SHOWN] if len(mark) == 64 else mark


def _word(same: bool) -> str:  # noqa: FBT001 - it is the word for one
    return "identical" if same else "different"
