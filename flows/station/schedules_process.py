"""The process of a station that serves the schedules: `python -m hallmark.flows.station.schedules_process`."""

import sys

from hallmark.flows.scheduling import serve
from hallmark.flows.station import child_process
from hallmark.tasks.common.errors import HallmarkError

if __name__ == "__main__":
    child_process.follow_owner()
    try:
        serve.main()
    except HallmarkError as error:
        sys.exit(f"{error}")
