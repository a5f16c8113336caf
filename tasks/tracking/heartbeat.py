"""Heartbeats of MLflow runs: which process works on a run, and when it was last seen.

A run whose machine has gone stays RUNNING in MLflow for ever. Its last heartbeat tells it from a run that goes on.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from hallmark.tasks.runtime import prefect_api, process_identity, settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import store_calls, stored, tags
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.stored import StoredRun

logger = logging.getLogger(__name__)

SECONDS = 30.0
"""Interval at which the heartbeat of an open run is renewed."""
_UNKNOWN_SECONDS = 7 * 86_400.0
"""Age at which a run without a readable heartbeat, of an older version, counts as gone."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Value of the tag; see `tags.HEARTBEAT`."""

    time: datetime
    machine: str
    pid: int
    started: datetime
    home: str


def now() -> str:
    """Return the tag's value for this process at this moment."""
    started = process_identity.started_at(os.getpid()) or datetime.now(UTC)
    return json.dumps(
        {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": process_identity.machine(),
            "process": {"pid": os.getpid(), "started": started.isoformat(timespec="seconds")},
            "home": str(settings.from_environment().home),
        }
    )


def parse(text: str | None) -> Heartbeat | None:
    """Parse the tag's value. Unknown fields are ignored; None is returned for a value that cannot be read."""
    try:
        value = json.loads(text or "")
        times = [datetime.fromisoformat(one) for one in (value["time"], value["process"]["started"])]
        at, started = (one if one.tzinfo else one.replace(tzinfo=UTC) for one in times)
        return Heartbeat(at, str(value["machine"]), int(value["process"]["pid"]), started, str(value["home"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


@contextmanager
def renewed(run_id: str) -> Iterator[None]:
    """Renew the heartbeat of a run every 30 seconds while the block runs, in a thread of its own.

    A thread, because a run is also open while no point is logged: in a long epoch, in a proof, or when the members of a
    sweep train in other processes. One renewal takes milliseconds.
    """
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(SECONDS):
            try:
                uri = settings.read().tracking_uri
                # MLflow's client would wait for a server for minutes.
                if not uri.startswith(("http://", "https://")) or prefect_api.answers(uri):
                    with store_calls.tried_once():
                        connect().set_tag(run_id, tags.HEARTBEAT, now())
            except Exception as error:  # noqa: BLE001 - the next beat tries again, and the training reports an outage
                logger.debug("the heartbeat of run %s cannot be written: %s", run_id, error)

    threading.Thread(target=renew, name=f"heartbeat {run_id}", daemon=True).start()
    try:
        yield
    finally:
        stop.set()  # not joined: a beat that hangs must not delay the end, and a late one changes nothing else


@held()
def close_gone(seconds: float) -> list[StoredRun]:
    """Close as KILLED the runs whose last heartbeat is older than `seconds`, and return them.

    A run whose process lives on this machine is left alone. A member of a sweep lives as long as the sweep's own run.
    Runs that Hallmark did not open are not looked at.
    """
    client = connect()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    query = f"attributes.status = 'RUNNING' AND tags.`{tags.ATTEMPT}` != ''"
    running = {run.id: run for run in map(stored.run, client.search_runs(experiments, query, max_results=10_000))}
    gone = []
    for run in running.values():
        parent = running.get(run.tags.get(tags.PARENT_RUN, ""), run)
        if reason := _reason(parent, seconds):
            client.set_terminated(run.id, "KILLED")
            client.set_tag(run.id, tags.ERROR, reason)
            gone.append(run)
    return gone


def _reason(run: StoredRun, seconds: float) -> str:
    """Return why a run counts as gone, or an empty string if it does not."""
    beat = parse(run.tags.get(tags.HEARTBEAT))
    if beat is None:
        return "No heartbeat, and no end within a week" if run.started < time.time() - _UNKNOWN_SECONDS else ""
    is_recent = beat.time.timestamp() > time.time() - seconds
    if is_recent or process_identity.lives(beat.machine, beat.pid, beat.started):
        return ""
    return f"No heartbeat since {beat.time:%Y-%m-%d %H:%M} UTC: process {beat.pid} of {beat.machine} is gone"
