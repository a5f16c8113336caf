"""Write files and folders atomically: the complete new content appears, or nothing changes."""

import difflib
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp-hallmark-"
"""Prefix of temporary folders."""
_LOCK = ".lock"
"""File in a temporary folder that its process holds locked. The kernel releases the lock also after kill -9."""
_MIN_AGE_SECONDS = 60.0
"""Minimum age of a folder that is swept: a younger one may not be locked yet."""
_OLD_NAME = re.compile(r"\.(tmp|reproduce)-[a-z0-9_]{8}|\.removed-[0-9a-f]{32}")
"""Names of temporary folders of older versions, which held no lock."""
_OLD_AGE_SECONDS = 86_400.0
"""Minimum age of such a folder that is swept: its process, of an older version, may still be writing."""

_swept: set[Path] = set()
"""Folders that this process has swept. Listing a large folder for each file in it would take too long."""


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder that is removed at the end of the block, or by a later process if this one is killed.

    The first call for a parent in each process removes the temporary folders that killed processes left there.

    Args:
        parent: existing folder in which it is made; by default the system's folder for temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    if parent not in _swept:
        _swept.add(parent)
        sweep(parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=TEMPORARY) as name, (Path(name) / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(name) / "files"
        folder.mkdir()
        yield folder


def sweep(place: Path) -> list[Path]:
    """Remove the temporary folders in `place` whose process is gone, and return them."""
    found = [Path(entry) for entry in _entries(place) if entry.name.startswith(TEMPORARY)]
    return [folder for folder in found if _remove_unlocked(folder)]


def sweep_tree(root: Path) -> list[Path]:
    """Remove such folders from a whole tree, also those that older versions left a day ago, and return them."""
    removed = []
    waiting = [root]
    while waiting:
        place = waiting.pop()
        for entry in _entries(place):
            path = Path(entry)
            if entry.name.startswith(TEMPORARY):
                is_removed = _remove_unlocked(path)
            elif _OLD_NAME.fullmatch(entry.name):
                is_removed = last_changed(path) < time.time() - _OLD_AGE_SECONDS and _remove(path)
            else:
                waiting.append(path)
                continue
            removed += [path] * is_removed
    return removed


def _entries(place: Path) -> list["os.DirEntry[str]"]:
    """Return the folders in `place`, without links; none if it does not exist or cannot be listed."""
    try:
        with os.scandir(place) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _remove_unlocked(folder: Path) -> bool:
    """Remove a temporary folder unless a process holds it or it is too young; return whether it was removed."""
    try:
        about = folder.stat()
        if about.st_uid != os.getuid() or about.st_mtime > time.time() - _MIN_AGE_SECONDS:
            return False
        with (folder / _LOCK).open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _remove(folder)
    except FileNotFoundError:
        return _remove(folder)  # its process was killed before it could lock it
    except OSError:
        return False  # it is in use, or the file system has no locks


def _remove(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)  # another process may sweep the same folder
    return not folder.exists()


def remove_folder(folder: Path) -> None:
    """Remove a folder. If a kill interrupts this, nothing is left under its name."""
    with temporary_folder(folder.parent) as temporary:
        folder.rename(temporary / folder.name)


def size(path: Path) -> int:
    """Return the number of bytes of a file, or of all files in a folder."""
    total = 0
    for one in (path, *path.rglob("*")):
        with suppress(OSError):  # removed meanwhile
            total += one.lstat().st_size if not one.is_dir() else 0
    return total


def last_changed(folder: Path) -> float:
    """Return the latest time, in seconds since the epoch, at which a folder or something in it was changed."""
    newest = 0.0
    for path in (folder, *folder.rglob("*")):
        with suppress(OSError):  # removed meanwhile
            newest = max(newest, path.lstat().st_mtime)
    return newest


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block succeeds.

    The content is synced to disk before the rename, so that a crash leaves either the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(path.parent) as folder:
        # Keep the name, because libraries choose a file format by its suffix.
        temporary = folder / path.name
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    _sync(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path`, with all its files, if the block succeeds.

    Not safe for several processes at once: hold a lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(path.parent) as parent:
        temporary = parent / path.name
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        if path.exists():
            path.rename(parent / ".replaced")
        temporary.rename(path)
    _sync(path.parent)


def private_folder(path: Path) -> None:
    """Create a folder that only its owner can enter. An existing one keeps its mode: its owner may have chosen it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def is_writable(folder: Path) -> bool:
    """Return whether a file can be created in `folder`, by trying; the folder is created if needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes, without waiting: a named pipe that nobody writes to would never open.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file; see `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def missing_message(path: Path, given: str) -> str:
    """Return the message for a path that does not exist, with the most similar name in its folder if there is one.

    Args:
        path: the missing file or folder.
        given: the path as the user wrote it.
    """
    text = f"{given}: there is no such file or folder"
    try:
        names = [one.name for one in path.parent.iterdir()]
    except OSError:
        return f"{text}, and no folder '{path.parent}' either"
    similar = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"{text}: did you mean '{path.parent / similar[0]}'?" if similar else f"{text}: check its name"
