"""The deployments of the schedules in Prefect, kept equal to the file of schedules."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hallmark.flows.scheduling.schedules import Schedule, ScheduledExperiment
from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import prefect_api

if TYPE_CHECKING:
    from pathlib import Path

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

TAG = "hallmark-schedule"
"""Tag of deployments that Hallmark made."""

PAGE_SIZE = 200
"""Maximum number of results of one request to Prefect."""

FLOW = "retrain"
ENTRYPOINT = "hallmark.flows.retrain.retrain"
"""Entrypoint of the deployments: a module path, which every process of the installed project can import."""


def use_server() -> None:
    """Use the Prefect server that PREFECT_API_URL names, or else that of the running station.

    Raises:
        InputError: there is neither, or the server does not answer.
    """
    if not prefect_api.use_running():
        raise InputError(
            "there is no Prefect server for the schedules: run `hallmark up`, which starts one, "
            "or start one yourself (`prefect server start`) and set PREFECT_API_URL"
        )


async def reconcile(
    client: "PrefectClient", planned: Sequence[ScheduledExperiment], file: "Path", *, pool: str | None = None
) -> list[str]:
    """Add, change and remove deployments until they are equal to the schedules of a file.

    Deployments that are equal already are not touched: Prefect treats a changed schedule as a new one and forgets which
    of its dates have run.

    Args:
        client: client of the Prefect server.
        planned: the schedules of the file.
        file: file of the schedules. Deployments made for other files are left alone.
        pool: work pool that runs the schedules. If None, they are served by `hallmark serve`, except for those that
            have a work pool already.

    Returns:
        one line for each schedule.

    Raises:
        InputError: Prefect has a deployment with the name of a schedule that was not made from this file. Nothing was
            changed.
    """
    known = {one.name: one for one in await registered(client, file)}
    for one in planned:
        await _refuse_foreign(client, one.schedule.name, known)
    lines = []
    for one in planned:
        schedule = one.schedule
        existing = known.pop(schedule.name, None)
        if existing and pool is None and existing.work_pool_name:
            lines.append(f"{schedule.name}: {_in_pool(existing)}")
            continue
        parameters = _parameters(one)
        if existing and _is_equal(existing, schedule, parameters, pool):
            lines.append(f"{schedule.name}: unchanged")
            continue
        await _register(schedule, parameters, file_tag(file), pool)
        lines.append(f"{schedule.name}: {'changed' if existing else 'added'}")
    for name, existing in known.items():
        await client.delete_deployment(existing.id)
        lines.append(f"{name}: removed")
    return lines


async def registered(client: "PrefectClient", file: "Path") -> "list[DeploymentResponse]":
    """Return the deployments that were made from a file of schedules."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    made_from_file = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG, file_tag(file)]))
    return await client.read_deployments(deployment_filter=made_from_file, limit=PAGE_SIZE)


async def served(client: "PrefectClient", file: "Path") -> "list[DeploymentResponse]":
    """Return the deployments of a file that have no work pool, so `hallmark serve` runs them."""
    return [one for one in await registered(client, file) if not one.work_pool_name]


def file_tag(file: "Path") -> str:
    """Return the tag of deployments and runs that were made from a file of schedules."""
    return f"hallmark-file-{hashlib.sha256(bytes(file.resolve())).hexdigest()[:SHOWN]}"


def _in_pool(existing: "DeploymentResponse") -> str:
    pool = existing.work_pool_name
    if existing.entrypoint == ENTRYPOINT:
        return f"run by work pool '{pool}'"
    return (
        f"run by work pool '{pool}' with the entrypoint of another version ({existing.entrypoint}): "
        f"run `hallmark deploy --pool {pool}` to update it"
    )


async def _refuse_foreign(client: "PrefectClient", name: str, known: "dict[str, DeploymentResponse]") -> None:
    from prefect.exceptions import ObjectNotFound

    if name in known:
        return
    try:
        await client.read_deployment_by_name(f"{FLOW}/{name}")
    except ObjectNotFound:
        return
    raise InputError(
        f"schedule '{name}': Prefect has a deployment '{FLOW}/{name}' that was not made from this file: "
        f"rename the schedule, or delete the deployment (`prefect deployment delete {FLOW}/{name}`)"
    )


def _parameters(planned: ScheduledExperiment) -> dict[str, Any]:
    schedule = planned.schedule
    given = {
        "experiment": planned.experiment.model_dump(mode="json"),
        "rule": schedule.rule.model_dump(mode="json"),
        "notify": schedule.notify,
        "schedule": schedule.name,
    }
    if planned.has_derived_name:  # else left out, so that deployments of before stay equal
        given["derived_name"] = True
    parameters: dict[str, Any] = json.loads(json.dumps(given))  # as Prefect returns them
    return parameters


def _is_equal(existing: "DeploymentResponse", schedule: Schedule, parameters: dict[str, Any], pool: str | None) -> bool:
    dates = [(one.schedule, one.active) for one in existing.schedules]
    return (
        existing.parameters == parameters
        and dates == [(schedule.dates, True)]
        and existing.work_pool_name == pool
        and existing.entrypoint == ENTRYPOINT
        and existing.description == schedule.describe()
    )


async def _register(schedule: Schedule, parameters: dict[str, Any], tag: str, pool: str | None) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.types.entrypoint import EntrypointType

    from hallmark.flows.retrain import retrain  # imports torch, which is not needed if nothing has changed

    deployment = await retrain.ato_deployment(
        schedule.name,
        schedules=[DeploymentScheduleCreate(schedule=schedule.dates, active=True)],
        parameters=parameters,
        description=schedule.describe(),
        tags=[TAG, tag],
        entrypoint_type=EntrypointType.MODULE_PATH,
        work_pool_name=pool,
    )
    deployment.work_pool_name = pool  # also if it is None, which takes the schedule out of a pool
    await deployment.aapply()
