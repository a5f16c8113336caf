"""`hallmark serve` and `hallmark deploy`."""

from hallmark.flows.cli.shared.printing import print_text


def serve() -> None:
    """Register the schedules in Prefect and run them until Ctrl-C.

    Schedules are read from schedules.toml in the project's root, or from the file named by HALLMARK_SCHEDULES. Changes
    to the file take effect at the next start. Stopping this command interrupts its runs, and the next start resumes
    them; the schedules stay active in Prefect.

    Example: hallmark serve
    """
    from hallmark.flows.scheduling import serve as serving

    serving.main()


def deploy(*, pool: str) -> None:
    """Assign the schedules to a Prefect work pool, so that its workers run them.

    Example: hallmark deploy --pool station

    Parameters
    ----------
    pool
        Name of the work pool.
    """
    from hallmark.flows.scheduling import deploy as deploying

    for line in deploying.deploy(pool):
        print_text(f"{line}\n")
