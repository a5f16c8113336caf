"""Back up what Hallmark has stored into one file: `hallmark backup`.

The file is a tar archive, plain or compressed. Its members lie under `home/`, `store/` and `prefect/`; the last one,
`manifest.json`, has the SHA-256 of each, which `hallmark restore` checks before it changes anything.
"""

import hashlib
import io
import json
import os
import sqlite3
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from hallmark.tasks.common.errors import HallmarkError, InputError, without_secrets
from hallmark.tasks.common.files import TEMPORARY, temporary_folder, whole_file
from hallmark.tasks.runtime import prefect_api, settings

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the layout of the archive."""
COMPRESSIONS = {".tar": None, ".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd"}
"""Compression by the suffix of the file, as pyarrow names it."""
NOT_STORED = ("locks", "running", "station.json", "station.lock")
"""Entries of the home that belong to running processes."""
_SQLITE = b"SQLite format 3\0"
"""First bytes of a SQLite database."""
_COMPANIONS = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps beside a database; its backup contains what they hold."""
_CHUNK = 1 << 20
LOCK_SECONDS = 60.0
"""Time to wait for a database that is locked."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where this machine stores what a backup contains. None stands for a server, which is backed up there."""

    home: Path
    database: Path | None
    """MLflow's SQLite database; its artifacts are in the folder `artifacts` beside it."""
    prefect: Path | None
    """Prefect's SQLite database; None also if it lies in the home."""
    left_out: tuple[str, ...]
    """A line for each server."""

    @property
    def artifacts(self) -> Path | None:
        """Folder of MLflow's artifacts."""
        return self.database.absolute().parent / "artifacts" if self.database else None


@dataclass(frozen=True, slots=True)
class BackedUp:
    """Result of a backup."""

    files: int
    bytes: int
    """Size of the files in it."""
    left_out: tuple[str, ...]


def places() -> Places:
    """Return where this machine stores what a backup contains.

    Raises:
        InputError: an environment variable is invalid.
    """
    machine, left_out = settings.from_environment(), []
    database = settings.database(machine.tracking_uri)
    if not database:
        shown = without_secrets(machine.tracking_uri)
        left_out.append(f"runs, models and decisions in {shown} (MLFLOW_TRACKING_URI): back them up there")
    prefect = None
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # Prefect's folder may not exist yet
        url = prefect_api.in_settings()
    if url:
        left_out.append(f"flow runs of {without_secrets(url)} (PREFECT_API_URL): back them up there")
    else:
        address = str(prefect_api.own_database())
        prefect = Path(address.partition("///")[2].partition("?")[0]) if address.startswith("sqlite") else None
        if not prefect:
            left_out.append(f"flow runs in {without_secrets(address)}: back them up there")
    if prefect and prefect.is_relative_to(machine.home):
        prefect = None
    return Places(machine.home, database and database.absolute(), prefect, tuple(left_out))


def back_up(path: Path) -> BackedUp:
    """Write the backup, whole or not at all. Commands and the station may go on running.

    Databases are copied by SQLite, in a consistent state, before the artifacts that they refer to.

    Args:
        path: the file, which is replaced if it exists. Its suffix tells the compression.

    Raises:
        InputError: the suffix is unknown, the file lies in what it would contain, or there is nothing to back up.
        HallmarkError: the file cannot be written, or something cannot be read.
    """
    compression, where = compression_of(path), places()
    refuse_inside(path, where, "which it would contain")
    if not any(one and one.exists() for one in (where.home, where.database, where.prefect)):
        raise InputError(f"{where.home}: does not exist, and there is no store: there is nothing to back up")
    digests: dict[str, str] = {}
    total = 0
    try:
        with whole_file(path.absolute()) as temporary, _writer(temporary, compression) as archive:
            for name, file in _members(where):
                with suppress(FileNotFoundError):  # removed meanwhile
                    digests[name], size = _add(archive, name, file)
                    total += size
            _add_manifest(archive, where, digests)
    except (OSError, sqlite3.Error) as error:
        raise HallmarkError(f"{path}: the backup cannot be made: {without_secrets(str(error))}") from error
    return BackedUp(len(digests), total, where.left_out)


