"""Worker processes of a sweep: one thread each, ended together with their owner."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hallmark.tasks.runtime.signals import held


def start_worker() -> None:
    """Limit this worker to one thread, and end it when its owner has died. Used as the pool's initializer."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_follow_owner, daemon=True).start()


def _follow_owner() -> None:
    owner = multiprocessing.parent_process()
    assert owner  # noqa: S101 - a worker has one
    multiprocessing.connection.wait([owner.sentinel])
    # A worker that is training writes a checkpoint first; an idle one would wait forever.
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def interrupted_together() -> Iterator[None]:
    """Terminate all workers when an exception leaves the block; those that are training write checkpoints first."""
    try:
        yield
    except BaseException:
        with held():
            for worker in multiprocessing.active_children():
                worker.terminate()
        raise
