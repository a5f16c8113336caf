"""A registration killed at any point is completed by the next one, with one model and one version."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
from mlflow.entities import LoggedModelStatus
from mlflow.tracking import MlflowClient

from hallmark.flows.experiments import presets
from hallmark.flows.train import train
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.records import Attempt, ModelVersion, Run
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact.runtimes import feeds
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.tracking import run_lifecycle
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.registry import registration
from tests.support.registered import file_in_store

WRITES = ("create_", "log_", "set_", "finalize_", "update_", "delete_")
"""Prefixes of the methods of MLflow's client that write."""


class Killed(BaseException):
    """A simulated kill of the process."""


@pytest.fixture(scope="module")
def trained(prefect_server: str) -> tuple[Experiment, Outcome]:  # noqa: ARG001 - the server comes first
    preset = presets.iris()
    changed = preset.training.model_copy(update={"device": "cpu", "epochs": 2, "seed": 4711})
    experiment = preset.model_copy(update={"name": f"g{uuid.uuid4().hex[:12]}", "training": changed})
    return experiment, train(experiment)


def register(trained: tuple[Experiment, Outcome], name: str, run: Run) -> ModelVersion:
    outcome = trained[1]
    example = feeds(outcome.dataset.columns, open_split(outcome.dataset, "test").x[:3])
    return registration.register(run, name, outcome.artifact, outcome.proof, outcome.dataset, example)


def kill_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise `Killed` after this number of writes to MLflow."""
    done = iter(range(1, writes))

    def counted(method: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            found = method(*given, **named)
            if next(done, None) is None:
                raise Killed
            return found

        return call

    for name in dir(MlflowClient):
        if name.startswith(WRITES):
            monkeypatch.setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))


def killed(trained: tuple[Experiment, Outcome], name: str, run: Run, writes: int) -> bool:
    """Register with a kill after this number of writes, and return whether the kill happened."""
    with pytest.MonkeyPatch.context() as patch:
        kill_after(writes, patch)
        try:
            register(trained, name, run)
        except Killed:
            return True
    return False


def test_a_file_that_is_registered_already_gets_no_version_whenever_the_process_is_killed(
    trained: tuple[Experiment, Outcome],
) -> None:
    client, writes, name = connect(), 0, f"g{uuid.uuid4().hex[:12]}"
    original = open_new_run(trained)
    first = register(trained, name, original)
    was_killed = True
    while was_killed:
        writes += 1
        run = open_new_run(trained)
        was_killed = killed(trained, name, run, writes)
        version = register(trained, name, run)
        assert (version.version, version.is_new) == (1, False)
        stored = client.get_run(run.id)
        assert stored.data.tags["hallmark.model_version"] == "1"
        assert stored.data.tags["hallmark.onnx_sha256"] == trained[1].artifact.sha256
        (output,) = stored.outputs.model_outputs
        assert len(client.search_model_versions(f"name = '{name}'")) == 1
        assert client.get_logged_model(output.model_id).source_run_id == original.id
    assert writes == 4
    other = register(trained, f"{name}.other", open_new_run(trained))
    assert (first.is_new, other.version, other.is_new) == (True, 1, True)


def test_a_file_that_two_processes_register_at_once_gets_one_version(trained: tuple[Experiment, Outcome]) -> None:
    name, runs = f"g{uuid.uuid4().hex[:12]}", [open_new_run(trained), open_new_run(trained)]
    ready = Barrier(2)

    def at_once(run: Run) -> ModelVersion:
        ready.wait()
        return register(trained, name, run)

    with ThreadPoolExecutor(2) as pool:
        versions = list(pool.map(at_once, runs))
    (kept,) = connect().search_model_versions(f"name = '{name}'")
    assert [version.version for version in versions] == [int(kept.version)] * 2
    assert sorted(version.is_new for version in versions) == [False, True]
    assert [connect().get_run(run.id).data.tags["hallmark.model_version"] for run in runs] == [str(kept.version)] * 2


def test_a_version_whose_stored_file_is_missing_is_not_used(trained: tuple[Experiment, Outcome]) -> None:
    name = f"g{uuid.uuid4().hex[:12]}"
    register(trained, name, open_new_run(trained))
    file_in_store(name, 1).unlink()
    version = register(trained, name, open_new_run(trained))
    assert (version.version, version.is_new, version.is_champion) == (2, True, False)
    assert register(trained, name, open_new_run(trained)).version == 2


def open_new_run(trained: tuple[Experiment, Outcome]) -> Run:
    """Open and close a new run, and return it."""
    experiment, outcome = trained
    attempt = Attempt(uuid.uuid4().hex, experiment.name, {}, outcome.run.attempt.folder)
    with run_lifecycle.open_run(experiment, outcome.dataset, attempt, "registry", {}) as run:
        return replace(run)


def test_a_registration_killed_after_any_write_is_completed(
    trained: tuple[Experiment, Outcome], tmp_path: Path
) -> None:
    client, writes = connect(), 0
    digest = trained[1].artifact.sha256
    while True:
        writes += 1
        run, name = open_new_run(trained), f"g{uuid.uuid4().hex[:12]}"
        was_killed = killed(trained, name, run, writes)
        version = register(trained, name, run)
        assert (version.version, version.is_champion) == (1, True)
        stored = client.get_run(run.id)
        (model,) = client.search_logged_models([stored.info.experiment_id], f"source_run_id = '{run.id}'")
        assert model.status == LoggedModelStatus.READY
        assert [output.model_id for output in stored.outputs.model_outputs] == [model.model_id]
        assert stored.data.tags["hallmark.onnx_sha256"] == digest
        (registered,) = client.search_model_versions(f"name = '{name}'")
        assert registered.run_id == run.id
        assert registered.tags["hallmark.onnx_sha256"] == digest
        folder = client.download_artifacts(run.id, "model", str(tmp_path)) if writes == 1 else ""
        assert not folder or file_digest(Path(folder) / "model.onnx") == digest
        if not was_killed:
            break
    assert writes > 5
