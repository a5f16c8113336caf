"""Small sweeps of iris, and what MLflow has of them."""

import uuid
from typing import Any

from mlflow.entities import Run

from hallmark.flows.experiments import sweep_grids
from hallmark.tasks.tracking.client import connect

EPOCHS = 4
LR, SEED = "training.lr", "training.seed"


def grid(*tokens: str, preset: str = "iris") -> sweep_grids.Grid:
    """Members of few epochs under a name that no other sweep has."""
    name = f"s{uuid.uuid4().hex[:12]}"
    given = {"name": name, "training.device": "cpu", "training.epochs": EPOCHS, "training.optimizer": "sgd"}
    return sweep_grids.grid(preset, [f"--{path}={value}" for path, value in given.items()] + list(tokens))


def stored(run: str) -> Run:
    return connect().get_run(run)


def runs(name: str) -> list[Run]:
    """Of all sweeps and members of a name."""
    client = connect()
    everywhere = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(everywhere, f"tags.`hallmark.name` = '{name}'"))


def curve(run: str, metric: str) -> list[tuple[int, float]]:
    points = connect().get_metric_history(run, metric)
    return sorted((point.step, point.value) for point in points)


def versions(name: str) -> list[Any]:
    return list(connect().search_model_versions(f"name = '{name}'"))
