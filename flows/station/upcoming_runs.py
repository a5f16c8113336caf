"""What a Prefect server has scheduled next, what runs, and what ran last."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from hallmark.tasks.runtime import prefect_api
from hallmark.tasks.runtime.station_file import Station

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

SHOWN = 5
"""So many runs of each kind."""


@dataclass(frozen=True)
class Planned:
    """A run of a flow, past or to come."""

    name: str
    schedule: str | None
    """The schedule that it belongs to, if one does."""
    state: str
    at: datetime | None
    """When it is to begin, began, or ended."""


@dataclass(frozen=True)
class Agenda:
    """Runs to come, the next first; those that run; and those that have ended, the last first."""

    next: tuple[Planned, ...]
    running: tuple[Planned, ...]
    last: tuple[Planned, ...]


def read(station: Station, auth: str | None) -> Agenda:
    """Ask the Prefect server of a station.

    Args:
        station: whose server answers.
        auth: `user:password` of the settings.

    Raises:
        InputError: it does not answer, or asks for another user and password.
    """
    from prefect.client.orchestration import get_client

    prefect_api.use_station(station, auth)
    with get_client(sync_client=True) as client:
        return _ask(client)


def _ask(client: "SyncPrefectClient") -> Agenda:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import TERMINAL_STATES, StateType
    from prefect.client.schemas.sorting import FlowRunSort

    names: dict[UUID, str] = {}

    def runs(states: list[StateType], sort: FlowRunSort) -> list["FlowRun"]:
        wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)))
        return client.read_flow_runs(flow_run_filter=wanted, sort=sort, limit=SHOWN)

    def schedule(run: "FlowRun") -> str | None:
        if run.deployment_id is None:
            return None
        if run.deployment_id not in names:
            names[run.deployment_id] = client.read_deployment(run.deployment_id).name
        return names[run.deployment_id]

    def planned(run: "FlowRun") -> Planned:
        at = run.end_time or run.start_time or run.expected_start_time
        return Planned(name=run.name, schedule=schedule(run), state=run.state_name or "", at=at)

    ended = sorted(TERMINAL_STATES, key=str)
    active = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    return Agenda(
        next=tuple(map(planned, runs([StateType.SCHEDULED], FlowRunSort.EXPECTED_START_TIME_ASC))),
        running=tuple(map(planned, runs(active, FlowRunSort.EXPECTED_START_TIME_ASC))),
        last=tuple(map(planned, runs(ended, FlowRunSort.END_TIME_DESC))),
    )
