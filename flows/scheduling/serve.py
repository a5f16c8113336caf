"""Serving: the schedules of the file as Prefect deployments, and each of their runs in a process of its own.

Run by `hallmark serve`, or inside `hallmark up`.
"""

import asyncio
import logging
import os
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from filelock import FileLock, Timeout

from hallmark.flows.scheduling import deployments, schedules
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import progress, scheduled_process, settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import AutomationCore
    from prefect.runner import Runner

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 30
"""The shortest that Prefect allows."""

SILENCE = timedelta(seconds=2.5 * HEARTBEAT_SECONDS)
"""A run that was silent for so long has crashed: said before its third heartbeat would have come."""

SILENT = f"No sign of life for {SILENCE.total_seconds():.0f} seconds: its process or machine is gone"

START = timedelta(minutes=5)
"""A run whose process has not begun so long after it was taken up never will."""

RETRIES = "7"
"""Of a request to a Prefect server that is away: four minutes, as MLflow's client tries. Prefect's default is one."""

POLL_SECONDS = 2.0
LOOK_SECONDS = 15.0

STOP_SECONDS = 30.0
"""What a runner gets to end its runs and to tell Prefect."""

AUTOMATION = "hallmark: a run without heartbeats has crashed"


def main() -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        InputError: the schedules cannot be used, another process serves them, or there is no Prefect server that
            answers. Nothing was changed.
    """
    found, file = schedules.load(), schedules.file()
    # Before Prefect reads the environment, which its runs inherit.
    os.environ[scheduled_process.MARK] = "1"
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "hallmark")
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", RETRIES)
    deployments.use_server()
    locks = settings.read().home / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{deployments.mark(file)}.lock", timeout=0):
            asyncio.run(_serve(found, file))
    except Timeout as error:
        raise InputError(f"{file}: another process serves these schedules already: end that one first") from error


async def _serve(found: list[schedules.Planned], file: Path) -> None:
    from prefect.client.orchestration import get_client

    ending = asyncio.Event()
    _end_with(ending)
    async with get_client() as client:
        for line in await deployments.reconcile(client, found, file):
            progress.line("schedule", line)
        await watch_heartbeats(client)
        for line in await deployments.settle_missed(client, found, file):
            progress.line("missed", line)
        for line in await deployments.tell_of_silent(client, file, SILENT):
            progress.line("crashed", line)
        mine = await deployments.served(client, file)
    names = ", ".join(sorted(mine.values()))
    progress.line("serving", f"{len(mine)} of {len(found)} schedules: {names}" if found else "there are no schedules")
    if mine:
        await _run(found, file, mine, ending)
    else:
        await ending.wait()
    progress.line("serving", "ended; schedules stay active")


async def _run(found: list[schedules.Planned], file: Path, mine: dict[UUID, str], ending: asyncio.Event) -> None:
    from prefect.runner import Runner

    # A run is taken up when its time has come, not before: waiting, it would keep another from running.
    runner = Runner(
        name="hallmark",
        query_seconds=POLL_SECONDS,
        prefetch_seconds=0,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        limit=settings.read().serve_limit,
        pause_on_shutdown=False,
    )
    for identifier, name in mine.items():
        await runner.aadd_deployment(_Known(identifier, name))  # type: ignore[arg-type]
    logging.getLogger("prefect.runner").setLevel(logging.WARNING)  # it would say at each look that a run waits
    running = asyncio.create_task(runner.start())
    while not runner.started and not running.done():
        await asyncio.sleep(POLL_SECONDS / 100)
    _end_with(ending)  # once more: the runner has put its own handler in place
    ended = asyncio.create_task(ending.wait())
    looking = asyncio.create_task(_look(found, file))
    await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    looking.cancel()
    if ending.is_set():
        scheduled_process.ENDING.set()
        await _stop(runner)
    await running


async def _stop(runner: "Runner") -> None:
    """End the runs and tell Prefect so. Where it does not answer, end nevertheless: its runs follow."""
    stopping = asyncio.create_task(runner.astop())
    await asyncio.wait({stopping}, timeout=STOP_SECONDS)
    if not stopping.done():
        progress.line("serving", "ended; Prefect does not answer, so it does not know of it")
        sys.stderr.flush()
        os._exit(1)  # whatever else waits for Prefect would go on waiting
    await stopping


async def _look(found: list[schedules.Planned], file: Path) -> None:
    """Let no more than one run of a schedule wait while others train, unless all are asked for, and none for ever."""
    from prefect.client.orchestration import get_client

    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            async with get_client() as client:
                for line in await deployments.thin(client, found, file):
                    progress.line("waiting", line)
                for line in await deployments.crash_unstarted(client, file, datetime.now(UTC) - START):
                    progress.line("crashed", line)
        except Exception as error:  # noqa: BLE001 - the server may be away for a while; the next look comes
            logger.warning("waiting runs were not looked at: %s", error)


def _end_with(ending: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)


@dataclass
class _Known:
    """A deployment that exists, in the shape in which Prefect's runner takes one that is to be made."""

    id: UUID
    name: str
    storage: None = None

    async def aapply(self) -> UUID:
        return self.id


async def watch_heartbeats(client: "PrefectClient") -> None:
    """Let Prefect's server call a run crashed that has ceased to give signs of life. Made once, and kept as it is here.

    On Prefect's own cloud this is built in; a self-hosted server needs to be told.
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

    sign = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    return AutomationCore(
        name=AUTOMATION,
        description="Made by `hallmark serve`.",
        enabled=True,
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{deployments.TAG}"},
            after={sign},
            expect={sign} | ends,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=SILENT,
            )
        ],
    )


def _content(automation: "AutomationCore") -> dict[str, object]:
    told = {"name", "description", "enabled", "trigger", "actions"}
    return automation.model_dump(include=told, exclude={"trigger": {"id"}})
