"""Locks between processes of one machine."""

from pathlib import Path

from filelock import FileLock

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.files import private_folder


def file_lock(home: Path, name: str) -> FileLock:
    """Return the lock `home/locks/<name>.lock`, not yet acquired; its folder is created if needed.

    The operating system releases it when its process ends, also after kill -9.

    Raises:
        InputError: something else has the name of the folder or of the lock.
    """
    private_folder(home)
    folder = home / "locks"
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"{folder}: expected a folder, found something else: move it away") from error
    path = folder / f"{name}.lock"
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: expected a file, found something else: move it away")
    return FileLock(path)


def lock_beside(file: Path, name: str) -> FileLock:
    """Return a lock for all processes of this machine that use a file, whatever their home; see `file_lock`."""
    file = file.resolve()
    return file_lock(file.parent, f"{file.name}-{name}")
