"""The supervisor of a station: starts its processes, watches them, and stops them.

The schedules are stopped first, because their runs still have to report to both servers how they ended.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from hallmark.flows.scheduling import schedules
from hallmark.flows.station import processes
from hallmark.flows.station.processes import POLL_SECONDS, PORTS, Running
from hallmark.tasks.common.errors import InputError, without_secrets
from hallmark.tasks.runtime import prefect_api, settings, signals, station_file
from hallmark.tasks.runtime.settings import Settings
from hallmark.tasks.runtime.station_file import Station

LOCK_SECONDS = 1.0
"""Time to wait for the station's lock. A process that checks whether a station is up holds it for a moment."""


def refuse_settings(machine: Settings) -> None:
    """Refuse contradictory settings, and settings without effect, before any process is started.

    Raises:
        InputError: one line that names the setting and the reason.
    """
    prefect_api.use_own_home()
    from prefect.settings import PREFECT_API_URL

    machine.require("auth", "prefect_port", "serve_limit", *settings.OF_REPAIRS, *settings.OF_A_RUN)
    if url := PREFECT_API_URL.value():
        raise InputError(
            f"PREFECT_API_URL: names {without_secrets(url)}, which commands would use instead of the station: unset it"
        )
    if machine.tracking_uri.startswith(("http://", "https://")):
        shown = without_secrets(machine.tracking_uri)
        raise InputError(f"MLFLOW_TRACKING_URI: names {shown}, which already is an MLflow server: unset it")
    if not processes.is_loopback(machine.host) and not machine.auth:
        raise InputError(
            f"HALLMARK_HOST: other machines can reach {machine.host}: "
            "set HALLMARK_AUTH to user:password as well, or unset HALLMARK_HOST"
        )
    machine.writable_home()
    schedules.load()


def run(machine: Settings, on_ready: Callable[[Station], None], on_fault: Callable[[str], None]) -> None:
    """Run a station until an interrupt. No process and no station file is left behind.

    Args:
        machine: the settings, read from the environment alone.
        on_ready: called when every part answers.
        on_fault: called once for each part that ends while the station is up.

    Raises:
        InputError: a station is up already, a port is in use, or a part does not start.
        KeyboardInterrupt: the station was interrupted.
    """
    refuse_settings(machine)
    with _exclusive(machine.home), ExitStack() as stack:
        listeners = {name: stack.enter_context(processes.listen(machine, name)) for name in PORTS}
        running: list[Running] = []
        start_repair = stack.enter_context(processes.repairs(machine))
        try:
            processes.start_all(machine, listeners, running)
            started = datetime.now(UTC)
            station = _describe(machine, running, started)
            station_file.record(station, machine.home)
            on_ready(station)
            _watch(machine, running, started, on_fault, start_repair)
        finally:
            with signals.held():
                processes.stop_all(running)
                station_file.file(machine.home).unlink(missing_ok=True)


@contextmanager
def _exclusive(home: Path) -> Iterator[None]:
    try:
        with FileLock(station_file.lock(home), timeout=LOCK_SECONDS):
            station_file.file(home).unlink(missing_ok=True)  # left behind by a station that was killed
            yield
    except Timeout as error:
        station = station_file.recorded(home)
        state = f"a station is up (pid {station.pid})" if station else "a station is starting or stopping"
        raise InputError(f"{state}: see `hallmark status`, or stop it with `hallmark down`") from error


def _describe(machine: Settings, running: list[Running], started: datetime) -> Station:
    return Station(
        pid=os.getpid(),
        started=started,
        store=without_secrets(machine.tracking_uri),
        guarded=machine.auth is not None,
        parts=tuple(one.part for one in running),
    )


def _watch(
    machine: Settings,
    running: list[Running],
    started: datetime,
    on_fault: Callable[[str], None],
    start_repair: Callable[[], None],
) -> None:
    """Poll the processes until an interrupt, record each one that ends, and start repairs when they are due.

    The file of the station is written again if it was damaged or removed.
    """
    due = time.monotonic() + min(machine.repair_seconds, processes.FIRST_REPAIR_SECONDS)
    while True:
        if time.monotonic() >= due:
            start_repair()
            due = time.monotonic() + machine.repair_seconds
        for one in running:
            code = one.process.poll()
            if code is not None and one.part.ended is None:
                one.part = one.part.model_copy(update={"ended": code})
                _record(_describe(machine, running, started), machine.home)
                on_fault(processes.describe_end(one.part))
        _record(_describe(machine, running, started), machine.home)
        time.sleep(POLL_SECONDS)


def _record(station: Station, home: Path) -> None:
    """Write the file of the station unless it has this content already."""
    try:
        recorded = station_file.recorded(home)
    except InputError:
        recorded = None
    if recorded != station:
        with suppress(OSError):  # the disk may be full: the next poll tries again
            station_file.record(station, home)
