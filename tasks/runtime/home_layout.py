"""What Hallmark's home folder contains."""

import os
from pathlib import Path

from hallmark.tasks.common.errors import InputError

FOLDERS = frozenset(
    {
        *("datasets", "downloads", "images", "locks", "logs", "models"),
        *("prefect", "running", "served", "sweeps", "unfinished"),
    }
)
"""Without `fits`, where a training moves away what stands in its place, and `stores`, which is not necessary."""
FILES = frozenset({"station.json", "station.lock"})


def check(home: Path) -> None:
    """Refuse a home in which something else has the name of one of its folders or files.

    A home that does not exist or cannot be listed passes: commands that need it report that.

    Raises:
        InputError: the message names the first that is something else.
    """
    try:
        with os.scandir(home) as entries:
            found = sorted(entry.path for entry in entries if _is_something_else(entry))
    except OSError:
        return
    if found:
        kind = "file" if Path(found[0]).name in FILES else "folder"
        raise InputError(f"HALLMARK_HOME: {found[0]}: expected a {kind}, found something else: move it away")


def _is_something_else(entry: "os.DirEntry[str]") -> bool:
    if entry.name in FOLDERS:
        return not entry.is_dir()
    return entry.name in FILES and not entry.is_file()
