"""`hallmark prune`: what is removed, and what champions, decisions and open attempts keep."""

import json
import os
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from hallmark.flows.train import train
from hallmark.tasks.common import files
from hallmark.tasks.common.periods import period
from hallmark.tasks.promotion import champions, decision_log
from hallmark.tasks.runtime import settings
from hallmark.tasks.tracking import run_queries
from hallmark.tasks.tracking.registry import model_registry
from tests.support import databases
from tests.support.consoles import Call
from tests.support.interrupted import interrupt, iris_experiment, statuses, unfinished_folders

pytestmark = pytest.mark.usefixtures("prefect_server", "home")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the tracking store to an empty one, since these tests remove everything from it; return its database."""
    path = tmp_path / "mlruns" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", databases.mlflow(path))
    return path


def make_older(store: Path, home: Path, days: float) -> None:
    """Let everything in the store and the home look as if it had been made some days earlier."""
    milliseconds = days * 86_400_000
    with closing(sqlite3.connect(store, timeout=60)) as database:
        for table, column in (("runs", "start_time"), ("runs", "end_time"), ("model_versions", "creation_time")):
            database.execute(f"UPDATE {table} SET {column} = {column} - {milliseconds:.0f}")  # noqa: S608 - constants
        database.commit()
    for path in home.rglob("*"):
        age_file(path, days)


def age_file(path: Path, days: float) -> None:
    about = path.lstat()
    os.utime(path, (about.st_mtime - days * 86_400,) * 2, follow_symlinks=False)


def test_prune_keeps_what_champions_decisions_and_open_attempts_need(
    store: Path, home: Path, console: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = iris_experiment().name
    outcomes = [train(iris_experiment(name, epochs=1, seed=seed)) for seed in range(3)]
    champions.promote(name, 2, "to have a decision")
    make_older(store, home, 100)
    (home / "logs").mkdir(exist_ok=True)
    (home / "logs" / "new.log").touch()
    old = home / "logs" / "old.log"
    old.touch()
    age_file(old, 100)
    unfinished = iris_experiment(name, seed=7)
    interrupt(unfinished, monkeypatch, at=1)
    before = files.size(store.parent / "artifacts")

    code, out, error = console("prune", "--older", "90d", "--dry-run", "--json")
    assert code == 0, error
    listed = json.loads(out.splitlines()[-1])["removed"]
    assert Counter(one["kind"] for one in listed) == {"version": 1, "run": 1, "fit": 1, "log": 1}
    assert sum(one["bytes"] for one in listed if one["kind"] == "run") > 1000
    assert files.size(store.parent / "artifacts") == before
    assert len(model_registry.versions(name)) == 3

    code, out, error = console("prune", "--older", "90d")
    assert code == 0, error
    assert [line.split()[1:3] for line in out.splitlines()] == [
        ["version", "1"],
        ["run", "1"],
        ["fit", "1"],
        ["log", "1"],
    ]
    assert [one.number for one in model_registry.versions(name)] == [1, 2]
    assert {run.id for run in run_queries.search("", 100)} >= {outcomes[0].run.id, outcomes[1].run.id}
    assert not [path for path in store.parent.rglob("*") if outcomes[2].run.id in path.name]
    with closing(sqlite3.connect(store)) as database:
        for table in ("runs", "metrics", "tags", "logged_models"):
            column = "source_run_id" if table == "logged_models" else "run_uuid"
            query = f"SELECT COUNT(*) FROM {table} WHERE {column} = ?"  # noqa: S608 - constants
            assert database.execute(query, (outcomes[2].run.id,)).fetchone() == (0,), table
    assert [outcome.fit.weights.exists() for outcome in outcomes] == [True, True, False]
    assert outcomes[0].dataset.folder.exists()
    assert not old.exists()
    assert len(decision_log.history(name)) == 1
    assert champions.standing(name).version == 2
    assert console("verify", f"models:/{name}@previous", "--registered")[0] == 0
    assert len(unfinished_folders(home)) == 1
    train(unfinished)
    assert statuses(name) == ["FINISHED", "FINISHED", "FINISHED"]

    interrupt(iris_experiment(name, seed=8), monkeypatch, at=1)
    code, out, _ = console("prune", "--older", "0s", "--json")
    kinds = Counter(one["kind"] for one in json.loads(out)["removed"])
    assert code == 0
    assert kinds["attempt"] == 1
    assert kinds["version"] == 1
    assert kinds["run"] == 2
    assert unfinished_folders(home) == []
    assert statuses(name) == ["FINISHED", "FINISHED"]
    assert kinds["flow run"] >= 2
    assert console("prune", "--older", "0s")[1].split() == ["removed", "nothing"]


@pytest.mark.parametrize("text", ["90", "d", "-1d", "90 weeks", "99999999999d"])
def test_a_period_that_cannot_be_read_is_refused(console: Call, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, error = console("prune", f"--older={text}")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "expected a number and s, m, h or d" in error
    monkeypatch.setenv("HALLMARK_PRUNE", text)
    with pytest.raises(settings.InputError, match=r"HALLMARK_PRUNE: .*expected a number and s, m, h or d"):
        settings.from_environment().require("prune")


def test_a_period_is_a_number_and_a_unit() -> None:
    assert [period(text) for text in ("90d", " 6 h", "0s")] == [timedelta(days=90), timedelta(hours=6), timedelta()]
