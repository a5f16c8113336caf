"""Small sweeps on iris, and their runs in MLflow."""

import uuid
from typing import Any

from mlflow.entities import Run

from hallmark.flows.experiments import sweep_grids
from hallmark.tasks.tracking.client import connect

EPOCHS = 4
LR, SEED = "training.lr", "training.seed"


def grid(*tokens: str, preset: str = "iris") -> sweep_grids.Grid:
    """Return a grid of short trainings with a unique name."""
    name = f"s{uuid.uuid4().hex[:12]}"
    values = {"name": name, "training.device": "cpu", "training.epochs": EPOCHS, "training.optimizer": "sgd"}
    return sweep_grids.grid(preset, [f"--{path}={value}" for path, value in values.items()] + list(tokens))


def get_run(run: str) -> Run:
    return connect().get_run(run)


def runs(name: str) -> list[Run]:
    """Return the runs of all sweeps and members with a name."""
    client = connect()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`hallmark.name` = '{name}'"))


def curve(run: str, metric: str) -> list[tuple[int, float]]:
    points = connect().get_metric_history(run, metric)
    return sorted((point.step, point.value) for point in points)


def versions(name: str) -> list[Any]:
    return list(connect().search_model_versions(f"name = '{name}'"))
