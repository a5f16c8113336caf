"""Folders of Parquet files that are one table. Imports no Arrow, so that telling them from images is fast."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from hallmark.tasks.common.errors import InputError

_HIDDEN = (".", "_")
"""First letters of the names of files and folders that are not data, such as `_SUCCESS` and `.part.crc`."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""How Hive and Spark write a missing value into the name of a folder."""


def is_table(folder: Path) -> bool:
    """Return whether a folder is a table: its name ends in .parquet, or its first file's does."""
    return folder.is_dir() and (_is_parquet(folder) or any(map(_is_parquet, _first(folder))))


def listed(path: Path) -> list[tuple[Path, dict[str, str | None]]]:
    """Return the files of a table, sorted by path, and the values in the names of their folders.

    `t.parquet/year=2030/part-0.parquet` has the value `2030` in the column `year`.

    Args:
        path: a Parquet file, or a folder of them.

    Raises:
        InputError: a folder has no Parquet file, or a file of another kind.
    """
    if not path.is_dir():
        return [(path, {})]
    files = sorted(_visible(path))
    if other := next((file for file in files if not _is_parquet(file)), None):
        raise InputError(f"{other}: is in a folder of Parquet files, but does not end in .parquet: move it elsewhere")
    if not files:
        raise InputError(f"{path}: has no file that ends in .parquet")
    return [(file, _values(file.relative_to(path))) for file in files]


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _first(folder: Path) -> list[Path]:
    """Return the first file that is not hidden; a folder of many images is not listed as a whole."""
    return [file for file, _ in zip(_visible(folder), range(1), strict=False)]


def _visible(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(_HIDDEN))
        yield from (Path(place, name) for name in sorted(files) if not name.startswith(_HIDDEN))


def _values(relative: Path) -> dict[str, str | None]:
    pairs = (folder.split("=", 1) for folder in relative.parts[:-1] if "=" in folder)
    return {unquote(name): None if value == _NO_VALUE else unquote(value) for name, value in pairs}
