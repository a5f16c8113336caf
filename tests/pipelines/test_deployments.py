"""Schedules as Prefect deployments, on a server without a scheduler."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.states import Completed, Pending, Scheduled

from hallmark.flows.scheduling import deployments, missed_runs, schedules, serve
from hallmark.tasks.common.errors import InputError
from tests.pipelines.test_notification import receiver
from tests.support.processes import until
from tests.support.scheduled import LONG, QUICK, runs, with_client


def reconcile(path: Path, pool: str | None = None) -> list[str]:
    return list(with_client(lambda client: deployments.reconcile(client, schedules.load(), path, pool=pool)))


def deployments_of(path: Path) -> dict[str, Any]:
    found = with_client(lambda client: deployments.registered(client, path))
    return {one.name: one for one in found}


@pytest.mark.usefixtures("prefect_server")
def test_deployments_are_updated_to_match_the_file(write_schedules: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("x,y\n" + "1,a\n2,b\n" * 20)
    (tmp_path / "own.toml").write_text("[data]\nkind = 'table'\npath = 'own.csv'\ntarget = 'y'\n")
    path = write_schedules(QUICK, "name = 'own'\nexperiment = 'own.toml'\ninterval = '1h'")
    assert reconcile(path) == ["quick: added", "own: added"]
    assert {one: found.parameters.get("derived_name") for one, found in deployments_of(path).items()} == {
        "quick": None,
        "own": True,
    }
    write_schedules(QUICK, LONG)
    assert reconcile(path) == ["quick: unchanged", "long: added", "own: removed"]
    before = deployments_of(path)
    assert before["quick"].parameters["experiment"]["training"]["epochs"] == 3
    assert before["quick"].parameters["schedule"] == "quick"
    assert before["quick"].entrypoint == deployments.ENTRYPOINT
    assert reconcile(path) == ["quick: unchanged", "long: unchanged"]
    assert [one.id for one in deployments_of(path)["quick"].schedules] == [one.id for one in before["quick"].schedules]

    write_schedules(QUICK.replace("10s", "20s"))
    assert reconcile(path) == ["quick: changed", "long: removed"]
    after = deployments_of(path)
    assert set(after) == {"quick"}
    assert after["quick"].id == before["quick"].id
    assert [one.schedule.interval for one in after["quick"].schedules] == [timedelta(seconds=20)]

    other = tmp_path / "other" / "schedules.toml"
    with pytest.raises(InputError, match="schedule 'quick': Prefect has a deployment 'retrain/quick' that was not"):
        reconcile(other)
    path.write_text("")
    assert reconcile(other) == []
    assert set(deployments_of(path)) == {"quick"}
    assert reconcile(path) == ["quick: removed"]


@pytest.mark.usefixtures("prefect_server")
def test_deployment_with_an_older_entrypoint_is_updated_or_reported(
    write_schedules: Callable[..., Path],
) -> None:
    path = write_schedules(QUICK)
    assert reconcile(path) == ["quick: added"]

    def make_old(**changes: str) -> None:
        update = DeploymentUpdate(entrypoint="flows.retrain.retrain", **changes)
        identifier = deployments_of(path)["quick"].id
        with_client(lambda client: client.update_deployment(identifier, update))
        assert deployments_of(path)["quick"].entrypoint == "flows.retrain.retrain"

    make_old()
    assert reconcile(path) == ["quick: changed"]
    assert deployments_of(path)["quick"].entrypoint == deployments.ENTRYPOINT

    pool = f"p{uuid.uuid4().hex[:8]}"
    with_client(lambda client: client.create_work_pool(WorkPoolCreate(name=pool, type="process")))
    make_old(work_pool_name=pool)
    (line,) = reconcile(path)
    assert line == (
        f"quick: run by work pool '{pool}' with the entrypoint of another version (flows.retrain.retrain): "
        f"run `hallmark deploy --pool {pool}` to update it"
    )
    assert reconcile(path, pool) == ["quick: changed"]
    assert reconcile(path) == [f"quick: run by work pool '{pool}'"]
    path.write_text("")
    reconcile(path)


@pytest.mark.usefixtures("prefect_server")
def test_automation_is_created_once_and_kept_up_to_date() -> None:
    def known() -> list[Any]:
        return list(with_client(lambda client: client.read_automations_by_name(serve.AUTOMATION)))

    with_client(serve.watch_heartbeats)
    (created,) = known()
    with_client(serve.watch_heartbeats)
    assert [one.id for one in known()] == [created.id]
    assert serve._content(created) == serve._content(serve._automation())  # equal, so it is not updated
    changed = serve._automation().model_copy(update={"enabled": False})
    with_client(lambda client: client.update_automation(created.id, changed))
    with_client(serve.watch_heartbeats)
    assert [(one.id, one.enabled) for one in known()] == [(created.id, True)]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("missed", "kept"), [("skip", []), ("latest", [1]), ("all", [3, 2, 1])])
def test_missed_runs_are_handled_by_the_policy_of_the_schedule(
    write_schedules: Callable[..., Path], missed: str, kept: list[int]
) -> None:
    # The schedule is daily, because a date that passed during this test would count as missed too.
    path = write_schedules(QUICK.replace("10s", "1d") + f'missed = "{missed}"\n')
    reconcile(path)
    deployment, now = deployments_of(path)["quick"].id, datetime.now(UTC)

    async def plan(client: Any) -> list[UUID]:  # noqa: ANN401
        times = [now - timedelta(minutes=minutes) for minutes in (3, 2, 1)] + [now + timedelta(hours=1)]
        return [
            (await client.create_flow_run_from_deployment(deployment, state=Scheduled(scheduled_time=time))).id
            for time in times
        ]

    async def settle(client: Any) -> list[str]:  # noqa: ANN401
        return await missed_runs.handle_missed(client, schedules.load(), path)

    async def names(client: Any) -> list[str]:  # noqa: ANN401
        return [(await client.read_flow_run(identifier)).state.name for identifier in planned]

    planned = with_client(plan)
    assert with_client(settle) == [f"quick: 3 missed, {len(kept)} to run, {3 - len(kept)} cancelled"]
    cancelled = with_client(lambda client: missed_runs.cancel_superseded(client, schedules.load(), path))
    assert cancelled == []  # at most one is left, or the policy keeps all
    expected = ["Scheduled" if minutes in kept else "Missed" for minutes in (3, 2, 1)]
    assert with_client(names) == [*expected, "Scheduled"]


@pytest.mark.usefixtures("prefect_server")
def test_dates_missed_while_prefect_was_off_are_planned(write_schedules: Callable[..., Path]) -> None:
    path = write_schedules(QUICK.replace("10s", "1s") + 'missed = "all"\n')
    reconcile(path)  # the server has no scheduler, so nothing is planned

    async def settle(client: Any) -> list[str]:  # noqa: ANN401
        return await missed_runs.handle_missed(client, schedules.load(), path)

    def missed() -> int:
        (line,) = with_client(settle) or ["quick: 0 missed"]
        return int(line.split()[1])

    until(lambda: missed() >= 3)
    dates = [run.expected_start_time for run in runs(address(), path, "Scheduled")]
    assert {(after - before).total_seconds() for before, after in pairwise(dates)} == {1}


@pytest.mark.usefixtures("prefect_server")
def test_setting_the_clock_back_plans_no_date_twice(write_schedules: Callable[..., Path]) -> None:
    path, now = write_schedules(QUICK.replace("10s", "1h")), datetime.now(UTC)
    reconcile(path)
    deployment = deployments_of(path)["quick"].id

    def plan(start: datetime) -> list[datetime]:
        """Plan runs as Prefect's scheduler does at this time, and return all planned dates."""
        request = {"start_time": start.isoformat(), "min_runs": 5, "max_runs": 5}
        route = "/deployments/{id}/schedule"
        with_client(lambda client: client.request("POST", route, path_params={"id": deployment}, json=request))
        return [run.expected_start_time for run in runs(address(), path, "Scheduled", "Completed")]

    before = plan(now)
    (first, *_) = runs(address(), path, "Scheduled")
    with_client(lambda client: client.set_flow_run_state(first.id, Completed(), force=True))
    after = plan(now - timedelta(hours=2))
    assert after[2:] == before
    assert len(set(after)) == len(after)
    assert runs(address(), path, "Completed")[0].id == first.id


@pytest.mark.usefixtures("prefect_server")
def test_pending_run_that_never_starts_is_crashed_with_a_notification(
    write_schedules: Callable[..., Path],
) -> None:
    with receiver() as (receiver_address, messages):
        path = write_schedules(QUICK + f'notify = "{receiver_address}"\n')
        reconcile(path)
        deployment = deployments_of(path)["quick"].id
        run = with_client(lambda client: client.create_flow_run_from_deployment(deployment, state=Pending()))

        def look(since: datetime) -> list[str]:
            return list(with_client(lambda client: missed_runs.crash_unstarted(client, path, since)))

        assert look(datetime.now(UTC) - timedelta(minutes=1)) == []  # it may still start
        assert look(datetime.now(UTC)) == [f"quick: run '{run.name}': {missed_runs.UNSTARTED}"]
        assert [one.id for one in runs(address(), path, "Crashed")] == [run.id]
        assert [one["title"] for one in messages] == ["quick (iris): CRASHED"]
        assert look(datetime.now(UTC)) == []


def address() -> str:
    """Return the address of the Prefect server that the settings name."""
    from prefect.settings import PREFECT_API_URL

    return str(PREFECT_API_URL.value())
