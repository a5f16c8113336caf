"""The store that runs and models are kept in: how this process reaches it, and how a station serves it."""

import logging
import os
import sqlite3
import urllib.request
from contextlib import closing
from functools import cache
from http.client import HTTPException
from typing import TYPE_CHECKING

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from tasks import settings
from tasks.ml.errors import InputError, without_secrets
from tasks.station import MLFLOW, Station

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_SERVER_SECONDS = 5.0
_LOCK_SECONDS = 60
_PATIENCE = f"?timeout={_LOCK_SECONDS}"


def connect() -> MlflowClient:
    """Open the tracking store of the settings, once a process; a fresh local database is made under a lock.

    Raises:
        InputError: the server or store cannot be reached.
    """
    machine = settings.read()
    if station := settings.store_of_station():
        os.environ.update(_credentials(station, machine.credentials))  # from where MLflow's client takes them
    uri = _patient(machine.tracking_uri)
    client = _connect(uri)
    mlflow.set_tracking_uri(uri)  # for what takes no client: models and artifacts
    return client


@cache
def _credentials(station: Station, auth: str | None) -> dict[str, str]:
    return station.credentials(auth, f"{station.url(MLFLOW)}/version")


@cache
def _connect(uri: str) -> MlflowClient:
    # Alembic reports every migration of a fresh database.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # files here are small
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the commands say it, and stdout is theirs
    try:
        if uri.startswith(("http://", "https://")):
            # MLflow's own client would try for minutes.
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_SERVER_SECONDS).close()  # noqa: S310
            return MlflowClient(uri)
        if database := settings.database(uri):
            database.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{database}.lock"):
                client = MlflowClient(uri)
                # Readers, such as the UI, and a writer never wait for each other. The file keeps this mode.
                with closing(sqlite3.connect(database, timeout=_LOCK_SECONDS)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
                return client
        return MlflowClient(uri)
    except (OSError, ValueError, ImportError, HTTPException, MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        shown = without_secrets(uri).removesuffix(_PATIENCE)
        raise InputError(
            f"MLFLOW_TRACKING_URI: {shown} cannot be reached ({without_secrets(' '.join(str(error).split()))[:160]}): "
            "start the server, correct the address, or unset it to use the project's own store"
        ) from error


def application(uri: str) -> "ASGIApp":
    """MLflow's server, with its UI, as an ASGI application.

    Artifacts lie where a client without a server puts them, so that runs are whole with and without it.

    Args:
        uri: the store.
    """
    # As `mlflow server` does before it starts another process. Its jobs would be further processes.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    from mlflow.server import constants, handlers

    database = settings.database(uri)
    folder = (database.absolute().parent if database else settings.ROOT / "mlruns") / "artifacts"
    uri = _patient(uri)
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = uri
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = uri
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = folder.as_uri()
    handlers.initialize_backend_stores(uri, uri, folder.as_uri())
    from mlflow.server.fastapi_app import app

    return app


def _patient(uri: str) -> str:
    """Let processes that write to one SQLite file at once wait for each other; it gives up after five seconds."""
    return uri + _PATIENCE if settings.database(uri) and "?" not in uri else uri
