"""A station: a Prefect server, an MLflow server and the process that serves the schedules, under one owner.

The sockets are opened here and inherited, so that a port in use is found before anything has started. Each part is a
session of its own: Ctrl-C reaches the owner alone, which ends the schedules first, whose runs still have to tell both
servers how they ended. Each part holds one end of a pipe, by which it notices that its owner has been killed.
"""

import errno
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from hallmark.flows.scheduling import schedules
from hallmark.flows.station import prefect_server
from hallmark.tasks.common.errors import HallmarkError, InputError, without_secrets
from hallmark.tasks.common.files import is_writable
from hallmark.tasks.runtime import prefect_api, signals, station_file
from hallmark.tasks.runtime.settings import Settings
from hallmark.tasks.runtime.station_file import MLFLOW, PREFECT, SCHEDULES, Part, Station

TITLES = {
    PREFECT: "the Prefect server",
    MLFLOW: "the MLflow server",
    SCHEDULES: "the process that serves the schedules",
}
PORTS = {PREFECT: "prefect_port", MLFLOW: "ui_port"}

STOP_SECONDS = 20.0
"""What the schedules get to end their runs, and then both servers together, before they are killed."""

LOCK_SECONDS = 1.0
"""Those who ask whether a station is up hold its lock for a moment."""

POLL_SECONDS = 0.1

QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # which asks amplitude.com as it opens, analytics or not (3.8)
}
"""Nothing phones home."""


@dataclass
class _Running:
    """A part, and its process."""

    part: Part
    process: "subprocess.Popen[bytes]"


def refuse(machine: Settings) -> None:
    """Refuse what the settings contradict or what would have no effect, before anything is started.

    Raises:
        InputError: in one line, what and why.
    """
    from prefect.settings import PREFECT_API_URL

    if url := PREFECT_API_URL.value():
        raise InputError(f"PREFECT_API_URL: names {without_secrets(url)}, which commands would use instead: unset it")
    if machine.tracking_uri.startswith(("http://", "https://")):
        shown = without_secrets(machine.tracking_uri)
        raise InputError(f"MLFLOW_TRACKING_URI: names {shown}, which has its server already: unset it")
    if not _is_own(machine.host) and not machine.auth:
        raise InputError(
            f"HALLMARK_HOST: others reach {machine.host}: set HALLMARK_AUTH to user:password as well, or unset it"
        )
    if not is_writable(machine.home):
        raise InputError(f"HALLMARK_HOME: {machine.home} cannot be written: make it writable or choose another folder")
    schedules.load()


