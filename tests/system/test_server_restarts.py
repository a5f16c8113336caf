"""Prefect and MLflow servers that are killed or do not answer, while a schedule is served and during a command."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hallmark.flows.__main__ import main
from hallmark.tasks.tracking.client import connect
from tests.support import forks
from tests.support.interrupted import runs as training_runs
from tests.support.interrupted import unfinished_folders
from tests.support.processes import free_port, mlflow_server, prefect_server, until
from tests.support.scheduled import LONG_ON_REQUEST, call_prefect, engine_pids, runs, serving, start_run

EPOCHS = 5_000
STEPS = ("prepare", "examine", "fit", "evaluate", "diagnose", "export", "verify", "stamp", "register", "card")


def test_training_continues_while_both_servers_restart_and_loses_nothing(
    write_schedules: Callable[..., Path], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, port, mlflow_port = tmp_path / "serve.log", free_port(), free_port()
    url = f"http://127.0.0.1:{port}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mlflow_port}")
    path = write_schedules(LONG_ON_REQUEST.replace('"iris"', f'"{model}.toml"').replace("1000000", str(EPOCHS)))
    with prefect_server(tmp_path, port) as prefect, mlflow_server(tmp_path, mlflow_port) as mlflow, serving(tmp_path):
        start_run(url, path, log)
        until(lambda: "epoch" in log.read_text())
        for server in (prefect, mlflow):
            os.killpg(server.pid, signal.SIGKILL)
        until(lambda: f"epoch {EPOCHS}/{EPOCHS}" in log.read_text())  # the training finishes without the servers
        with prefect_server(tmp_path, port), mlflow_server(tmp_path, mlflow_port):
            (completed,) = until(lambda: completed_runs(url, path, f"{model} first version 1"))
            start_run(url, path, log)
            until(lambda: completed_runs(url, path, f"{model} unchanged"))  # the serving process has survived too
            until(lambda: states(url, completed) == {f"{step} {model}": "Completed" for step in STEPS})
            assert_complete(training_runs(model), EPOCHS)


def test_without_mlflow_a_command_gives_up_and_a_later_one_closes_or_continues_its_run(
    server_for_children: str,  # noqa: ARG001 - sets the server
    tmp_path: Path,
    home: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, epochs = free_port(), 3_000
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    command = ["train", str(tmp_path / f"{model}.toml"), "--training.epochs"]
    error = tmp_path / "first" / "stderr"
    with mlflow_server(tmp_path, port) as mlflow:
        first = forks.start([*command, f"{epochs}"], error.parent, os.environ | {"HALLMARK_SERVER_SECONDS": "2"})
        until(lambda: "epoch" in error.read_text(), pause=0.05)
        os.killpg(mlflow.pid, signal.SIGSTOP)
        first.join()
        os.killpg(mlflow.pid, signal.SIGCONT)
        lines = error.read_text().splitlines()
        assert f"epoch {epochs}/{epochs}" in "".join(lines)
        assert first.exitcode == 1
        assert f"MLflow at http://127.0.0.1:{port} has not answered for 2 seconds" in lines[-1]
        assert [run.info.status for run in training_runs(model)] == ["RUNNING"]

        error = tmp_path / "second" / "stderr"
        second = forks.start([*command, "1000000"], error.parent)
        until(lambda: "epoch" in error.read_text(), pause=0.05)
        os.killpg(mlflow.pid, signal.SIGSTOP)
        until(lambda: "does not answer; training goes on" in error.read_text())
        os.kill(int(str(second.pid)), signal.SIGINT)
        second.join(30)
        os.killpg(mlflow.pid, signal.SIGCONT)
        assert second.exitcode == 130
        assert [run.info.status for run in training_runs(model)] == ["KILLED", "RUNNING"]
        assert len(unfinished_folders(home)) == 2

        third = forks.hallmark(*command, f"{epochs}")
        assert third.returncode == 0, third.stderr
        assert "resumed" in third.stderr
        assert [run.info.status for run in training_runs(model)] == ["FINISHED", "KILLED"]
        assert_complete(training_runs(model, "FINISHED"), epochs)


def test_without_prefect_a_training_counts_as_finished_and_the_serving_process_stops_on_sigterm(
    write_schedules: Callable[..., Path], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, port, epochs = tmp_path / "serve.log", free_port(), 2_000
    url = f"http://127.0.0.1:{port}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    path = write_schedules(LONG_ON_REQUEST.replace('"iris"', f'"{model}.toml"'))
    with prefect_server(tmp_path, port) as server, serving(tmp_path) as served:
        start_run(url, path, log)
        until(lambda: "epoch" in log.read_text())
        command, output = (
            ["train", "iris", "--name", f"{model}-2", "--training.epochs", f"{epochs}"],
            tmp_path / "train",
        )
        training = forks.call(partial(call_main, command), output, os.environ | {"PREFECT_CLIENT_MAX_RETRIES": "1"})
        until(lambda: "epoch" in (output / "stderr").read_text(), pause=0.05)
        os.killpg(server.pid, signal.SIGKILL)
        training.join()
        error = (output / "stderr").read_text()
        assert training.exitcode == 0, error
        assert "Prefect does not answer and is not told the artifact 'summary'" in error
        assert "Prefect does not answer and is not told that this run has finished" in error
        assert [run.info.status for run in training_runs(f"{model}-2")] == ["FINISHED"]
        served.terminate()
        assert served.wait(60) == 1
        until(lambda: [run.info.status for run in training_runs(model)] == ["KILLED"], 60)
        assert "Prefect does not answer" in log.read_text()
        for engine in engine_pids():  # it would keep retrying its reports to Prefect
            os.kill(engine, signal.SIGKILL)


def call_main(tokens: list[str]) -> None:
    """Run a command as its own process does, with its way to exit."""
    sys.argv[1:] = tokens
    main()


def completed_runs(url: str, path: Path, name: str) -> list[Any]:
    """Return the completed flow runs with this name."""
    return [run for run in runs(url, path, "Completed") if run.name == name]


def states(url: str, run: Any) -> dict[str, str]:  # noqa: ANN401 - a flow run
    """Return the states of a flow run's tasks by task name."""
    from prefect.client.schemas import filters

    of_run = filters.FlowRunFilter(id=filters.FlowRunFilterId(any_=[run.id]))
    task_runs = call_prefect(url, lambda client: client.read_task_runs(flow_run_filter=of_run))
    return {task_run.name: task_run.state_name for task_run in task_runs}


def assert_complete(runs: list[Any], epochs: int) -> None:
    """Check that there is one MLflow run, that it is finished, and that it has each training point exactly once."""
    (run,) = runs
    assert run.info.status == "FINISHED"
    points = Counter(point.step for point in connect().get_metric_history(run.info.run_id, "train/loss"))
    assert points == Counter(range(1, epochs + 1))
    assert len(connect().search_model_versions(f"run_id = '{run.info.run_id}'")) == 1
