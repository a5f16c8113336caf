"""An interrupted training ends with the same bits as an uninterrupted one."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

from hallmark.flows.experiments import presets
from hallmark.tasks.common.errors import DivergedError, InputError
from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.config.data import Data, Digits, Iris, Split
from hallmark.tasks.ml.config.experiment import Augmentation, Cosine, Experiment, OneCycle, Step, Training
from hallmark.tasks.ml.config.losses import BCE, MSE, BCEWithLogits, CrossEntropy
from hallmark.tasks.ml.config.models import CNN, MLP, Linear, Model
from hallmark.tasks.ml.training import checkpoints, loop, trainer
from hallmark.tasks.ml.training.checkpoints import Checkpoints
from hallmark.tasks.ml.training.loop import CheckpointPolicy
from tests.conftest import prepare

Points = list[tuple[str, int, float, int]]
"""Metric, step, value and clock, as they were logged."""

LINEAR, SMALL = Linear(kind="linear"), MLP(kind="mlp", hidden=(9, 5))
SIGMOID = Linear(kind="linear", output="sigmoid")
IRIS, DIGITS = Iris(kind="iris"), Digits(kind="digits")


CHANGED = Augmentation(horizontal_flip=0.5, shift=1, rotation=5)
SOME_DIGITS = Digits(kind="digits", split=Split(validation=0.05, test=0.75))
"""Augmentation costs by the row."""


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
    "augmented": experiment(
        SOME_DIGITS, CNN(kind="cnn", channels=(2,), hidden=(4,)), batch_size=25, augmentation=CHANGED
    ),
    "augmented, rows as they lie": experiment(SOME_DIGITS, LINEAR, batch_size=50, shuffle=False, augmentation=CHANGED),
    "rows as they lie": experiment(IRIS, SMALL, batch_size=8, shuffle=False, last_batch_loss=True),
    "cosine": experiment(IRIS, SMALL, batch_size=8, schedule=Cosine(kind="cosine")),
    "step": experiment(IRIS, SMALL, batch_size=8, schedule=Step(kind="step", every=2, factor=0.5)),
    "one cycle": experiment(IRIS, SMALL, batch_size=8, schedule=OneCycle(kind="one_cycle")),
    "sum": experiment(
        IRIS, SMALL, batch_size=8, optimizer="sgd", loss=CrossEntropy(kind="cross_entropy", reduction="sum")
    ),
    "weights of classes": experiment(
        IRIS, SMALL, batch_size=8, loss=CrossEntropy(kind="cross_entropy", weight=(1, 2, 0.5), label_smoothing=0.1)
    ),
    "sigmoid with bce": experiment(IRIS, SIGMOID, batch_size=8, loss=BCE(kind="bce")),
    "one against the rest": experiment(IRIS, SMALL, batch_size=8, loss=BCEWithLogits(kind="bce_with_logits")),
    "mse": experiment(IRIS, SIGMOID, batch_size=8, loss=MSE(kind="mse")),
    "test split watched": experiment(IRIS, SMALL, batch_size=8, monitor="test"),
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

STOPS = {"once": (3,), "at once": (0, 0, 0), "four times": (1, 5, 2, 4)}
"""Number of segments after which each process is stopped."""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look up every few batches, also within an epoch."""
    monkeypatch.setattr(loop, "_SEGMENT_BATCHES", 5)


@dataclass
class Trial:
    """One training, or several in one, in as many processes as it takes."""

    experiment: Experiment
    dataset: Dataset
    folder: Path
    members: Sequence[Training] = ()
    points: list[Points] = field(default_factory=list)
    """Of each member."""
    resumed: list[tuple[int, int]] = field(default_factory=list)
    fits: list[Fit | DivergedError] = field(default_factory=list)

    def run(self, stop: Callable[[], bool] = lambda: False) -> "Trial":
        """Train to the end, or until `stop` returns true."""
        members = self.members or [self.experiment.training]
        folders = [self.folder / f"fit {index}" for index in range(len(members))]
        self.points += [[] for _ in members[len(self.points) :]]
        policy = CheckpointPolicy(self.folder / "kept", stop, lambda epoch, step: self.resumed.append((epoch, step)))
        logs = [self._log(points) for points in self.points]
        parts = self.experiment.data, self.experiment.model
        self.fits = trainer.fit_together(self.dataset, *parts, members, folders, logs, policy)
        return self

    def stop_after(self, looks: int) -> bool:
        """Stop the training after `looks` + 1 segments; return whether it was still running."""
        asked: Iterator[bool] = chain([False] * looks, [True])
        try:
            self.run(lambda: next(asked))
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


