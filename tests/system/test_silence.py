"""A flow run that sends no heartbeats."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from hallmark.flows.scheduling import serve
from tests.pipelines.test_notification import receiver
from tests.support.processes import until
from tests.support.scheduled import LONG_ON_REQUEST, engine_pids, runs, serving, start_run


def test_run_without_heartbeats_is_crashed_after_three_intervals(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path
) -> None:
    log = tmp_path / "serve.log"
    with receiver() as (address, notifications):
        path = write_schedules(LONG_ON_REQUEST + f'notify = "{address}"\n')
        kill_silently(scheduler, path, tmp_path, log)
        assert not notifications  # no process was left to send one
        with serving(tmp_path):
            until(lambda: notifications)
            until(lambda: "serving" in log.read_text().rpartition("crashed")[2])
    assert notifications[0]["title"] == "long (iris): CRASHED"
    assert "No sign of life" in notifications[0]["message"]


def kill_silently(url: str, path: Path, tmp_path: Path, log: Path) -> None:
    """Kill a run and the process that serves it, and wait until Prefect sets the run to Crashed."""
    with serving(tmp_path) as served:
        start_run(url, path, log)
        until(lambda: "epoch" in log.read_text())
        (running,) = runs(url, path, "Running")
        (engine,) = engine_pids()
        served.send_signal(signal.SIGSTOP)  # so that it does not report the end of the run
        os.kill(engine, signal.SIGKILL)
        served.kill()
    killed = time.monotonic()
    (crashed,) = until(lambda: runs(url, path, "Crashed"), 3 * serve.HEARTBEAT_SECONDS + 10)
    assert time.monotonic() - killed < 3 * serve.HEARTBEAT_SECONDS + 10
    assert crashed.id == running.id
    assert crashed.state.message == serve.HEARTBEAT_MESSAGE
