"""A scheduled run among others: it ends with the process that serves it, and waits for others of its model.

Prefect's runner leaves its runs behind when it is killed. They would go on writing to a pipe that nobody reads, trip
over it, and end as failed; or go on beside the next one. Told to end, they stop as interrupted, and are resumed.

Prefect's own concurrency limits are not used: a run that cannot renew its lease is ended by them, so a restart of the
server, which forgets the leases, would end every training. A lock of the kernel needs no server, and kill -9 frees it.
"""

import atexit
import os
import select
import signal
import stat
import sys
import threading
from contextlib import AbstractContextManager

from hallmark.tasks.runtime import locks, settings

MARK = "HALLMARK_SERVED"
"""Set by `hallmark.flows.scheduling.serve` in its own environment, so in that of its runs."""

ENDING = threading.Event()
"""Set in the serving process when it has been told to end."""


def end_with_server() -> None:
    """Let this process end as by SIGTERM when the one that serves it has gone; nothing where none does.

    Also lets it end at once when its run has: Python would take torch, MLflow and Prefect apart first, for seconds in
    which the next run waits.
    """
    if os.environ.get(MARK) and _is_held():
        threading.Thread(target=_follow, daemon=True).start()
        atexit.register(_leave)


def is_told_to_end(message: str | None) -> bool:
    """Whether a run that has crashed was told to end, as by `hallmark down`, and did not meet with a fault.

    Asked in the process that serves it, or in its own. There the signal that ends it counts as told while the process
    that serves it lives; when that has died, the same signal is a fault.

    Args:
        message: of the state in which Prefect has put the run.
    """
    if ENDING.is_set():
        return True
    is_signal = "termination signal" in (message or "")
    return is_signal and bool(os.environ.get(MARK)) and _is_held() and not select.select([sys.stdin], [], [], 0)[0]


def _is_held() -> bool:
    """Whether stdin is what the runner holds the other end of, and writes nothing to."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _leave() -> None:
    """Called first at exit, when Prefect has told its server everything: let the others go first, and then leave."""
    atexit.unregister(_leave)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # what became of the run is known from what Prefect was told, not from this


def _follow() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the other end closes, which kill -9 does too
    os.kill(os.getpid(), signal.SIGTERM)


def turn(model: str) -> AbstractContextManager[None]:
    """Hold the place of a model's retraining, on this machine; wait for it where another run has it.

    Args:
        model: its registered name.
    """
    return locks.exclusive(settings.read().home / "locks" / f"retrain-{model}.lock", f"another run retrains {model}")
