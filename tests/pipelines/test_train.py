import json
import re
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, TaskRun
from torch import Tensor

from hallmark.flows.experiments import presets
from hallmark.flows.train import train
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import InputError, ParityError
from hallmark.tasks.common.records import Champion
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact.runtimes import feeds
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.models import networks
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.registry import registration
from hallmark.tasks.tracking.run_queries import recent_runs
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def published(prefect_server: str) -> tuple[Experiment, Outcome]:  # noqa: ARG001 - the server comes first
    """Train the published preset under a unique name through the real flow."""
    experiment = renamed("iris_as_published")
    return experiment, train(experiment)


def renamed(preset: str, **training: object) -> Experiment:
    experiment = presets.get(preset)
    changed = experiment.training.model_copy(update={"device": "cpu", **training})
    return experiment.model_copy(update={"name": f"t{uuid.uuid4().hex[:12]}", "training": changed})


def test_a_run_opens_its_weights_once(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - the server comes first
    real, opened = networks.load_file, []

    def load_file(path: Path) -> dict[str, Tensor]:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(networks, "load_file", load_file)
    outcome = train(renamed("iris", epochs=7))
    assert opened == [outcome.fit.weights]


def stored(outcome: Outcome) -> mlflow.entities.Run:
    return connect().get_run(outcome.run.id)


def flow_run(run: mlflow.entities.Run) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(uuid.UUID(run.data.tags["hallmark.prefect_flow_run"]))


def task_runs(run: FlowRun) -> list[TaskRun]:
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    return sorted(tasks, key=lambda task: task.start_time or task.expected_start_time)


def test_the_published_iris_gives_the_published_numbers(published: tuple[Experiment, Outcome]) -> None:
    metrics = published[1].evaluation.metrics
    assert metrics["test/accuracy"] == pytest.approx(0.93, abs=0.04)
    assert metrics["test/roc_auc_micro"] >= 0.98
    assert published[1].dataset.rows == {"train": 120, "validation": 0, "test": 30}


def test_mlflow_has_the_whole_run(published: tuple[Experiment, Outcome]) -> None:
    experiment, outcome = published
    run = stored(outcome)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == experiment.name
    assert outcome.evaluation.metrics.items() <= run.data.metrics.items()
    tags = run.data.tags
    assert tags["hallmark.preset_kind"] == "published"
    assert tags["hallmark.device"] == "cpu"
    assert tags["hallmark.onnx_sha256"] == outcome.artifact.sha256
    assert tags["hallmark.parity"] == "passed"
    client = connect()
    losses = client.get_metric_history(outcome.run.id, "train/loss")
    assert [point.step for point in losses] == list(range(1, 101))
    assert len(client.get_metric_history(outcome.run.id, "train/step_loss")) == 100
    assert not [name for name in run.data.metrics if name.startswith("val")]
    files = {file.path for file in client.list_artifacts(outcome.run.id)}
    assert files == {
        "card.html",
        "experiment.toml",
        "dataset",
        "diagnosis.json",
        "history.parquet",
        "evaluation.json",
        "parity",
        "pictures",
    }
    pictures = {file.path for file in client.list_artifacts(outcome.run.id, "pictures")}
    assert pictures == {
        f"pictures/{name}.png" for name in ("learning_curves", "confusion_matrix", "roc", "reliability")
    }


def test_findings_are_in_the_tags_the_description_and_the_summary(published: tuple[Experiment, Outcome]) -> None:
    outcome = published[1]
    codes = [finding.code for finding in outcome.findings]
    assert codes[:2] == ["scaling_fitted_beyond_training", "training_loss_as_validation"]
    run = stored(outcome)
    assert run.data.tags["hallmark.diagnosis"] == ", ".join(codes)
    kept = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/diagnosis.json")
    assert kept["findings"] == [asdict(finding) for finding in outcome.findings]
    with get_client(sync_client=True) as client:
        run_filter = ArtifactFilterFlowRunId(any_=[flow_run(run).id])
        (artifact,) = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run_filter))
    for finding in outcome.findings:
        for text in (finding.code, finding.sentence, finding.remedy):
            assert text in run.data.tags["mlflow.note.content"]
            assert text in artifact.data


def test_a_profile_of_the_data_is_logged(published: tuple[Experiment, Outcome]) -> None:
    run = stored(published[1])
    files = {file.path for file in connect().list_artifacts(run.info.run_id, "dataset")}
    assert files == {"dataset/dataset.json", "dataset/dataset.png"}
    profile = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/dataset/dataset.json")
    assert profile["rows"] == {"train": 120, "validation": 0, "test": 30}


