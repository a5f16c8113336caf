"""Registered models with three verified versions: create them, read them, and interrupt changes to them."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from hallmark.flows.experiments import presets
from hallmark.flows.train import train
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.runtime import settings
from hallmark.tasks.tracking.client import connect

WRITES = ("create_", "log_", "set_", "finalize_", "update_", "delete_")
"""Name prefixes of the MLflow client methods that write."""


class Killed(BaseException):
    """Stands for the end of a killed process."""


def train_on_cpu(experiment: Experiment) -> Outcome:
    """Train and register an experiment on the CPU, under a unique name."""
    training = experiment.training.model_copy(update={"device": "cpu"})
    return train(experiment.model_copy(update={"name": f"c{uuid.uuid4().hex[:12]}", "training": training}))


def train_three_seeds() -> list[Outcome]:
    """Train iris with three seeds. Tests register the exported files under new names."""
    preset, name = presets.iris(), f"c{uuid.uuid4().hex[:12]}"
    outcomes = []
    for seed in range(3):
        changed = preset.training.model_copy(update={"device": "cpu", "epochs": 20, "seed": seed})
        outcomes.append(train(preset.model_copy(update={"name": name, "training": changed})))
    return outcomes


def create_model(outcomes: list[Outcome]) -> str:
    """Register a model with one version per outcome, as copies of the files, and champion 1. Return its name."""
    client, name = connect(), f"c{uuid.uuid4().hex[:12]}"
    client.create_registered_model(name)
    for number, outcome in enumerate(outcomes, 1):
        folder = settings.read().home / "stored" / name / str(number)
        folder.mkdir(parents=True)
        shutil.copy(outcome.artifact.path, folder / "model.onnx")
        tags = {"hallmark.onnx_sha256": outcome.artifact.sha256, "hallmark.parity": "passed"}
        client.create_model_version(name, folder.as_uri(), outcome.run.id, tags=tags)
    client.set_registered_model_alias(name, "champion", "1")
    return name


def aliases(name: str) -> dict[str, int]:
    versions = connect().get_registered_model(name).aliases
    return {alias: int(version) for alias, version in versions.items()}


def registry_state(name: str) -> tuple[object, ...]:
    """Return everything the registry stores about a model."""
    client = connect()
    model = client.get_registered_model(name)
    versions = client.search_model_versions(f"name = '{name}'")
    return model.tags, model.aliases, sorted((int(one.version), tuple(one.tags.items())) for one in versions)


def stored_file(name: str, version: int) -> Path:
    return settings.read().home / "stored" / name / str(version) / "model.onnx"


def file_in_store(name: str, version: int) -> Path:
    """Return the path of the file that MLflow stores of a version that a training registered."""
    client = connect()
    run = client.get_run(client.get_model_version(name, str(version)).run_id)
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    return Path(model.artifact_location.removeprefix("file://")) / "model.onnx"


def die() -> None:
    raise Killed


def kill_after(writes: int, patch: pytest.MonkeyPatch, how: Callable[[], None] = die) -> None:
    """Patch MLflow's client so that `how` is called after this number of writes."""
    remaining = iter(range(1, writes))

    def counted(method: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            result = method(*args, **kwargs)
            if next(remaining, None) is None:
                how()
            return result

        return call

    for method in dir(MlflowClient):
        if method.startswith(WRITES):
            patch.setattr(MlflowClient, method, counted(getattr(MlflowClient, method)))


def run_and_kill_after(writes: int, action: Callable[[], object]) -> bool:
    """Call `action` and interrupt it after this number of writes; return whether it was interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        kill_after(writes, patch)
        try:
            action()
        except Killed:
            return True
    return False
