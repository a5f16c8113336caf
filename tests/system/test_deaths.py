"""What dies while a schedule is served, what Prefect and MLflow say of it then, and what goes on."""

import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hallmark.flows.scheduling import serve
from hallmark.tasks.promotion import champions
from hallmark.tasks.tracking.client import connect
from tests.pipelines.test_notification import receiver
from tests.support.interrupted import runs as training_runs
from tests.support.processes import free_port, hallmark, mlflow_server, prefect_server, until
from tests.support.scheduled import LONG, ask, engines, forget, runs, serving


@pytest.fixture
def model(tmp_path: Path, home: Path) -> str:  # noqa: ARG001 - no other test has left a checkpoint there
    """Name of an experiment that no other test has, in a file beside the schedules."""
    name = f"d{uuid.uuid4().hex[:12]}"
    (tmp_path / f"{name}.toml").write_text(
        '[data]\nkind = "iris"\nsplit = { method = "content" }\n[model]\nkind = "mlp"\n[training]\ndevice = "cpu"\n'
    )
    return name


def test_a_run_ends_with_the_process_that_serves_it_and_the_next_resumes_it(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path
) -> None:
    path, log = write_schedules(LONG), tmp_path / "serve.log"
    with serving(tmp_path) as served:
        until(lambda: "epoch" in log.read_text())
        served.kill()
        served.wait()
        until(lambda: not engines(), 30)
    (crashed,) = until(lambda: runs(scheduler, path, "Crashed"), 30)
    assert "aborted" in crashed.state.message
    with serving(tmp_path):
        until(lambda: "resumed" in log.read_text())
    forget(scheduler, path)


def test_nobody_is_told_of_a_run_that_was_told_to_end(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path, model: str
) -> None:
    log = tmp_path / "serve.log"
    with receiver() as (address, told):
        path = write_schedules(LONG.replace('"iris"', f'"{model}.toml"') + f'notify = "{address}"\n')
        with serving(tmp_path) as served:
            until(lambda: "epoch" in log.read_text())
            served.terminate()
            assert served.wait(60) == 0
        (ended,) = until(lambda: runs(scheduler, path, "Cancelled"), 30)
        assert ended.state.message == "Runner is shutting down."
        assert [run.info.status for run in training_runs(model)] == ["KILLED"]
        assert not told
    forget(scheduler, path)


def test_a_run_that_is_silent_has_crashed_within_three_heartbeats(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path
) -> None:
    log = tmp_path / "serve.log"
    with receiver() as (address, told):
        path = write_schedules(LONG + f'notify = "{address}"\n')
        silence(scheduler, path, tmp_path, log)
        assert not told  # nobody was left to tell
        with serving(tmp_path):
            until(lambda: told)
            until(lambda: "serving" in log.read_text().rpartition("crashed")[2])
    assert told[0]["title"] == "long (iris): CRASHED"
    assert "No sign of life" in told[0]["message"]
    forget(scheduler, path)


def silence(url: str, path: Path, tmp_path: Path, log: Path) -> None:
    """Kill a run and what serves it, and wait until Prefect has noticed."""
    with serving(tmp_path) as served:
        until(lambda: "epoch" in log.read_text())
        (running,) = runs(url, path, "Running")
        (engine,) = engines()
        served.send_signal(signal.SIGSTOP)  # so that neither hears of the other's end
        os.kill(engine, signal.SIGKILL)
        served.kill()
    killed = time.monotonic()
    (crashed,) = until(lambda: runs(url, path, "Crashed"), 3 * serve.HEARTBEAT_SECONDS + 10)
    assert time.monotonic() - killed < 3 * serve.HEARTBEAT_SECONDS + 10
    assert crashed.id == running.id
    assert crashed.state.message == serve.SILENT


def make_champion(url: str, tmp_path: Path, model: str) -> None:
    """Train the first version of a model, shortly."""
    first = hallmark("retrain", str(tmp_path / f"{model}.toml"), "--training.epochs", "2", PREFECT_API_URL=url)
    assert first.returncode == 0, first.stderr


def test_a_run_whose_process_is_killed_has_crashed_and_the_next_goes_on_in_its_mlflow_run(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path, model: str
) -> None:
    log = tmp_path / "serve.log"
    make_champion(scheduler, tmp_path, model)
    entry = LONG.replace('"iris"', f'"{model}.toml"').replace('"10s"', '"30s"')
    with receiver() as (address, told):
        path = write_schedules(entry + f'notify = "{address}"\n')
        with serving(tmp_path):
            until(lambda: log.read_text().count("epoch") > 3)  # a line each 5 seconds: a checkpoint was written
            (killed,) = training_runs(model, "RUNNING")
            (engine,) = engines()
            os.kill(engine, signal.SIGKILL)
            until(lambda: runs(scheduler, path, "Crashed"), 30)
            until(lambda: told, 30)
            until(lambda: [run.info.run_id for run in training_runs(model, "KILLED")] == [killed.info.run_id], 30)
            until(lambda: "resumed" in log.read_text())  # by the next run
            assert [run.info.run_id for run in training_runs(model, "RUNNING")] == [killed.info.run_id]
            assert len(training_runs(model)) == 2
            assert champions.standing(model).version == 1
    assert told[0]["title"] == f"long ({model}): CRASHED"
    forget(scheduler, path)


def test_somebody_hears_of_a_run_that_fails_and_the_champion_stays(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path, model: str
) -> None:
    make_champion(scheduler, tmp_path, model)
    entry = LONG.replace('"iris"', f'"{model}.toml"').replace("1000000", '100, "training.lr" = 1e30')
    with receiver() as (address, told):
        path = write_schedules(entry + f'notify = "{address}"\n')
        with serving(tmp_path):
            (failed, *_) = until(lambda: runs(scheduler, path, "Failed"))
            until(lambda: told, 30)
    assert told[0]["title"] == f"long ({model}): FAILED"
    assert failed.name in told[0]["message"]
    assert [run.info.status for run in training_runs(model)][:2] == ["FINISHED", "FAILED"]
    assert champions.standing(model).version == 1
    forget(scheduler, path)


EPOCHS = 10_000
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
