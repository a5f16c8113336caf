"""A killed flow run or server process of a schedule: states in Prefect and MLflow, notifications, and resuming."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from hallmark.tasks.promotion import champions
from tests.pipelines.test_notification import receiver
from tests.support import forks
from tests.support.interrupted import runs as training_runs
from tests.support.processes import until
from tests.support.scheduled import LONG, LONG_ON_REQUEST, engine_pids, runs, serving, start_run


def test_cancelled_run_sends_no_notification(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path, model: str
) -> None:
    log = tmp_path / "serve.log"
    with receiver() as (address, notifications):
        entry = LONG_ON_REQUEST.replace('"iris"', f'"{model}.toml"')
        path = write_schedules(entry + f'notify = "{address}"\n')
        with serving(tmp_path) as served:
            start_run(scheduler, path, log)
            until(lambda: "epoch" in log.read_text())
            served.terminate()
            assert served.wait(60) == 0
        (ended,) = until(lambda: runs(scheduler, path, "Cancelled"), 30)
        assert ended.state.message == "Runner is shutting down."
        assert [run.info.status for run in training_runs(model)] == ["KILLED"]
        assert not notifications


def make_champion(tmp_path: Path, model: str) -> None:
    """Train and register version 1 of a model in two epochs."""
    first = forks.hallmark("retrain", str(tmp_path / f"{model}.toml"), "--training.epochs", "2")
    assert first.returncode == 0, first.stderr


def test_mlflow_run_is_resumed_after_kills_of_the_run_and_of_the_serving_process(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path, home: Path, model: str
) -> None:
    log = tmp_path / "serve.log"
    make_champion(tmp_path, model)
    entry = LONG.replace('"iris"', f'"{model}.toml"')
    with receiver() as (address, notifications):
        path = write_schedules(entry + f'notify = "{address}"\n')
        with serving(tmp_path) as served:
            until(lambda: list(home.glob("unfinished/*/*.safetensors")))
            (killed,) = training_runs(model, "RUNNING")
            (engine,) = engine_pids()
            os.kill(engine, signal.SIGKILL)
            until(lambda: runs(scheduler, path, "Crashed"), 30)
            until(lambda: notifications, 30)
            until(lambda: [run.info.run_id for run in training_runs(model, "KILLED")] == [killed.info.run_id], 30)
            until(lambda: "resumed" in log.read_text())  # by the next run
            assert [run.info.run_id for run in training_runs(model, "RUNNING")] == [killed.info.run_id]
            assert len(training_runs(model)) == 2
            assert champions.standing(model).version == 1
            assert notifications[0]["title"] == f"long ({model}): CRASHED"
            served.kill()
            served.wait()
            until(lambda: not engine_pids(), 30)  # its runs end too
        until(lambda: len(runs(scheduler, path, "Crashed")) == 2, 30)
        assert "aborted" in runs(scheduler, path, "Crashed")[1].state.message
        with serving(tmp_path):
            until(lambda: log.read_text().count("resumed") == 2)
        assert len(training_runs(model)) == 2


def test_failed_run_sends_a_notification_and_keeps_the_champion(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path, model: str
) -> None:
    make_champion(tmp_path, model)
    entry = LONG_ON_REQUEST.replace('"iris"', f'"{model}.toml"').replace("1000000", '100, "training.lr" = 1e30')
    with receiver() as (address, notifications):
        path = write_schedules(entry + f'notify = "{address}"\n')
        with serving(tmp_path):
            start_run(scheduler, path, tmp_path / "serve.log")
            (failed,) = until(lambda: runs(scheduler, path, "Failed"))
            until(lambda: notifications, 30)
    assert notifications[0]["title"] == f"long ({model}): FAILED"
    assert failed.name in notifications[0]["message"]
    assert [run.info.status for run in training_runs(model)][:2] == ["FINISHED", "FAILED"]
    assert champions.standing(model).version == 1
