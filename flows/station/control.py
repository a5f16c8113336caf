"""Start, find, check and stop a station from another process."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from hallmark.flows.station import processes
from hallmark.flows.station.child_process import module_command
from hallmark.flows.station.processes import POLL_SECONDS, STOP_SECONDS, TITLES
from hallmark.tasks.common.errors import HallmarkError, InputError
from hallmark.tasks.runtime import prefect_api, station_file
from hallmark.tasks.runtime.settings import Settings
from hallmark.tasks.runtime.station_file import Station


def start_detached(machine: Settings) -> Station:
    """Start a station that outlives this process, and wait until it is up.

    Raises:
        InputError: the station was refused or did not start; the message is its own.
    """
    log = machine.writable_home() / "logs" / "station.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            module_command("hallmark.flows", "up"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        while process.poll() is None:
            station = station_file.current(machine.home)
            if station and station.pid == process.pid:
                return station
            time.sleep(POLL_SECONDS)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    raise InputError(processes.last_line(log).removeprefix("hallmark: "))


def stop(home: Path) -> Station:
    """Stop the station that is up, and wait until it has stopped.

    Returns:
        the station that was stopped.

    Raises:
        InputError: no station is up.
        HallmarkError: the station does not stop.
    """
    station = find(home)
    with suppress(ProcessLookupError):
        os.kill(station.pid, signal.SIGTERM)
    deadline = time.monotonic() + 3 * STOP_SECONDS
    while station_file.is_held(home):
        if time.monotonic() > deadline:
            raise HallmarkError(
                f"the station (pid {station.pid}) does not stop: `kill -9 {station.pid}` ends all its processes"
            )
        time.sleep(POLL_SECONDS)
    return station


def find(home: Path) -> Station:
    """Return the station that is up.

    Raises:
        InputError: no station is up.
    """
    station = station_file.recorded(home)
    if station_file.is_held(home):
        if station:
            return station
        raise InputError("a station is starting or stopping: try again in a moment")
    if station:
        raise InputError(
            f"{station_file.file(home)} is stale: its station (pid {station.pid}) was killed, so no station is up: "
            "start one with `hallmark up`"
        )
    raise InputError("no station is up: start one with `hallmark up`")


def faults(station: Station) -> dict[str, str]:
    """Return a sentence for each part of a station that has ended or does not answer, by the name of the part."""
    texts = {}
    for part in station.parts:
        if part.ended is not None:
            texts[part.name] = processes.describe_end(part)
        elif part.url and not prefect_api.answers(processes.health_url(part)):
            texts[part.name] = f"{TITLES[part.name]} (pid {part.pid}) does not answer at {part.url} (log: {part.log})"
    return texts
