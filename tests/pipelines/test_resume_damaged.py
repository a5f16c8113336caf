"""Interrupted attempts that cannot be resumed are refused or discarded, with a message."""

import json
import re
import shutil
from pathlib import Path

import pytest

from hallmark.flows.__main__ import run as command
from hallmark.flows.experiments.retraining_split import by_content
from hallmark.flows.retrain import retrain
from hallmark.flows.train import train
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.tracking import client
from tests.support.interrupted import (
    EPOCHS,
    assert_whole,
    interrupt,
    iris_experiment,
    runs,
    set_status,
    statuses,
    tokens,
    unfinished_folders,
)

pytestmark = pytest.mark.usefixtures("prefect_server", "home")


@pytest.mark.parametrize(("mark", "value"), [("torch", "1.0.0"), ("code", "7" * 64)], ids=["torch", "code"])
def test_an_attempt_from_another_environment_or_other_code_is_discarded_with_a_message(
    mark: str, value: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch)
    set_status(experiment, "RUNNING")  # as after kill -9
    (path,) = home.glob("unfinished/*/attempt.json")
    content = json.loads(path.read_text())
    assert {"torch", "numpy", "threads", "processor", "device", "code"} <= set(content["marks"])
    content["marks"][mark] = value
    path.write_text(json.dumps(content))
    capsys.readouterr()
    interrupt(experiment, monkeypatch, at=EPOCHS)
    error = capsys.readouterr().err
    assert f"restart  an interrupted attempt had another {mark}: it is discarded" in error
    assert "resumed" not in error
    assert statuses(experiment.name) == ["KILLED", "KILLED"]
    assert_whole(runs(experiment.name)[1])


def test_an_attempt_of_an_older_version_is_discarded_with_a_message(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = iris_experiment()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "VERSION", trainer.VERSION - 1)
        interrupt(experiment, monkeypatch)
    set_status(experiment, "RUNNING")  # as after kill -9
    capsys.readouterr()
    interrupt(experiment, monkeypatch)
    error = capsys.readouterr().err
    assert "restart  an interrupted attempt had another version: it is discarded" in error
    assert statuses(experiment.name) == ["KILLED", "KILLED"]
    assert len(unfinished_folders(home)) == 1


def leave_old_attempt(experiment: Experiment, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt a training, and give its attempt the layout from before code digests covered selected packages."""
    interrupt(experiment, monkeypatch)
    (path,) = home.glob("unfinished/*/attempt.json")
    content = json.loads(path.read_text())
    del content["marks"]["layout"]
    content["marks"]["code"] = "7" * 64
    path.write_text(json.dumps(content))


def test_an_attempt_of_the_old_layout_is_refused_until_fresh_discards_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = iris_experiment()
    leave_old_attempt(experiment, home, monkeypatch)
    with pytest.raises(InputError, match=r"left by an older version of Hallmark .*: add --fresh to start over"):
        train(experiment)
    assert len(unfinished_folders(home)) == 1
    assert statuses(experiment.name) == ["KILLED"]
    interrupt(experiment, monkeypatch, at=EPOCHS, fresh=True)
    assert_whole(runs(experiment.name)[1])


def test_a_retraining_discards_an_attempt_of_the_old_layout(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = by_content(iris_experiment())
    leave_old_attempt(experiment, home, monkeypatch)
    assert retrain(experiment).verdict == "FIRST"
    assert "an interrupted attempt of an older version of Hallmark is discarded" in capsys.readouterr().err
    assert statuses(experiment.name) == ["KILLED", "FINISHED"]


def test_a_damaged_attempt_file_is_refused_until_fresh_discards_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch, at=1)
    (path,) = home.glob("unfinished/*/attempt.json")
    for content in (b"\xff{", b'{"id": "x"}', b""):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=r"attempt\.json: is damaged: add --fresh to start over"):
            train(experiment)
        assert path.read_bytes() == content
    assert len(runs(experiment.name)) == 1
    interrupt(experiment, monkeypatch, at=EPOCHS, fresh=True)
    assert_whole(runs(experiment.name)[1])


def test_a_damaged_journal_is_refused_until_fresh_discards_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch, at=1)
    (path,) = home.glob("unfinished/*/journal")
    path.write_bytes(b"what is this\n" + path.read_bytes())
    with pytest.raises(DamagedError, match="journal: a line is damaged: add --fresh to start over"):
        train(experiment)
    interrupt(experiment, monkeypatch, at=EPOCHS, fresh=True)
    assert_whole(runs(experiment.name)[-1])


def test_a_checkpoint_of_another_experiment_is_refused_before_a_run_is_opened(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, other = iris_experiment(), iris_experiment(seed=1)
    interrupt(other, monkeypatch)
    (stranger,) = home.glob("unfinished/*/*.safetensors")
    interrupt(experiment, monkeypatch)
    (folder,) = (path for path in unfinished_folders(home) if path != stranger.parent)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    shutil.copy(stranger, folder)
    for note in ((folder / "attempt.json").read_bytes(), None):
        if note is None:
            (folder / "attempt.json").unlink()
        before = {path: path.read_bytes() for path in folder.iterdir()}
        capsys.readouterr()
        assert command(["train", *tokens(experiment)]) == 2
        (error,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("prepare "))
        assert re.match("hallmark: .*the checkpoint has another experiment: expected .*, found .*: add --fresh", error)
        assert len(runs(experiment.name)) == 1
        assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_checkpoint_from_another_environment_is_refused_before_a_run_is_opened(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use a checkpoint of the same experiment from another torch, without `attempt.json`, which would reveal it."""
    experiment = iris_experiment()
    with monkeypatch.context() as patch:
        patch.setattr("hallmark.tasks.ml.training.fingerprint.version", lambda _: "1.0.0")
        interrupt(experiment, monkeypatch)
    (folder,) = unfinished_folders(home)
    (folder / "attempt.json").unlink()
    with pytest.raises(InputError, match=r"the checkpoint has another torch: expected .*, found 1\.0\.0"):
        train(experiment)
    assert len(runs(experiment.name)) == 1


def test_a_deleted_run_is_replaced_by_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch)
    client.connect().delete_run(runs(experiment.name)[0].info.run_id)
    interrupt(experiment, monkeypatch, at=EPOCHS)
    (run,) = runs(experiment.name)
    assert_whole(run)
