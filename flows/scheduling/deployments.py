"""Schedules as Prefect deployments: made equal to the file, whoever runs them."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hallmark.flows.scheduling.schedules import Planned, Schedule
from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import notification, prefect_api

if TYPE_CHECKING:
    from pathlib import Path

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

TAG = "hallmark-schedule"
"""Marks deployments as made by Hallmark."""

TOLD = "hallmark-told"
"""Marks crashed runs of which somebody was told at the next start."""

PAGE = 200
"""So many runs a request: Prefect's own limit."""

MOST_MISSED = 1000
"""No more dates of a schedule are made up for."""

UNSTARTED = "Its process never began: what served it had died"

FLOW = "retrain"
ENTRYPOINT = "hallmark.flows.retrain.retrain"
"""What is deployed. By module: every process of the installed project can import it, wherever it was started."""


def use_server() -> None:
    """Let this process use the Prefect server that the settings name, or else the station's.

    Raises:
        InputError: there is neither, or it does not answer.
    """
    if not prefect_api.use_running():
        raise InputError(
            "there is no Prefect server to take schedules: `hallmark up` starts one with all that belongs to it, "
            "or start one (`prefect server start`) and set PREFECT_API_URL"
        )


async def reconcile(
    client: "PrefectClient", planned: Sequence[Planned], file: "Path", *, pool: str | None = None
) -> list[str]:
    """Make the deployments of a file's schedules equal to it: add, change, remove. What is equal is not touched.

    A touched schedule counts as a new one for Prefect, which then no longer knows which of its dates it had run.

    Args:
        client: of the Prefect server.
        planned: the schedules.
        file: where they stand; deployments made for another file are left alone.
        pool: the work pool that shall run them; if not given they are served here, but for those that are in a pool.

    Returns:
        what was done, a line for each.

    Raises:
        InputError: there is a deployment of that name which is not ours; nothing was changed.
    """
    known = {one.name: one for one in await _ours(client, mark(file))}
    for schedule, _ in planned:
        await _refuse_stranger(client, schedule.name, known)
    lines = []
    for schedule, experiment in planned:
        existing = known.pop(schedule.name, None)
        if existing and pool is None and existing.work_pool_name:
            lines.append(f"{schedule.name}: left to work pool '{existing.work_pool_name}'")
            continue
        wanted = _parameters(schedule, experiment)
        if existing and _is_equal(existing, schedule, wanted, pool):
            lines.append(f"{schedule.name}: unchanged")
            continue
        await _apply(schedule, wanted, mark(file), pool)
        lines.append(f"{schedule.name}: {'changed' if existing else 'added'}")
    for name, gone in known.items():
        await client.delete_deployment(gone.id)
        lines.append(f"{name}: removed")
    return lines


async def served(client: "PrefectClient", file: "Path") -> dict[UUID, str]:
    """The deployments of a file that are in no work pool: their names."""
    return {one.id: one.name for one in await _served(client, file)}


async def _served(client: "PrefectClient", file: "Path") -> "list[DeploymentResponse]":
    return [one for one in await _ours(client, mark(file)) if not one.work_pool_name]


async def settle_missed(client: "PrefectClient", planned: Sequence[Planned], file: "Path") -> list[str]:
    """Do with the runs whose time passed while nothing served what their schedules ask for.

    A run that is not wanted is cancelled, not deleted: it stays to be seen, and a clock that is set back does not bring
    it again.

    Returns:
        what was done, a line for each schedule that missed runs.
    """
    asked = {schedule.name: schedule.missed for schedule, _ in planned}
    lines = []
    for deployment in await _served(client, file):
        if asked[deployment.name] == "all":
            await _plan_missed(client, deployment)
        due = await _due(client, deployment.id)
        current = [run for run in due if run.parameters == deployment.parameters]
        await _cancel(client, [run for run in due if run not in current], "The schedule has changed since")
        kept = {"skip": 0, "latest": 1, "all": len(current)}[asked[deployment.name]]
        dropped = current[: max(len(current) - kept, 0)]
        await _cancel(client, dropped, f"Its time passed while nothing served (missed: {asked[deployment.name]})")
        if due:
            left = len(current) - len(dropped)
            lines.append(f"{deployment.name}: {len(due)} missed, {left} to be run, {len(due) - left} cancelled")
    return lines


async def thin(client: "PrefectClient", planned: Sequence[Planned], file: "Path") -> list[str]:
    """Of the runs of a schedule that wait for others to end, keep the latest, unless all are asked for.

    Returns:
        what was done, a line for each schedule that had more.
    """
    asked = {schedule.name: schedule.missed for schedule, _ in planned}
    lines = []
    for deployment in await _served(client, file):
        due = await _due(client, deployment.id)
        if asked[deployment.name] != "all" and len(due) > 1:
            await _cancel(client, due[:-1], "A later one was due before its turn came")
            lines.append(f"{deployment.name}: {len(due) - 1} cancelled, since a later one is due")
    return lines


