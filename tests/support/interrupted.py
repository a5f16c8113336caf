"""Iris trainings that are interrupted at an epoch, their leftover folders and their MLflow runs."""

import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.entities import Run, ViewType

from hallmark.flows.experiments import presets
from hallmark.flows.train import train
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.ml.training import loop
from hallmark.tasks.ml.training.history import History
from hallmark.tasks.tracking.client import connect

EPOCHS = 6
METRICS = {"train/step_loss": 9 * EPOCHS} | dict.fromkeys(
    ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "time/epoch_seconds"), EPOCHS
)
"""Number of points that a complete training logs for each metric."""


def iris_experiment(name: str = "", **options: object) -> Experiment:
    """Return the iris preset with batches of 10 and a unique name."""
    preset = presets.iris()
    values = {"device": "cpu", "epochs": EPOCHS, "batch_size": 10} | options
    config = Training.model_validate(dict(preset.training) | values)
    return preset.model_copy(update={"name": name or f"a{uuid.uuid4().hex[:12]}", "training": config})


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, *, at: int) -> Iterator[None]:
    """Send SIGINT after an epoch is recorded. The training stops during the next epoch."""
    original = History.record_epoch

    def record(self: History, epoch: int, metrics: dict[str, float]) -> None:
        original(self, epoch, metrics)
        if epoch == at:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(History, "record_epoch", record)
        patch.setattr(loop, "_SEGMENT_BATCHES", 4)
        with pytest.raises(KeyboardInterrupt):
            yield


def interrupt(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, *, at: int = 3, fresh: bool = False) -> None:
    with interrupted(monkeypatch, at=at):
        train(experiment, fresh=fresh)


def set_status(experiment: Experiment, status: str) -> None:
    """Set the status of the experiment's only run, as if its process had been killed at that moment."""
    (run,) = runs(experiment.name)
    connect().set_terminated(run.info.run_id, status)


def unfinished_folders(home: Path) -> list[Path]:
    """Return the folders left by unfinished trainings."""
    return list((home / "unfinished").glob("[!.]*"))


def runs(name: str, status: str = "") -> list[Run]:
    """Return the runs of an experiment, oldest first; only those with a status if one is given."""
    client = connect()
    experiments = [experiment.experiment_id for experiment in client.search_experiments(view_type=ViewType.ALL)]
    runs = client.search_runs(experiments, f"tags.`hallmark.name` = '{name}'", order_by=["start_time ASC"])
    return [run for run in runs if status in ("", run.info.status)]


def statuses(name: str) -> list[str]:
    return [run.info.status for run in runs(name)]


def history(run: str) -> dict[str, list[tuple[int, float]]]:
    """Return all points of a run in MLflow by metric, ordered by step."""
    client = connect()
    return {
        name: sorted((point.step, point.value) for point in client.get_metric_history(run, name))
        for name in client.get_run(run).data.metrics
    }


def without_times(points: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    return {name: curve for name, curve in points.items() if not name.startswith("time/")}


def assert_whole(run: Run) -> None:
    """Check that MLflow has every point of the training exactly once."""
    curves = history(run.info.run_id)
    for name, points in curves.items():
        steps = Counter(step for step, _ in points)
        assert set(steps.values()) == {1}, name
        assert not name.startswith(("train/", "val/")) or list(steps) == list(range(1, len(steps) + 1)), name
    assert {name: len(points) for name, points in curves.items() if name in METRICS} == METRICS


def tokens(experiment: Experiment) -> list[str]:
    """Return the command-line arguments of an experiment made by `iris_experiment`."""
    values = {"name": experiment.name, "training.device": "cpu", "training.epochs": EPOCHS, "training.batch_size": 10}
    return ["iris", *(f"--{option}={value}" for option, value in values.items())]
