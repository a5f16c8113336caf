"""Trainings of iris that are interrupted at an epoch, what lies about then, and what MLflow has of them."""

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
"""How many points a whole training has of each metric."""


def named(name: str = "", **options: object) -> Experiment:
    """Iris in batches of 10, under a name that no other test has."""
    preset = presets.iris()
    given = {"device": "cpu", "epochs": EPOCHS, "batch_size": 10} | options
    config = Training.model_validate(dict(preset.training) | given)
    return preset.model_copy(update={"name": name or f"a{uuid.uuid4().hex[:12]}", "training": config})


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, *, at: int) -> Iterator[None]:
    """Press Ctrl-C when an epoch has been recorded; it is heard within the next."""
    real = History.record_epoch

    def record(self: History, epoch: int, metrics: dict[str, float]) -> None:
        real(self, epoch, metrics)
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


def end(experiment: Experiment, status: str) -> None:
    """Let its only run be in a state, as if its process had been killed at the right moment."""
    (run,) = runs(experiment.name)
    connect().set_terminated(run.info.run_id, status)


def left(home: Path) -> list[Path]:
    """The folders that attempts have left."""
    return list((home / "unfinished").glob("[!.]*"))


def runs(name: str, status: str = "") -> list[Run]:
    """Of an experiment, oldest first; those of a status alone, if one is given."""
    client = connect()
    everywhere = [found.experiment_id for found in client.search_experiments(view_type=ViewType.ALL)]
    found = client.search_runs(everywhere, f"tags.`hallmark.name` = '{name}'", order_by=["start_time ASC"])
    return [run for run in found if status in ("", run.info.status)]


def statuses(name: str) -> list[str]:
    return [run.info.status for run in runs(name)]


def history(run: str) -> dict[str, list[tuple[int, float]]]:
    """Every point that MLflow has of a run, in order of its step."""
    client = connect()
    return {
        name: sorted((point.step, point.value) for point in client.get_metric_history(run, name))
        for name in client.get_run(run).data.metrics
    }


def without_times(points: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    return {name: some for name, some in points.items() if not name.startswith("time/")}


def assert_whole(run: Run) -> None:
    """Every point of its training is there, and none twice."""
    found = history(run.info.run_id)
    for name, points in found.items():
        steps = Counter(step for step, _ in points)
        assert set(steps.values()) == {1}, name
        assert not name.startswith(("train/", "val/")) or list(steps) == list(range(1, len(steps) + 1)), name
    assert {name: len(points) for name, points in found.items() if name in METRICS} == METRICS


def tokens(experiment: Experiment) -> list[str]:
    """How to type an experiment that `named` has made."""
    given = {"name": experiment.name, "training.device": "cpu", "training.epochs": EPOCHS, "training.batch_size": 10}
    return ["iris", *(f"--{option}={value}" for option, value in given.items())]
