"""Time limits of the tests, by tier: a test that outgrows its tier fails with a sentence that says so.

Only the call counts, not its fixtures. Busy neighbours fail no test: time in which the thread waits for a core does not
count (Linux), and with more than two processes a core the CPU time of this process is judged instead of elapsed time.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

TIERS = {"unit": 2.0, "pipelines": 15.0}
"""Seconds that a test below this folder of `tests/` may take."""
VARIABLE = "HALLMARK_TEST_LIMITS"
"""Environment variable: `off`, or a factor for the limits, such as 3 on a slow machine."""


class Times(NamedTuple):
    """A moment, in seconds."""

    elapsed: float
    """Without the time in which this thread waited for a core."""
    cpu: float
    """CPU time of this process."""


def limit(path: Path, root: Path) -> float | None:
    """Return the limit of a test in seconds, None where it has none."""
    setting = os.environ.get(VARIABLE, "1")
    seconds = TIERS.get(path.relative_to(root).parts[0]) if path.is_relative_to(root) else None
    return None if setting == "off" or seconds is None else seconds * float(setting)


def now() -> Times:
    """Read the clocks."""
    return Times(time.monotonic() - _seconds_without_core(), time.process_time())


def seconds_since(start: Times) -> float:
    """Return what a test took that began at a moment."""
    is_busy = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
    end = now()
    return end.cpu - start.cpu if is_busy else end.elapsed - start.elapsed


def _seconds_without_core() -> float:
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):  # no Linux, or a kernel that keeps no account
        return 0.0
