"""The MLflow store: connect to it, and serve it in a station."""

import json
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from filelock import FileLock
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking import MlflowClient
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from hallmark.tasks.common import web_requests
from hallmark.tasks.common.errors import InputError, one_line, without_secrets
from hallmark.tasks.common.files import is_writable
from hallmark.tasks.runtime import settings
from hallmark.tasks.runtime.station_file import MLFLOW, Station

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

_SERVER_SECONDS = 5.0
"""Time limit for a server to answer its health check."""
_LOCK_SECONDS = 60
"""Time to wait for the lock of a SQLite store."""
_TIMEOUT_QUERY = f"?timeout={_LOCK_SECONDS}"
_LOCAL_STORAGE = {
    "mlflow.workflowType_v1": "machine_learning",  # show the half of the UI for runs, not for prompts
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,  # keep the assistant from opening over the page
    "mlflow.telemetry.info.alert.dismissed_v1": True,  # hide the notice on usage data: none is collected
}
"""Local storage of the MLflow UI in a browser that has not opened it before; see `application`."""


def connect() -> MlflowClient:
    """Open the tracking store of the settings, once per process. A new local database is created under a lock.

    Raises:
        InputError: the server or store cannot be reached.
    """
    machine = settings.read()
    if station := settings.store_of_station():
        os.environ.update(_credentials(station, machine.credentials))  # MLflow's client reads them there
    uri = _with_timeout(machine.tracking_uri)
    client = _connect(uri)
    mlflow.set_tracking_uri(uri)  # for functions without a client: models and artifacts
    return client


@cache
def _credentials(station: Station, auth: str | None) -> dict[str, str]:
    return station.credentials(auth, f"{station.url(MLFLOW)}/version")


@cache
def _connect(uri: str) -> MlflowClient:
    logging.getLogger("mlflow").handlers.clear()  # they print tracebacks; the log of the command has its own handler
    # Alembic reports every migration of a fresh database.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # files here are small
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # commands print it themselves
    try:
        if uri.startswith(("http://", "https://")):
            _refuse_other_server(uri)
            return MlflowClient(uri)
        if database := settings.database(uri):
            _refuse_unwritable(database.parent)
            with FileLock(f"{database}.lock"):
                # MLflow would try for minutes to open a file that cannot be opened.
                with closing(sqlite3.connect(database, timeout=_LOCK_SECONDS)) as connection:
                    # Readers, such as the UI, and a writer never wait for each other. The file keeps this mode.
                    connection.execute("PRAGMA journal_mode=WAL")
                return MlflowClient(uri)
        if uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES:
            create_engine(uri, poolclass=NullPool).connect().close()  # at once, for the same reason
        return MlflowClient(uri)
    except (OSError, ValueError, ImportError, HTTPException, MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        shown = without_secrets(uri).removesuffix(_TIMEOUT_QUERY)
        raise InputError(
            f"MLFLOW_TRACKING_URI: {shown} cannot be reached ({one_line(without_secrets(str(error), uri))[:160]}): "
            "start the server, correct the address, or unset it to use the project's own store"
        ) from error


def _refuse_other_server(uri: str) -> None:
    """Ask a server whether it is well, once. MLflow's own client would try for minutes.

    Raises:
        ValueError: it is no MLflow server. Other servers, and those of a login, answer any address with a page.
    """
    if web_requests.read(f"{uri.rstrip('/')}/health", _SERVER_SECONDS).strip() != b"OK":
        raise ValueError("it answers, but not as an MLflow server")


def _refuse_unwritable(folder: Path) -> None:
    """Refuse a folder in which no lock can be created. A file lock would try for ever, as in /proc.

    Raises:
        OSError: the folder cannot be written.
    """
    if not is_writable(folder):
        raise OSError(f"{folder} cannot be written")


def is_network_failure(error: Exception) -> bool:
    """Return whether the server or the connection failed rather than the request, so that a retry may succeed."""
    if isinstance(error, MlflowException):
        return bool(error.get_http_status_code() >= HTTPStatus.INTERNAL_SERVER_ERROR)
    return isinstance(error, (ConnectionError, TimeoutError))


@contextmanager
def tried_once() -> Iterator[None]:
    """Let a request to an unreachable server fail at once. MLflow's client would retry for four minutes."""
    given = MLFLOW_HTTP_REQUEST_MAX_RETRIES.get_raw()
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(0)
    try:
        yield
    finally:
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.unset() if given is None else MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(given)


def application(uri: str) -> "ASGIApp":
    """Return MLflow's server, with its UI, as an ASGI application.

    Artifacts are stored where a client without a server stores them, so that runs are complete with and without it.
    The UI first opens on training runs, and then remembers the user's choice.

    Args:
        uri: address of the store.
    """
    # As `mlflow server` does before it starts another process. Jobs would run in further processes.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    from mlflow.server import constants, handlers

    database = settings.database(uri)
    folder = (database.absolute().parent if database else settings.ROOT / "mlruns") / "artifacts"
    uri = _with_timeout(uri)
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = uri
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = uri
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = folder.as_uri()
    handlers.initialize_backend_stores(uri, uri, folder.as_uri())
    from starlette.routing import Route

    with warnings.catch_warnings(action="ignore"):  # raised by what MLflow imports
        from mlflow.server.fastapi_app import app
    app.router.routes.insert(0, Route("/", _front_page))  # before MLflow's catch-all route
    return app


def _front_page(request: "Request") -> "Response":  # noqa: ARG001 - Starlette's signature
    """Return the page of MLflow's UI, with a script that sets missing entries of the local storage."""
    from mlflow.server import app
    from starlette.responses import HTMLResponse

    remembered = json.dumps({key: json.dumps(value) for key, value in _LOCAL_STORAGE.items()})
    script = f"<script>for (const [key, value] of Object.entries({remembered})) localStorage[key] ??= value</script>"
    page = Path(str(app.static_folder), "index.html").read_text(encoding="utf-8")
    return HTMLResponse(page.replace("<head>", f"<head>{script}", 1), headers={"Cache-Control": "no-cache"})


def _with_timeout(uri: str) -> str:
    """Return the address with a longer lock timeout, so that processes that write to one SQLite file wait."""
    return uri + _TIMEOUT_QUERY if settings.database(uri) and "?" not in uri else uri
