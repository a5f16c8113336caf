"""Processes that run the schedules: `hallmark serve` and Prefect workers."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hallmark.flows.scheduling import deployments, schedules
from tests.support import forks, projects
from tests.support.processes import process, until
from tests.support.scheduled import QUICK, call_prefect, engine_pids, runs, serving


def test_invalid_schedules_are_refused_in_one_line(write_schedules: Callable[..., Path]) -> None:
    path = write_schedules(QUICK)
    for command in (("serve",), ("deploy", "--pool", "nowhere")):
        refused = forks.hallmark(*command)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert "there is no Prefect server for the schedules" in refused.stderr
    path.write_text("[[schedule]]\nname = \n")
    refused = forks.hallmark("serve")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "schedules.toml: is not valid TOML" in refused.stderr
    assert "line 2" in refused.stderr


def test_schedule_runs_and_stays_active_after_the_server_stops(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_schedules(QUICK)
    with serving(tmp_path) as served:
        first, *_ = until(lambda: runs(scheduler, path, "Completed"))
        assert first.auto_scheduled
        assert first.parameters["schedule"] == "quick"
        second = forks.hallmark("serve")
        assert (second.returncode, second.stderr.count("\n")) == (2, 1), second.stderr
        assert "another process serves these schedules already" in second.stderr
        served.terminate()
        assert served.wait(60) == 0
    assert not engine_pids()
    (deployment,) = call_prefect(scheduler, lambda client: deployments.registered(client, path))
    assert (deployment.paused, [one.active for one in deployment.schedules]) == (False, [True])


def test_schedules_can_be_assigned_to_a_work_pool(
    scheduler: str, write_schedules: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_schedules(QUICK)
    refused = forks.hallmark("deploy", "--pool", "station")
    assert refused.returncode == 2
    assert "there is no work pool 'station', existing pools: none" in refused.stderr
    created = subprocess.run(
        [sys.executable, "-m", "prefect", "work-pool", "create", "station", "--type", "process"],
        check=False, capture_output=True, text=True, env=os.environ | {"PREFECT_API_URL": scheduler},
    )  # fmt: skip
    assert created.returncode == 0, created.stderr
    deployed = forks.hallmark("deploy", "--pool", "station")
    assert (deployed.returncode, deployed.stdout) == (0, "quick: added\n"), deployed.stderr
    prefect = str(Path(sys.executable).with_name("prefect"))  # `python -m` would import from the current folder
    worker = [prefect, "worker", "start", "--pool", "station", "--limit", "1"]
    project = projects.foreign(tmp_path / "project")
    with process(worker, tmp_path / "worker.log", project):
        completed, *_ = until(lambda: runs(scheduler, path, "Completed"))
    assert completed.work_pool_name == "station"
    assert call_prefect(scheduler, lambda client: deployments.reconcile(client, schedules.load(), path)) == [
        "quick: run by work pool 'station'"
    ]


def test_model_is_retrained_by_one_run_at_a_time(python: Callable[..., str]) -> None:
    code = (
        "import sys, time\nfrom hallmark.tasks.runtime import scheduled_process\n"
        "with scheduled_process.turn(sys.argv[1]): print(time.monotonic()); time.sleep(1); print(time.monotonic())"
    )

    def hold(model: str) -> list[float]:
        return [float(line) for line in python(code, model).split()]

    with ThreadPoolExecutor(3) as pool:
        (start, end), (second_start, second_end), other = pool.map(hold, ["iris", "iris", "digits"])
    assert end <= second_start or second_end <= start
    assert len(other) == 2
