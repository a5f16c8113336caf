"""Restore a backup: `hallmark restore`. It is unpacked beside its place and checked before anything is changed."""

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from hallmark.flows.station import backup
from hallmark.flows.station.backup import LOCK_SECONDS, MANIFEST, NOT_STORED, Places
from hallmark.tasks.common.errors import HallmarkError, InputError
from hallmark.tasks.common.files import TEMPORARY, temporary_folder
from hallmark.tasks.runtime import running_commands, station_file

_CHUNK = 1 << 20
_MAX_MANIFEST_BYTES = 1 << 28
_IGNORED = (*NOT_STORED, "logs")
"""Entries of a home that counts as empty."""
_LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Columns of MLflow's tables that hold the address of artifacts."""


@dataclass(frozen=True, slots=True)
class Restored:
    """Result of a restoration."""

    files: int
    made: str
    """When the backup was made: UTC, ISO 8601."""
    left_out: tuple[str, ...]
    """A line for each part that this machine keeps on a server instead."""


def restore(path: Path, *, replace: bool) -> Restored:
    """Restore home, store and Prefect's database from a backup.

    Args:
        path: the backup.
        replace: replace what is there. What the backup does not have is removed.

    Raises:
        InputError: the backup is damaged or none, or lies in what it would replace; a command or a station is running;
            or something is there that would be replaced. Nothing was changed.
        HallmarkError: the files cannot be moved into place. What was there before is there again.
    """
    compression, where = backup.compression_of(path), backup.places()
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    backup.refuse_inside(path, where, "which it would replace")
    _refuse_running(where.home)
    if not replace:
        _refuse_occupied(where)
    try:
        with ExitStack() as stack:
            # Beside the final places, so that moving them takes no time. A kill leaves folders that are swept later.
            staged = {name: stack.enter_context(_staged(folder)) for name, folder in _targets(where).items()}
            manifest = _unpack(path, compression, staged)
            _relocate(staged.get("store"), manifest.get("artifacts"), where)
            _move_all(where, staged)
    except (OSError, sqlite3.Error) as error:
        raise HallmarkError(f"{path}: cannot be restored: {error}: what was there before is unchanged") from error
    known = {name.partition("/")[0] for name in manifest["files"]}
    left_out = tuple(f"{name}/ of the backup: {reason}" for name, reason in _servers(where).items() if name in known)
    return Restored(len(manifest["files"]), str(manifest.get("made", "")), left_out)


def _refuse_running(home: Path) -> None:
    if station_file.is_held(home):
        raise InputError("a station is up: stop it with `hallmark down` before a backup is restored")
    if running := running_commands.active(home):
        raise InputError(f"{running[0]} is running: wait until it has ended before a backup is restored")


def _refuse_occupied(where: Places) -> None:
    """Refuse to replace what is there already."""
    database = where.home / "prefect" / "prefect.db"
    unused = (*_IGNORED, "prefect") if backup.is_empty(database, "flow_run") else _IGNORED
    found = [str(where.home)] if _entries(where.home, unused) else []
    if where.database and not backup.is_empty(where.database, "runs", "registered_models"):
        found.append(str(where.database))
    if where.artifacts and _entries(where.artifacts, ()):
        found.append(str(where.artifacts))
    if where.prefect and not backup.is_empty(where.prefect, "flow_run"):
        found.append(str(where.prefect))
    if found:
        raise InputError(f"{', '.join(found)}: not empty: add --replace to replace all of it by the backup")


def _entries(folder: Path, ignored: tuple[str, ...]) -> list[Path]:
    """Return the entries of a folder that are not ignored or temporary; none if it does not exist."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if path.name not in ignored and not path.name.startswith(TEMPORARY)]


def _targets(where: Places) -> dict[str, Path]:
    """Return the folder of each part of a backup that this machine keeps in files."""
    targets = {"home": where.home, "store": where.database and where.database.parent}
    targets["prefect"] = where.prefect and where.prefect.parent
    return {name: folder for name, folder in targets.items() if folder}


def _servers(where: Places) -> dict[str, str]:
    reasons = {"store": "MLFLOW_TRACKING_URI names a server", "prefect": "Prefect's database is elsewhere here"}
    return {name: reason for name, reason in reasons.items() if name not in _targets(where)}


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with temporary_folder(folder) as temporary:
            for name in ("new", "old"):
                (temporary / name).mkdir()
            yield temporary
    finally:
        if not existed and not any(folder.iterdir()):
            folder.rmdir()


def _unpack(path: Path, compression: str | None, staged: dict[str, Path]) -> dict[str, Any]:
    """Unpack a backup into the staged folders, check the digest of each file, and return the manifest.

    Raises:
        InputError: it is damaged, or contains what a backup does not.
    """
    import pyarrow

    try:
        with ExitStack() as stack:
            file: Any = stack.enter_context(path.open("rb"))
            if compression:
                file = stack.enter_context(pyarrow.CompressedInputStream(file, compression))
            archive = stack.enter_context(tarfile.open(fileobj=file, mode="r|"))
            manifest, digests = _unpack_all(archive, staged)
            _refuse_difference(digests, manifest["files"])
            return manifest
    except (tarfile.TarError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is damaged or not a backup: {error}: nothing was changed") from error
    except OSError as error:
        if error.errno is not None:  # of the disk; that of a decompressor has none
            raise
        raise InputError(f"{path}: is damaged: {error}: nothing was changed") from error


def _unpack_all(archive: tarfile.TarFile, staged: dict[str, Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Unpack all members; return the manifest, which is the last one, and the SHA-256 of each of the others."""
    digests: dict[str, str] = {}
    for member in archive:
        if member.name == MANIFEST:
            return _read_manifest(archive, member), digests
        digests[member.name] = _unpack_one(archive, member, staged, digests)
    raise ValueError("it has no manifest, so it was not written to its end")


