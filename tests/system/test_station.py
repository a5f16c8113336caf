import base64
import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import station_file
from tests.support.processes import LIMIT, free_port, until
from tests.support.stations import Workspace, lines

DAILY = """
[[schedule]]
name = "iris-daily"
experiment = "iris"
interval = "1d"
missed = "skip"
"""

AUTH = "assayer:a secret of 25 letters"


def exists(part: station_file.StationPart) -> bool:
    """Return whether the part's process group has a process."""
    try:
        os.killpg(part.pid, 0)
    except ProcessLookupError:
        return False
    return True


def status(workspace: Workspace) -> dict[str, Any]:
    completed = workspace.hallmark("status", "--json")
    assert completed.returncode == 0, completed.stderr
    result: dict[str, Any] = json.loads(lines(completed.stdout)[-1])
    return result


def has_ended(station: station_file.Station) -> bool:
    return not any(map(exists, station.parts))


def get(url: str, auth: str | None = None) -> int:
    """Send a GET request; return the HTTP status."""
    token = base64.b64encode((auth or "").encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"} if auth else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own address
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@contextmanager
def up(workspace: Workspace, number: signal.Signals) -> Iterator[station_file.Station]:
    """Run a station in the foreground. A signal stops it at the end of the block."""
    with workspace.foreground() as process:
        assert process.stdout
        addresses = [process.stdout.readline() for _ in range(2)]
        station = workspace.station
        assert addresses == [f"Prefect UI: {station.url('prefect')}\n", f"MLflow UI:  {station.url('mlflow')}\n"]
        yield station
        process.send_signal(number)
        _, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert lines(error)[-1] == "station  stopped; schedules are kept and run again after `hallmark up`"
    assert has_ended(station)
    assert not station_file.file(workspace.home).exists()
    assert workspace.hallmark("status").stderr == "hallmark: no station is up: start one with `hallmark up`\n"


def test_station_is_used_by_every_command_and_leaves_no_process_behind(workspace: Workspace) -> None:
    workspace.schedules.write_text(DAILY)
    with up(workspace, signal.SIGINT) as station:
        result = use(workspace, station)
    # The data stored by the server is complete without it.
    runs = json.loads(lines(workspace.hallmark("runs", "--json").stdout)[-1])["runs"]
    assert [run["id"] for run in runs] == [result["run_id"]]
    verify = workspace.hallmark("verify", "models:/iris@champion", "--registered", "--json")
    assert json.loads(lines(verify.stdout)[-1])["sha256"] == result["sha256"]


def use(workspace: Workspace, station: station_file.Station) -> dict[str, Any]:
    """Use a station that serves the daily schedule; return the JSON output of a training."""
    prefect, mlflow = station.url("prefect"), station.url("mlflow")
    assert get(prefect) == get(mlflow) == 200
    assert workspace.hallmark("ui").stdout == f"the station already serves the MLflow UI: {mlflow}\n"

    again = workspace.hallmark("up")
    assert again.returncode == 2
    assert lines(again.stderr)[-1].startswith(f"hallmark: a station is up (pid {station.pid})")
    assert workspace.station == station

    train = workspace.hallmark("train", "iris", "--training.device", "cpu", "--training.epochs", "2", "--json")
    assert train.returncode == 0, train.stderr
    result: dict[str, Any] = json.loads(lines(train.stdout)[-1])
    assert lines(train.stdout) == [json.dumps(result)]
    server = f"{mlflow}/ajax-api/2.0/mlflow"
    with urllib.request.urlopen(f"{server}/runs/get?run_id={result['run_id']}") as response:  # noqa: S310
        assert json.load(response)["run"]["info"]["status"] == "FINISHED"

    until(lambda: bool(status(workspace)["next"]))
    output = status(workspace)
    assert output["status"] == "up"
    assert [(part["name"], part["fault"]) for part in output["parts"]] == [
        ("prefect", None), ("mlflow", None), ("schedules", None),
    ]  # fmt: skip
    assert {(run["schedule"], run["state"]) for run in output["next"]} == {("iris-daily", "Scheduled")}
    assert output["running"] == []
    assert [(run["schedule"], run["state"]) for run in output["last"]] == [(None, "Completed")]
    return result


def test_signal_during_the_start_stops_the_started_parts(workspace: Workspace) -> None:
    with workspace.foreground() as process:
        until(lambda: len(list(workspace.home.glob("logs/*-station-mlflow.log"))) == 1)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, error
    assert not station_file.file(workspace.home).exists()
    until(lambda: not listens(workspace))


def listens(workspace: Workspace) -> bool:
    def answers(variable: str) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(workspace.environment[variable])), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True

    return answers("HALLMARK_PREFECT_PORT") or answers("HALLMARK_UI_PORT")


