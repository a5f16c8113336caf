"""Runs of the schedules that did not start on time, or whose process died without notifying anyone."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from hallmark.flows.scheduling import deployments
from hallmark.flows.scheduling.deployments import FLOW, PAGE_SIZE, TAG
from hallmark.flows.scheduling.schedules import ScheduledExperiment
from hallmark.tasks.runtime import notification

if TYPE_CHECKING:
    from pathlib import Path

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

NOTIFIED_TAG = "hallmark-told"
"""Tag of crashed runs for which a notification was sent at a later start."""

MAX_MISSED = 1000
"""Maximum number of missed dates of one schedule that are planned later."""

UNSTARTED = "Its process never started: the process that serves the schedules had ended"


async def handle_missed(client: "PrefectClient", planned: Sequence[ScheduledExperiment], file: "Path") -> list[str]:
    """Apply each schedule's `missed` to runs that came due while nothing served the schedules: keep or cancel them.

    Runs are cancelled, not deleted: they stay visible, and a clock that is set back does not schedule them again.

    Returns:
        one line for each schedule with missed runs.
    """
    missed = {one.schedule.name: one.schedule.missed for one in planned}
    lines = []
    for deployment in await deployments.served(client, file):
        policy = missed[deployment.name]
        if policy == "all":
            await _plan_missed(client, deployment)
        due = await _due(client, deployment.id)
        current = [run for run in due if run.parameters == deployment.parameters]
        await _cancel(client, [run for run in due if run not in current], "The schedule has changed since")
        kept = {"skip": 0, "latest": 1, "all": len(current)}[policy]
        dropped = current[: max(len(current) - kept, 0)]
        await _cancel(client, dropped, f"Its time passed while no process served the schedule (missed: {policy})")
        if due:
            left = len(current) - len(dropped)
            lines.append(f"{deployment.name}: {len(due)} missed, {left} to run, {len(due) - left} cancelled")
    return lines


async def cancel_superseded(client: "PrefectClient", planned: Sequence[ScheduledExperiment], file: "Path") -> list[str]:
    """Cancel all but the latest of the runs of a schedule that are due and waiting, unless `missed` is `all`.

    Returns:
        one line for each schedule with cancelled runs.
    """
    missed = {one.schedule.name: one.schedule.missed for one in planned}
    lines = []
    for deployment in await deployments.served(client, file):
        due = await _due(client, deployment.id)
        if missed[deployment.name] != "all" and len(due) > 1:
            await _cancel(client, due[:-1], "A later run was due before this one started")
            lines.append(f"{deployment.name}: {len(due) - 1} cancelled, because a later run is due")
    return lines


async def crash_unstarted(client: "PrefectClient", file: "Path", since: datetime) -> list[str]:
    """Mark runs as crashed that became pending before a time and have not started, and notify their addresses.

    Such a run sends no heartbeats, so the automation for missing heartbeats does not see it.

    Returns:
        one line for each run.
    """
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    pending = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[TAG, deployments.file_tag(file)]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.PENDING])),
    )
    lines = []
    for run in await client.read_flow_runs(flow_run_filter=pending, limit=PAGE_SIZE):
        if run.state and run.state.timestamp < since and not run.work_pool_name:
            state = Crashed(message=UNSTARTED)
            await client.set_flow_run_state(run.id, state)
            notification.ended(FLOW, run, state)
            lines.append(f"{run.parameters.get('schedule')}: run '{run.name}': {UNSTARTED}")
    return lines


async def notify_of_crashes(client: "PrefectClient", file: "Path", message: str) -> list[str]:
    """Notify the schedules' addresses of runs that crashed together with the process that serves the schedules.

    Args:
        client: client of the Prefect server.
        file: file of the schedules.
        message: message of the state that the automation for missing heartbeats gives to such runs.

    Returns:
        one line for each run that was not notified of before.
    """
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    crashed = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[TAG, deployments.file_tag(file)]),
        state=filters.FlowRunFilterState(name=filters.FlowRunFilterStateName(any_=["Crashed"])),
    )
    order = FlowRunSort.EXPECTED_START_TIME_DESC
    lines = []
    for run in await client.read_flow_runs(flow_run_filter=crashed, sort=order, limit=PAGE_SIZE):
        if run.state and run.state.message == message and NOTIFIED_TAG not in run.tags:
            notification.ended(FLOW, run, run.state)
            await client.update_flow_run(run.id, tags=[*run.tags, NOTIFIED_TAG])
            lines.append(f"{run.parameters.get('schedule')}: run '{run.name}': {message}")
    return lines


async def _plan_missed(client: "PrefectClient", deployment: "DeploymentResponse") -> None:
    """Let Prefect plan every date since the last run, or since the schedule was made.

    Prefect's scheduler plans a few dates ahead, and none while the server is off. Dates that are already planned stay
    as they are.
    """
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    started = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment.id]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(not_any_=[StateType.SCHEDULED])),
    )
    last = await client.read_flow_runs(flow_run_filter=started, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
    times = [run.expected_start_time for run in last] + [one.created for one in deployment.schedules]
    dates = {
        "start_time": max(time for time in times if time).isoformat(),
        "end_time": datetime.now(UTC).isoformat(),
        "min_runs": MAX_MISSED,
        "max_runs": MAX_MISSED,
    }
    await client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment.id}, json=dates)


async def _due(client: "PrefectClient", deployment: UUID) -> "list[FlowRun]":
    """Return the scheduled runs whose time has passed, oldest first."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    scheduled = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        next_scheduled_start_time=filters.FlowRunFilterNextScheduledStartTime(before_=datetime.now(UTC)),
    )
    due: list[FlowRun] = []
    while page := await client.read_flow_runs(
        flow_run_filter=scheduled,
        sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
        limit=PAGE_SIZE,
        offset=len(due),
    ):
        due += page
    return due


async def _cancel(client: "PrefectClient", runs: "Sequence[FlowRun]", reason: str) -> None:
    from prefect.states import Cancelled

    for run in runs:
        await client.set_flow_run_state(run.id, Cancelled(name="Missed", message=reason))
