"""The flow `retrain`, against a real Prefect server and a real MLflow store."""

import json
import shutil
import threading
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterName

from hallmark.flows.cli.predict import predict
from hallmark.flows.experiments import presets
from hallmark.flows.experiments.retraining_split import by_content
from hallmark.flows.retrain import retrain
from hallmark.flows.ship import train_and_ship
from hallmark.flows.train import train
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.common.results import Judged, Outcome, Retrained
from hallmark.tasks.ml.config.data import Split
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data import dataset_store, sources, splits
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule
from hallmark.tasks.promotion import champions, decision_log
from hallmark.tasks.runtime import progress, provenance, settings
from hallmark.tasks.tracking import client as store
from hallmark.tasks.tracking import tags, training_rows
from tests.conftest import ROOT
from tests.pipelines.test_notification import receiver
from tests.support import owned
from tests.support.registered import aliases, file_in_store
from tests.support.swept import runs

LIMIT = 300
"""Seconds to wait for another process or thread before a test fails."""

pytestmark = pytest.mark.usefixtures("prefect_server")


def experiment(name: str, preset: str = "iris", **training: object) -> Experiment:
    """Return a preset on the CPU under the given name."""
    changed = presets.get(preset)
    kept = changed.training.model_copy(update={"device": "cpu", **training})
    return changed.model_copy(update={"name": name, "training": kept})


def new_name() -> str:
    return f"r{uuid.uuid4().hex[:12]}"


def versions(name: str) -> int:
    return len(store.connect().search_model_versions(f"name = '{name}'"))


def flow_run(name: str) -> tuple[str, dict[str, str]]:
    """Return the state of the flow run of this name, and its artifacts' data by key."""
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
        run_filter = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        artifacts = client.read_artifacts(artifact_filter=run_filter)
    return run.state_name, {artifact.key: str(artifact.data) for artifact in artifacts}


@pytest.fixture(scope="module")
def thrice(prefect_server: str) -> tuple[str, list[Retrained]]:  # noqa: ARG001 - the server comes first
    """Retrain an experiment, the same with another seed, and the first one again."""
    name = new_name()
    return name, [retrain(experiment(name, epochs=30, seed=seed)) for seed in (0, 1, 0)]


def test_the_first_version_becomes_champion_and_this_is_recorded(thrice: tuple[str, list[Retrained]]) -> None:
    name, (first, *_) = thrice
    assert (first.verdict, first.champion) == ("FIRST", 1)
    assert first.decision is not None
    assert decision_log.history(name)[0] == first.decision
    assert first.decision.done
    state, artifacts = flow_run(f"{name} first version 1")
    assert state == "Completed"
    assert artifacts.keys() == {"summary", "retraining", "decision"}


def test_a_changed_template_retrains_nothing_and_changed_training_code_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    given = experiment(new_name(), epochs=5)
    request.addfinalizer(tags.of_code.cache_clear)
    assert retrain(given).verdict == "FIRST"
    tasks = shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "code_digest", lambda: provenance.digest_of_code(tasks))
    template, *_ = (tasks / "ml" / "reports").rglob("*.html.jinja")
    template.write_text(template.read_text() + "\n")
    assert retrain(given).verdict == "UNCHANGED"
    with (tasks / "ml" / "training" / "loop.py").open("a") as code:
        code.write("\n")
    tags.of_code.cache_clear()  # a process reads its code once
    trained = retrain(given)
    assert (trained.verdict, trained.reason) == ("UNCHANGED", "the new file is the champion's, byte for byte")
    again = retrain(given)
    assert (again.verdict, again.reason) == ("UNCHANGED", "data, experiment and code are the champion's")
    assert len(runs(given.name)) == 2


def test_another_seed_is_held_and_the_champion_stays(thrice: tuple[str, list[Retrained]]) -> None:
    name, (_, second, _) = thrice
    assert (second.verdict, second.champion) == ("HOLD", 1)
    assert aliases(name) == {"champion": 1}
    decision = second.decision
    assert decision is not None
    judgement = decision.judgement
    assert judgement is not None
    assert judgement["rows"] > 20
    assert [gate["name"] for gate in judgement["gates"] if not gate["passed"]] == []
    assert len(judgement["gates"]) == 9
    client = store.connect()
    run = client.get_run(decision.run_id)
    stored = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/decision.json")
    assert stored == json.loads(json.dumps(asdict(decision) | {"done": False}))
    for version in "12":
        assert client.get_model_version(name, version).tags["hallmark.decision.0002"].startswith("HOLD: version 2")
    state, artifacts = flow_run(f"{name} hold version 2")
    assert state == "Completed"
    assert decision.reason in artifacts["retraining"]
    assert "only challenger right" in artifacts["decision"]


