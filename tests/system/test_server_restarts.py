"""Prefect and MLflow servers that are killed while a schedule is served."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hallmark.tasks.tracking.client import connect
from tests.support.interrupted import runs as training_runs
from tests.support.processes import free_port, mlflow_server, prefect_server, until
from tests.support.scheduled import LONG, call_prefect, engine_pids, runs, serving

EPOCHS = 5_000
STEPS = ("prepare", "examine", "fit", "evaluate", "diagnose", "export", "verify", "stamp", "register", "card")


def test_training_continues_while_both_servers_restart_and_loses_nothing(
    write_schedules: Callable[..., Path], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, port, mlflow_port = tmp_path / "serve.log", free_port(), free_port()
    url = f"http://127.0.0.1:{port}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mlflow_port}")
    path = write_schedules(LONG.replace('"iris"', f'"{model}.toml"').replace("1000000", str(EPOCHS)))
    with prefect_server(tmp_path, port) as prefect, mlflow_server(tmp_path, mlflow_port) as mlflow, serving(tmp_path):
        until(lambda: "epoch" in log.read_text())
        for server in (prefect, mlflow):
            os.killpg(server.pid, signal.SIGKILL)
        until(lambda: f"epoch {EPOCHS}/{EPOCHS}" in log.read_text())  # the training finishes without the servers
        with prefect_server(tmp_path, port), mlflow_server(tmp_path, mlflow_port):
            (completed,) = until(lambda: completed_runs(url, path, f"{model} first version 1"))
            until(lambda: completed_runs(url, path, f"{model} unchanged"))  # the serving process has survived too
            until(lambda: states(url, completed) == {f"{step} {model}": "Completed" for step in STEPS})
            assert_complete(model)


def test_serving_process_stops_on_sigterm_without_prefect(
    write_schedules: Callable[..., Path], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, port = tmp_path / "serve.log", free_port()
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    write_schedules(LONG.replace('"iris"', f'"{model}.toml"'))
    with prefect_server(tmp_path, port) as server, serving(tmp_path) as served:
        until(lambda: "epoch" in log.read_text())
        os.killpg(server.pid, signal.SIGKILL)
        served.terminate()
        assert served.wait(60) == 1
        until(lambda: [run.info.status for run in training_runs(model)] == ["KILLED"], 60)
        assert "Prefect does not answer" in log.read_text()
        for engine in engine_pids():  # it would keep retrying its reports to Prefect
            os.kill(engine, signal.SIGKILL)


def completed_runs(url: str, path: Path, name: str) -> list[Any]:
    """Return the completed flow runs with this name."""
    return [run for run in runs(url, path, "Completed") if run.name == name]


def states(url: str, run: Any) -> dict[str, str]:  # noqa: ANN401 - a flow run
    """Return the states of a flow run's tasks by task name."""
    from prefect.client.schemas import filters

    of_run = filters.FlowRunFilter(id=filters.FlowRunFilterId(any_=[run.id]))
    task_runs = call_prefect(url, lambda client: client.read_task_runs(flow_run_filter=of_run))
    return {task_run.name: task_run.state_name for task_run in task_runs}


def assert_complete(model: str) -> None:
    """Check that the model's only MLflow run is finished and has each training point exactly once."""
    (run,) = training_runs(model)
    assert run.info.status == "FINISHED"
    points = Counter(point.step for point in connect().get_metric_history(run.info.run_id, "train/loss"))
    assert points == Counter(range(1, EPOCHS + 1))
