import uuid
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from hallmark.tasks.common.records import Attempt, Dataset, Run
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.runtime import settings
from hallmark.tasks.tracking import metric_log, run_lifecycle
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.registry import registration
from hallmark.tasks.tracking.run_queries import recent_runs


@pytest.fixture
def client() -> MlflowClient:
    return connect()


def status_of(client: MlflowClient, run: Run) -> str:
    return str(client.get_run(run.id).info.status)


def open_run(iris: tuple[Experiment, Dataset], **tags: str) -> AbstractContextManager[Run]:
    attempt = Attempt(uuid.uuid4().hex, iris[0].name, {}, Path())
    return run_lifecycle.open_run(iris[0], iris[1], attempt, "a readable name", tags)


def test_a_run_ends_in_its_true_state(client: MlflowClient, iris: tuple[Experiment, Dataset]) -> None:
    with open_run(iris) as run:
        assert status_of(client, run) == "RUNNING"
    assert status_of(client, run) == "FINISHED"
    with pytest.raises(ZeroDivisionError), open_run(iris) as run:
        1 / 0  # noqa: B018
    assert status_of(client, run) == "FAILED"
    assert client.get_run(run.id).data.tags["hallmark.error"] == "division by zero"
    for stop in (KeyboardInterrupt, SystemExit):
        with pytest.raises(stop), open_run(iris) as run:
            raise stop
        assert status_of(client, run) == "KILLED"


def test_a_run_that_cannot_be_described_is_marked_as_failed(
    client: MlflowClient, iris: tuple[Experiment, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no inputs today")

    monkeypatch.setattr(run_lifecycle, "_log_inputs", refuse)
    marker = uuid.uuid4().hex
    with pytest.raises(RuntimeError, match="no inputs today"), open_run(iris, marker=marker):
        pytest.fail("the block must not be entered")
    experiment = client.get_experiment_by_name("iris")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], f"tags.marker = '{marker}'")
    assert found.info.status == "FAILED"


def test_a_run_records_its_experiment_and_dataset(client: MlflowClient, iris: tuple[Experiment, Dataset]) -> None:
    experiment, dataset = iris
    with open_run(iris, extra="yes") as run:
        pass
    stored = client.get_run(run.id)
    assert stored.info.run_name == "a readable name"
    assert client.get_experiment(stored.info.experiment_id).name == "iris"
    assert stored.data.params == {name: str(value) for name, value in experiment.flat().items()}
    tags = stored.data.tags
    assert tags["hallmark.experiment_digest"] == experiment.digest
    assert tags["hallmark.dataset_digest"] == dataset.digest
    assert tags["extra"] == "yes"
    assert {"hallmark.git_commit", "hallmark.git_dirty", "hallmark.code_digest", "hallmark.versions"} <= set(tags)
    (logged,) = stored.inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("iris", dataset.digest[:32])
    assert [file.path for file in client.list_artifacts(run.id)] == ["experiment.toml"]


def test_every_point_arrives_once_and_in_order(client: MlflowClient, iris: tuple[Experiment, Dataset]) -> None:
    with open_run(iris) as run, metric_log.metric_log(run) as log:
        for step in range(1, 2502):
            log(step, {"train/loss": 1 / step}, step)
    history = client.get_metric_history(run.id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(step, 1 / step) for step in range(1, 2502)]


def test_metrics_of_a_failed_training_are_kept(client: MlflowClient, iris: tuple[Experiment, Dataset]) -> None:
    def fail(run: Run) -> None:
        with metric_log.metric_log(run) as log:
            log(1, {"train/loss": 0.5}, 1)
            raise RuntimeError

    with pytest.raises(RuntimeError), open_run(iris) as run:
        fail(run)
    assert client.get_run(run.id).data.metrics == {"train/loss": 0.5}


def test_recent_runs_are_newest_first_and_have_the_given_name(iris: tuple[Experiment, Dataset]) -> None:
    name = f"n{uuid.uuid4().hex}"
    mine = iris[0].model_copy(update={"name": name}), iris[1]
    ids = []
    for experiment in (mine, iris, mine):
        with open_run(experiment) as run:
            ids.append(run.id)
    assert [run.id for run in recent_runs(name, 10)] == [ids[2], ids[0]]
    assert [run.id for run in recent_runs(None, 2)] == [ids[2], ids[1]]
    assert recent_runs("nobody", 10) == []


def test_closing_a_run_never_hides_why_it_failed(
    iris: tuple[Experiment, Dataset], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the store is gone")

    def fail(run: Run) -> None:
        with metric_log.metric_log(run) as log:
            log(1, {"train/loss": 0.5}, 1)
            monkeypatch.setattr(MlflowClient, "log_batch", broken)
            monkeypatch.setattr(MlflowClient, "set_tag", broken)
            raise ZeroDivisionError("the first error")

    with pytest.raises(ZeroDivisionError, match="the first error"), open_run(iris) as run:
        fail(run)
    assert "the store is gone" in caplog.text
    monkeypatch.undo()


def test_a_local_store_keeps_its_artifacts_beside_it(client: MlflowClient, iris: tuple[Experiment, Dataset]) -> None:
    with open_run(iris) as run:
        pass
    database = Path(settings.read().tracking_uri.removeprefix("sqlite:///"))
    assert client.get_run(run.id).info.artifact_uri.startswith((database.parent / "artifacts" / "iris").as_uri())


def test_arrays_are_described_for_the_signature() -> None:
    signature = registration.signature(
        {"a": np.zeros((3, 1), np.float32), "b": np.zeros((3, 8, 8), np.uint8)}, classes=4
    )
    assert [(spec.name, spec.type, spec.shape) for spec in signature.inputs] == [
        ("a", np.dtype(np.float32), (-1, 1)),
        ("b", np.dtype(np.uint8), (-1, 8, 8)),
    ]
    assert [(spec.name, spec.shape) for spec in signature.outputs] == [("label", (-1,)), ("probabilities", (-1, 4))]
