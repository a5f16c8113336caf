"""The address of the Prefect server that this process uses."""

import atexit
import os
import threading
from contextlib import ExitStack
from http.client import HTTPException

from hallmark.tasks.common import web_requests
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import settings, station_file

ANSWER_SECONDS = 5.0
"""Time limit for a server to answer its health check."""

CHOSEN = ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
"""Variables with which the user chooses a server or profile of Prefect."""

RETRIES = "7"
"""Retries of a request to Prefect, also after its answer 503: four minutes in total. Prefect's default takes one."""

_SHORT_SECONDS = 0.5
"""Time limit for the same after an interrupt."""


def use_own_home() -> None:
    """Give Prefect a folder in Hallmark's home for its profiles, database and results. Call before importing Prefect.

    Otherwise all projects of a user share `~/.prefect`, and each shows the runs of the others as its own. Nothing is
    changed if the environment names a server, another folder or a profile.

    Raises:
        InputError: HALLMARK_HOME is invalid.
    """
    if not any(os.environ.get(name) for name in CHOSEN):
        os.environ["PREFECT_HOME"] = str(settings.from_environment().home / "prefect")


def wait_long() -> None:
    """Let this process and its children wait four minutes for Prefect. Call it before Prefect is imported."""
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", RETRIES)


_given_up = threading.Event()


def is_given_up() -> bool:
    """Return whether this process no longer waits for Prefect, which would try for minutes at exit to send events."""
    return _given_up.is_set()


def stop_waiting() -> None:
    """Let every further request to Prefect in this process fail at once if Prefect does not answer."""
    _given_up.set()
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    rest_of_process = ExitStack()
    rest_of_process.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}))
    atexit.register(rest_of_process.close)


def stop_waiting_if_away() -> None:
    """Call `stop_waiting` if Prefect does not answer now."""
    from prefect.settings import PREFECT_API_URL

    if (url := PREFECT_API_URL.value()) and not answers(url, _SHORT_SECONDS):
        stop_waiting()


def in_settings() -> str | None:
    """Return the address of the Prefect server that PREFECT_API_URL names, if it does."""
    use_own_home()
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value()


def own_database() -> str:
    """Return the address of the database of a Prefect server that this machine starts."""
    use_own_home()
    from prefect.settings import get_current_settings

    url = get_current_settings().server.database.connection_url
    return url.get_secret_value() if url else ""


def use_running() -> str | None:
    """Use the Prefect server that PREFECT_API_URL names, or else that of the running station.

    Returns:
        the server's address, or None if there is neither.

    Raises:
        InputError: the server does not answer, or expects another user and password.
    """
    if url := in_settings():
        if not answers(url):
            raise InputError(
                f"PREFECT_API_URL: {url} does not answer: start it (`prefect server start`), correct the address, "
                "or unset it to use an embedded server"
            )
        return url
    machine = settings.from_environment()
    station = station_file.current(machine.home)
    return use_station(station, machine.credentials) if station else None


def use_station(station: station_file.Station, auth: str | None) -> str:
    """Use the Prefect server of a station.

    Args:
        station: the running station.
        auth: `user:password` of the settings.

    Returns:
        the server's address.

    Raises:
        InputError: the server does not answer, or expects another user and password.
    """
    use_own_home()
    url = f"{station.url(station_file.PREFECT)}/api"
    if not answers(url):
        raise InputError(f"the station's Prefect server at {url} does not answer: `hallmark status` says more")
    use(url, station.credentials(auth, f"{url}/admin/version").get("PREFECT_API_AUTH_STRING"))
    return url


def use(url: str, auth: str | None = None) -> None:
    """Use the Prefect server at `url` for the rest of this process."""
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
        temporary_settings,
    )

    rest_of_process = ExitStack()
    given = {PREFECT_API_AUTH_STRING: auth} if auth else {}
    used = {PREFECT_API_URL: url, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: True, **given}
    rest_of_process.enter_context(temporary_settings(used))
    atexit.register(rest_of_process.close)


def answers(url: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Return whether the Prefect or MLflow server at `url` answers its health check, which needs no password."""
    try:
        # Other servers, and those of a login, answer any address with a page.
        return not web_requests.read(f"{url.rstrip('/')}/health", seconds).lstrip().startswith(b"<")
    except (OSError, ValueError, HTTPException):
        return False
