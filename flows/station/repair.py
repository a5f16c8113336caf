"""Close and remove what killed processes and machines that are gone have left: `hallmark doctor --repair`.

A station runs this module, `python -m hallmark.flows.station.repair`, every hour. It prints one line for each thing
that was repaired.
"""

import sys
from functools import partial
from pathlib import Path

from hallmark.flows.station import child_process, prefect_server
from hallmark.tasks.common import files
from hallmark.tasks.common.digests import RUN_ID_DIGITS
from hallmark.tasks.common.errors import HallmarkError
from hallmark.tasks.common.terminal import Console
from hallmark.tasks.runtime import prefect_api, running_commands, settings


def repair() -> list[str]:
    """Repair what is broken in the home, in MLflow and in Prefect, and return one line for each thing.

    Temporary files of killed processes are removed. Runs in MLflow are closed as killed if the process of their attempt
    in this home is gone, or if their last heartbeat is older than HALLMARK_GONE_SECONDS; each can still be continued.
    Flow runs of killed commands are marked as crashed.

    Raises:
        InputError: MLflow or Prefect cannot be reached.
    """
    machine = settings.read()
    home, given = machine.writable_home(), prefect_api.in_settings()
    lines = [f"removed {_short(path, home)}" for path in files.sweep_tree(home)]
    from hallmark.tasks.tracking import heartbeat, resume, tags

    lines += [f"run {run[:RUN_ID_DIGITS]} is closed as killed: its process is gone" for run in resume.close_orphans()]
    gone = heartbeat.close_gone(machine.gone_seconds)
    lines += [f"run {run.id[:RUN_ID_DIGITS]} of {run.title} is closed as killed: no heartbeat" for run in gone]
    flow_runs = sorted({run.tags[tags.PREFECT_FLOW_RUN] for run in gone if tags.PREFECT_FLOW_RUN in run.tags})
    if (abandoned := running_commands.abandoned(home)) or flow_runs:
        logs = home / "logs"
        logs.mkdir(exist_ok=True)
        prefect_server.provide(logs / "server.log")()
        lines += running_commands.crash(abandoned, given)
        lines += running_commands.crash_flow_runs(flow_runs, "Its run in MLflow has no heartbeat: its machine is gone")
    return lines


def _short(path: Path, home: Path) -> str:
    return f"{path.relative_to(home)}, left by a killed process"


if __name__ == "__main__":
    child_process.follow_owner()
    write = partial(Console().print, markup=False, highlight=False, soft_wrap=True)  # into the log of the station
    try:
        for line in repair():
            write(line)
        if older := settings.from_environment().prune:
            from hallmark.flows.station import prune

            for text in prune.describe(prune.prune(older, dry_run=False)):
                write(text)
    except HallmarkError as error:
        sys.exit(f"{error}")