def test_parts_end_with_a_killed_station_and_a_dead_part_is_named(workspace: Workspace) -> None:
    left = workspace.home / "fits" / ".tmp-hallmark-left"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    first = workspace.hallmark("up", "--detach", HALLMARK_REPAIR_SECONDS="1")
    assert first.returncode == 0, first.stderr
    killed = workspace.station
    for content in (b'{"pid": ', b"{}"):
        station_file.file(workspace.home).write_bytes(content)
        until(lambda: station_file.current(workspace.home) == killed)  # it was written again
    repaired = "removed fits/.tmp-hallmark-left, left by a killed process\n"  # printed when all of it is repaired
    until(lambda: any(repaired in path.read_text() for path in workspace.home.glob("logs/station-repair.log")))
    assert lines(first.stdout) == [f"Prefect UI: {killed.url('prefect')}", f"MLflow UI:  {killed.url('mlflow')}"]
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: has_ended(killed))
    for command in ("status", "down"):
        stale = workspace.hallmark(command)
        assert stale.returncode == 2
        assert len(lines(stale.stderr)) == 1
        assert f"is stale: its station (pid {killed.pid}) was killed" in stale.stderr
    runs = workspace.hallmark("runs")
    assert runs.returncode == 0, runs.stderr

    second = workspace.hallmark("up", "--detach")
    assert second.returncode == 0, second.stderr
    station = workspace.station
    assert station.pid != killed.pid
    server = next(part for part in station.parts if part.name == "prefect")
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: workspace.station.parts[0].ended == -signal.SIGKILL)
    broken = workspace.hallmark("status")
    assert broken.returncode == 2
    assert len(lines(broken.stderr)) == 1
    assert broken.stderr.startswith("hallmark: the Prefect server ended by SIGKILL")
    train = workspace.hallmark("train", "iris")
    assert train.returncode == 2
    assert "the station's Prefect server" in train.stderr
    down = workspace.hallmark("down")
    assert down.returncode == 0, down.stderr
    assert has_ended(station)
    assert not station_file.file(workspace.home).exists()


def test_both_servers_require_user_and_password(workspace: Workspace) -> None:
    guarded = Workspace(workspace.folder, workspace.environment | {"HALLMARK_AUTH": AUTH, "HALLMARK_HOST": "0.0.0.0"})  # noqa: S104
    with up(guarded, signal.SIGTERM) as station:
        prefect, mlflow = station.url("prefect"), station.url("mlflow")
        pages = ("", "/docs", "/redoc", "/openapi.json", "/ui-settings", "/api/ready", "/api/docs")
        for url in (*(prefect + page for page in pages), mlflow):
            assert [get(url), get(url, AUTH)] == [401, 200], url
        for url in (f"{prefect}/api/admin/version", f"{mlflow}/version"):
            assert [get(url), get(url, "assayer:another"), get(url, AUTH)] == [401, 401, 200], url
        for url in (f"{prefect}/api/health", f"{mlflow}/health"):
            assert get(url) == 200

        assert status(guarded)["status"] == "up"
        train = guarded.hallmark("train", "iris", "--training.device", "cpu", "--training.epochs", "2")
        assert train.returncode == 0, train.stderr
        for command in (["status"], ["train", "iris"], ["runs"]):
            refused = workspace.hallmark(*command)
            assert refused.returncode == 2
            assert "HALLMARK_AUTH: the station requires user and password" in refused.stderr
        for command in (["status"], ["train", "iris"], ["runs"]):
            wrong = workspace.hallmark(*command, HALLMARK_AUTH="assayer:another")
            assert wrong.returncode == 2
            assert "HALLMARK_AUTH: the station has another user or password" in wrong.stderr

        files = (station_file.file(workspace.home), *workspace.home.glob("logs/*"))
        texts = [path.read_text(errors="replace") for path in files]
        processes = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True, check=True).stdout
        password = AUTH.partition(":")[2]
        assert not any(password in text for text in (*texts, processes))


