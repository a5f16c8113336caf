"""Locks between processes of one machine."""

from pathlib import Path

from filelock import FileLock

from hallmark.tasks.common.files import private_folder


def file_lock(home: Path, name: str) -> FileLock:
    """Return the lock `home/locks/<name>.lock`, not yet acquired; its folder is created if needed.

    The operating system releases it when its process ends, also after kill -9.
    """
    private_folder(home)
    folder = home / "locks"
    folder.mkdir(exist_ok=True)
    return FileLock(folder / f"{name}.lock")


def lock_beside(file: Path, name: str) -> FileLock:
    """Return a lock for all processes of this machine that use a file, whatever their home; see `file_lock`."""
    file = file.resolve()
    return file_lock(file.parent, f"{file.name}-{name}")
