"""The file that describes the running station (`hallmark up`).

A station holds a kernel lock as long as it runs. The lock distinguishes the file of a running station from one that
a killed station has left behind.
"""

import base64
import fcntl
import logging
import urllib.error
import urllib.request
from datetime import datetime
from http import HTTPStatus
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.files import open_regular, read_regular, whole_file

logger = logging.getLogger(__name__)

PREFECT, MLFLOW, SCHEDULES = "prefect", "mlflow", "schedules"
ANSWER_SECONDS = 5.0
"""Time limit for a server to answer a request."""


class StationPart(BaseModel):
    """One process of a station."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    log: Path
    url: str | None = None
    """Address of its server and UI on this machine; None for the process that serves the schedules."""
    ended: int | None = None
    """Exit code, if it ended before the station. A negative number is a signal."""


class Station(BaseModel):
    """Content of the file."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: datetime
    store: str
    """Address of the MLflow store, without user and password."""
    guarded: bool
    """Whether both servers require user and password, which are not stored."""
    parts: tuple[StationPart, ...]

    def url(self, name: str) -> str:
        """Return the address of the part of this name."""
        return next(part.url for part in self.parts if part.name == name and part.url)

    def credentials(self, auth: str | None, url: str) -> dict[str, str]:
        """Return the environment variables with user and password for the clients of both servers.

        Args:
            auth: `user:password` of the settings.
            url: an address of the station that requires them; they are checked there.

        Raises:
            InputError: the servers require user and password, and the settings have none or others.
        """
        if not self.guarded:
            return {}
        if not auth:
            raise InputError("HALLMARK_AUTH: the station requires user and password: set it to those of the station")
        if not _accepts(url, auth):
            raise InputError("HALLMARK_AUTH: the station has another user or password: set it to those of the station")
        return credentials(auth)


def _accepts(url: str, auth: str) -> bool:
    """Return whether a server accepts `user:password`. A server that does not answer has not refused."""
    token = base64.b64encode(auth.encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})  # noqa: S310 - our own address
    try:
        urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        return error.code != HTTPStatus.UNAUTHORIZED
    except OSError:
        return True
    return True


def credentials(auth: str | None) -> dict[str, str]:
    """Return the environment variables that make the clients of Prefect and MLflow send `user:password`."""
    if auth is None:
        return {}
    user, _, password = auth.partition(":")
    return {
        "PREFECT_API_AUTH_STRING": auth,
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": password,
    }


def file(home: Path) -> Path:
    """Return the path of the station's file."""
    return home / "station.json"


def lock(home: Path) -> Path:
    """Return the path of the lock that a station holds as long as it runs."""
    return home / "station.lock"


def current(home: Path) -> Station | None:
    """Return the running station, or None. A station that is starting is not returned.

    Neither is one whose file cannot be read; a warning says so.
    """
    try:
        return recorded(home) if is_held(home) else None
    except InputError as error:
        logger.warning("the running station is not used: %s", error)
        return None


_ABSENT = (FileNotFoundError, NotADirectoryError, PermissionError)
"""Errors of a file that does not exist or cannot be read. Commands that need a writable home report that."""


def recorded(home: Path) -> Station | None:
    """Return the content of the file, whether or not its station is still running.

    Raises:
        InputError: the file cannot be read, or was not written by a station.
    """
    try:
        return Station.model_validate_json(read_regular(file(home)))
    except _ABSENT:
        return None
    except (ValidationError, OSError) as error:
        raise InputError(
            f"{file(home)}: was not written by `hallmark up`: a running station writes it again in a moment, and "
            "`hallmark up` replaces it if there is none"
        ) from error


def is_held(home: Path) -> bool:
    """Return whether a station is starting, running or stopping.

    Raises:
        InputError: the lock is no file, or cannot be tested.
    """
    try:
        with open_regular(lock(home)) as held:
            # Shared, so that several readers do not block each other.
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except _ABSENT:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise InputError(f"{lock(home)}: expected a file to lock, found: {error.strerror}: move it away") from error
    return False


def record(station: Station, home: Path) -> None:
    """Write the file, whole or not at all."""
    with whole_file(file(home)) as path:
        path.write_text(station.model_dump_json(indent=2) + "\n")