def _refuse_difference(found: dict[str, str], expected: dict[str, str]) -> None:
    names = found.keys() | expected.keys()
    if wrong := sorted(name for name in names if found.get(name) != expected.get(name)):
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ValueError(f"'{wrong[0]}'{more}: not as written")


def _read_manifest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    content = archive.extractfile(member) if member.isreg() and member.size < _MAX_MANIFEST_BYTES else None
    manifest: dict[str, Any] = json.loads(content.read()) if content else {}
    if manifest["format"] != backup.FORMAT:
        raise ValueError(f"expected format {backup.FORMAT}, found {manifest['format']}, of another version of Hallmark")
    return manifest


def _unpack_one(
    archive: tarfile.TarFile, member: tarfile.TarInfo, staged: dict[str, Path], known: dict[str, str]
) -> str:
    """Write one member below its staged folder, and return its SHA-256."""
    name = PurePosixPath(member.name)
    is_inside = member.isreg() and not name.is_absolute() and ".." not in name.parts and len(name.parts) > 1
    if not is_inside or name.parts[0] not in ("home", "store", "prefect") or member.name in known:
        raise ValueError(f"'{member.name}' is not what a backup contains")
    source = archive.extractfile(member)
    assert source  # noqa: S101 - a regular file
    digest = sha256()
    if name.parts[0] not in staged:  # this machine uses a server instead
        while data := source.read(_CHUNK):
            digest.update(data)
        return digest.hexdigest()
    root = staged[name.parts[0]] / "new"
    tarfile.data_filter(member.replace(name="/".join(name.parts[1:])), str(root))
    path = root.joinpath(*name.parts[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as target:
        while data := source.read(_CHUNK):
            digest.update(data)
            target.write(data)
    return digest.hexdigest()


def _relocate(staged: Path | None, before: str | None, where: Places) -> None:
    """Let the addresses of artifacts in a staged MLflow database begin with their folder on this machine."""
    database = staged / "new" / "mlflow.db" if staged else None
    if not (database and database.exists() and before and where.artifacts) or before == where.artifacts.as_uri():
        return
    after = where.artifacts.as_uri()
    with closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as connection, connection:
        for table, columns in _LOCATIONS.items():
            known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for column in known.intersection(columns):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - constants
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
                )


def _move_all(where: Places, staged: dict[str, Path]) -> None:
    """Move what is there aside, and the unpacked files into place; all of it, or, after an error, none."""
    moved: list[tuple[Path, Path]] = []
    try:
        for name, (folder, present) in _present(where).items():
            if name not in staged:
                continue
            new, old = staged[name] / "new", staged[name] / "old"
            finals = {"mlflow.db": where.database} if name == "store" else {}
            finals |= {"prefect.db": where.prefect} if name == "prefect" else {}
            steps = [(path, old / path.name) for path in present if path.exists()]
            steps += [(path, finals.get(path.name) or folder / path.name) for path in sorted(new.iterdir())]
            for source, target in steps:
                source.rename(target)
                moved.append((source, target))
    except OSError:
        for source, target in reversed(moved):
            shutil.move(target, source)
        raise


def _present(where: Places) -> dict[str, tuple[Path, list[Path]]]:
    """Return, for each part of a backup, its folder and what is to be replaced there."""
    present = {"home": (where.home, _entries(where.home, NOT_STORED))}
    if where.database and where.artifacts:
        present["store"] = (where.database.parent, [*backup.beside(where.database), where.artifacts])
    if where.prefect:
        present["prefect"] = (where.prefect.parent, backup.beside(where.prefect))
    return present
