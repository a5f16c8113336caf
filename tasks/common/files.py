"""Files and folders that appear whole or not at all."""

import difflib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there becomes `path` if the block succeeds.

    The content reaches the disk before the name does, so that a crash leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as folder:
        # The suffix is kept: savers choose a format by it.
        temporary = Path(folder) / path.name
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    _sync(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path`, with all its files, if the block succeeds.

    An existing `path` is replaced. Two processes must not do this at once: hold a lock.
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


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, which is made if it does not exist. Tried, not guessed."""
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


def missing(path: Path, said: str) -> str:
    """What to say of a path that leads nowhere: the nearest name beside it, if there is one.

    Args:
        path: where nothing is.
        said: the same as the user wrote it.
    """
    text = f"{said}: there is no such file or folder"
    try:
        names = [one.name for one in path.parent.iterdir()]
    except OSError:
        return f"{text}, and no folder '{path.parent}' either"
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"{text}: did you mean '{path.parent / near[0]}'?" if near else f"{text}: check its name"
