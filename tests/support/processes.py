"""Start commands and servers as processes, and wait for conditions."""

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
"""Default timeout in seconds."""


def until(condition: Callable[[], T], seconds: float = LIMIT, pause: float | None = None) -> T:
    """Call a condition until its result is true; return that result.

    Args:
        condition: the function to call.
        seconds: the test fails after this time.
        pause: seconds between two calls. By default ten times as long as the last call took, between 0.05 and 1 second:
            many conditions send requests to a server, and would slow down the other tests.
    """
    deadline = time.monotonic() + seconds
    while True:
        started = time.monotonic()
        if result := condition():
            return result
        assert started < deadline, f"the condition was not met within {seconds} seconds"
        time.sleep(min(max(0.05, 10 * (time.monotonic() - started)), 1) if pause is None else pause)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def hallmark(*tokens: str, cwd: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [HALLMARK, *tokens],
        env=os.environ | environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip


@contextmanager
def process(command: list[str], log: Path, cwd: Path = ROOT, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process in a new process group. The whole group is terminated at the end of the block."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=cwd, env=os.environ | environment, start_new_session=True
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
    """Start a Prefect server with its scheduler and automations, as `prefect server start` does."""
    application = ["--factory", "prefect.server.api.server:create_app"]
    command = [sys.executable, "-m", "uvicorn", *application, "--host", "127.0.0.1", "--port", str(port)]
    databases.prefect(folder / "prefect.db")
    environment = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with process(command, folder / "server.log", **environment) as started:
        until(lambda: answers(f"http://127.0.0.1:{port}/api"))
        yield started


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Start an MLflow server that also serves artifacts."""
    store = databases.mlflow(folder / "mlflow.db")
    options = {
        "backend-store-uri": store,
        "artifacts-destination": str(folder / "files"),
        "host": "127.0.0.1",
        "port": str(port),
        "workers": "1",
    }
    command = [sys.executable, "-m", "mlflow", "server", *(f"--{name}={value}" for name, value in options.items())]
    # Job execution starts another process, for language models only.
    environment = {
        "MLFLOW_TRACKING_URI": "",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with process(command, folder / "mlflow.log", **environment) as started:
        until(lambda: answers(f"http://127.0.0.1:{port}"))
        yield started
