"""`hallmark` as it is typed: signals, kills and servers of its own, for which a process is the point."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import onnxruntime
import pytest
from filelock import FileLock

from hallmark.tasks.common.records import Attempt
from hallmark.tasks.tracking import resume, run_lifecycle
from hallmark.tasks.tracking.run_queries import recent_runs
from tests.conftest import ROOT
from tests.pipelines.test_resume import lock_of
from tests.pipelines.test_retrain import LIMIT, new_name, versions
from tests.support import registered
from tests.support.interrupted import named, runs, statuses, tokens
from tests.support.processes import HALLMARK, hallmark
from tests.support.registered import Call, aliases

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


def until(happened: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + LIMIT
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> Call:
    return registered.console(capsys)


def test_one_command_from_a_preset_to_a_registered_model_with_the_embedded_server(tmp_path: Path) -> None:
    done = hallmark("train", "iris", "--name", "walk", "--training.epochs", "5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(rows) == ["accuracy", "loss", "parity", "findings", "model", "onnx", "run", "next"]
    assert rows["model"] == "walk version 1, champion"
    assert rows["parity"].startswith("passed")
    assert onnxruntime.InferenceSession(rows["onnx"]).get_outputs()[0].name == "label"
    assert rows["next"].endswith("hallmark ui")
    steps = [line.split()[0] for line in done.stderr.splitlines()]
    assert steps == ["prepare", "fit", "evaluate", "finding", "export", "verify", "stamp", "register", "card"]
    assert "\x1b" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_killed_run_is_killed_in_mlflow_too(prefect_server: str, number: signal.Signals, tmp_path: Path) -> None:
    name = f"k{uuid.uuid4().hex[:12]}"
    path = tmp_path / f"{name}.toml"
    path.write_text(SLOW)
    environment = os.environ | {"PREFECT_API_URL": prefect_server}
    process = subprocess.Popen([HALLMARK, "train", str(path)], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        while not [run for run in recent_runs(name, 1) if run.status == "RUNNING"]:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, error
    assert error.splitlines()[-1] == "hallmark: interrupted"
    assert "Traceback" not in error
    assert [run.status for run in recent_runs(name, 10)] == ["KILLED"]


@pytest.fixture
def serving() -> Iterator[list["subprocess.Popen[bytes]"]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def test_the_ui_serves_the_runs_on_this_machine_alone(
    console: Call, serving: list["subprocess.Popen[bytes]"], iris: tuple[object, object]
) -> None:
    attempt = Attempt(uuid.uuid4().hex, "iris", {}, Path())
    with run_lifecycle.open_run(iris[0], iris[1], attempt, "shown in the ui", {}) as shown:  # type: ignore[arg-type]
        pass
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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
            query = f"{address}/api/2.0/mlflow/runs/get?run_id={shown.id}"
            with urllib.request.urlopen(query, timeout=5) as answer:  # noqa: S310 - our own address
                found = json.load(answer)
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert found["run"]["info"]["run_name"] == "shown in the ui"
    with urllib.request.urlopen(address, timeout=5) as page:
        assert b"MLflow" in page.read()
    # A server on 0.0.0.0 would answer at every address of this machine.
    with pytest.raises(OSError, match=r"refused|timed out"):
        socket.create_connection(("127.0.0.2", port), timeout=1)


def test_a_retraining_that_was_killed_goes_on_in_its_run_and_the_champion_stays(
    server_for_children: str,  # noqa: ARG001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HALLMARK_HOME", str(tmp_path / "home"))
    name = new_name()
    source = tmp_path / f"{name}.toml"
    source.write_text('[data]\nkind = "digits"\n[model]\nkind = "linear"\n[training]\ndevice = "cpu"\nepochs = 2\n')
    command = [HALLMARK, "retrain", str(source)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    longer = [*command, "--training.epochs", "1500", "--training.batch_size", "16"]
    with subprocess.Popen(longer, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        until(lambda: any((tmp_path / "home" / "unfinished").glob("*/*.safetensors")), process)
        resume.close_orphans()
        assert sorted(one.info.status for one in runs(name)) == ["FINISHED", "RUNNING"]  # its process lives
        os.kill(process.pid, signal.SIGKILL)
    assert (aliases(name), versions(name)) == ({"champion": 1}, 1)
    resume.close_orphans()
    (run,) = (one for one in runs(name) if one.info.status == "KILLED")
    done = subprocess.run([*longer, "--json"], cwd=ROOT, check=True, capture_output=True, text=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["decision"]["run_id"] == run.info.run_id
    assert sorted(one.info.status for one in runs(name)) == ["FINISHED", "FINISHED"]
    assert versions(name) == 2


@pytest.mark.usefixtures("home", "server_for_children")
def test_two_processes_at_once_are_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = named()
    lock = FileLock(lock_of(experiment, monkeypatch))
    arguments = [HALLMARK, "train", *tokens(experiment)]
    with lock, subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr
        said = [next(process.stderr).split()[0] for _ in range(2)]
        assert said == ["prepare", "waiting"]
        assert statuses(experiment.name) == ["KILLED"]
        lock.release()
        said += [line.split()[0] for line in process.stderr]
    assert process.returncode == 0
    assert said[2:] == ["resumed", "fit", "evaluate", "finding", "export", "verify", "stamp", "register", "card"]
    assert statuses(experiment.name) == ["FINISHED"]
