"""Interrupt and resume trainings, and check that two trainings are equal."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import parquet

from hallmark.flows.experiments import presets
from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.config.data import Data, Digits, Iris, Split
from hallmark.tasks.ml.config.experiment import Augmentation, Cosine, Experiment, OneCycle, Step, Training
from hallmark.tasks.ml.config.losses import BCE, MSE, BCEWithLogits, CrossEntropy
from hallmark.tasks.ml.config.models import CNN, MLP, Linear, Model
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.ml.training.loop import CheckpointPolicy

Points = list[tuple[str, int, float, int]]
"""Metric, step, value and timestamp, as logged."""

LINEAR, SMALL = Linear(kind="linear"), MLP(kind="mlp", hidden=(9, 5))
SIGMOID = Linear(kind="linear", output="sigmoid")
IRIS, DIGITS = Iris(kind="iris"), Digits(kind="digits")


CHANGED = Augmentation(horizontal_flip=0.5, shift=1, rotation=5)
SOME_DIGITS = Digits(kind="digits", split=Split(validation=0.05, test=0.75))
"""Few training rows, because the cost of augmentation is proportional to their number."""


def experiment(data: Data, model: Model, **options: Any) -> Experiment:  # noqa: ANN401 - any field of Training
    return Experiment(name="x", data=data, model=model, training=Training(**{"device": "cpu", "epochs": 4} | options))


CASES = {
    "sgd": experiment(IRIS, LINEAR, optimizer="sgd", lr=0.1, batch_size=8),
    "sgd with momentum": experiment(IRIS, SMALL, optimizer="sgd", lr=0.05, momentum=0.9, batch_size=9),
    "nesterov with decay": experiment(
        IRIS, SMALL, optimizer="sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, batch_size=8
    ),
    "adam": experiment(IRIS, SMALL, batch_size=8),
    "adam with decay": experiment(IRIS, SMALL, weight_decay=0.1, batch_size=8),
    "adamw with decay": experiment(IRIS, SMALL, optimizer="adamw", weight_decay=0.1, batch_size=8),
    "full batch": experiment(IRIS, SMALL, epochs=30),
    "a last batch of one row": experiment(IRIS, SMALL, batch_size=89),
    "no shuffling": experiment(IRIS, SMALL, batch_size=8, shuffle=False, last_batch_loss=True),
    "cosine": experiment(IRIS, SMALL, batch_size=8, schedule=Cosine(kind="cosine")),
    "step": experiment(IRIS, SMALL, batch_size=8, schedule=Step(kind="step", every=2, factor=0.5)),
    "one cycle": experiment(IRIS, SMALL, batch_size=8, schedule=OneCycle(kind="one_cycle")),
    "sum": experiment(
        IRIS, SMALL, batch_size=8, optimizer="sgd", loss=CrossEntropy(kind="cross_entropy", reduction="sum")
    ),
    "class weights": experiment(
        IRIS, SMALL, batch_size=8, loss=CrossEntropy(kind="cross_entropy", weight=(1, 2, 0.5), label_smoothing=0.1)
    ),
    "sigmoid with bce": experiment(IRIS, SIGMOID, batch_size=8, loss=BCE(kind="bce")),
    "one against rest": experiment(IRIS, SMALL, batch_size=8, loss=BCEWithLogits(kind="bce_with_logits")),
    "mse": experiment(IRIS, SIGMOID, batch_size=8, loss=MSE(kind="mse")),
    "test split monitored": experiment(IRIS, SMALL, batch_size=8, monitor="test"),
    "patience": experiment(IRIS, SMALL, epochs=60, lr=0.05, batch_size=30, patience=3),
    "patience in full batches": presets.blobs().model_copy(
        update={"training": presets.blobs().training.model_copy(update={"device": "cpu", "epochs": 50, "patience": 2})}
    ),
    "no validation split": experiment(Iris(kind="iris", split=Split(validation=0)), SMALL, batch_size=8),
    "lbfgs": experiment(IRIS, LINEAR, epochs=40, optimizer="lbfgs", lr=1, l2=0.1),
    "lbfgs to convergence": experiment(IRIS, LINEAR, epochs=500, optimizer="lbfgs", lr=1, l2=1),
    "lbfgs of a perceptron": experiment(IRIS, SMALL, epochs=30, optimizer="lbfgs", lr=1),
    "digits": experiment(DIGITS, MLP(kind="mlp", hidden=(128,)), batch_size=32, lr=0.002),
    "cnn": experiment(DIGITS, CNN(kind="cnn", channels=(4, 8), hidden=(16,)), batch_size=64, epochs=3),
    "cnn with momentum": experiment(
        DIGITS, CNN(kind="cnn", channels=(4,), hidden=(8,)), batch_size=100, epochs=2, optimizer="sgd", momentum=0.9
    ),
}

AUGMENTED = {
    "augmented": experiment(
        SOME_DIGITS, CNN(kind="cnn", channels=(2,), hidden=(4,)), batch_size=25, augmentation=CHANGED
    ),
    "augmented, no shuffling": experiment(SOME_DIGITS, LINEAR, batch_size=50, shuffle=False, augmentation=CHANGED),
}
"""Cases that augment images in every epoch, which takes seconds."""

GROWING = {"optimizer": "sgd", "lr": 10, "weight_decay": 1, "batch_size": 30, "epochs": 20}
"""Each update multiplies every weight by -9, so that float32 overflows after some epochs."""

STOPS = {"once": (3,), "at once": (0, 0, 0), "four times": (1, 5, 2, 4)}
"""For each process, the number of segments after which it is stopped."""


@dataclass
class Trial:
    """One training, or several stacked ones, run in as many attempts as needed."""

    experiment: Experiment
    dataset: Dataset
    folder: Path
    members: Sequence[Training] = ()
    points: list[Points] = field(default_factory=list)
    """Logged points of each member."""
    resumed: list[tuple[int, int]] = field(default_factory=list)
    fits: list[Fit | DivergedError] = field(default_factory=list)
    seconds: float = 10
    """Minimum time between two checkpoints."""

    def run(self, stop: Callable[[], bool] = lambda: False) -> "Trial":
        """Train to the end, or until `stop` returns true."""
        members = self.members or [self.experiment.training]
        folders = [self.folder / f"fit {index}" for index in range(len(members))]
        self.points += [[] for _ in members[len(self.points) :]]
        policy = CheckpointPolicy(
            self.folder / "kept", stop, lambda epoch, step: self.resumed.append((epoch, step)), self.seconds
        )
        logs = [self._log(points) for points in self.points]
        parts = self.experiment.data, self.experiment.model
        self.fits = trainer.fit_together(self.dataset, *parts, members, folders, logs, policy)
        return self

    def stop_after(self, segments: int) -> bool:
        """Stop the training after `segments` + 1 segments; return whether it was still running."""
        answers: Iterator[bool] = chain([False] * segments, [True])
        try:
            self.run(lambda: next(answers))
        except KeyboardInterrupt:
            return True
        return False

    @property
    def fit(self) -> Fit:
        (only,) = self.fits
        assert isinstance(only, Fit)
        return only

    @staticmethod
    def _log(points: Points) -> Callable[[int, dict[str, float], int], None]:
        return lambda step, metrics, clock: points.extend((name, step, value, clock) for name, value in metrics.items())


def run_interrupted(trial: Trial, stops: Iterable[int]) -> Trial:
    """Stop a training after each of these numbers of segments, then run it to the end."""
    stopped = [trial.stop_after(segments) for segments in stops]
    assert stopped[0]
    return trial.run()


def without_times(points: Points) -> set[tuple[str, int, float]]:
    return {(name, step, value) for name, step, value, _ in points if not name.startswith("time/")}


def history_values(fit: Fit) -> dict[tuple[str, int], bytes]:
    """Return the bytes of each value in the history file, without measured times."""
    table = parquet.read_table(fit.history).to_pylist()
    values = {(row["metric"], row["step"]): np.float64(row["value"]).tobytes() for row in table}
    assert len(values) == len(table)
    return {point: value for point, value in values.items() if not point[0].startswith("time/")}


def assert_equal_fits(one: Fit | DivergedError, other: Fit | DivergedError) -> None:
    assert isinstance(one, Fit)
    assert isinstance(other, Fit)
    assert one.weights_sha256 == other.weights_sha256
    assert history_values(one) == history_values(other)
    (one_metrics, other_metrics) = (
        {name: value for name, value in fit.metrics.items() if not name.startswith("time/")} for fit in (one, other)
    )
    assert one_metrics == other_metrics
    for name in ("epochs", "best_epoch", "stopped", "initial_seed", "threads", "device", "fingerprint"):
        assert getattr(one, name) == getattr(other, name), name


def assert_equal_points(points: Points, reference: Points) -> None:
    """Check that the points are the same, and that a point logged twice has the same value and timestamp each time."""
    assert without_times(points) == without_times(reference)
    names = [(name, step) for name, step, *_ in set(points)]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert set(names) == {(name, step) for name, step, *_ in reference}


def assert_equal(trial: Trial, reference: Trial) -> None:
    for one, other in zip(trial.fits, reference.fits, strict=True):
        assert_equal_fits(one, other)
    for points, others in zip(trial.points, reference.points, strict=True):
        assert_equal_points(points, others)