def test_nothing_is_trained_if_nothing_has_changed(thrice: tuple[str, list[Retrained]]) -> None:
    name, (_, _, third) = thrice
    assert (third.verdict, third.decision, third.champion) == ("UNCHANGED", None, 1)
    assert versions(name) == 2
    assert len(decision_log.history(name)) == 2
    state, artifacts = flow_run(f"{name} unchanged")
    assert state == "Completed"
    assert "data, experiment and code are the champion's" in artifacts["retraining"]


def test_a_retraining_waits_for_another_process_that_decides(
    prefect_server: str,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = new_name()
    retrain(experiment(name, epochs=10))
    inside, trained = threading.Event(), threading.Event()

    def hold() -> None:
        with decision_log.exclusive(name):
            inside.set()
            assert trained.wait(LIMIT)
            found = Judged("PROMOTE", "by another process", 1, 2, {}, {"gates": []}, 0)
            decision_log.conclude(name, lambda: champions.decision_from(name, found, None))

    def line(label: str, text: str) -> None:
        if (label, text) == ("waiting", f"another process is deciding on {name}"):
            trained.set()

    other = threading.Thread(target=hold)
    other.start()
    assert inside.wait(LIMIT)
    monkeypatch.setattr(progress, "line", line)
    result = retrain(experiment(name, epochs=10, seed=1))
    other.join()
    assert (result.verdict, result.decision, result.champion, versions(name)) == ("UNCHANGED", None, 2, 2)
    assert result.reason == "version 2 was made champion meanwhile: PROMOTE: by another process"


@flow(name="train on other labels")
def train_on(given: Experiment, dataset: Dataset) -> Outcome:
    return train_and_ship(given, dataset)


def shuffled(given: Experiment) -> Dataset:
    """Return the same dataset, with shuffled labels outside the test split."""
    home = settings.read().home
    table = sources.read(given.data, home)
    rows = np.setdiff1d(np.arange(len(table.y)), splits.divide(table, given.data.split)["test"])
    y = table.y.copy()
    y[rows] = np.random.default_rng(0).permutation(y[rows])
    return dataset_store.prepare(replace(table, y=y), given.data, home)


def test_a_model_trained_on_shuffled_labels_is_rejected_with_a_notification(prefect_server: str) -> None:  # noqa: ARG001
    name = new_name()
    good = by_content(experiment(name, "digits", epochs=5))
    retrain(good)
    bad = shuffled(good)
    run = train_on(by_content(experiment(name, "digits", epochs=5, seed=1)), bad)
    # Pretend that the run was trained on the original data, so that retraining judges this run.
    store.connect().set_tag(run.run.id, "hallmark.dataset_digest", data_digest(good))
    with receiver() as (address, messages):
        result = retrain(by_content(experiment(name, "digits", epochs=5, seed=1)), notify=address, schedule="nightly")
    assert (result.verdict, result.champion) == ("REJECT", 1)
    assert result.decision is not None
    assert result.decision.judgement is not None
    assert result.decision.judgement["losses"] > 50
    assert aliases(name) == {"champion": 1}
    assert [one["title"] for one in messages] == [f"nightly ({name}): REJECT"]
    assert result.decision.schedule == "nightly"


def data_digest(given: Experiment) -> str:
    home = settings.read().home
    return dataset_store.prepare(sources.read(given.data, home), given.data, home).digest


def test_rows_that_either_model_was_trained_on_are_left_out(prefect_server: str, tmp_path: Path) -> None:  # noqa: ARG001
    name = new_name()
    before = train(experiment(name, epochs=10))  # split by seed: some of its training rows are now test rows
    result = retrain(by_content(experiment(name, epochs=10, seed=1)))
    decision = result.decision
    assert decision is not None
    assert decision.judgement is not None
    rows = by_content(experiment(name)).data.split
    table = sources.read(experiment(name).data, tmp_path)
    digests = splits.row_digests(table.x)
    known = {row.tobytes() for row in training_rows.find(name, 1)}
    test = splits.divide(table, rows)["test"]
    left_out = sum(digests[row].tobytes() in known for row in test)
    assert 0 < left_out < len(test)
    assert decision.refused_rows == left_out
    assert decision.judgement["rows"] == len(test) - left_out
    assert before.model_version.version == decision.before


def test_training_rows_are_found_on_another_machine_or_judging_is_refused(
    prefect_server: str,  # noqa: ARG001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = new_name()
    retrain(experiment(name, epochs=2))
    here = training_rows.find(name, 1)
    other = new_name()
    outcome = train(experiment(other, epochs=2))
    copy = tmp_path / "datasets" / outcome.dataset.digest
    shutil.copytree(outcome.dataset.folder, copy)
    monkeypatch.setenv("HALLMARK_HOME", str(tmp_path))
    assert np.array_equal(training_rows.find(name, 1), here)
    (copy / "train.rows.npy").write_bytes(b"x")
    with pytest.raises(DamagedError, match=r"train\.rows\.npy"):
        training_rows.find(other, 1)
    for content in ("", "[]", '{"files": {}}'):
        (copy / "dataset.json").write_text(content)
        with pytest.raises(DamagedError, match=r"dataset\.json: cannot be read"):
            training_rows.find(other, 1)
    shutil.rmtree(copy)
    with pytest.raises(InputError, match="version 1: cannot be judged: its training rows are unknown"):
        training_rows.find(other, 1)
    training_rows.keep(outcome.run.id, outcome.dataset)
    copy.mkdir()
    (copy / "dataset.json").write_text("cut")
    assert len(training_rows.find(other, 1)) == outcome.dataset.rows["train"] + outcome.dataset.rows["validation"]


def test_a_trained_preset_keeps_its_split_and_a_held_version_is_judged_once(prefect_server: str) -> None:  # noqa: ARG001
    name = new_name()
    train(experiment(name, epochs=30))
    assert retrain(experiment(name, epochs=30)).verdict == "UNCHANGED"
    changed = experiment(name, epochs=30, seed=1)
    train(changed)
    with receiver() as (address, messages):
        first, second = retrain(changed, notify=address), retrain(changed, notify=address)
    assert first.decision is not None
    assert (first.verdict, first.decision.version, first.decision.refused_rows) == (
        "HOLD",
        2,
        1,
    )  # iris has a duplicate
    assert (second.verdict, second.decision) == ("UNCHANGED", None)
    assert second.reason.startswith("data, experiment and code are those of version 2: HOLD in decision 1: not enough")
    assert [one["title"] for one in messages] == [f"retraining ({name}): HOLD"]
    judged = retrain(changed, Rule(mode="non_inferior", delta=0.5)).decision
    assert judged is not None
    assert (judged.verdict, judged.version, versions(name)) == ("PROMOTE", 2, 2)


def with_leak(path: Path) -> Path:
    """Write a table with a column that gives the target away."""
    table = owned.mixed(300)
    return owned.write(table.append_column("leak", table[owned.TARGET]), path)


def test_a_champion_that_leaked_is_replaced_by_one_that_does_not(
    prefect_server: str,  # noqa: ARG001
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, table = new_name(), with_leak(tmp_path / "leaky.csv")
    longer = ("--training.epochs", "150", "--training.lr", "0.03")
    leaky = owned.experiment(table, name, *longer)
    assert leaky.data.split.method == "content"
    first = train(leaky)
    words = "a column gives the target away (target_given_away)"
    assert first.model_version.champion.disqualified == words
    unchanged = retrain(leaky)
    assert unchanged.verdict == "UNCHANGED"
    assert f"the champion is disqualified: {words}" in unchanged.reason
    predict(name, str(table), output=tmp_path / "predicted.csv")
    assert f"{name} version 1 is disqualified: {words}" in capsys.readouterr().err
    result = retrain(owned.experiment(table, name, *longer, "--data.ignore", "leak"))
    assert (result.verdict, result.champion) == ("PROMOTE", 2)
    assert f"the champion is disqualified: {words}. The challenger has no such finding" in result.reason
    assert result.decision is not None
    assert result.decision.judgement is not None
    assert result.decision.judgement["champion_accuracy"] is None
    assert result.decision.judgement["challenger_accuracy"] < first.evaluation.metrics["test/accuracy"]
    with pytest.raises(InputError, match="train and promote a model of the new rows by hand"):
        retrain(leaky)


def test_a_champion_that_was_tested_on_its_training_rows_is_replaced(prefect_server: str) -> None:  # noqa: ARG001
    name = new_name()
    tested_on_training = {"method": "resubstitution", "validation": 0, "test": 0}
    data = experiment(name).data.model_copy(update={"split": Split.model_validate(tested_on_training)})
    train(experiment(name, epochs=20).model_copy(update={"data": data}))
    result = retrain(experiment(name, epochs=20))
    assert (result.verdict, result.champion) == ("PROMOTE", 2)
    assert "it was tested on the rows that it was trained on (accuracy_on_training_rows)" in result.reason


def test_a_champion_whose_stored_file_is_damaged_is_replaced(prefect_server: str) -> None:  # noqa: ARG001
    name = new_name()
    train(experiment(name, epochs=20))
    file_in_store(name, 1).write_bytes(b"damaged")
    result = retrain(experiment(name, epochs=20))
    assert (result.verdict, result.champion) == ("PROMOTE", 2)
    assert "its stored file is damaged, or its proof does not hold (broken_proof)" in result.reason
    assert retrain(experiment(name, epochs=20)).verdict == "UNCHANGED"
