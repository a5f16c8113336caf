"""Which process of which machine this is, and whether such a process still runs."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

_TOLERANCE_SECONDS = 5.0
"""Difference of two start times of one process: they are computed from the time of the boot, which is adjusted."""


@cache
def machine() -> str:
    """Return the name of this machine in its network."""
    return platform.node() or "unknown"


def started_at(pid: int) -> datetime | None:
    """Return when a process of this machine started, or None if there is no such process.

    With the process id it names a process for good, although ids are used again.
    """
    try:
        if Path("/proc/self/stat").exists():
            # proc(5): field 22, in ticks since the boot. The second field, in parentheses, may contain spaces.
            ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
            boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
            return datetime.fromtimestamp(int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK"), UTC)
        shown = subprocess.run(
            ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout.strip()
        return datetime.strptime(shown, "%a %b %d %H:%M:%S %Y").astimezone(UTC) if shown else None
    except (OSError, ValueError):
        return None


def lives(name: str, pid: int, started: datetime) -> bool:
    """Return whether a process is one of this machine and still runs.

    Args:
        name: name of its machine.
        pid: its id.
        started: when it started.
    """
    if name != machine():
        return False
    found = started_at(pid)
    return found is not None and abs((found - started).total_seconds()) <= _TOLERANCE_SECONDS