def test_published_and_corrected_presets_share_an_experiment(prefect_server: str) -> None:  # noqa: ARG001 - comes first
    runs = [stored(train(renamed(name))) for name in ("threshold_as_published", "threshold")]
    published, corrected = runs
    assert published.info.experiment_id == corrected.info.experiment_id
    assert published.data.metrics.keys() == corrected.data.metrics.keys()
    assert published.data.tags["hallmark.preset_kind"] == "published"
    assert corrected.data.tags["hallmark.preset_kind"] == "corrected"
    assert "accuracy_on_training_rows" in published.data.tags["hallmark.diagnosis"]
    assert "accuracy_on_training_rows" not in corrected.data.tags["hallmark.diagnosis"]
    points = connect().get_metric_history(published.info.run_id, "train/step_loss")
    assert [point.step for point in points] == list(range(1, 1001))
    assert (published.data.metrics["test/accuracy"], len(points)) == (1.0, 1000)


def test_the_last_test_metrics_are_those_of_the_kept_weights() -> None:
    outcome = train(renamed("iris", epochs=400, lr=0.05, monitor="test", patience=10))
    assert outcome.fit.best_epoch < outcome.fit.epochs
    stored_metrics = stored(outcome).data.metrics
    for name, value in outcome.evaluation.metrics.items():
        assert stored_metrics[name] == pytest.approx(value)


def test_metrics_that_training_logged_already_are_not_logged_twice() -> None:
    outcome = train(renamed("iris", epochs=3, monitor="test"))
    points = connect().get_metric_history(outcome.run.id, "test/accuracy")
    assert [point.step for point in points] == [1, 2, 3]


def test_the_logged_experiment_is_the_one_that_ran(published: tuple[Experiment, Outcome], tmp_path: Path) -> None:
    path = mlflow.artifacts.download_artifacts(
        run_id=published[1].run.id, artifact_path="experiment.toml", dst_path=str(tmp_path)
    )
    assert Experiment.model_validate(toml.load(Path(path))) == published[0]


def test_the_registered_model_is_the_proven_file(published: tuple[Experiment, Outcome], tmp_path: Path) -> None:
    experiment, outcome = published
    client = connect()
    version = client.get_model_version_by_alias(experiment.name, "champion")
    assert (int(version.version), version.run_id) == (1, outcome.run.id)
    assert version.tags["hallmark.onnx_sha256"] == outcome.artifact.sha256
    assert version.tags["hallmark.parity"] == "passed"
    folder = mlflow.artifacts.download_artifacts(f"models:/{experiment.name}@champion", dst_path=str(tmp_path))
    assert file_digest(Path(folder) / "model.onnx") == outcome.artifact.sha256
    model = mlflow.models.Model.load(folder)
    assert model.signature.inputs.input_names() == list(outcome.dataset.columns)
    example = model.load_input_example(folder)
    assert np.shape(example["sepal_length"]) == (3, 1)


def test_the_registered_model_predicts_through_mlflow(published: tuple[Experiment, Outcome]) -> None:
    experiment, outcome = published
    rows = open_split(outcome.dataset, "test")
    model = mlflow.pyfunc.load_model(f"models:/{experiment.name}@champion")
    answer = model.predict(feeds(outcome.dataset.columns, rows.x))
    accuracy = float((answer["label"] == rows.y).mean())
    assert accuracy == pytest.approx(outcome.evaluation.metrics["test/accuracy"])


def test_the_file_classifies_raw_rows_without_torch(
    published: tuple[Experiment, Outcome], python: Callable[..., str], tmp_path: Path
) -> None:
    code = (
        "import json, sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1])\n"
        "classes = json.loads(session.get_modelmeta().custom_metadata_map['hallmark.classes'])\n"
        "rows = {'sepal_length': [5.1, 6.3], 'sepal_width': [3.5, 3.3], 'petal_length': [1.4, 6.0],\n"
        "        'petal_width': [0.2, 2.5]}\n"
        "feed = {name: numpy.array(values, 'float32')[:, None] for name, values in rows.items()}\n"
        "label, probabilities = session.run(None, feed)\n"
        "print(json.dumps([[classes[i] for i in label], sorted({'torch', 'sklearn'} & set(sys.modules))]))"
    )
    copy = tmp_path / "alone.onnx"
    copy.write_bytes(published[1].artifact.path.read_bytes())
    assert json.loads(python(code, copy, cwd=tmp_path)) == [["setosa", "virginica"], []]


def test_the_history_is_kept_as_parquet(published: tuple[Experiment, Outcome], tmp_path: Path) -> None:
    path = mlflow.artifacts.download_artifacts(
        run_id=published[1].run.id, artifact_path="history.parquet", dst_path=str(tmp_path)
    )
    history = pd.read_parquet(path)
    assert history.columns.tolist() == ["metric", "step", "value"]
    assert (history.metric == "train/step_loss").sum() == 100


