"""The runs that a station's Prefect server has scheduled next, is running, and ran last."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from hallmark.tasks.runtime import prefect_api
from hallmark.tasks.runtime.station_file import Station

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

MAX_RUNS = 5
"""Maximum number of runs of each kind."""


@dataclass(frozen=True)
class ListedRun:
    """A flow run: scheduled, running or ended."""

    name: str
    schedule: str | None
    """Name of the schedule that started the run; None for a run of a command."""
    state: str
    at: datetime | None
    """Time at which the run ended, or else started, or else is expected to start."""


@dataclass(frozen=True)
class StationRuns:
    """Scheduled runs, earliest first; running ones; and ended ones, latest first."""

    next: tuple[ListedRun, ...]
    running: tuple[ListedRun, ...]
    last: tuple[ListedRun, ...]


def read(station: Station, auth: str | None) -> StationRuns:
    """Read the runs from the Prefect server of a station.

    Args:
        station: the station.
        auth: `user:password` of the settings.

    Raises:
        InputError: the server does not answer, or requires another user and password.
    """
    prefect_api.use_station(station, auth)
    from prefect.client.orchestration import get_client  # not earlier; see `prefect_api.use_own_home`

    with get_client(sync_client=True) as client:
        return _read(client)


def _read(client: "SyncPrefectClient") -> StationRuns:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import TERMINAL_STATES, StateType
    from prefect.client.schemas.sorting import FlowRunSort

    names: dict[UUID, str] = {}

    def runs(states: list[StateType], sort: FlowRunSort) -> list["FlowRun"]:
        wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)))
        return client.read_flow_runs(flow_run_filter=wanted, sort=sort, limit=MAX_RUNS)

    def schedule(run: "FlowRun") -> str | None:
        if run.deployment_id is None:
            return None
        if run.deployment_id not in names:
            names[run.deployment_id] = client.read_deployment(run.deployment_id).name
        return names[run.deployment_id]

    def listed(run: "FlowRun") -> ListedRun:
        at = run.end_time or run.start_time or run.expected_start_time
        return ListedRun(name=run.name, schedule=schedule(run), state=run.state_name or "", at=at)

    ended = sorted(TERMINAL_STATES, key=str)
    active = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    return StationRuns(
        next=tuple(map(listed, runs([StateType.SCHEDULED], FlowRunSort.EXPECTED_START_TIME_ASC))),
        running=tuple(map(listed, runs(active, FlowRunSort.EXPECTED_START_TIME_ASC))),
        last=tuple(map(listed, runs(ended, FlowRunSort.END_TIME_DESC))),
    )
