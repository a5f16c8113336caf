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
from tests.support.stations import Place, lines

DAILY = """
[[schedule]]
name = "iris-daily"
experiment = "iris"
interval = "1d"
missed = "skip"
"""

AUTH = "assayer:a secret of 25 letters"


def exists(part: station_file.StationPart) -> bool:
    """Whether there is a process in the part's session."""
    try:
        os.killpg(part.pid, 0)
    except ProcessLookupError:
        return False
    return True


def status(place: Place) -> dict[str, Any]:
    done = place.hallmark("status", "--json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(lines(done.stdout)[-1])
    return said


def gone(found: station_file.Station) -> bool:
    return not any(map(exists, found.parts))


def get(url: str, auth: str | None = None) -> int:
    """Status of the answer."""
    token = base64.b64encode((auth or "").encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"} if auth else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own address
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@contextmanager
def up(place: Place, number: signal.Signals) -> Iterator[station_file.Station]:
    """A station in the foreground, which a signal stops at the end of the block."""
    with place.foreground() as process:
        assert process.stdout
        addresses = [process.stdout.readline() for _ in range(2)]
        found = place.station
        assert addresses == [f"Prefect UI: {found.url('prefect')}\n", f"MLflow UI:  {found.url('mlflow')}\n"]
        yield found
        process.send_signal(number)
        _, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert lines(error)[-1] == "station  stopped; schedules are kept and run again after `hallmark up`"
    assert gone(found)
    assert not station_file.file(place.home).exists()
    assert place.hallmark("status").stderr == "hallmark: no station is up: start one with `hallmark up`\n"


def test_station_is_used_by_every_command_and_leaves_no_process_behind(place: Place) -> None:
    place.schedules.write_text(DAILY)
    with up(place, signal.SIGINT) as found:
        result = use(place, found)
    # What the server has kept is whole without it.
    runs = json.loads(lines(place.hallmark("runs", "--json").stdout)[-1])["runs"]
    assert [run["id"] for run in runs] == [result["run_id"]]
    verify = place.hallmark("verify", "models:/iris@champion", "--registered", "--json")
    assert json.loads(lines(verify.stdout)[-1])["sha256"] == result["sha256"]


def use(place: Place, found: station_file.Station) -> dict[str, Any]:
    """Use a station that serves the daily schedule; return what a training printed."""
    prefect, mlflow = found.url("prefect"), found.url("mlflow")
    assert get(prefect) == get(mlflow) == 200
    assert place.hallmark("ui").stdout == f"the station already serves the MLflow UI: {mlflow}\n"

    again = place.hallmark("up")
    assert again.returncode == 2
    assert lines(again.stderr)[-1].startswith(f"hallmark: a station is up (pid {found.pid})")
    assert place.station == found

    train = place.hallmark("train", "iris", "--training.device", "cpu", "--training.epochs", "2", "--json")
    assert train.returncode == 0, train.stderr
    result: dict[str, Any] = json.loads(lines(train.stdout)[-1])
    assert lines(train.stdout) == [json.dumps(result)]
    server = f"{mlflow}/ajax-api/2.0/mlflow"
    with urllib.request.urlopen(f"{server}/runs/get?run_id={result['run_id']}") as answer:  # noqa: S310
        assert json.load(answer)["run"]["info"]["status"] == "FINISHED"

    until(lambda: bool(status(place)["next"]))
    said = status(place)
    assert said["status"] == "up"
    assert [(part["name"], part["fault"]) for part in said["parts"]] == [
        ("prefect", None), ("mlflow", None), ("schedules", None),
    ]  # fmt: skip
    assert {(run["schedule"], run["state"]) for run in said["next"]} == {("iris-daily", "Scheduled")}
    assert said["running"] == []
    assert [(run["schedule"], run["state"]) for run in said["last"]] == [(None, "Completed")]
    return result


def test_signal_during_the_start_stops_the_started_parts(place: Place) -> None:
    with place.foreground() as process:
        until(lambda: len(list(place.home.glob("logs/*-station-mlflow.log"))) == 1)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, error
    assert not station_file.file(place.home).exists()
    until(lambda: not listens(place))


def listens(place: Place) -> bool:
    def is_taken(variable: str) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(place.environment[variable])), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True

    return is_taken("HALLMARK_PREFECT_PORT") or is_taken("HALLMARK_UI_PORT")


def test_parts_end_with_a_killed_station_and_a_dead_part_is_named(place: Place) -> None:
    first = place.hallmark("up", "--detach")
    assert first.returncode == 0, first.stderr
    killed = place.station
    assert lines(first.stdout) == [f"Prefect UI: {killed.url('prefect')}", f"MLflow UI:  {killed.url('mlflow')}"]
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: gone(killed))
    for command in ("status", "down"):
        stale = place.hallmark(command)
        assert stale.returncode == 2
        assert len(lines(stale.stderr)) == 1
        assert f"is stale: its station (pid {killed.pid}) was killed" in stale.stderr
    runs = place.hallmark("runs")
    assert runs.returncode == 0, runs.stderr

    second = place.hallmark("up", "--detach")
    assert second.returncode == 0, second.stderr
    found = place.station
    assert found.pid != killed.pid
    server = next(part for part in found.parts if part.name == "prefect")
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: place.station.parts[0].ended == -signal.SIGKILL)
    broken = place.hallmark("status")
    assert broken.returncode == 2
    assert len(lines(broken.stderr)) == 1
    assert broken.stderr.startswith("hallmark: the Prefect server ended by SIGKILL")
    train = place.hallmark("train", "iris")
    assert train.returncode == 2
    assert "the station's Prefect server" in train.stderr
    down = place.hallmark("down")
    assert down.returncode == 0, down.stderr
    assert gone(found)
    assert not station_file.file(place.home).exists()


