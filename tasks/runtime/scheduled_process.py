"""The process of a scheduled run: it ends with the process that serves it, and waits for other runs of its model.

When Prefect's runner is killed, its runs go on without it. They would fail at the next write to a pipe that has no
reader, or run beside their successor. Here they are interrupted instead, and the next run resumes them.

Prefect's own concurrency limits are not used: they end a run that cannot renew its lease, so a restart of the server,
which forgets the leases, would end every training. A kernel lock needs no server, and kill -9 releases it.
"""

import atexit
import os
import select
import stat
import sys
import threading
from contextlib import AbstractContextManager

from hallmark.tasks.common.file_locks import file_lock
from hallmark.tasks.runtime import locks, settings, signals

SERVED_VARIABLE = "HALLMARK_SERVED"
"""Environment variable that `hallmark.flows.scheduling.serve` sets for itself and so for its runs."""

STOPPING = threading.Event()
"""Set in the serving process when it was asked to stop."""


def end_with_server() -> None:
    """Send SIGTERM to this process when the process that serves it has ended. Does nothing in other processes.

    Also skips the cleanup of torch, MLflow and Prefect at the end, for which the next run would wait seconds.
    """
    if os.environ.get(SERVED_VARIABLE) and _is_held():
        threading.Thread(target=signals.terminate_when_closed, args=(sys.stdin.fileno(),), daemon=True).start()
        atexit.register(_leave)


def is_told_to_end(message: str | None) -> bool:
    """Return whether a crashed run was stopped on purpose, as by `hallmark down`, rather than by a fault.

    Called in the serving process or in the run's own. In the latter a termination signal is on purpose while the
    serving process lives, and a fault when it has died.

    Args:
        message: message of the run's state in Prefect.
    """
    if STOPPING.is_set():
        return True
    if "termination signal" not in (message or ""):
        return False
    return bool(os.environ.get(SERVED_VARIABLE)) and _is_held() and not select.select([sys.stdin], [], [], 0)[0]


def _is_held() -> bool:
    """Return whether stdin is a pipe or socket, whose other end the runner holds without writing to it."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _leave() -> None:
    """Run the other exit functions and end without cleanup. Called after Prefect has reported the run."""
    atexit.unregister(_leave)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Prefect's record has the run's result, not the exit code


def turn(model: str) -> AbstractContextManager[None]:
    """Return a lock that lets one run at a time retrain a model on this machine; the others wait.

    Args:
        model: name of the registered model.
    """
    return locks.exclusive(file_lock(settings.read().home, f"retrain-{model}"), f"another run retrains {model}")