def _is_own(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def run(machine: Settings, announce: Callable[[Station], None], complain: Callable[[str], None]) -> None:
    """Be a station until an interrupt; leave no process and no file behind.

    Args:
        machine: the settings, as the environment alone says them.
        announce: called when every part answers.
        complain: called once for each part that ends before the station.

    Raises:
        InputError: one is up, a port is in use, or a part does not start.
        KeyboardInterrupt: the end.
    """
    refuse(machine)
    with _alone(machine.home), ExitStack() as stack:
        listeners = {name: stack.enter_context(_listen(machine, name)) for name in PORTS}
        running: list[_Running] = []
        try:
            _start(machine, listeners, running)
            started = datetime.now(UTC)
            found = _station(machine, running, started)
            station_file.record(found, machine.home)
            announce(found)
            _watch(machine, running, started, complain)
        finally:
            with signals.held():
                _stop(running)
                station_file.file(machine.home).unlink(missing_ok=True)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    try:
        with FileLock(station_file.lock(home), timeout=LOCK_SECONDS):
            station_file.file(home).unlink(missing_ok=True)  # left by one that was killed
            yield
    except Timeout as error:
        found = station_file.recorded(home)
        what = f"a station is up (pid {found.pid})" if found else "a station is starting or ending"
        raise InputError(f"{what}: `hallmark status` says more, `hallmark down` ends it") from error


@contextmanager
def _listen(machine: Settings, name: str) -> Iterator[socket.socket]:
    port = getattr(machine, PORTS[name])
    variable = f"HALLMARK_{PORTS[name].upper()}"
    try:
        listener = socket.create_server((machine.host, port), family=_family(machine.host))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = f"{port} on {machine.host} is in use: choose another port, or end what uses it"
            raise InputError(f"{variable}: {hint}") from error
        raise InputError(f"HALLMARK_HOST, {variable}: {machine.host}, {port}: {error.strerror or error}") from error
    with listener:
        yield listener


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _url(machine: Settings, name: str) -> str:
    """Where this machine reaches a part."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(machine.host, machine.host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{getattr(machine, PORTS[name])}"


def _start(machine: Settings, listeners: dict[str, socket.socket], running: list[_Running]) -> None:
    """Start every part and wait until all answer. What has started is in `running`, however this ends."""
    stamp = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-station"
    logs = {name: machine.home / "logs" / f"{stamp}-{name}.log" for name in TITLES}
    logs[PREFECT].parent.mkdir(exist_ok=True)

    def begin(name: str, environment: dict[str, str], *module: str) -> _Running:
        listener = listeners.get(name)
        inherited = [listener.fileno()] if listener else []
        with signals.held(), logs[name].open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                env=_inherited() | QUIET | environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=inherited,
                start_new_session=True,
            )
            url = _url(machine, name) if listener else None
            running.append(_Running(Part(name=name, pid=process.pid, log=logs[name], url=url), process))
        if listener:
            listener.close()  # else whoever connects to a part that has ended would wait for an answer
        return running[-1]

    prefect, mlflow = str(listeners[PREFECT].fileno()), str(listeners[MLFLOW].fileno())
    servers = [
        begin(PREFECT, _for_prefect(machine), "hallmark.flows.station.prefect_server", prefect),
        begin(MLFLOW, _for_mlflow(machine), "hallmark.flows.station.parts", MLFLOW, mlflow),
    ]
    for one in servers:
        _wait(one, partial(prefect_api.answers, _health(one.part)))
    last = begin(SCHEDULES, _for_schedules(machine), "hallmark.flows.station.parts", SCHEDULES)
    _wait(last, lambda: _serves(last.part.log))


def _health(part: Part) -> str:
    return f"{part.url}/api" if part.name == PREFECT else f"{part.url}"


def _serves(log: Path) -> bool:
    """Whether the process that serves the schedules has said so."""
    return any(line.startswith("serving ") for line in log.read_text(errors="replace").splitlines())


def _wait(one: _Running, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + prefect_server.BOOT_SECONDS
    while not is_ready():
        if one.process.poll() is not None or time.monotonic() > deadline:
            raise InputError(f"{TITLES[one.part.name]} did not start: {_last_line(one.part.log)} (log: {one.part.log})")
        time.sleep(POLL_SECONDS)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def _inherited() -> dict[str, str]:
    """The environment, without what would make a server one without UI and scheduler."""
    return {name: value for name, value in os.environ.items() if name not in prefect_server.ENVIRONMENT}


def _for_prefect(machine: Settings) -> dict[str, str]:
    url = _url(machine, PREFECT)
    environment = {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_SERVER_API_HOST": machine.host,
        "PREFECT_SERVER_API_PORT": str(machine.prefect_port),
        "PREFECT_API_URL": f"{url}/api",
        # From another machine's browser 127.0.0.1 is that machine.
        "PREFECT_SERVER_UI_API_URL": f"{url}/api" if _is_own(machine.host) else "/api",
    }
    # In the environment, which only the owner can read; the command line is everybody's.
    return environment | ({"PREFECT_SERVER_API_AUTH_STRING": machine.credentials} if machine.credentials else {})


def _for_mlflow(machine: Settings) -> dict[str, str]:
    store = {"MLFLOW_TRACKING_URI": machine.tracking_uri}
    if _is_own(machine.host):
        return store
    # It answers to no other names than those of this machine and of private networks; here visitors give a password.
    return store | {"MLFLOW_SERVER_ALLOWED_HOSTS": os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", "*")}


def _for_schedules(machine: Settings) -> dict[str, str]:
    addresses = {"PREFECT_API_URL": f"{_url(machine, PREFECT)}/api", "MLFLOW_TRACKING_URI": _url(machine, MLFLOW)}
    return addresses | station_file.credentials(machine.credentials)


def _station(machine: Settings, running: list[_Running], started: datetime) -> Station:
    return Station(
        pid=os.getpid(),
        started=started,
        store=without_secrets(machine.tracking_uri),
        guarded=machine.auth is not None,
        parts=tuple(one.part for one in running),
    )


def _watch(machine: Settings, running: list[_Running], started: datetime, complain: Callable[[str], None]) -> None:
    """Wait for the end, and write down which part ends before it."""
    while True:
        for one in running:
            code = one.process.poll()
            if code is not None and one.part.ended is None:
                one.part = one.part.model_copy(update={"ended": code})
                station_file.record(_station(machine, running, started), machine.home)
                complain(describe_end(one.part))
        time.sleep(POLL_SECONDS)


def describe_end(part: Part) -> str:
    """How a part ended, in one line."""
    code = part.ended or 0
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"{TITLES[part.name]} ended {how}: {_last_line(part.log)} (log: {part.log})"


def _stop(running: list[_Running]) -> None:
    """End the schedules, then both servers: asked first, killed after a while."""
    _stop_together([one for one in running if one.part.name == SCHEDULES])
    _stop_together([one for one in running if one.part.name != SCHEDULES])


def _stop_together(some: list[_Running]) -> None:
    for one in some:
        one.process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for one in some:
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(max(0.0, deadline - time.monotonic()))
        # Also what it may have left in its session.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait()
        if one.process.stdin:
            one.process.stdin.close()


def detach(machine: Settings) -> Station:
    """Start a station that outlives this command, and wait until it is up.

    Raises:
        InputError: what it was refused for, or failed with.
    """
    log = machine.home / "logs" / "station.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "hallmark.flows", "up"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        while process.poll() is None:
            found = station_file.current(machine.home)
            if found and found.pid == process.pid:
                return found
            time.sleep(POLL_SECONDS)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    raise InputError(_last_line(log).removeprefix("hallmark: "))


def end(home: Path) -> Station:
    """End the station that is up, and wait until it has ended.

    Returns:
        what it was.

    Raises:
        InputError: none is up.
        HallmarkError: it does not end.
    """
    found = living(home)
    with suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + 3 * STOP_SECONDS
    while station_file.is_held(home):
        if time.monotonic() > deadline:
            raise HallmarkError(f"the station (pid {found.pid}) does not end: `kill -9 {found.pid}` ends all its parts")
        time.sleep(POLL_SECONDS)
    return found


def living(home: Path) -> Station:
    """The station that is up.

    Raises:
        InputError: none is, with what there is instead.
    """
    found = station_file.recorded(home)
    if station_file.is_held(home):
        if found:
            return found
        raise InputError("a station is starting or ending: try again in a moment")
    if found:
        raise InputError(
            f"{station_file.file(home)}: is stale: its station (pid {found.pid}) was killed: nothing is up, "
            "and `hallmark up` starts anew"
        )
    raise InputError("no station is up: `hallmark up` starts one")


def faults(found: Station) -> dict[str, str]:
    """What is wrong with a station that is up, by part: those that ended, or do not answer."""
    said = {}
    for part in found.parts:
        if part.ended is not None:
            said[part.name] = describe_end(part)
        elif part.url and not prefect_api.answers(_health(part)):
            said[part.name] = f"{TITLES[part.name]} (pid {part.pid}) does not answer at {part.url} (log: {part.log})"
    return said
