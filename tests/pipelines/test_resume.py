"""Executions that are interrupted, and how the next one resumes them."""

import json
import shutil
import uuid
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow.entities import Run

from hallmark.flows.__main__ import run as command
from hallmark.flows.train import train
from hallmark.tasks.common.records import Attempt
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import loop
from hallmark.tasks.runtime import progress, settings
from hallmark.tasks.tracking import resume, run_lifecycle
from hallmark.tasks.tracking.client import connect
from tests.conftest import prepare
from tests.support.interrupted import (
    EPOCHS,
    assert_whole,
    history,
    interrupt,
    iris_experiment,
    runs,
    set_status,
    statuses,
    tokens,
    unfinished_folders,
    without_times,
)

pytestmark = pytest.mark.usefixtures("prefect_server", "home")


def fail(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a step after the training fail."""

    def export(*_: object) -> None:
        raise RuntimeError("export is broken")

    with monkeypatch.context() as patch:
        patch.setattr("hallmark.tasks.ml.artifact.exporter.export", export)
        with pytest.raises(RuntimeError, match="export is broken"):
            train(experiment)


def assert_equal(outcome: Outcome, reference: Outcome) -> None:
    assert outcome.fit.weights_sha256 == reference.fit.weights_sha256
    assert outcome.evaluation.metrics == reference.evaluation.metrics
    assert_whole(connect().get_run(outcome.run.id))
    assert without_times(history(outcome.run.id)) == without_times(history(reference.run.id))


@pytest.fixture(scope="module")
def whole(
    prefect_server: str,  # noqa: ARG001 - the server comes first
    tmp_path_factory: pytest.TempPathFactory,
) -> Outcome:
    """Train the experiment without an interrupt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALLMARK_HOME", str(tmp_path_factory.mktemp("whole")))
        patch.setattr(loop, "_SEGMENT_BATCHES", 4)
        return train(iris_experiment())


def test_an_interrupted_run_is_resumed_and_ends_like_an_uninterrupted_one(
    whole: Outcome, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch)
    (before,) = runs(experiment.name)
    assert before.info.status == "KILLED"
    assert "hallmark.error" in before.data.tags
    assert "stopped  run the same command to continue, or add --fresh to start over" in capsys.readouterr().err
    outcome = train(experiment)
    assert "resumed  after epoch 3" in capsys.readouterr().err
    (after,) = runs(experiment.name)
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert after.info.run_id == outcome.run.id
    assert "hallmark.error" not in after.data.tags
    assert after.info.end_time > before.info.end_time
    assert outcome.run.attempt.is_continued
    assert outcome.fit.resumed_from is not None
    assert outcome.fit.resumed_from[0] == 3
    assert_equal(outcome, whole)
    assert unfinished_folders(home) == []


def test_a_run_can_be_interrupted_repeatedly(whole: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = iris_experiment()
    for epoch in (1, 4, EPOCHS):
        interrupt(experiment, monkeypatch, at=epoch)
    outcome = train(experiment)
    assert statuses(experiment.name) == ["FINISHED"]
    assert outcome.fit.resumed_from == (EPOCHS, 0)
    assert_equal(outcome, whole)


def test_a_finished_experiment_is_trained_again_as_a_new_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = iris_experiment()
    first = train(experiment)
    assert unfinished_folders(home) == []
    interrupt(experiment, monkeypatch, at=EPOCHS)
    (old, new) = runs(experiment.name)
    assert (old.info.run_id, old.info.status, new.info.status) == (first.run.id, "FINISHED", "KILLED")
    assert first_timestamp(new) >= old.info.end_time
    assert_whole(new)


def first_timestamp(run: Run) -> int:
    """Return the timestamp of the first epoch of a run."""
    return min(point.timestamp for point in connect().get_metric_history(run.info.run_id, "train/loss"))


def test_a_run_killed_between_its_end_and_the_cleanup_counts_as_finished(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch)
    set_status(experiment, "FINISHED")
    assert len(unfinished_folders(home)) == 1
    capsys.readouterr()
    interrupt(experiment, monkeypatch, at=EPOCHS)
    assert "resumed" not in capsys.readouterr().err
    (old, new) = runs(experiment.name)
    assert (old.info.status, new.info.status) == ("FINISHED", "KILLED")
    assert first_timestamp(new) >= old.info.end_time
    assert_whole(new)


def test_a_kill_during_the_cleanup_leaves_nothing_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch)
    set_status(experiment, "FINISHED")
    real = shutil.rmtree

    def killed(folder: str | Path, **options: object) -> None:
        notes = list(Path(folder).rglob("attempt.json"))
        for note in notes:
            note.unlink()
            raise SystemExit
        real(folder, **options)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(SystemExit):
            train(experiment)
    capsys.readouterr()
    interrupt(experiment, monkeypatch, at=EPOCHS)
    assert "resumed" not in capsys.readouterr().err
    assert first_timestamp(runs(experiment.name)[1]) >= runs(experiment.name)[0].info.end_time


@pytest.mark.parametrize("status", ["KILLED", "RUNNING"])
def test_fresh_discards_an_interrupted_attempt(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    """Cover a signal, and kill -9, which leaves the run in state RUNNING."""
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch)
    set_status(experiment, status)
    (before,) = home.glob("unfinished/*/attempt.json")
    note = before.read_text()
    capsys.readouterr()
    interrupt(experiment, monkeypatch, at=EPOCHS, fresh=True)
    assert "resumed" not in capsys.readouterr().err
    assert statuses(experiment.name) == ["KILLED", "KILLED"]
    assert_whole(runs(experiment.name)[1])
    assert before.read_text() != note


def test_fresh_is_accepted_if_nothing_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch, at=1, fresh=True)
    assert len(runs(experiment.name)) == 1