def interrupted(trial: Trial, stops: Iterable[int]) -> Trial:
    """Stop it again and again, and let it come to its end."""
    stopped = [trial.stop_after(looks) for looks in stops]
    assert stopped[0]
    return trial.run()


def without_times(points: Points) -> set[tuple[str, int, float]]:
    return {(name, step, value) for name, step, value, _ in points if not name.startswith("time/")}


def rows(fit: Fit) -> dict[tuple[str, int], bytes]:
    """The bits of every value in the history file, but for those measured in seconds."""
    table = parquet.read_table(fit.history).to_pylist()
    found = {(row["metric"], row["step"]): np.float64(row["value"]).tobytes() for row in table}
    assert len(found) == len(table)
    return {point: value for point, value in found.items() if not point[0].startswith("time/")}


def assert_equal_fits(one: Fit | DivergedError, other: Fit | DivergedError) -> None:
    assert isinstance(one, Fit)
    assert isinstance(other, Fit)
    assert one.weights_sha256 == other.weights_sha256
    assert rows(one) == rows(other)
    (one_metrics, other_metrics) = (
        {name: value for name, value in fit.metrics.items() if not name.startswith("time/")} for fit in (one, other)
    )
    assert one_metrics == other_metrics
    for name in ("epochs", "best_epoch", "stopped", "initial_seed", "threads", "device", "fingerprint"):
        assert getattr(one, name) == getattr(other, name), name


def assert_equal_points(points: Points, reference: Points) -> None:
    """The same points, none missing, each with one value and one clock however often it was logged."""
    assert without_times(points) == without_times(reference)
    names = [(name, step) for name, step, *_ in set(points)]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert set(names) == {(name, step) for name, step, *_ in reference}


def assert_equal(trial: Trial, reference: Trial) -> None:
    for one, other in zip(trial.fits, reference.fits, strict=True):
        assert_equal_fits(one, other)
    for points, others in zip(trial.points, reference.points, strict=True):
        assert_equal_points(points, others)


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_training_ends_like_an_uninterrupted_one(case: str, tmp_path: Path) -> None:
    dataset = prepare(CASES[case].data, tmp_path)
    reference = Trial(CASES[case], dataset, tmp_path / "reference").run()
    for name, stops in STOPS.items():
        trial = interrupted(Trial(CASES[case], dataset, tmp_path / name), stops)
        assert_equal(trial, reference)
        assert trial.fit.resumed_from == trial.resumed[-1]
    assert reference.resumed == []
    assert reference.fit.resumed_from is None


def test_enabling_checkpoints_does_not_change_the_result(tmp_path: Path) -> None:
    case = CASES["adam"]
    dataset = prepare(case.data, tmp_path)
    parts = dataset, case.data, case.model, case.training
    plain = trainer.fit(*parts, tmp_path / "plain", lambda *_: None)
    assert_equal_fits(plain, Trial(case, dataset, tmp_path).run().fit)


def test_a_checkpoint_after_every_segment_does_not_change_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["digits"]
    dataset = prepare(case.data, tmp_path)
    reference = Trial(case, dataset, tmp_path / "reference").run()
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)
    trial = Trial(case, dataset, tmp_path / "often").run()
    assert len(list(trial.folder.glob("kept/*.safetensors"))) == 2
    assert_equal(trial, reference)