@pytest.mark.parametrize("variable", ["HALLMARK_PREFECT_PORT", "HALLMARK_UI_PORT"])
def test_port_in_use_is_named(workspace: Workspace, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        refused = workspace.hallmark("up", **{variable: str(port)})
    assert refused.returncode == 2
    expected = f"{variable}: {port} on 127.0.0.1 is in use: choose another port, or stop the process that uses it"
    assert lines(refused.stderr) == [f"hallmark: {expected}"]
    assert not station_file.is_held(workspace.home)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HALLMARK_HOST": "0.0.0.0"}, "HALLMARK_HOST: other machines can reach 0.0.0.0: set HALLMARK_AUTH"),  # noqa: S104
        ({"HALLMARK_AUTH": "only-a-secret"}, "HALLMARK_AUTH: expected user:password"),
        ({"HALLMARK_PRUNE": "-1d"}, "HALLMARK_PRUNE: expected a number and s, m, h or d"),
        ({"HALLMARK_AUTH": "me:only-a-sécret"}, "HALLMARK_AUTH: expected user:password, in ASCII"),
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "PREFECT_API_URL: names http://127.0.0.1:9/api"),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "MLFLOW_TRACKING_URI: names http://127.0.0.1:9"),
        ({"HALLMARK_SCHEDULES": "/nowhere/schedules.toml"}, "/nowhere/schedules.toml"),
    ],
)
def test_invalid_settings_are_refused_before_the_start(
    workspace: Workspace, environment: dict[str, str], message: str
) -> None:
    refused = workspace.hallmark("up", **environment)
    assert refused.returncode == 2
    assert len(lines(refused.stderr)) == 1
    assert refused.stderr.startswith(f"hallmark: {message}")
    assert "only-a-s" not in refused.stderr
    assert not list(workspace.home.glob("logs/*"))


def test_part_that_does_not_start_is_named_and_the_others_are_stopped(workspace: Workspace) -> None:
    database = f"sqlite+aiosqlite:///{workspace.folder}/nowhere/prefect.db"
    refused = workspace.hallmark("up", PREFECT_API_DATABASE_CONNECTION_URL=database)
    assert refused.returncode == 2
    assert lines(refused.stderr)[0].startswith("hallmark: the Prefect server did not start: ")
    until(lambda: not listens(workspace))


def test_station_is_recognised_by_its_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = station_file.StationPart(name="mlflow", pid=2, log=tmp_path / "log", url="http://127.0.0.1:5000")
    station = station_file.Station(pid=1, started=datetime.now(UTC), store="sqlite:///x", guarded=True, parts=(part,))
    assert station_file.current(tmp_path) is None
    station_file.record(station, tmp_path)
    assert station_file.current(tmp_path) is None
    with FileLock(station_file.lock(tmp_path)):
        assert station_file.current(tmp_path) == station
        newer = station.model_dump(mode="json") | {"field_of_a_newer_version": {}}
        station_file.file(tmp_path).write_text(json.dumps(newer))
        assert station_file.current(tmp_path) == station
        station_file.file(tmp_path).write_text("cut")
        assert station_file.current(tmp_path) is None
    assert "the running station is not used: " in caplog.text
    station_file.record(station, tmp_path)
    assert not station_file.is_held(tmp_path)
    assert station_file.recorded(tmp_path) == station
    assert station.url("mlflow") == "http://127.0.0.1:5000"


def test_credentials_are_required_only_by_servers_with_a_password(tmp_path: Path) -> None:
    station = station_file.Station(pid=1, started=datetime.now(UTC), store="sqlite:///x", guarded=True, parts=())
    credentials = {
        "PREFECT_API_AUTH_STRING": "me:a:b",
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": "a:b",
    }
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert station.credentials("me:a:b", nowhere) == credentials
    assert station.model_copy(update={"guarded": False}).credentials("me:a:b", nowhere) == {}
    with pytest.raises(InputError, match="HALLMARK_AUTH: the station requires"):
        station.credentials(None, nowhere)
    station_file.file(tmp_path).write_text("{}")
    with pytest.raises(InputError, match="was not written by `hallmark up`"):
        station_file.recorded(tmp_path)
