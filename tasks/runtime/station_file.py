"""The station that is up (`hallmark up`), as its file in the home says.

A station holds a kernel lock as long as it lives: by it a file that a killed one has left is known from that of a
living one.
"""

import base64
import fcntl
import urllib.error
import urllib.request
from datetime import datetime
from http import HTTPStatus
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.files import whole_file

PREFECT, MLFLOW, SCHEDULES = "prefect", "mlflow", "schedules"
ANSWER_SECONDS = 5.0


class Part(BaseModel):
    """One process of a station."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    log: Path
    url: str | None = None
    """Where it answers on this machine, and shows its UI; the process that serves the schedules does not answer."""
    ended: int | None = None
    """Its exit code, where it ended before the station; negative: the signal."""


class Station(BaseModel):
    """What the file says."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: datetime
    store: str
    """What the MLflow server keeps the runs in, without user and password."""
    guarded: bool
    """Whether both servers ask for user and password, which are not written down."""
    parts: tuple[Part, ...]

    def url(self, name: str) -> str:
        """Where the part of this name answers."""
        return next(part.url for part in self.parts if part.name == name and part.url)

    def credentials(self, auth: str | None, door: str) -> dict[str, str]:
        """What the clients of both servers read from the environment.

        Args:
            auth: `user:password` of the settings.
            door: an address of the station, where they are tried.

        Raises:
            InputError: the servers ask for them, and the settings have none or others.
        """
        if not self.guarded:
            return {}
        if not auth:
            raise InputError("HALLMARK_AUTH: the station asks for user and password: set it as where it was started")
        if not _lets_in(door, auth):
            raise InputError("HALLMARK_AUTH: the station has another user or password: set it as where it was started")
        return credentials(auth)


def _lets_in(door: str, auth: str) -> bool:
    """Whether a server takes `user:password`. One that does not answer has not refused."""
    token = base64.b64encode(auth.encode()).decode()
    request = urllib.request.Request(door, headers={"Authorization": f"Basic {token}"})  # noqa: S310 - our own address
    try:
        urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        return error.code != HTTPStatus.UNAUTHORIZED
    except OSError:
        return True
    return True


def credentials(auth: str | None) -> dict[str, str]:
    """The variables that make Prefect's and MLflow's clients give `user:password`."""
    if auth is None:
        return {}
    user, _, password = auth.partition(":")
    return {
        "PREFECT_API_AUTH_STRING": auth,
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": password,
    }


def file(home: Path) -> Path:
    """Where a station says what it is."""
    return home / "station.json"


def lock(home: Path) -> Path:
    """What a station holds as long as it lives."""
    return home / "station.lock"


def current(home: Path) -> Station | None:
    """The station that is up; None also while one starts."""
    return recorded(home) if is_held(home) else None


_ABSENT = (FileNotFoundError, NotADirectoryError, PermissionError)
"""Where nothing lies that this user may read: who needs the home to be writable says so."""


def recorded(home: Path) -> Station | None:
    """What the file says, whether or not its station is still alive.

    Raises:
        InputError: the file is not one that a station wrote.
    """
    try:
        return Station.model_validate_json(file(home).read_bytes())
    except _ABSENT:
        return None
    except ValidationError as error:
        raise InputError(f"{file(home)}: is not what `hallmark up` writes: remove it") from error


def is_held(home: Path) -> bool:
    """Whether a station is up, starts or ends."""
    try:
        with lock(home).open("rb") as held:
            # Shared, so that those who ask do not meet each other.
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except _ABSENT:
        return False
    except BlockingIOError:
        return True
    return False


def record(station: Station, home: Path) -> None:
    """Write the file, whole or not at all."""
    with whole_file(file(home)) as path:
        path.write_text(station.model_dump_json(indent=2) + "\n")