async def crash_unstarted(client: "PrefectClient", file: "Path", since: datetime) -> list[str]:
    """Call runs crashed that were taken up before a time and have not begun since, and tell their addresses.

    Such a run gives no sign of life that could cease.

    Returns:
        a line for each.
    """
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    pending = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[TAG, mark(file)]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.PENDING])),
    )
    lines = []
    for run in await client.read_flow_runs(flow_run_filter=pending, limit=PAGE):
        if run.state and run.state.timestamp < since and not run.work_pool_name:
            state = Crashed(message=UNSTARTED)
            await client.set_flow_run_state(run.id, state)
            notification.ended(FLOW, run, state)
            lines.append(f"{run.parameters.get('schedule')}: run '{run.name}': {UNSTARTED}")
    return lines


async def tell_of_silent(client: "PrefectClient", file: "Path", message: str) -> list[str]:
    """Tell the schedules' addresses of runs that crashed together with what served them, when nobody could.

    Args:
        client: of the Prefect server.
        file: where the schedules stand.
        message: of the state in which the automation puts such runs.

    Returns:
        a line for each run that is told of now; each is told of once.
    """
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    crashed = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[TAG, mark(file)]),
        state=filters.FlowRunFilterState(name=filters.FlowRunFilterStateName(any_=["Crashed"])),
    )
    found = await client.read_flow_runs(flow_run_filter=crashed, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=PAGE)
    lines = []
    for run in found:
        if run.state and run.state.message == message and TOLD not in run.tags:
            notification.ended(FLOW, run, run.state)
            await client.update_flow_run(run.id, tags=[*run.tags, TOLD])
            lines.append(f"{run.parameters.get('schedule')}: run '{run.name}': {message}")
    return lines


async def _plan_missed(client: "PrefectClient", deployment: "DeploymentResponse") -> None:
    """Let Prefect plan every date that has passed since the last run, or since the schedule was made.

    Its scheduler plans a few ahead, and none while the server is off. Whatever is planned already stays as it is.
    """
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    taken_up = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment.id]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(not_any_=[StateType.SCHEDULED])),
    )
    last = await client.read_flow_runs(flow_run_filter=taken_up, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
    times = [run.expected_start_time for run in last] + [one.created for one in deployment.schedules]
    dates = {
        "start_time": max(time for time in times if time).isoformat(),
        "end_time": datetime.now(UTC).isoformat(),
        "min_runs": MOST_MISSED,
        "max_runs": MOST_MISSED,
    }
    await client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment.id}, json=dates)


async def _due(client: "PrefectClient", deployment: UUID) -> "list[FlowRun]":
    """The runs that wait though their time has come, the oldest first."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    waiting = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        next_scheduled_start_time=filters.FlowRunFilterNextScheduledStartTime(before_=datetime.now(UTC)),
    )
    found: list[FlowRun] = []
    while page := await client.read_flow_runs(
        flow_run_filter=waiting, sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC, limit=PAGE, offset=len(found)
    ):
        found += page
    return found


async def _cancel(client: "PrefectClient", runs: "Sequence[FlowRun]", reason: str) -> None:
    from prefect.states import Cancelled

    for run in runs:
        await client.set_flow_run_state(run.id, Cancelled(name="Missed", message=reason))


async def _ours(client: "PrefectClient", of: str) -> "list[DeploymentResponse]":
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG, of]))
    return await client.read_deployments(deployment_filter=ours, limit=PAGE)


async def _refuse_stranger(client: "PrefectClient", name: str, known: "dict[str, DeploymentResponse]") -> None:
    from prefect.exceptions import ObjectNotFound

    if name in known:
        return
    try:
        await client.read_deployment_by_name(f"{FLOW}/{name}")
    except ObjectNotFound:
        return
    raise InputError(
        f"schedule '{name}': Prefect has a deployment '{FLOW}/{name}' that was not made from this file: "
        f"rename the schedule, or remove that one (`prefect deployment delete {FLOW}/{name}`)"
    )


def mark(file: "Path") -> str:
    """The tag of what was made from a file of schedules."""
    return f"hallmark-file-{hashlib.sha256(bytes(file.resolve())).hexdigest()[:SHOWN]}"


def _parameters(schedule: Schedule, experiment: Any) -> dict[str, Any]:  # noqa: ANN401 - any flow's
    given = {
        "experiment": experiment.model_dump(mode="json"),
        "rule": schedule.rule.model_dump(mode="json"),
        "notify": schedule.notify,
        "schedule": schedule.name,
    }
    known: dict[str, Any] = json.loads(json.dumps(given))  # as Prefect gives it back
    return known


def _is_equal(existing: "DeploymentResponse", schedule: Schedule, wanted: dict[str, Any], pool: str | None) -> bool:
    dates = [(one.schedule, one.active) for one in existing.schedules]
    return (
        existing.parameters == wanted
        and dates == [(schedule.dates, True)]
        and existing.work_pool_name == pool
        and existing.entrypoint == ENTRYPOINT
        and existing.description == schedule.describe()
    )


async def _apply(schedule: Schedule, wanted: dict[str, Any], of: str, pool: str | None) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.types.entrypoint import EntrypointType

    from hallmark.flows.retrain import retrain  # imports torch, which is not needed where nothing has changed

    deployment = await retrain.ato_deployment(
        schedule.name,
        schedules=[DeploymentScheduleCreate(schedule=schedule.dates, active=True)],
        parameters=wanted,
        description=schedule.describe(),
        tags=[TAG, of],
        entrypoint_type=EntrypointType.MODULE_PATH,
        work_pool_name=pool,
    )
    deployment.work_pool_name = pool  # None too, which takes a schedule back from a pool
    await deployment.aapply()
