"""A server process: its command line, its time limits, and its end with the process that owns it."""

import os
import signal
import sys
import threading
import time

from hallmark.tasks.runtime import signals

BOOT_SECONDS = 120.0
"""Time limit for a server to answer. The first boot on a machine creates the database."""

STOP_SECONDS = 10.0
"""Time limit for a server to stop before it is killed."""

FINISH_SECONDS = 3
"""Time limit for open connections when a server stops."""


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs an installed module with this Python.

    `-m` alone would import from the current folder first, which may contain modules with the names of Hallmark's, of a
    library's or of the standard library's. Most Prefect projects have a folder `flows`.

    Args:
        module: name of the module.
        arguments: its arguments.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def follow_owner() -> None:
    """End this process when the process at the other end of its stdin ends, also if that is killed."""

    def follow() -> None:
        signals.terminate_when_closed(sys.stdin.fileno())
        time.sleep(STOP_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()
