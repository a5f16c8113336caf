"""`hallmark` in its own process: signals, kills, embedded servers and locks."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import matplotlib
import onnxruntime
import pytest
from filelock import FileLock

from hallmark.tasks.common.records import Attempt
from hallmark.tasks.tracking import resume, run_lifecycle
from hallmark.tasks.tracking.run_queries import recent_runs
from tests.pipelines.test_resume import lock_of
from tests.pipelines.test_retrain import new_name, versions
from tests.support import databases, forks, projects
from tests.support.consoles import Call
from tests.support.interrupted import iris_experiment, runs, statuses, tokens
from tests.support.processes import HALLMARK, LIMIT, hallmark
from tests.support.registered import aliases

SLOW = """
[data]
kind = "digits"
[model]
kind = "linear"
[training]
epochs = 1000000
batch_size = 1
optimizer = "sgd"
"""


def until(condition: Callable[[], bool], process: BaseProcess) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert process.exitcode is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_command_trains_and_registers_a_preset_with_the_embedded_server_in_another_project(
    home: Path, tmp_path: Path
) -> None:
    project, user = projects.foreign(tmp_path / "project"), tmp_path / "user"
    written, database = projects.files(project), databases.prefect(home / "prefect" / "prefect.db")
    unset = {"PREFECT_HOME": "", "HALLMARK_MIRROR": "/no/url", "npm_config_registry": "no url"}  # none is read
    theirs = {"HOME": str(user), "MPLCONFIGDIR": matplotlib.get_cachedir()}
    arguments = ("--name", "walk", "--training.epochs", "5")
    completed = hallmark("train", "iris", *arguments, cwd=project, **unset, **theirs)
    assert completed.returncode == 0, completed.stderr
    rows = dict(line.split(maxsplit=1) for line in completed.stdout.splitlines())
    assert list(rows) == ["accuracy", "loss", "parity", "findings", "model", "champion", "onnx", "run", "next"]
    assert rows["model"] == "walk version 1, champion"
    assert re.fullmatch(
        r"is version 1 \(accuracy 0\.\d{4}\): `\S*hallmark predict walk` answers with it", rows["champion"]
    )
    assert rows["parity"].startswith("passed")
    assert onnxruntime.InferenceSession(rows["onnx"]).get_outputs()[0].name == "label"
    assert rows["next"].endswith("hallmark ui")
    steps = [line.split()[0] for line in completed.stderr.splitlines()]
    assert steps == ["prepare", "fit", "evaluate", "finding", "export", "verify", "stamp", "register", "card"]
    assert "\x1b" not in completed.stdout + completed.stderr
    assert projects.files(project) == written
    assert not (user / ".prefect").exists()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("select state_type from flow_run").fetchall() == [("COMPLETED",)]


@pytest.mark.usefixtures("server_for_children")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signal_sets_the_mlflow_run_to_killed(number: signal.Signals, tmp_path: Path) -> None:
    name = f"k{uuid.uuid4().hex[:12]}"
    path = tmp_path / f"{name}.toml"
    path.write_text(SLOW)
    process = forks.start(["train", str(path)], tmp_path)
    until(lambda: [run.status for run in recent_runs(name, 1)] == ["RUNNING"], process)
    assert process.pid
    os.kill(process.pid, number)
    process.join(60)
    error = (tmp_path / "stderr").read_text()
    assert process.exitcode == 130, error
    assert error.splitlines()[-1] == "hallmark: interrupted"
    assert "Traceback" not in error
    assert [run.status for run in recent_runs(name, 10)] == ["KILLED"]


SIGNALLED = """
import os, signal, sys, threading, time
from hallmark.flows.__main__ import main
def send():
    while "torch" not in sys.modules: time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGHUP)