def test_an_attempt_started_with_fresh_is_resumed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch)
    interrupt(experiment, monkeypatch, at=2, fresh=True)
    interrupt(experiment, monkeypatch, at=EPOCHS)
    assert len(runs(experiment.name)) == 2
    assert_whole(runs(experiment.name)[1])


def test_the_same_experiment_under_another_name_is_a_separate_run_with_the_whole_history(
    whole: Outcome, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = iris_experiment(), iris_experiment()
    interrupt(first, monkeypatch)
    set_status(first, "RUNNING")  # as after kill -9
    outcome = train(second)
    assert (statuses(first.name), statuses(second.name)) == (["KILLED"], ["FINISHED"])
    assert outcome.run.name == second.name
    assert outcome.fit.resumed_from is not None
    assert_equal(outcome, whole)
    assert unfinished_folders(home) == []


def test_device_auto_resumes_the_attempt_of_the_device_that_it_selects(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = iris_experiment(device="auto")
    same = iris_experiment(experiment.name, device="cpu")
    if kind_of_device(experiment) != kind_of_device(same):
        pytest.skip("auto is not the CPU on this machine")
    interrupt(experiment, monkeypatch)
    interrupt(same, monkeypatch, at=EPOCHS)
    (run,) = runs(experiment.name)
    assert_whole(run)


def kind_of_device(experiment: Experiment) -> str:
    from hallmark.tasks.ml.training import devices

    return devices.choose(experiment.training.device).type


def test_after_a_failure_a_new_run_uses_the_checkpoint(
    whole: Outcome, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = iris_experiment()
    fail(experiment, monkeypatch)
    assert "stopped" not in capsys.readouterr().err
    outcome = train(experiment)
    assert f"resumed  after epoch {EPOCHS}, from its checkpoint" in capsys.readouterr().err
    assert statuses(experiment.name) == ["FAILED", "FINISHED"]
    assert outcome.fit.resumed_from == (EPOCHS, 0)
    assert not outcome.run.attempt.is_continued
    assert_equal(outcome, whole)
    assert unfinished_folders(home) == []


def test_a_failed_run_stays_failed_even_if_its_process_is_killed_while_it_exits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch)
    set_status(experiment, "FAILED")
    interrupt(experiment, monkeypatch, at=EPOCHS)
    assert statuses(experiment.name) == ["FAILED", "KILLED"]
    assert_whole(runs(experiment.name)[1])


def test_the_first_error_is_reported_even_if_nothing_can_be_written_afterwards(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(*_: object) -> None:
        (folder,) = unfinished_folders(home)
        shutil.rmtree(folder)
        folder.write_text("no folder can be made here")
        raise RuntimeError("export is broken")

    monkeypatch.setattr("hallmark.tasks.ml.artifact.exporter.export", export)
    with pytest.raises(RuntimeError, match="export is broken"):
        train(iris_experiment())


def test_giving_up_a_sweep_gives_up_its_members(home: Path) -> None:
    experiment = iris_experiment()
    dataset = prepare(experiment.data, home)
    attempt = Attempt(uuid.uuid4().hex, experiment.name, {}, home / "unfinished" / "sweep")
    ids = []
    for own in (attempt, resume.of_member(attempt, 0), resume.of_member(attempt, 1)):
        with run_lifecycle.open_run(experiment, dataset, own, "a run of a sweep", {}) as run:
            ids.append(run.id)
    client = connect()
    for run_id, status in zip(ids, ("RUNNING", "RUNNING", "FINISHED"), strict=True):
        client.update_run(run_id, status)
    run_lifecycle.give_up(attempt)
    assert [client.get_run(run_id).info.status for run_id in ids] == ["KILLED", "KILLED", "FINISHED"]


def test_a_damaged_checkpoint_is_reported_and_the_previous_one_is_used(
    whole: Outcome, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch, at=2)
    interrupt(experiment, monkeypatch, at=4)
    newest = max(home.glob("unfinished/*/*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    capsys.readouterr()
    assert command(["train", *tokens(experiment)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "is damaged: using the previous one" in line]) == 1
    assert len([line for line in lines if line.startswith("resumed  after epoch 2")]) == 1
    (run,) = runs(experiment.name)
    assert without_times(history(run.info.run_id)) == without_times(history(whole.run.id))


def test_command_line_tokens_give_the_same_experiment() -> None:
    from hallmark.flows.experiments import options

    experiment = iris_experiment()
    source, *rest = tokens(experiment)
    assert options.experiment(source, rest) == experiment


def test_json_contains_the_epoch_and_step_of_the_resumed_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch)
    assert command(["train", *tokens(experiment), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["resumed_from"] == {"epoch": 3, "step": 4}


def lock_of(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file whose kernel lock marks the experiment as running."""
    home = settings.read().home
    interrupt(experiment, monkeypatch, at=1)
    (path,) = (home / "locks").glob("experiment-*.lock")
    return path


def test_a_second_process_reports_that_it_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = iris_experiment()
    lock = FileLock(lock_of(experiment, monkeypatch))
    real, waited = progress.line, []

    def report(step: str, text: str) -> None:
        real(step, text)
        if step == "waiting":
            waited.append(statuses(experiment.name))
            lock.release()

    monkeypatch.setattr(progress, "line", report)
    capsys.readouterr()
    with lock:
        interrupt(experiment, monkeypatch, at=EPOCHS)
    assert waited == [["KILLED"]]
    assert f"waiting  another process runs {experiment.name}" in capsys.readouterr().err
    (run,) = runs(experiment.name)
    assert_whole(run)


def test_two_experiments_do_not_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with FileLock(lock_of(iris_experiment(), monkeypatch)):
        interrupt(iris_experiment(seed=1), monkeypatch)
    assert "waiting" not in capsys.readouterr().err
