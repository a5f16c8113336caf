"""A run that gives no sign of life."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from hallmark.flows.scheduling import serve
from tests.pipelines.test_notification import receiver
from tests.support.processes import until
from tests.support.scheduled import LONG, engine_pids, runs, serving


def test_a_run_that_is_silent_has_crashed_within_three_heartbeats(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path
) -> None:
    log = tmp_path / "serve.log"
    with receiver() as (address, told):
        path = write_schedules(LONG + f'notify = "{address}"\n')
        silence(scheduler, path, tmp_path, log)
        assert not told  # nobody was left to tell
        with serving(tmp_path):
            until(lambda: told)
            until(lambda: "serving" in log.read_text().rpartition("crashed")[2])
    assert told[0]["title"] == "long (iris): CRASHED"
    assert "No sign of life" in told[0]["message"]


def silence(url: str, path: Path, tmp_path: Path, log: Path) -> None:
    """Kill a run and what serves it, and wait until Prefect has noticed."""
    with serving(tmp_path) as served:
        until(lambda: "epoch" in log.read_text())
        (running,) = runs(url, path, "Running")
        (engine,) = engine_pids()
        served.send_signal(signal.SIGSTOP)  # so that neither hears of the other's end
        os.kill(engine, signal.SIGKILL)
        served.kill()
    killed = time.monotonic()
    (crashed,) = until(lambda: runs(url, path, "Crashed"), 3 * serve.HEARTBEAT_SECONDS + 10)
    assert time.monotonic() - killed < 3 * serve.HEARTBEAT_SECONDS + 10
    assert crashed.id == running.id
    assert crashed.state.message == serve.HEARTBEAT_MESSAGE