threading.Thread(target=send, daemon=True).start()
sys.argv = ["hallmark", "doctor"]
main()
"""


def test_signal_during_an_import_ends_a_new_process_with_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, check=False, timeout=LIMIT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "hallmark: interrupted\n")


@pytest.mark.parametrize(
    ("redirection", "code", "error"),
    [
        ("| true; exit ${PIPESTATUS[0]}", 0, ""),
        (">/dev/full", 1, "hallmark: a file or stdout cannot be written: No space left on device: free some"),
        (">&- 2>/dev/full", 0, ""),
    ],
)
def test_stdout_of_a_process_may_be_closed_or_full(redirection: str, code: int, error: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{HALLMARK} presets {redirection}"], capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert (done.returncode, done.stderr.count("\n")) == (code, int(bool(error)))
    assert done.stderr.startswith(error)


@pytest.fixture
def serving() -> Iterator[list["subprocess.Popen[bytes]"]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def test_ui_shows_runs_and_listens_on_localhost_only(
    console: Call, serving: list["subprocess.Popen[bytes]"], iris: tuple[object, object]
) -> None:
    attempt = Attempt(uuid.uuid4().hex, "iris", {}, Path())
    with run_lifecycle.open_run(iris[0], iris[1], attempt, "shown in the ui", {}) as run:  # type: ignore[arg-type]
        pass
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, _, error = console("ui", "--port", str(port))
        assert (code, f"--port: {port} on 127.0.0.1: Address already in use" in error) == (2, True)
    command = [HALLMARK, "ui", "--port", str(port)]
    serving.append(
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True)
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while True:
        try:
            query = f"{address}/api/2.0/mlflow/runs/get?run_id={run.id}"
            with urllib.request.urlopen(query, timeout=5) as response:  # noqa: S310 - our own address
                body = json.load(response)
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert body["run"]["info"]["run_name"] == "shown in the ui"
    with urllib.request.urlopen(address, timeout=5) as page:
        assert b"MLflow" in page.read()
    # A server on 0.0.0.0 would answer on every address of this machine.
    with pytest.raises(OSError, match=r"refused|timed out"):
        socket.create_connection(("127.0.0.2", port), timeout=1)


@pytest.mark.usefixtures("server_for_children")
def test_killed_retraining_resumes_in_its_mlflow_run_and_keeps_the_champion(home: Path, tmp_path: Path) -> None:
    name = new_name()
    source = tmp_path / f"{name}.toml"
    source.write_text('[data]\nkind = "digits"\n[model]\nkind = "linear"\n[training]\ndevice = "cpu"\nepochs = 2\n')
    command = ["retrain", str(source)]
    assert forks.hallmark(*command).returncode == 0
    longer = [*command, "--training.epochs", "1500", "--training.batch_size", "16"]
    process = forks.start(longer, tmp_path)
    until(lambda: any((home / "unfinished").glob("*/*.safetensors")), process)
    resume.close_orphans()
    assert sorted(run.info.status for run in runs(name)) == ["FINISHED", "RUNNING"]  # its process is still alive
    process.kill()
    process.join()
    assert (aliases(name), versions(name)) == ({"champion": 1}, 1)
    resume.close_orphans()
    (killed,) = (run for run in runs(name) if run.info.status == "KILLED")
    completed = forks.hallmark(*longer, "--json")
    assert completed.returncode == 0, completed.stderr
    result = json.loads(completed.stdout.splitlines()[-1])
    assert result["decision"]["run_id"] == killed.info.run_id
    assert sorted(run.info.status for run in runs(name)) == ["FINISHED", "FINISHED"]
    assert versions(name) == 2


@pytest.mark.usefixtures("home", "server_for_children")
def test_second_process_waits_for_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    experiment = iris_experiment()
    lock = FileLock(lock_of(experiment, monkeypatch))

    def steps() -> list[str]:
        return [line.split()[0] for line in (tmp_path / "stderr").read_text().splitlines()]

    with lock:
        process = forks.start(["train", *tokens(experiment)], tmp_path)
        until(lambda: len(steps()) == 2, process)
        assert steps() == ["prepare", "waiting"]
        assert statuses(experiment.name) == ["KILLED"]
    process.join(LIMIT)
    assert process.exitcode == 0
    assert steps()[2:] == ["resumed", "fit", "evaluate", "finding", "export", "verify", "stamp", "register", "card"]
    assert statuses(experiment.name) == ["FINISHED"]