def refuse_inside(path: Path, where: Places, reason: str) -> None:
    """Refuse a backup in the home or among the artifacts: later ones would contain it, and restoring would remove it.

    Raises:
        InputError: the backup lies there. The message ends with the reason.
    """
    for folder in filter(None, (where.home, where.artifacts)):
        if path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path}: lies in {folder}, {reason}: choose another folder")


def compression_of(path: Path) -> str | None:
    """Return the compression of a backup by its suffix.

    Raises:
        InputError: the suffix is unknown.
    """
    for suffix, compression in COMPRESSIONS.items():
        if path.name.endswith(suffix) and path.name != suffix:
            return compression
    raise InputError(f"{path}: is not the name of a backup: expected one that ends in {', '.join(COMPRESSIONS)}")


def is_empty(database: Path, *tables: str) -> bool:
    """Return whether a SQLite database has no row in some of its tables. One that does not exist is empty."""
    if not database.exists():
        return True
    with closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        queries = [f"SELECT EXISTS (SELECT 1 FROM {table})" for table in tables if table in known]  # noqa: S608 - constants
        return not any(connection.execute(query).fetchone()[0] for query in queries)


def beside(database: Path) -> list[Path]:
    """Return a database and the files that SQLite keeps beside it."""
    return [database, *(database.with_name(f"{database.name}{suffix}") for suffix in _COMPANIONS)]


@contextmanager
def _writer(path: Path, compression: str | None) -> Iterator[tarfile.TarFile]:
    import pyarrow

    with ExitStack() as stack:
        # It holds addresses of notifications: for its owner alone.
        file: Any = stack.enter_context(os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "wb"))
        if compression:
            file = stack.enter_context(pyarrow.CompressedOutputStream(file, compression))
        yield stack.enter_context(tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT))


def _members(where: Places) -> Iterator[tuple[str, Path]]:
    """Yield name and path of each file; databases first."""
    if where.database and where.database.exists():
        yield "store/mlflow.db", where.database
    if where.prefect and where.prefect.exists():
        yield "prefect/prefect.db", where.prefect
    if where.artifacts:
        for path in _files(where.artifacts):
            yield f"store/artifacts/{path.relative_to(where.artifacts).as_posix()}", path
    for path in _files(where.home):
        name = path.relative_to(where.home)
        if name.parts[0] not in NOT_STORED and not _is_companion(path):
            yield f"home/{name.as_posix()}", path


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below it, without links and temporary folders."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(TEMPORARY))
        yield from (path for name in sorted(names) if (path := Path(place, name)).is_file() and not path.is_symlink())


def _is_companion(path: Path) -> bool:
    return any(
        path.name.endswith(suffix) and path.with_name(path.name.removesuffix(suffix)).exists() for suffix in _COMPANIONS
    )


def _add(archive: tarfile.TarFile, name: str, path: Path) -> tuple[str, int]:
    """Add a file, or a consistent copy of a database, and return its SHA-256 and size."""
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            file.seek(0)
            return _add_open(archive, name, file)
    with temporary_folder() as folder:
        copy = folder / "copy.db"
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        with copy.open("rb") as file:
            return _add_open(archive, name, file)


def _add_open(archive: tarfile.TarFile, name: str, file: IO[bytes]) -> tuple[str, int]:
    """Add as many bytes as an open file has now. A log that grows meanwhile is cut there."""
    about = tarfile.TarInfo(name)
    status = os.fstat(file.fileno())
    about.size, about.mtime, about.mode = status.st_size, int(status.st_mtime), 0o600
    reader = _Hashing(file)
    archive.addfile(about, reader)  # type: ignore[arg-type]
    return reader.sha256.hexdigest(), about.size


class _Hashing:
    """A file that computes the SHA-256 of what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.sha256.update(data)
        return data


def _add_manifest(archive: tarfile.TarFile, where: Places, digests: dict[str, str]) -> None:
    manifest = {
        "format": FORMAT,
        "hallmark": version("hallmark"),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "artifacts": where.artifacts.as_uri() if where.artifacts else None,
        "files": digests,
    }
    content = json.dumps(manifest, indent=1).encode()
    about = tarfile.TarInfo(MANIFEST)
    about.size, about.mode = len(content), 0o600
    archive.addfile(about, io.BytesIO(content))
