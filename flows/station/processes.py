"""The processes of a station: a Prefect server, an MLflow server and the process that serves the schedules.

The servers' sockets are opened here and inherited, so that a port in use is found before any process has started. Each
process has its own session, so Ctrl-C reaches the supervisor alone. Each also holds one end of a pipe, which closes
when the supervisor is killed.
"""

import errno
import ipaddress
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from hallmark.flows.station import child_process, prefect_server
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import prefect_api, signals, station_file
from hallmark.tasks.runtime.settings import Settings
from hallmark.tasks.runtime.station_file import MLFLOW, PREFECT, SCHEDULES, StationPart

TITLES = {
    PREFECT: "the Prefect server",
    MLFLOW: "the MLflow server",
    SCHEDULES: "the process that serves the schedules",
}
PORTS = {PREFECT: "prefect_port", MLFLOW: "ui_port"}
"""Settings of the servers' ports."""

STOP_SECONDS = 20.0
"""Time limit for the schedules to stop, and then for both servers, before they are killed."""

FIRST_REPAIR_SECONDS = 60.0
"""Time from the start of a station to its first repair, if that is not due earlier."""

POLL_SECONDS = 0.1
"""Interval at which processes and servers are checked."""

QUIET = {
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # it contacts amplitude.com when opened, even without analytics (3.8)
}
"""Environment variables that keep Prefect's UI from contacting other hosts. `hallmark.flows` switches off the rest."""


@dataclass
class Running:
    """A part of the station and its process."""

    part: StationPart
    process: "subprocess.Popen[bytes]"


