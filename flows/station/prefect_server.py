"""A Prefect server for the length of one command, where the settings name none.

Prefect starts such a server by itself, but only after the flow is called, while the caller waits for it and
imports the server's code a second time (2.9 s). Started here, it boots on another core while the command imports
torch and MLflow. It uses Prefect's own database, so that `prefect server start` shows these runs later.

Run as a module (`python -m hallmark.flows.station.prefect_server DESCRIPTOR`) this file is that server.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import prefect_api

ENVIRONMENT = {
    "PREFECT__SERVER_EPHEMERAL": "1",  # as Prefect's own: no UI, no scheduler
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # its console is our log file
}
BOOT_SECONDS = 120.0  # the first boot on a machine makes the database
STOP_SECONDS = 10.0
FINISH_SECONDS = 3  # which a server gives to open connections, when it ends


def provide(log: Path) -> Callable[[], None]:
    """Give the flows of this process a Prefect server: that of the settings, of the station, or an embedded one.

    The embedded one ends with this process, however that ends.

    Args:
        log: where the embedded server writes warnings and errors.

    Returns:
        `wait()`, which returns when the server answers.

    Raises:
        InputError: the server that the settings name, or the station's, does not answer.
    """
    if prefect_api.use_running():
        return lambda: None
    process, url = _start(log)
    # Prefect sends its last logs and events when threads are shut down, which is before these callbacks.
    atexit.register(_stop, process)
    prefect_api.use(url)
    return lambda: _wait(url, process, log)


def _start(log: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "hallmark.flows.station.prefect_server", str(listener.fileno())],
            env=os.environ | ENVIRONMENT,
            # The server lives as long as this pipe is open: kill -9 closes it too.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            # Ctrl-C reaches the command alone, which has yet to tell the server how its flow ended.
            start_new_session=True,
        )
        return process, f"http://127.0.0.1:{listener.getsockname()[1]}/api"


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
            raise InputError(f"the embedded Prefect server did not start: see {log}")
        time.sleep(0.05)


def follow_owner() -> None:
    """End this process when the one that holds the other end of its stdin has ended, however that ended."""

    def follow() -> None:
        os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read(), whose lock Python wants back when it ends
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()


def _serve(descriptor: int) -> None:
    """Serve Prefect's API on an inherited socket until stdin closes."""
    import uvicorn
    from filelock import FileLock
    from prefect.settings import PREFECT_HOME

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # The start migrates Prefect's database; on a fresh one, servers that start together would collide.
            home = PREFECT_HOME.value()
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(home / "hallmark-start.lock"):
                await super().startup(sockets)

    follow_owner()
    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
