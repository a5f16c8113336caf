"""Time limits of the tests, by tier: a test that outgrows its tier fails with a sentence that says so.

What counts is the time of the call without its fixtures, and without the time that the thread was ready to run and a
busy neighbour had the core, where the kernel tells it.
"""

import os
import time
from pathlib import Path

TIERS = {"unit": 2.0, "pipelines": 15.0}
"""Seconds that a test below this folder of `tests/` may take."""
VARIABLE = "HALLMARK_TEST_LIMITS"
"""Environment variable: `off`, or a factor for the limits, such as 3 on a slow machine."""


def limit(path: Path, root: Path) -> float | None:
    """Return the limit of a test file in seconds, None where it has none."""
    setting = os.environ.get(VARIABLE, "1")
    seconds = TIERS.get(path.relative_to(root).parts[0]) if path.is_relative_to(root) else None
    return None if setting == "off" or seconds is None else seconds * float(setting)


def clock() -> float:
    """Return a time in seconds that stands still while this thread waits for a core."""
    return time.monotonic() - _seconds_without_core()


def _seconds_without_core() -> float:
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):  # no Linux, or a kernel that keeps no account
        return 0.0
