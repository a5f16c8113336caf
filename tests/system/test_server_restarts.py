"""Servers that go away while a schedule is served."""

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
from tests.support.scheduled import LONG, ask, engines, runs, serving

EPOCHS = 5_000
STEPS = ("prepare", "examine", "fit", "evaluate", "diagnose", "export", "verify", "stamp", "register", "card")


def test_a_training_goes_on_while_both_servers_restart_and_nothing_is_lost(
    write_schedules: Callable[..., Path], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, port, other = tmp_path / "serve.log", free_port(), free_port()
    url = f"http://127.0.0.1:{port}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{other}")
    path = write_schedules(LONG.replace('"iris"', f'"{model}.toml"').replace("1000000", str(EPOCHS)))
    with prefect_server(tmp_path, port) as prefect, mlflow_server(tmp_path, other) as mlflow, serving(tmp_path):
        until(lambda: "epoch" in log.read_text())
        for server in (prefect, mlflow):
            os.killpg(server.pid, signal.SIGKILL)
        until(lambda: f"epoch {EPOCHS}/{EPOCHS}" in log.read_text())  # it went on to its end meanwhile
        with prefect_server(tmp_path, port), mlflow_server(tmp_path, other):
            (done,) = until(lambda: named(url, path, f"{model} first version 1"))
            until(lambda: named(url, path, f"{model} unchanged"))  # what serves is there, too
            until(lambda: states(url, done) == {f"{step} {model}": "Completed" for step in STEPS})
            assert_whole(model)


def test_what_serves_ends_when_told_though_prefect_is_gone(
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
        for engine in engines():  # it would go on telling Prefect
            os.kill(engine, signal.SIGKILL)


def named(url: str, path: Path, name: str) -> list[Any]:
    """The completed runs of this name."""
    return [run for run in runs(url, path, "Completed") if run.name == name]


def states(url: str, run: Any) -> dict[str, str]:  # noqa: ANN401 - a flow run
    """How the tasks of a run ended, by name."""
    from prefect.client.schemas import filters

    of_run = filters.FlowRunFilter(id=filters.FlowRunFilterId(any_=[run.id]))
    found = ask(url, lambda client: client.read_task_runs(flow_run_filter=of_run))
    return {one.name: one.state_name for one in found}


def assert_whole(model: str) -> None:
    """The one run of a model has finished with every point of its training, each once."""
    (run,) = training_runs(model)
    assert run.info.status == "FINISHED"
    points = Counter(point.step for point in connect().get_metric_history(run.info.run_id, "train/loss"))
    assert points == Counter(range(1, EPOCHS + 1))
