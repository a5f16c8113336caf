"""Time limits of tests by tier. A test that exceeds the limit of its tier fails with a message.

Only the test function counts, not its fixtures. A busy machine must not fail a test: on Linux, the time in which the
thread waits for a core is subtracted, and if the load exceeds two processes per core, the CPU time of this process is
compared with the limit instead of elapsed time.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

TIERS = {"unit": 2.0, "pipelines": 15.0}
"""Limit in seconds for each folder of `tests/`."""
VARIABLE = "HALLMARK_TEST_LIMITS"
"""Environment variable: `off`, or a factor applied to the limits, such as 3 on a slow machine."""


class Times(NamedTuple):
    """Clock readings, in seconds."""

    elapsed: float
    """Elapsed time without the time in which this thread waited for a core."""
    cpu: float
    """CPU time of this process."""


def limit(path: Path, root: Path) -> float | None:
    """Return the limit of a test in seconds, or None if it has no limit."""
    setting = os.environ.get(VARIABLE, "1")
    seconds = TIERS.get(path.relative_to(root).parts[0]) if path.is_relative_to(root) else None
    return None if setting == "off" or seconds is None else seconds * float(setting)


def now() -> Times:
    """Read the clocks."""
    return Times(time.monotonic() - _seconds_without_core(), time.process_time())


def seconds_since(start: Times) -> float:
    """Return the duration of a test that started at `start`."""
    is_busy = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
    end = now()
    return end.cpu - start.cpu if is_busy else end.elapsed - start.elapsed


def _seconds_without_core() -> float:
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):  # not Linux, or a kernel without scheduler statistics
        return 0.0