def test_it_resumes_from_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES["adam"]
    dataset = prepare(case.data, tmp_path)
    reference = Trial(case, dataset, tmp_path / "reference").run()
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)
    trial = Trial(case, dataset, tmp_path / "damaged")
    assert trial.stop_after(7)
    newest = max(trial.folder.glob("kept/*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert_equal(trial.run(), reference)
    assert "using the previous one" in caplog.text
    assert trial.fit.resumed_from is not None


def test_it_starts_over_with_the_same_timestamps_if_all_checkpoints_are_damaged(tmp_path: Path) -> None:
    case = CASES["adam"]
    dataset = prepare(case.data, tmp_path)
    trial = Trial(case, dataset, tmp_path / "damaged")
    assert trial.stop_after(7)
    for path in trial.folder.glob("kept/*.safetensors"):
        path.write_bytes(b"")
    assert_equal(trial.run(), Trial(case, dataset, tmp_path / "reference").run())
    assert trial.fit.resumed_from is None


def test_it_starts_over_with_the_same_timestamps_without_a_checkpoint(tmp_path: Path) -> None:
    """As after a kill before the first checkpoint was due."""
    case = CASES["adam"]
    dataset = prepare(case.data, tmp_path)
    trial = Trial(case, dataset, tmp_path / "killed")
    assert trial.stop_after(7)
    for path in trial.folder.glob("kept/*.safetensors"):
        path.unlink()
    assert_equal(trial.run(), Trial(case, dataset, tmp_path / "reference").run())


@pytest.mark.parametrize("batch_size", ["full", 8])
def test_unseeded_weights_are_drawn_once(tmp_path: Path, batch_size: int | str) -> None:
    drawn = experiment(IRIS, SMALL, batch_size=batch_size, epochs=6, initial_weights="unseeded")
    dataset = prepare(drawn.data, tmp_path)
    trial = interrupted(Trial(drawn, dataset, tmp_path / "drawn"), STOPS["once"])
    seed = trial.fit.initial_seed
    seeded = experiment(IRIS, SMALL, batch_size=batch_size, epochs=6, seed=seed, shuffle_seed=drawn.training.seed)
    assert_equal(trial, Trial(seeded, dataset, tmp_path / "seeded").run())


def test_unseeded_weights_are_drawn_once_even_if_the_process_is_killed_at_once(tmp_path: Path) -> None:
    def killed() -> bool:
        raise SystemExit  # nothing is written on the way out

    drawn = experiment(IRIS, SMALL, initial_weights="unseeded")
    dataset = prepare(drawn.data, tmp_path)
    seeds = set()
    for _ in range(3):
        with pytest.raises(SystemExit):
            Trial(drawn, dataset, tmp_path).run(killed)
        found = Checkpoints(tmp_path / "kept", {}).load()
        assert found is not None
        seeds.add(found.facts["members"][0]["seed"])
    assert len(seeds) == 1


def test_a_finished_training_is_read_back(tmp_path: Path) -> None:
    case = CASES["patience"]
    dataset = prepare(case.data, tmp_path)
    first = Trial(case, dataset, tmp_path / "kept").run()
    again = Trial(case, dataset, tmp_path / "kept").run(lambda: pytest.fail("there is nothing to be stopped"))
    assert_equal(again, first)
    assert set(again.points[0]) == set(first.points[0])


def test_a_moved_folder_can_be_resumed(tmp_path: Path) -> None:
    case = CASES["patience"]
    trial = Trial(case, prepare(case.data, tmp_path / "here"), tmp_path / "here")
    assert trial.stop_after(4)
    shutil.copytree(tmp_path / "here" / "kept", tmp_path / "there" / "kept")
    shutil.rmtree(tmp_path / "here")
    dataset = prepare(case.data, tmp_path / "there")
    moved = Trial(case, dataset, tmp_path / "there", points=trial.points).run()
    assert_equal(moved, Trial(case, dataset, tmp_path / "reference").run())


GROWING = {"optimizer": "sgd", "lr": 10, "weight_decay": 1, "batch_size": 30, "epochs": 20}
"""Every update takes each weight times -9: after some epochs float32 has no number for it."""


def test_one_that_diverges_does_so_in_the_same_words(tmp_path: Path) -> None:
    case = experiment(IRIS, LINEAR, **GROWING)
    dataset = prepare(case.data, tmp_path)
    whole, trial = (Trial(case, dataset, tmp_path / name) for name in ("whole", "interrupted"))
    with pytest.raises(DivergedError) as expected:
        whole.run()
    assert trial.stop_after(9)
    with pytest.raises(DivergedError) as found:
        trial.run()
    assert trial.resumed == [(9, 3)]
    assert str(found.value) == str(expected.value)
    assert_equal_points(trial.points[0], whole.points[0])


@pytest.mark.parametrize(
    "other",
    [
        experiment(IRIS, SMALL, batch_size=8, seed=1),
        experiment(IRIS, SMALL, batch_size=8, epochs=5),
        experiment(IRIS, LINEAR, batch_size=8),
        experiment(Iris(kind="iris", split=Split(seed=1)), SMALL, batch_size=8),
        experiment(Iris(kind="iris", scaling="none"), SMALL, batch_size=8),
        experiment(DIGITS, SMALL, batch_size=8),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(other: Experiment, tmp_path: Path) -> None:
    trial = Trial(CASES["adam"], prepare(CASES["adam"].data, tmp_path), tmp_path)
    assert trial.stop_after(1)
    before = {path: path.read_bytes() for path in tmp_path.glob("kept/*")}
    with pytest.raises(InputError, match=r"the checkpoint has another (experiment|dataset): expected"):
        Trial(other, prepare(other.data, tmp_path), tmp_path).run()
    assert {path: path.read_bytes() for path in tmp_path.glob("kept/*")} == before


def test_a_checkpoint_that_another_number_of_threads_wrote_is_refused(tmp_path: Path) -> None:
    trial = Trial(CASES["adam"], prepare(CASES["adam"].data, tmp_path), tmp_path)
    assert trial.stop_after(1)
    identity = trainer.checkpoint_identity(trial.dataset, IRIS, SMALL, [CASES["adam"].training])
    with pytest.raises(InputError, match="another threads: expected 64, found 1"):
        Checkpoints(tmp_path / "kept", identity | {"threads": "64"}).load()


THREE = {
    "orders of their own": [{"seed": 1}, {"seed": 2}, {"seed": 3}],
    "one order": [{"seed": seed, "shuffle_seed": 7} for seed in (1, 2, 3)],
    "learning rates": [{"lr": lr} for lr in (0.001, 0.01, 0.1)],
    "early stopping": [{"lr": lr, "shuffle_seed": 7, "seed": seed} for lr, seed in ((0.3, 1), (0.003, 2), (0.05, 3))],
}
MANNERS: dict[str, dict[str, Any]] = {
    "adam": {"batch_size": 8},
    "adamw": {"batch_size": 8, "optimizer": "adamw", "weight_decay": 0.1},
    "sgd": {"batch_size": 8, "optimizer": "sgd", "momentum": 0.9},
    "full": {"epochs": 20},
}


def together(members: Sequence[dict[str, Any]], **options: Any) -> tuple[Experiment, list[Training]]:  # noqa: ANN401 - any field of Training
    """What all share, and each one's training."""
    all_of_them = [experiment(IRIS, SMALL, **options | member) for member in members]
    return all_of_them[0], [one.training for one in all_of_them]


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("three", THREE)
def test_what_is_trained_together_is_interrupted_together(three: str, manner: str, tmp_path: Path) -> None:
    options = MANNERS[manner] | ({"patience": 2, "epochs": 12} if three == "early stopping" else {})
    case, members = together(THREE[three], **options)
    dataset = prepare(case.data, tmp_path)
    reference = Trial(case, dataset, tmp_path / "reference", members).run()
    for name, stops in STOPS.items():
        assert_equal(interrupted(Trial(case, dataset, tmp_path / name, members), stops), reference)


def test_members_that_stop_early_do_so_at_their_own_time(tmp_path: Path) -> None:
    case, members = together(THREE["early stopping"], batch_size=8, patience=2, epochs=12)
    trial = Trial(case, prepare(case.data, tmp_path), tmp_path, members).run()
    assert len({fit.epochs for fit in trial.fits if isinstance(fit, Fit)}) > 1


def test_one_that_diverges_disturbs_no_other_however_often_they_are_interrupted(tmp_path: Path) -> None:
    case, members = together([{"weight_decay": decay} for decay in (0.001, 1, 0.01)], **GROWING)
    dataset = prepare(case.data, tmp_path)
    reference = Trial(case, dataset, tmp_path / "reference", members).run()
    trial = interrupted(Trial(case, dataset, tmp_path / "interrupted", members), (3, 5, 5, 3))
    for index, (one, other) in enumerate(zip(trial.fits, reference.fits, strict=True)):
        if index == 1:
            assert isinstance(one, DivergedError)
            assert str(one) == str(other)
        else:
            assert_equal_fits(one, other)
        assert_equal_points(trial.points[index], reference.points[index])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")
@pytest.mark.parametrize("case", ["sgd with momentum", "adam", "lbfgs", "cnn", "patience"])
def test_on_a_gpu_too(case: str, tmp_path: Path) -> None:
    changed = CASES[case].training.model_copy(update={"device": "cuda"})
    on_gpu = CASES[case].model_copy(update={"training": changed})
    dataset = prepare(on_gpu.data, tmp_path)
    reference = Trial(on_gpu, dataset, tmp_path / "reference").run()
    for name, stops in STOPS.items():
        assert_equal(interrupted(Trial(on_gpu, dataset, tmp_path / name), stops), reference)
