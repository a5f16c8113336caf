"""Schedules in files, and what a Prefect server says of their deployments and runs."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hallmark.flows.scheduling import deployments
from hallmark.tasks.runtime.prefect_api import answers
from tests.support.processes import process

QUICK = 'name = "quick"\nexperiment = "iris"\ninterval = "10s"\noptions = { "training.epochs" = 3 }\n'
LONG = 'name = "long"\nexperiment = "iris"\ninterval = "5s"\noptions = { "training.epochs" = 1000000 }\n'


def with_client(act: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - whatever the client gives
    """Call something with a client of the Prefect server that the settings name."""
    from prefect.client.orchestration import get_client

    async def call() -> Any:  # noqa: ANN401
        async with get_client() as client:
            return await act(client)

    return asyncio.run(call())


def ask(url: str, act: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    """Call something with a client of the Prefect server at an address."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}):
        return with_client(act)


def runs(url: str, path: Path, *states: str) -> list[Any]:
    """The runs of a file's schedules that are in one of these states, the oldest first."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    wanted = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[deployments.file_tag(path)]),
        state=filters.FlowRunFilterState(name=filters.FlowRunFilterStateName(any_=list(states))),
    )
    order = FlowRunSort.EXPECTED_START_TIME_ASC
    return list(ask(url, lambda client: client.read_flow_runs(flow_run_filter=wanted, sort=order)))


def forget(path: Path) -> None:
    """Remove the deployments of a file from the servers that settings and environment name, if they answer."""
    from prefect.settings import PREFECT_API_URL

    for url in {PREFECT_API_URL.value(), os.environ.get("PREFECT_API_URL")} - {None}:
        if answers(url):
            ask(url, lambda client: deployments.reconcile(client, [], path))


@contextmanager
def serving(tmp_path: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that serves the schedules; its log is `serve.log`. Its runs write checkpoints every second."""
    command, log = [sys.executable, "-m", "hallmark.flows", "serve"], tmp_path / "serve.log"
    with process(command, log, HALLMARK_CHECKPOINT_SECONDS="1", **environment) as started:
        yield started


def engines() -> set[int]:
    """The processes of runs that are served from here."""
    found = subprocess.run(["pgrep", "-f", "prefect.engine"], capture_output=True, text=True, check=False).stdout
    ours = str(os.environ["HALLMARK_HOME"]).encode()
    return {int(pid) for pid in found.split() if ours in _environment_of(int(pid))}


def _environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