def test_prefect_has_the_flow_its_tasks_and_its_summary(published: tuple[Experiment, Outcome]) -> None:
    experiment, outcome = published
    run = flow_run(stored(outcome))
    assert run.name == experiment.name
    assert run.state is not None
    assert run.state.is_completed()
    assert run.parameters["experiment"]["data"]["kind"] == "iris"
    steps = ("prepare", "examine", "fit", "evaluate", "diagnose", "export", "verify", "stamp", "register", "card")
    assert [task.name for task in task_runs(run)] == [f"{step} {experiment.name}" for step in steps]
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        )
    assert artifact.key == "summary"
    for expected in (outcome.run.url, str(outcome.artifact.path), outcome.artifact.sha256, "| parity | passed"):
        assert expected in artifact.data


def test_the_form_in_prefect_describes_the_experiment() -> None:
    schema = train.parameters.model_dump()
    fields = schema["definitions"]["Training"]["properties"]
    assert fields["shuffle"]["description"] == "shuffle the rows in every epoch; no effect if batch_size is full"
    assert schema["properties"]["experiment"]["position"] == 0


def test_the_same_experiment_again_is_a_new_run_with_the_same_version() -> None:
    experiment = renamed("iris", epochs=3)
    first, second = train(experiment), train(experiment)
    assert first.run.id != second.run.id
    assert first.artifact.sha256 == second.artifact.sha256
    assert first.dataset == second.dataset
    assert (first.model_version.is_new, second.model_version.is_new) == (True, False)
    assert len(registered(experiment)) == 1
    runs = [stored(outcome) for outcome in (first, second)]
    assert [run.data.tags["hallmark.model_version"] for run in runs] == ["1", "1"]
    assert len({run.outputs.model_outputs[0].model_id for run in runs}) == 1
    champion = Champion(1, first.evaluation.metrics["test/accuracy"], "")
    assert first.model_version.champion == second.model_version.champion == champion


def test_registering_twice_for_one_run_makes_one_version() -> None:
    experiment = renamed("iris", epochs=3)
    outcome = train(experiment)
    example = feeds(outcome.dataset.columns, open_split(outcome.dataset, "test").x[:2])
    again = registration.register(
        outcome.run, experiment.name, outcome.artifact, outcome.proof, outcome.dataset, example
    )
    assert again == outcome.model_version
    assert len(connect().search_model_versions(f"name = '{experiment.name}'")) == 1


STEPS = {
    "fit": "hallmark.tasks.ml.training.trainer.fit",
    "evaluate": "hallmark.tasks.ml.evaluation.evaluator.evaluate",
    "export": "hallmark.tasks.ml.artifact.exporter.export",
    "verify": "hallmark.tasks.ml.artifact.proof.verifier.verify",
    "stamp": "hallmark.tasks.ml.artifact.stamping.stamp",
    "register": "hallmark.tasks.tracking.registry.registration._log_model",
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_fails_the_run_and_registers_nothing(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"{step} is broken")

    monkeypatch.setattr(STEPS[step], fail)
    experiment = renamed("iris", epochs=2)
    with pytest.raises(RuntimeError, match=f"{step} is broken"):
        train(experiment)
    (recent,) = recent_runs(experiment.name, 10)
    run = connect().get_run(recent.id)
    assert run.info.status == "FAILED"
    assert run.data.tags["hallmark.error"] == f"{step} is broken"
    state = flow_run(run).state
    assert state is not None
    assert state.is_failed()
    assert registered(experiment) == []


def registered(experiment: Experiment) -> list[object]:
    client: MlflowClient = connect()
    return list(client.search_model_versions(f"name = '{experiment.name}'"))


def test_an_impossible_batch_size_opens_no_run() -> None:
    experiment = renamed("iris", batch_size=91)
    with pytest.raises(InputError, match=r"91 is more than the 90 rows"):
        train(experiment)
    assert recent_runs(experiment.name, 10) == []


def test_a_file_with_other_predictions_is_not_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    from hallmark.tasks.ml.artifact import exporter
    from hallmark.tasks.ml.models import networks

    honest = exporter.export

    def export(classifier: networks.Classifier, *rest: object) -> object:
        """Export other weights than were trained, as a broken exporter would."""
        other = networks.build(renamed("iris").model, shape=(4,), logits=3, seed=99)
        return honest(networks.Classifier(classifier.scaling, other, classifier.model, classifier.loss), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(exporter, "export", export)
    experiment = renamed("iris", epochs=2)
    with pytest.raises(ParityError, match=r"the worst is (test|edge|noise) row "):
        train(experiment)
    (recent,) = recent_runs(experiment.name, 10)
    assert recent.status == "FAILED"
    assert registered(experiment) == []


def test_the_readmes_five_lines_run_as_written(
    published: tuple[Experiment, Outcome], python: Callable[..., str], tmp_path: Path
) -> None:
    lines = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert lines is not None
    assert len(lines[1].splitlines()) == 6  # five lines and the import
    (tmp_path / "iris.onnx").write_bytes(published[1].artifact.path.read_bytes())
    answer = python(lines[1], cwd=tmp_path)
    assert answer.startswith('["setosa", "versicolor", "virginica"] 2 [')
