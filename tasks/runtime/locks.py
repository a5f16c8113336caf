"""Locks between processes of one machine."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from hallmark.tasks.runtime import progress


@contextmanager
def exclusive(lock: FileLock, waiting: str) -> Iterator[None]:
    """Hold the lock. If another process holds it, report `waiting` and wait."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.line("waiting", waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
