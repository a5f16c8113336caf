"""Time limits of the tests, by tier: a test that outgrows its tier fails with a sentence that says so.

Only the call counts, not its fixtures. Busy neighbours fail no test: time in which the thread waits for a core does not
count (Linux), and the limits grow with the load of the machine beyond two processes a core.
"""

import os
import time
from pathlib import Path

TIERS = {"unit": 2.0, "pipelines": 15.0}
"""Seconds that a test below this folder of `tests/` may take."""
VARIABLE = "HALLMARK_TEST_LIMITS"
"""Environment variable: `off`, or a factor for the limits, such as 3 on a slow machine."""


def limit(path: Path, root: Path) -> float | None:
    """Return the limit of a test in seconds at the present load, None where it has none."""
    setting = os.environ.get(VARIABLE, "1")
    seconds = TIERS.get(path.relative_to(root).parts[0]) if path.is_relative_to(root) else None
    if setting == "off" or seconds is None:
        return None
    load = os.getloadavg()[0] / (2 * (os.cpu_count() or 1))
    return seconds * float(setting) * max(1.0, load)


def clock() -> float:
    """Return a time in seconds that stands still while this thread waits for a core."""
    return time.monotonic() - _seconds_without_core()


def _seconds_without_core() -> float:
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):  # no Linux, or a kernel that keeps no account
        return 0.0
