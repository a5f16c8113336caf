"""Serve the schedules: register them as Prefect deployments and run each of their runs in its own process.

Started by `hallmark serve` and by `hallmark up`.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from filelock import Timeout

from hallmark.flows.scheduling import deployments, missed_runs, schedules
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.file_locks import file_lock
from hallmark.tasks.runtime import prefect_api, progress, scheduled_process, settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import AutomationCore
    from prefect.runner import Runner

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 30
"""Interval of the runs' heartbeats; the shortest that Prefect allows."""

HEARTBEAT_TIMEOUT = timedelta(seconds=2.5 * HEARTBEAT_SECONDS)
"""Time without a heartbeat after which a run counts as crashed."""

HEARTBEAT_MESSAGE = (
    f"No sign of life for {HEARTBEAT_TIMEOUT.total_seconds():.0f} seconds: its process or machine is gone"
)

START_TIMEOUT = timedelta(minutes=5)
"""Time after which a pending run whose process has not started counts as crashed."""

POLL_SECONDS = 2.0
"""Interval at which Prefect is asked for due runs."""

CHECK_SECONDS = 15.0
"""Interval at which waiting runs are checked."""

STOP_SECONDS = 30.0
"""Time limit for the runner to stop its runs and report to Prefect."""

PATHS = (
    "HALLMARK_HOME",
    "HALLMARK_SCHEDULES",
    "PREFECT_HOME",
    "PREFECT_PROFILES_PATH",
    "PYTHONPATH",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
)
"""Environment variables that name a path or a list of paths."""

AUTOMATION = "hallmark: a run without heartbeats has crashed"