def test_both_servers_require_user_and_password(place: Place) -> None:
    guarded = Place(place.folder, place.environment | {"HALLMARK_AUTH": AUTH, "HALLMARK_HOST": "0.0.0.0"})  # noqa: S104
    with up(guarded, signal.SIGTERM) as found:
        asked = [f"{found.url('prefect')}/api/admin/version", f"{found.url('mlflow')}/version", found.url("mlflow")]
        for url in asked:
            assert [get(url), get(url, "assayer:another"), get(url, AUTH)] == [401, 401, 200], url
        for url in (f"{found.url('prefect')}/api/health", f"{found.url('mlflow')}/health"):
            assert get(url) == 200

        assert status(guarded)["status"] == "up"
        train = guarded.hallmark("train", "iris", "--training.device", "cpu", "--training.epochs", "2")
        assert train.returncode == 0, train.stderr
        for command in (["status"], ["train", "iris"], ["runs"]):
            refused = place.hallmark(*command)
            assert refused.returncode == 2
            assert "HALLMARK_AUTH: the station requires user and password" in refused.stderr
        for command in (["status"], ["train", "iris"], ["runs"]):
            wrong = place.hallmark(*command, HALLMARK_AUTH="assayer:another")
            assert wrong.returncode == 2
            assert "HALLMARK_AUTH: the station has another user or password" in wrong.stderr

        written = [
            path.read_text(errors="replace") for path in (station_file.file(place.home), *place.home.glob("logs/*"))
        ]
        processes = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True, check=True).stdout
        password = AUTH.partition(":")[2]
        assert not any(password in text for text in (*written, processes))


@pytest.mark.parametrize("variable", ["HALLMARK_PREFECT_PORT", "HALLMARK_UI_PORT"])
def test_port_in_use_is_named(place: Place, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        refused = place.hallmark("up", **{variable: str(port)})
    assert refused.returncode == 2
    expected = f"{variable}: {port} on 127.0.0.1 is in use: choose another port, or stop the process that uses it"
    assert lines(refused.stderr) == [f"hallmark: {expected}"]
    assert not station_file.is_held(place.home)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HALLMARK_HOST": "0.0.0.0"}, "HALLMARK_HOST: other machines can reach 0.0.0.0: set HALLMARK_AUTH"),  # noqa: S104
        ({"HALLMARK_AUTH": "only-a-secret"}, "HALLMARK_AUTH: value error, expected user:password"),
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "PREFECT_API_URL: names http://127.0.0.1:9/api"),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "MLFLOW_TRACKING_URI: names http://127.0.0.1:9"),
        ({"HALLMARK_SCHEDULES": "/nowhere/schedules.toml"}, "/nowhere/schedules.toml"),
    ],
)
def test_invalid_settings_are_refused_before_the_start(place: Place, environment: dict[str, str], said: str) -> None:
    refused = place.hallmark("up", **environment)
    assert refused.returncode == 2
    assert len(lines(refused.stderr)) == 1
    assert refused.stderr.startswith(f"hallmark: {said}")
    assert "only-a-secret" not in refused.stderr
    assert not list(place.home.glob("logs/*"))


def test_part_that_does_not_start_is_named_and_the_others_are_stopped(place: Place) -> None:
    database = f"sqlite+aiosqlite:///{place.folder}/nowhere/prefect.db"
    refused = place.hallmark("up", PREFECT_API_DATABASE_CONNECTION_URL=database)
    assert refused.returncode == 2
    assert lines(refused.stderr)[0].startswith("hallmark: the Prefect server did not start: ")
    until(lambda: not listens(place))


def test_station_is_recognised_by_its_lock(tmp_path: Path) -> None:
    part = station_file.StationPart(name="mlflow", pid=2, log=tmp_path / "log", url="http://127.0.0.1:5000")
    made = station_file.Station(pid=1, started=datetime.now(UTC), store="sqlite:///x", guarded=True, parts=(part,))
    assert station_file.current(tmp_path) is None
    station_file.record(made, tmp_path)
    assert station_file.current(tmp_path) is None
    with FileLock(station_file.lock(tmp_path)):
        assert station_file.current(tmp_path) == made
    assert not station_file.is_held(tmp_path)
    assert station_file.recorded(tmp_path) == made
    assert made.url("mlflow") == "http://127.0.0.1:5000"


def test_credentials_are_required_only_by_servers_with_a_password(tmp_path: Path) -> None:
    made = station_file.Station(pid=1, started=datetime.now(UTC), store="sqlite:///x", guarded=True, parts=())
    given = {
        "PREFECT_API_AUTH_STRING": "me:a:b",
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": "a:b",
    }
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert made.credentials("me:a:b", nowhere) == given
    assert made.model_copy(update={"guarded": False}).credentials("me:a:b", nowhere) == {}
    with pytest.raises(InputError, match="HALLMARK_AUTH: the station requires"):
        made.credentials(None, nowhere)
    station_file.file(tmp_path).write_text("{}")
    with pytest.raises(InputError, match="was not written by `hallmark up`"):
        station_file.recorded(tmp_path)
