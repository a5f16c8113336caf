"""The models that this home has registered in each store, to tell an emptied store from one that is new."""

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from hallmark.tasks.common.digests import SHOWN, digest_of
from hallmark.tasks.common.errors import InputError, without_secrets
from hallmark.tasks.common.files import read_regular, whole_file
from hallmark.tasks.runtime import settings

logger = logging.getLogger(__name__)

_TABLES = {"experiments", "runs", "registered_models", "model_versions"}
"""Tables of every MLflow database, whatever its version."""


def remember(name: str, version: int) -> None:
    """Record in this home that a model was registered in the store of the settings.

    The registration is complete without it: a file that cannot be written is only a warning.
    """
    models, store = registered(), _store()
    if models.get(name, 0) >= version:
        return
    try:
        with whole_file(_file(store)) as path:
            path.write_text(json.dumps({"store": store, "models": models | {name: version}}, indent=2) + "\n")
    except OSError as error:
        logger.warning("%s cannot be written: %s", _file(store), error)


def registered() -> dict[str, int]:
    """Return the last version of each model that this home has registered in the store of the settings."""
    return _read(_file(_store()))


def refuse_emptied(database: Path, lock_seconds: float = 60.0) -> None:
    """Refuse a SQLite store that has lost its content. Call it before MLflow creates missing tables.

    Args:
        database: the file.
        lock_seconds: time to wait for another process that has locked it. Default: 60.

    Raises:
        InputError: it has lost tables, or it is missing or has no runs although this home has registered models in it.
    """
    tables, rows = _content(database, lock_seconds)
    if lost := sorted(_TABLES - tables) if "alembic_version" in tables else []:
        raise InputError(
            f"MLFLOW_TRACKING_URI: {database} has lost its tables ({', '.join(lost)}): restore the file from a backup, "
            "or remove it to start with an empty store"
        )
    file = _file(str(database.resolve()))
    if rows == 0 and (models := _read(file)):
        raise InputError(
            f"MLFLOW_TRACKING_URI: {database} is {'empty' if database.exists() else 'missing'}, but this home has "
            f"registered {', '.join(sorted(models)[:5])} in it: restore it from a backup, or remove {file} to start "
            "with an empty store"
        )


def _content(database: Path, lock_seconds: float) -> tuple[set[str], int]:
    """Return the names of the tables, and the number of runs and registered models."""
    if not database.exists():
        return set(), 0
    with closing(sqlite3.connect(database, timeout=lock_seconds)) as connection:
        tables = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - one of two names
            for table in sorted({"runs", "registered_models"} & tables)
        ]
    return tables, sum(counts)


def _store() -> str:
    """Return what identifies the store, the same with and without a station that serves it."""
    database = settings.local_database()
    return str(database.resolve()) if database else without_secrets(settings.read().tracking_uri)


def _file(store: str) -> Path:
    return settings.from_environment().home / "stores" / f"{digest_of(store)[:SHOWN]}.json"


def _read(file: Path) -> dict[str, int]:
    try:
        return {str(name): int(version) for name, version in json.loads(read_regular(file))["models"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.warning("%s cannot be read and is ignored: %s", file, error)
        return {}
