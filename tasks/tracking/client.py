"""The MLflow store: connect to it, and serve it in a station."""

import json
import logging
import os
import sqlite3
import warnings
from contextlib import closing, redirect_stderr
from functools import cache
from http.client import HTTPException
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking import MlflowClient
from sqlalchemy import Engine, NullPool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from hallmark.tasks.common import web_requests
from hallmark.tasks.common.errors import InputError, UnavailableError, one_line, without_secrets
from hallmark.tasks.common.files import is_writable
from hallmark.tasks.runtime import settings
from hallmark.tasks.runtime.station_file import MLFLOW, Station
from hallmark.tasks.tracking import known_models
from hallmark.tasks.tracking.store_calls import StoreClient, until_answered

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

_SERVER_SECONDS = 5.0
"""Time limit for a server to answer its health check."""
_BUSY_SECONDS = 0.25
"""Time that SQLite itself waits for a lock. It ignores Ctrl-C meanwhile; `store_calls` waits longer."""
_SERVED_BUSY_SECONDS = 60
"""The same in a server."""
_LOCAL_STORAGE = {
    "mlflow.workflowType_v1": "machine_learning",  # show the half of the UI for runs, not for prompts
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,  # keep the assistant from opening over the page
    "mlflow.telemetry.info.alert.dismissed_v1": True,  # hide the notice on usage data: none is collected
}
"""Local storage of the MLflow UI in a browser that has not opened it before; see `application`."""


def connect() -> MlflowClient:
    """Open the tracking store of the settings, once per process. A new local database is created under a lock.

    Raises:
        InputError: the server or store cannot be reached, or the store has lost its content.
    """
    machine = settings.read()
    if station := settings.store_of_station(machine):
        os.environ.update(_credentials(station, machine.credentials))  # MLflow's client reads them there
    mlflow.set_tracking_uri(machine.tracking_uri)  # for functions without a client: models and artifacts
    return _connect(machine.tracking_uri)


@cache
def _credentials(station: Station, auth: str | None) -> dict[str, str]:
    return station.credentials(auth, f"{station.url(MLFLOW)}/version")


@cache
def _connect(uri: str) -> MlflowClient:
    logging.getLogger("mlflow").handlers.clear()  # they print tracebacks; the log of the command has its own handler
    # Alembic reports every migration of a fresh database.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # And every error of a statement, with a traceback, before it is raised.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # files here are small
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # commands print it themselves
    try:
        if uri.startswith(("http://", "https://")):
            _refuse_other_server(uri)
        elif database := settings.database(uri):
            _refuse_unwritable(database.parent)
            return until_answered(_open, database, uri)
        elif uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES:
            # MLflow would try for minutes to open a database that cannot be opened.
            create_engine(uri, poolclass=NullPool).connect().close()
        else:
            _refuse_unusable(uri)
        return _waiting(MlflowClient(uri))
    except UnavailableError as error:
        raise InputError(str(error)) from error
    except (OSError, ValueError, ImportError, HTTPException, MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        cause = one_line(without_secrets(str(error), uri)).partition(" [SQL:")[0][:160]
        raise InputError(
            f"MLFLOW_TRACKING_URI: {without_secrets(uri)} cannot be reached ({cause}): "
            "start the server, correct the address, or unset it to use the project's own store"
        ) from error


def _open(database: Path, uri: str) -> MlflowClient:
    with FileLock(f"{database}.lock"):
        known_models.refuse_emptied(database, _BUSY_SECONDS)
        # Readers, such as the UI, and a writer never wait for each other. The file keeps this mode.
        with closing(sqlite3.connect(database, timeout=_BUSY_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("SELECT count(*) FROM sqlite_master")  # MLflow would try to read for minutes
        if not event.contains(Engine, "before_cursor_execute", _shorten_busy_timeout):
            event.listen(Engine, "before_cursor_execute", _shorten_busy_timeout, retval=True)
        return _waiting(MlflowClient(uri))


def _refuse_other_server(uri: str) -> None:
    """Ask a server whether it is well, once. MLflow's own client would try for minutes.

    Raises:
        ValueError: it is no MLflow server. Other servers, and those of a login, answer any address with a page.
    """
    if web_requests.read(f"{uri.rstrip('/')}/health", _SERVER_SECONDS).strip() != b"OK":
        raise ValueError("it answers, but not as an MLflow server")


def _refuse_unusable(uri: str) -> None:
    """Read from a store of another kind, such as `databricks`, which MLflow opens only when it is used.

    Raises:
        MlflowException: it cannot be used.
    """
    with redirect_stderr(StringIO()):  # MLflow prints a part of what it raises
        MlflowClient(uri).search_experiments(max_results=1)


def _refuse_unwritable(folder: Path) -> None:
    """Refuse a folder in which no lock can be created. A file lock would try for ever, as in /proc.

    Raises:
        OSError: the folder cannot be written.
    """
    if not is_writable(folder):
        raise OSError(f"{folder} cannot be written")


def _waiting(client: MlflowClient) -> MlflowClient:
    return cast("MlflowClient", StoreClient(client))


def _shorten_busy_timeout(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> tuple[str, Any]:  # noqa: ANN401, ARG001 - SQLAlchemy's signature
    """Replace the timeout of 20 seconds that MLflow sets in each session."""
    is_set = statement.startswith("PRAGMA busy_timeout")
    return f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}" if is_set else statement, parameters


def application(uri: str) -> "ASGIApp":
    """Return MLflow's server, with its UI, as an ASGI application.

    Artifacts are stored where a client without a server stores them, so that runs are complete with and without it.
    The UI first opens on training runs, and then remembers the user's choice.

    Args:
        uri: address of the store.

    Raises:
        InputError: the store has lost its content.
    """
    # As `mlflow server` does before it starts another process. Jobs would run in further processes.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    from mlflow.server import constants, handlers

    if event.contains(Engine, "before_cursor_execute", _shorten_busy_timeout):  # nothing would wait longer in a server
        event.remove(Engine, "before_cursor_execute", _shorten_busy_timeout)
    database = settings.database(uri)
    if database:
        known_models.refuse_emptied(database, _SERVED_BUSY_SECONDS)
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
    return f"{uri}?timeout={_SERVED_BUSY_SECONDS}" if settings.database(uri) and "?" not in uri else uri
