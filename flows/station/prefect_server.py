"""An embedded Prefect server for the duration of one command, used if the settings name no server.

Prefect can start such a server by itself, but only when the flow is called: the caller then waits for it and imports
the server's code a second time (2.9 s). Started here, it boots on another core while the command imports torch and
MLflow. It uses the same database as a station (`hallmark up`), which shows its runs later.

Run as a module, `python -m hallmark.flows.station.prefect_server DESCRIPTOR`, this file is the server, embedded or of a
station.
"""

import atexit
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from hallmark.flows.station import child_process
from hallmark.flows.station.child_process import BOOT_SECONDS, FINISH_SECONDS, STOP_SECONDS, module_command
from hallmark.tasks.common.errors import InputError, one_line
from hallmark.tasks.runtime import prefect_api, settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

ENVIRONMENT = {
    "PREFECT__SERVER_EPHEMERAL": "1",  # like Prefect's own ephemeral server: no UI, no scheduler
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # its console output goes to the log file
}


def protection(url: str) -> dict[str, str]:
    """Return the environment variables that switch on Prefect's own protection, which lies behind the request guard.

    Args:
        url: address of the server, without `/api`: the only origin whose pages may send requests.
    """
    return {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url, "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true"}


def provide(log: Path) -> Callable[[], None]:
    """Provide a Prefect server for this process: that of PREFECT_API_URL, of the station, or an embedded one.

    The embedded server ends with this process, also if the process is killed.

    Args:
        log: file to which the embedded server writes warnings and errors.

    Returns:
        a function `wait()` that returns when the server answers.

    Raises:
        InputError: the server of PREFECT_API_URL or of the station does not answer, or HALLMARK_AUTH is invalid.
    """
    if prefect_api.use_running():
        return lambda: None
    process, url = _start(log)
    # Prefect sends its last logs and events when threads are shut down, before atexit callbacks run.
    atexit.register(_stop, process)
    prefect_api.use(url, settings.from_environment().credentials)
    return lambda: _wait(url, process, log)


def _start(log: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("ab") as output:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            module_command("hallmark.flows.station.prefect_server", str(listener.fileno())),
            env=os.environ | ENVIRONMENT | protection(url),
            # The server runs until this pipe is closed, which kill -9 does too.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            # Ctrl-C must reach the command alone, which still has to report to the server how its flow ended.
            start_new_session=True,
        )
        return process, f"{url}/api"


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        process.communicate(timeout=STOP_SECONDS)  # closes the pipe
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while not prefect_api.answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            address = prefect_api.own_database()
            file = Path(address.partition("///")[2].partition("?")[0]) if address.startswith("sqlite") else None
            fault = damage(file) if file and file.exists() else ""
            raise InputError(f"the embedded Prefect server did not start: {fault or f'see {log}'}")
        time.sleep(0.05)


def damage(database: Path) -> str:
    """Return what is wrong with a SQLite database of a Prefect server, and what to do; empty text for a sound one."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    remedy = "move it away, which loses only the history of flow runs, or restore a backup"
    return "" if found == "ok" else f"{database} is damaged ({one_line(found)[:160]}): {remedy}"


def application() -> "ASGIApp":
    """Return Prefect's server behind the request guard."""
    from prefect.server.api.server import create_app

    from hallmark.flows.station.request_guard import RequestGuard

    machine = settings.from_environment()
    return RequestGuard(create_app(), machine.host, machine.credentials, health="/api/health")


def _serve(descriptor: int) -> None:
    """Serve Prefect's API on an inherited socket until stdin closes."""
    import uvicorn
    from filelock import FileLock
    from prefect.settings import PREFECT_HOME

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # The start migrates the database. On a new database, servers that start at the same time would collide.
            home = PREFECT_HOME.value()
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(home / "hallmark-start.lock"):
                await super().startup(sockets)

    child_process.follow_owner()
    config = uvicorn.Config(
        application,
        factory=True,
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
