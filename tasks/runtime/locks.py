"""Locks between processes of one machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hallmark.tasks.runtime import progress


@contextmanager
def exclusive(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock file `path`. If another process holds it, report `waiting` and wait.

    The operating system releases the lock when its process ends, also after kill -9.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.line("waiting", waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
