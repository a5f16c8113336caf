"""`hallmark serve` and `hallmark deploy`."""

import sys


def serve() -> None:
    """Make Prefect's deployments equal to the file of schedules, and run them until Ctrl-C.

    The file is schedules.toml in the project's root, or HALLMARK_SCHEDULES. What changes there counts from the next
    start. Ending this ends the runs that it has begun, which are resumed; the schedules stay active.

    Example: hallmark serve
    """
    from hallmark.flows.scheduling import serve as serving

    serving.main()


def deploy(*, pool: str) -> None:
    """Give the schedules to a Prefect work pool, whose workers then run them.

    Example: hallmark deploy --pool station

    Parameters
    ----------
    pool
        Name of the work pool.
    """
    from hallmark.flows.scheduling import deploy as deploying

    for line in deploying.deploy(pool):
        sys.stdout.write(f"{line}\n")
