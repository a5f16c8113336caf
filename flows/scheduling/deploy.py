"""Assign the schedules to a Prefect work pool, whose workers run them instead of `hallmark serve`."""

import asyncio
from typing import TYPE_CHECKING

from hallmark.flows.scheduling import deployments, schedules
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import prefect_api

if TYPE_CHECKING:
    from pathlib import Path


def deploy(pool: str) -> list[str]:
    """Make the deployments in a work pool equal to the file of schedules.

    Hallmark must be installed where the workers of the pool run. `hallmark serve` does not touch these schedules.

    Args:
        pool: name of the work pool.

    Returns:
        one line for each schedule.

    Raises:
        InputError: the schedules are invalid, the pool does not exist, or no Prefect server answers.
    """
    prefect_api.use_own_home()
    planned = schedules.load()
    deployments.use_server()
    return asyncio.run(_deploy(planned, schedules.file(), pool))


async def _deploy(planned: list[schedules.ScheduledExperiment], file: "Path", pool: str) -> list[str]:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    async with get_client() as client:
        try:
            await client.read_work_pool(pool)
        except (ObjectNotFound, PrefectHTTPStatusError) as error:  # the latter for a name with a slash, or an empty one
            names = ", ".join(sorted(known.name for known in await client.read_work_pools())) or "none"
            raise InputError(
                f"--pool: there is no work pool '{pool}', existing pools: {names}: "
                f"create it with `prefect work-pool create {pool} --type process`"
            ) from error
        return await deployments.reconcile(client, planned, file, pool=pool)