def main() -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        InputError: the schedules are invalid, another process serves them, or no Prefect server answers. Nothing was
            changed.
    """
    machine = settings.from_environment()
    machine.require("schedules", "serve_limit", *settings.OF_A_RUN)
    _set_environment(machine)
    planned, file = schedules.load(), schedules.file()
    deployments.use_server()
    os.chdir(_empty_folder(machine))
    try:
        with file_lock(machine.home, deployments.file_tag(file)).acquire(timeout=0):
            asyncio.run(_serve(planned, file))
    except Timeout as error:
        raise InputError(f"{file}: another process serves these schedules already: stop it first") from error


def _set_environment(machine: settings.Settings) -> None:
    """Set the environment, which the processes of the runs inherit, before Prefect is imported."""
    os.environ[scheduled_process.SERVED_VARIABLE] = "1"
    os.environ["PYTHONSAFEPATH"] = "1"
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "hallmark")
    prefect_api.wait_long()
    prefect_api.use_own_home()
    for name, value in absolute_paths(os.environ, machine).items():
        os.environ[name] = value


def absolute_paths(environment: Mapping[str, str], machine: settings.Settings) -> dict[str, str]:
    """Return the variables that name paths, with paths that do not depend on the current folder.

    Args:
        environment: environment variables.
        machine: the settings that were read from them.
    """

    def absolute(path: str) -> str:
        return str(Path(path).expanduser().absolute()) if path else path

    given = {name: environment[name] for name in PATHS if environment.get(name)}
    found = {name: os.pathsep.join(map(absolute, value.split(os.pathsep))) for name, value in given.items()}
    store = {"MLFLOW_TRACKING_URI": machine.tracking_uri} if environment.get("MLFLOW_TRACKING_URI") else {}
    return found | store


def _empty_folder(machine: settings.Settings) -> Path:
    """Return the folder in which the runs are started.

    Prefect imports a flow with the current folder in front of all others, which may contain modules with the names of
    Hallmark's or of a library's.
    """
    folder = machine.writable_home() / "served"
    folder.mkdir(exist_ok=True)
    return folder


async def _serve(planned: list[schedules.ScheduledExperiment], file: Path) -> None:
    from prefect.client.orchestration import get_client

    stopping = asyncio.Event()
    _set_on_signal(stopping)
    async with get_client() as client:
        for line in await deployments.reconcile(client, planned, file):
            progress.line("schedule", line)
        await watch_heartbeats(client)
        for line in await missed_runs.handle_missed(client, planned, file):
            progress.line("missed", line)
        for line in await missed_runs.notify_of_crashes(client, file, HEARTBEAT_MESSAGE):
            progress.line("crashed", line)
        served = {one.id: one.name for one in await deployments.served(client, file)}
    names = ", ".join(sorted(served.values()))
    progress.line("serving", f"{len(served)} of {len(planned)} schedules: {names}" if planned else "no schedules")
    if served:
        await _run(planned, file, served, stopping)
    else:
        await stopping.wait()
    progress.line("serving", "stopped; schedules are kept and run again at the next start")


async def _run(
    planned: list[schedules.ScheduledExperiment], file: Path, served: dict[UUID, str], stopping: asyncio.Event
) -> None:
    from prefect.runner import Runner

    # No prefetching: a run that was taken before its time would occupy the place of another.
    runner = Runner(
        name="hallmark",
        query_seconds=POLL_SECONDS,
        prefetch_seconds=0,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        limit=settings.read().serve_limit,
        pause_on_shutdown=False,
    )
    for identifier, name in served.items():
        await runner.aadd_deployment(_ExistingDeployment(identifier, name))  # type: ignore[arg-type]
    logging.getLogger("prefect.runner").setLevel(logging.WARNING)  # otherwise it logs every waiting run at every poll
    running = asyncio.create_task(runner.start())
    while not runner.started and not running.done():
        await asyncio.sleep(POLL_SECONDS / 100)
    _set_on_signal(stopping)  # again, because the runner has installed its own handler
    stopped = asyncio.create_task(stopping.wait())
    checking = asyncio.create_task(_check_waiting(planned, file))
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    checking.cancel()
    if stopping.is_set():
        scheduled_process.STOPPING.set()
        await _stop(runner)
    await running


async def _stop(runner: "Runner") -> None:
    """Stop the runs and report to Prefect. If Prefect does not answer, exit: the runs end with this process."""
    task = asyncio.create_task(runner.astop())
    await asyncio.wait({task}, timeout=STOP_SECONDS)
    if not task.done():
        progress.line("serving", "stopped; Prefect does not answer, so its runs are not marked as stopped")
        sys.stderr.flush()
        os._exit(1)  # other tasks may wait for Prefect for minutes
    await task


async def _check_waiting(planned: list[schedules.ScheduledExperiment], file: Path) -> None:
    """Cancel waiting runs that a later run of the schedule supersedes, and crash runs that do not start."""
    from prefect.client.orchestration import get_client

    while True:
        await asyncio.sleep(CHECK_SECONDS)
        try:
            async with get_client() as client:
                for line in await missed_runs.cancel_superseded(client, planned, file):
                    progress.line("waiting", line)
                for line in await missed_runs.crash_unstarted(client, file, datetime.now(UTC) - START_TIMEOUT):
                    progress.line("crashed", line)
        except Exception as error:  # noqa: BLE001 - the server may be down for a while; the next check tries again
            logger.warning("waiting runs could not be checked: %s", error)


def _set_on_signal(event: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, event.set)


@dataclass
class _ExistingDeployment:
    """An existing deployment with the interface that Prefect's runner expects of a new one."""

    id: UUID
    name: str
    storage: None = None

    async def aapply(self) -> UUID:
        return self.id


async def watch_heartbeats(client: "PrefectClient") -> None:
    """Create or update the automation that marks runs without heartbeats as crashed.

    Prefect Cloud does this by itself; a self-hosted server needs the automation.
    """
    wanted = _automation()
    known = await client.read_automations_by_name(AUTOMATION)
    for one in known[1:]:
        await client.delete_automation(one.id)
    if not known:
        await client.create_automation(wanted)
    elif _content(known[0]) != _content(wanted):
        await client.update_automation(known[0].id, wanted)


def _automation() -> "AutomationCore":
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    heartbeat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    return AutomationCore(
        name=AUTOMATION,
        description="Made by `hallmark serve`.",
        enabled=True,
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{deployments.TAG}"},
            after={heartbeat},
            expect={heartbeat} | ends,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=HEARTBEAT_TIMEOUT,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=HEARTBEAT_MESSAGE,
            )
        ],
    )


def _content(automation: "AutomationCore") -> dict[str, object]:
    fields = {"name", "description", "enabled", "trigger", "actions"}
    return automation.model_dump(include=fields, exclude={"trigger": {"id"}})
