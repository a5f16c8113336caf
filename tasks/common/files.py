"""Write files and folders atomically: the complete new content appears, or nothing changes."""

import difflib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block succeeds.

    The content is synced to disk before the rename, so that a crash leaves either the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as folder:
        # Keep the name, because libraries choose a file format by its suffix.
        temporary = Path(folder) / path.name
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
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as parent:
        temporary = Path(parent) / path.name
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        if path.exists():
            path.rename(Path(parent) / "replaced")
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
