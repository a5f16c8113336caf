"""The address of the Prefect server that this process uses."""

import atexit
from contextlib import ExitStack
from http.client import HTTPException

from hallmark.tasks.common import web_requests
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import settings, station_file

ANSWER_SECONDS = 5.0
"""Time limit for a server to answer its health check."""


def use_running() -> str | None:
    """Use the Prefect server that PREFECT_API_URL names, or else that of the running station.

    Returns:
        the server's address, or None if there is neither.

    Raises:
        InputError: the server does not answer, or expects another user and password.
    """
    from prefect.settings import PREFECT_API_URL

    if url := PREFECT_API_URL.value():
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
    url = f"{station.url(station_file.PREFECT)}/api"
    if not answers(url):
        raise InputError(f"the station's Prefect server at {url} does not answer: `hallmark status` says more")
    use(url, station.credentials(auth, f"{url}/admin/version").get("PREFECT_API_AUTH_STRING"))
    return url


def use(url: str, auth: str | None = None) -> None:
    """Use the Prefect server at `url` for the rest of this process."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    rest_of_process = ExitStack()
    given = {PREFECT_API_AUTH_STRING: auth} if auth else {}
    rest_of_process.enter_context(temporary_settings({PREFECT_API_URL: url, **given}))
    atexit.register(rest_of_process.close)


def answers(url: str) -> bool:
    """Return whether the Prefect or MLflow server at `url` answers its health check, which needs no password."""
    try:
        # Other servers, and those of a login, answer any address with a page.
        return not web_requests.read(f"{url.rstrip('/')}/health", ANSWER_SECONDS).lstrip().startswith(b"<")
    except (OSError, ValueError, HTTPException):
        return False
