"""Processes that tests start, real servers among them, and waiting for what they do."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hallmark.tasks.runtime.prefect_api import answers
from hallmark.tasks.runtime.settings import ROOT
from tests.support import databases

T = TypeVar("T")

HALLMARK = str(Path(sys.executable).with_name("hallmark"))
LIMIT = 300
"""Seconds after which what has not happened is a failure."""


def until(condition: Callable[[], T], seconds: float = LIMIT, pause: float = 0.05) -> T:
    """Wait until a condition holds, and return its value.

    A pause is at least ten times as long as the check before it, but at most a second, because a check may keep a
    server busy on which other tests wait.

    Args:
        condition: called until its value is true.
        seconds: the test fails after this time.
        pause: shortest pause between two checks, in seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        started = time.monotonic()
        if value := condition():
            return value
        assert started < deadline, f"not within {seconds} seconds"
        time.sleep(max(pause, min(1.0, 10 * (time.monotonic() - started))))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def hallmark(*tokens: str, cwd: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [HALLMARK, *tokens],
        env=os.environ | environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip


@contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a group of its own, which ends with the block, and all that it began."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=ROOT, env=os.environ | environment, start_new_session=True
        )
    try:
        yield started
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(started.pid, number)
            except ProcessLookupError:
                break
            try:
                started.wait(40)
            except subprocess.TimeoutExpired:
                continue
        started.wait()


@contextmanager
def prefect_server(folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A Prefect server as `prefect server start` runs it, with its scheduler and what evaluates automations."""
    application = ["--factory", "prefect.server.api.server:create_app"]
    command = [sys.executable, "-m", "uvicorn", *application, "--host", "127.0.0.1", "--port", str(port)]
    databases.prefect(folder / "prefect.db")
    environment = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with process(command, folder / "server.log", **environment) as started:
        until(lambda: answers(f"http://127.0.0.1:{port}/api"))
        yield started


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """An MLflow server as people run one, artifacts and all."""
    store = databases.mlflow(folder / "mlflow.db")
    options = {
        "backend-store-uri": store,
        "artifacts-destination": str(folder / "files"),
        "host": "127.0.0.1",
        "port": str(port),
        "workers": "1",
    }
    command = [sys.executable, "-m", "mlflow", "server", *(f"--{name}={value}" for name, value in options.items())]
    # Without the process that runs jobs for language models, which Hallmark has none of.
    environment = {
        "MLFLOW_TRACKING_URI": "",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with process(command, folder / "mlflow.log", **environment) as started:
        until(lambda: answers(f"http://127.0.0.1:{port}"))
        yield started
