"""The schedules in a Prefect work pool, for workers to run instead of `hallmark serve`."""

import asyncio
from typing import TYPE_CHECKING

from hallmark.flows.scheduling import deployments, schedules
from hallmark.tasks.common.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def deploy(pool: str) -> list[str]:
    """Make the deployments in a work pool equal to the file of schedules.

    Its workers import this project: it is installed where they run. `hallmark serve` leaves these schedules alone.

    Args:
        pool: name of the work pool.

    Returns:
        what was done, a line for each schedule.

    Raises:
        InputError: the schedules cannot be used, there is no such pool, or no Prefect server that answers.
    """
    found = schedules.load()
    deployments.use_server()
    return asyncio.run(_deploy(found, schedules.file(), pool))


async def _deploy(found: list[schedules.Planned], file: "Path", pool: str) -> list[str]:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    async with get_client() as client:
        try:
            await client.read_work_pool(pool)
        except ObjectNotFound as error:
            names = ", ".join(sorted(known.name for known in await client.read_work_pools())) or "none yet"
            raise InputError(
                f"--pool: there is no work pool '{pool}': there are {names}; "
                f"`prefect work-pool create {pool} --type process` makes one"
            ) from error
        return await deployments.reconcile(client, found, file, pool=pool)
