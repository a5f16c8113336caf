"""Schedules, the processes that serve them, and their deployments and runs on a Prefect server."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hallmark.flows.scheduling import deployments
from hallmark.tasks.runtime.prefect_api import answers
from tests.support import projects
from tests.support.processes import HALLMARK, process, until

QUICK = 'name = "quick"\nexperiment = "iris"\ninterval = "10s"\noptions = { "training.epochs" = 3 }\n'
LONG = 'name = "long"\nexperiment = "iris"\ninterval = "5s"\noptions = { "training.epochs" = 1000000 }\n'
LONG_ON_REQUEST = LONG.replace("5s", "1d")
"""For tests of a single run, started by `start_run`: each further run is a process that imports everything."""


def with_client(act: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - any result of the client
    """Call `act` with a client of the Prefect server in the settings."""
    from prefect.client.orchestration import get_client

    async def call() -> Any:  # noqa: ANN401
        async with get_client() as client:
            return await act(client)

    return asyncio.run(call())


def call_prefect(url: str, act: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    """Call `act` with a client of the Prefect server at `url`."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}):
        return with_client(act)


def runs(url: str, path: Path, *states: str) -> list[Any]:
    """Return the runs of a file's schedules in one of these states, oldest first."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    wanted = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[deployments.file_tag(path)]),
        state=filters.FlowRunFilterState(name=filters.FlowRunFilterStateName(any_=list(states))),
    )
    order = FlowRunSort.EXPECTED_START_TIME_ASC
    return list(call_prefect(url, lambda client: client.read_flow_runs(flow_run_filter=wanted, sort=order)))


def tagged(tag: str) -> list[Any]:
    """Return the flow runs with a tag on the Prefect server in the settings."""
    from prefect.client.schemas import filters

    wanted = filters.FlowRunFilter(tags=filters.FlowRunFilterTags(all_=[tag]))
    return list(with_client(lambda client: client.read_flow_runs(flow_run_filter=wanted)))


def remove_deployments(path: Path) -> None:
    """Remove the deployments of a file from the servers in settings and environment, if they answer."""
    from prefect.settings import PREFECT_API_URL

    for url in {PREFECT_API_URL.value(), os.environ.get("PREFECT_API_URL")} - {None}:
        if answers(url):
            call_prefect(url, lambda client: deployments.reconcile(client, [], path))


@contextmanager
def serving(tmp_path: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process that serves the schedules in another project's folder and logs to `serve.log`.

    Its runs write checkpoints every second. They have a low priority, because most tests wait for something else while
    a run trains.
    """
    log, folder = tmp_path / "serve.log", projects.foreign(tmp_path / "project")
    with process(["nice", HALLMARK, "serve"], log, folder, HALLMARK_CHECKPOINT_SECONDS="1", **environment) as started:
        yield started


def start_run(url: str, path: Path, log: Path) -> None:
    """Wait until the only schedule of a file is served; start a run of it, as the button on Prefect's page does."""
    until(lambda: "serving" in log.read_text())
    (deployment,) = call_prefect(url, lambda client: deployments.registered(client, path))
    call_prefect(url, lambda client: client.create_flow_run_from_deployment(deployment.id))


def engine_pids() -> set[int]:
    """Return the process ids of flow runs that use this test's home."""
    pids = subprocess.run(["pgrep", "-f", "prefect.engine"], capture_output=True, text=True, check=False).stdout
    home = str(os.environ["HALLMARK_HOME"]).encode()
    return {int(pid) for pid in pids.split() if home in _environment_of(int(pid))}


def _environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