@contextmanager
def listen(machine: Settings, name: str) -> Iterator[socket.socket]:
    """Open the socket of a server.

    Raises:
        InputError: the port is in use, or the host cannot be bound.
    """
    port = getattr(machine, PORTS[name])
    variable = f"HALLMARK_{PORTS[name].upper()}"
    family = socket.AF_INET6 if ":" in machine.host else socket.AF_INET
    try:
        listener = socket.create_server((machine.host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = f"{port} on {machine.host} is in use: choose another port, or stop the process that uses it"
            raise InputError(f"{variable}: {hint}") from error
        raise InputError(f"HALLMARK_HOST, {variable}: {machine.host}, {port}: {error.strerror or error}") from error
    with listener:
        yield listener


def start_all(machine: Settings, listeners: dict[str, socket.socket], running: list[Running]) -> None:
    """Start all parts and wait until they are ready.

    Args:
        machine: the settings.
        listeners: sockets of the servers, by part.
        running: each part that has started is appended, also if a later one fails.

    Raises:
        InputError: a part does not start.
    """
    stamp = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-station"
    logs = {name: machine.home / "logs" / f"{stamp}-{name}.log" for name in TITLES}
    logs[PREFECT].parent.mkdir(exist_ok=True)
    # Without the variables of an embedded server, which has no UI and no scheduler.
    inherited = {name: value for name, value in os.environ.items() if name not in prefect_server.ENVIRONMENT}

    def start(name: str, environment: dict[str, str], *module: str) -> Running:
        listener = listeners.get(name)
        with signals.held(), logs[name].open("wb") as output:
            process = subprocess.Popen(
                child_process.module_command(*module),
                env=inherited | QUIET | environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[listener.fileno()] if listener else [],
                start_new_session=True,
            )
            url = _url(machine, name) if listener else None
            running.append(Running(StationPart(name=name, pid=process.pid, log=logs[name], url=url), process))
        if listener:
            listener.close()  # otherwise clients of a server that has ended would wait for an answer
        return running[-1]

    prefect, mlflow = str(listeners[PREFECT].fileno()), str(listeners[MLFLOW].fileno())
    servers = [
        start(PREFECT, _prefect_environment(machine), "hallmark.flows.station.prefect_server", prefect),
        start(MLFLOW, _mlflow_environment(machine), "hallmark.flows.station.mlflow_server", mlflow),
    ]
    for server in servers:
        _wait(server, partial(prefect_api.answers, health_url(server.part)))
    schedules = start(SCHEDULES, _schedules_environment(machine), "hallmark.flows.station.schedules_process")
    _wait(schedules, lambda: _is_serving(schedules.part.log))


def stop_all(running: list[Running]) -> None:
    """Stop the schedules, then both servers: SIGTERM first, SIGKILL after `STOP_SECONDS`."""
    _stop([one for one in running if one.part.name == SCHEDULES])
    _stop([one for one in running if one.part.name != SCHEDULES])


@contextmanager
def repairs(machine: Settings) -> Iterator[Callable[[], None]]:
    """Yield a function that starts a repair unless one is running; one that runs is ended with the block.

    A repair is a process of its own, since it imports libraries that the station does not need otherwise.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        for process in started:
            if process.poll() is None:
                return
            process.communicate()  # closes its pipe
        inherited = {name: value for name, value in os.environ.items() if name not in prefect_server.ENVIRONMENT}
        with (machine.home / "logs" / "station-repair.log").open("ab") as output, signals.held():
            process = subprocess.Popen(
                child_process.module_command("hallmark.flows.station.repair"),
                env=inherited | QUIET,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            started[:] = [process]

    try:
        yield start
    finally:
        for process in started:
            process.terminate()
            try:
                process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def describe_end(part: StationPart) -> str:
    """Describe how a part ended, in one line."""
    code = part.ended or 0
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"{TITLES[part.name]} ended {how}: {last_line(part.log)} (log: {part.log})"


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank, at most 300 characters."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "its log is empty"


def health_url(part: StationPart) -> str:
    """Return the base URL under which a server answers `/health`."""
    return f"{part.url}/api" if part.name == PREFECT else f"{part.url}"


def is_loopback(host: str) -> bool:
    """Return whether a host can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _wait(one: Running, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + child_process.BOOT_SECONDS
    while not is_ready():
        if one.process.poll() is not None or time.monotonic() > deadline:
            raise InputError(f"{TITLES[one.part.name]} did not start: {last_line(one.part.log)} (log: {one.part.log})")
        time.sleep(POLL_SECONDS)


def _is_serving(log: Path) -> bool:
    """Return whether the log of the schedules' process has the line that it writes when it is ready."""
    return any(line.startswith("serving ") for line in log.read_text(errors="replace").splitlines())


def _stop(some: list[Running]) -> None:
    for one in some:
        one.process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for one in some:
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(max(0.0, deadline - time.monotonic()))
        # Its session may hold child processes that are still running.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait()
        if one.process.stdin:
            one.process.stdin.close()


def _url(machine: Settings, name: str) -> str:
    """Return the URL of a server for clients on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(machine.host, machine.host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{getattr(machine, PORTS[name])}"


def _prefect_environment(machine: Settings) -> dict[str, str]:
    url = _url(machine, PREFECT)
    return prefect_server.protection(url) | {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_SERVER_API_HOST": machine.host,
        "PREFECT_SERVER_API_PORT": str(machine.prefect_port),
        "PREFECT_API_URL": f"{url}/api",
        # Relative, because the UI may be opened under any name of the server, and requests to another are refused.
        "PREFECT_SERVER_UI_API_URL": "/api",
    }


def _mlflow_environment(machine: Settings) -> dict[str, str]:
    # The request guard checks host names. MLflow's own list lacks addresses that HALLMARK_HOST may name.
    hosts = os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", "*")
    return {"MLFLOW_TRACKING_URI": machine.tracking_uri, "MLFLOW_SERVER_ALLOWED_HOSTS": hosts}


def _schedules_environment(machine: Settings) -> dict[str, str]:
    servers = {
        "PREFECT_API_URL": f"{_url(machine, PREFECT)}/api",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "MLFLOW_TRACKING_URI": _url(machine, MLFLOW),
    }
    return servers | station_file.credentials(machine.credentials)
