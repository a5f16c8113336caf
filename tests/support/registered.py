"""Models with three proven versions each: made of a few trainings, looked at, and left by a process that is killed."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from hallmark.flows.experiments import presets
from hallmark.flows.train import train
from hallmark.tasks.common.records import Outcome
from hallmark.tasks.runtime import settings
from hallmark.tasks.tracking.client import connect

WRITES = ("create_", "log_", "set_", "finalize_", "update_", "delete_")
"""How the methods of MLflow's client begin that write."""


class Killed(BaseException):
    """The process is no more."""


def trained() -> list[Outcome]:
    """Three trainings with three seeds; their files are registered again by each test."""
    preset, name = presets.iris(), f"c{uuid.uuid4().hex[:12]}"
    found = []
    for seed in range(3):
        changed = preset.training.model_copy(update={"device": "cpu", "epochs": 20, "seed": seed})
        found.append(train(preset.model_copy(update={"name": name, "training": changed})))
    return found


def model(outcomes: list[Outcome]) -> str:
    """A model with a version for each outcome, the first of them champion; their files are its own."""
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
    found = connect().get_registered_model(name).aliases
    return {alias: int(version) for alias, version in found.items()}


def everything(name: str) -> tuple[object, ...]:
    """All that a registry says of a model."""
    client = connect()
    found = client.get_registered_model(name)
    versions = client.search_model_versions(f"name = '{name}'")
    return found.tags, found.aliases, sorted((int(one.version), tuple(one.tags.items())) for one in versions)


def stored(name: str, version: int) -> Path:
    return settings.read().home / "stored" / name / str(version) / "model.onnx"


def die() -> None:
    raise Killed


def kill_after(writes: int, patch: pytest.MonkeyPatch, how: Callable[[], None] = die) -> None:
    """Let the process end when MLflow has been written to so often."""
    done = iter(range(1, writes))

    def counted(method: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            found = method(*given, **named)
            if next(done, None) is None:
                how()
            return found

        return call

    for method in dir(MlflowClient):
        if method.startswith(WRITES):
            patch.setattr(MlflowClient, method, counted(getattr(MlflowClient, method)))


def killed(writes: int, action: Callable[[], object]) -> bool:
    """Do something, and be killed after so many writes; whether it came so far."""
    with pytest.MonkeyPatch.context() as patch:
        kill_after(writes, patch)
        try:
            action()
        except Killed:
            return True
    return False
