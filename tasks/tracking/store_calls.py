"""Calls of the MLflow store, repeated while its server does not answer or its database is locked.

MLflow's own retries cannot be interrupted while signals are held back, and do not cover a database without a server.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, ParamSpec, TypeVar

import mlflow
import requests
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hallmark.tasks.common.errors import UnavailableError, without_secrets
from hallmark.tasks.runtime import progress, settings
from hallmark.tasks.runtime.signals import interrupted, released

P = ParamSpec("P")
T = TypeVar("T")

_GRACE_SECONDS = 0.5
"""Time that a request to a server may still take after Ctrl-C."""
_ONCE_SECONDS, _REQUEST_SECONDS = 20.0, 60.0
"""Time limits for an answer to a request that is tried once, and to others."""
_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between the first two tries, and the most. With a server the pause doubles after each try."""
_SILENT_SECONDS = 2.0
"""Time after which a wait is reported."""
_TOO_MANY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

_mode: ContextVar[Literal["patient", "once", "once if it answers"]] = ContextVar("mode", default="patient")
_is_away = False
"""Whether the server did not answer the last request."""


class StoreClient:
    """MLflow's client with `until_answered` around each call.

    What creates something is called once, since the server may have created it before its answer was lost. Call it
    within a function that looks first, and give that function to `until_answered`.
    """

    def __init__(self, client: MlflowClient) -> None:  # noqa: D107 - the class says it
        self._client = client

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, D105 - MLflow's methods
        found = getattr(self._client, name)
        return found if not callable(found) or name.startswith("create_") else partial(until_answered, found)


def until_answered(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that can be repeated, until the store answers.

    A signal interrupts the waits, and a request to a server that does not answer, also inside `held`.

    Raises:
        UnavailableError: it did not answer within `server_seconds` or `lock_seconds` of the settings.
    """
    if _mode.get() == "once if it answers" and _is_away:
        raise UnavailableError(f"{_store()} does not answer")
    started, failures, is_reported = time.monotonic(), 0, False
    while True:
        try:
            return _call(partial(call, *args, **kwargs), started)
        except Exception as error:
            if _mode.get() != "patient" or not (failure := _temporary(error)):
                raise
            waited = time.monotonic() - started
            if waited >= _limit(failure):
                raise _unavailable(failure, error) from error
            if not is_reported and waited > _SILENT_SECONDS:
                progress.line("waiting", f"{describe(error)}: waiting up to {_limit(failure):g} seconds")
                is_reported = True
            pause = min(_PAUSE * 2**failures, _LONGEST_PAUSE) if failure == "server" else _PAUSE
            with released():
                time.sleep(min(pause, _limit(failure) - waited))
            failures += 1


def _call(call: Callable[[], T], started: float) -> T:
    """Call a function, and note whether the server answers."""
    global _is_away
    tried, is_server = time.monotonic(), _has_server()
    try:
        # A transaction of a database must not be interrupted: it would keep its lock.
        with _requests_end_by(started) if is_server else nullcontext():
            result = call()
    except UnavailableError:
        raise
    except Exception as error:
        _is_away = _temporary(error) == "server"
        raise
    except KeyboardInterrupt:
        _is_away |= is_server and time.monotonic() - tried > _GRACE_SECONDS
        raise
    _is_away = False
    return result


def is_temporary(error: Exception) -> bool:
    """Return whether the server, the connection or a lock failed rather than the request: a retry may succeed."""
    return _temporary(error) is not None


def describe(error: Exception) -> str:
    """Return in words what a temporary error says about the store."""
    return f"{_store()} is locked by another process" if _temporary(error) == "lock" else f"{_store()} does not answer"


@contextmanager
def tried_once(*, unless_away: bool = False) -> Iterator[None]:
    """Let calls that fail inside the block fail at once.

    Args:
        unless_away: do not even try if the server did not answer the last request.
    """
    token = _mode.set("once if it answers" if unless_away else "once")
    try:
        yield
    finally:
        _mode.reset(token)


@contextmanager
def after_error(error: BaseException) -> Iterator[None]:
    """Limit the waits of what is written after an error: none after an interrupt, or if the server was given up."""
    is_hopeless = interrupted(error) or (isinstance(error, UnavailableError) and _is_away)
    with tried_once(unless_away=True) if is_hopeless else nullcontext():
        yield


@contextmanager
def _requests_end_by(started: float) -> Iterator[None]:
    """Let each request fail at once or at its time limit, instead of MLflow's own retries, or after a signal."""
    left = _ONCE_SECONDS if _mode.get() != "patient" else started + _limit("server") - time.monotonic()
    given = MLFLOW_HTTP_REQUEST_TIMEOUT.get_raw(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get_raw()
    MLFLOW_HTTP_REQUEST_TIMEOUT.set(max(1, round(min(left, _REQUEST_SECONDS, MLFLOW_HTTP_REQUEST_TIMEOUT.get()))))
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(0)
    try:
        with released(_GRACE_SECONDS):
            yield
    finally:
        for variable, value in zip((MLFLOW_HTTP_REQUEST_TIMEOUT, MLFLOW_HTTP_REQUEST_MAX_RETRIES), given, strict=True):
            variable.unset() if value is None else variable.set(value)


def _temporary(error: Exception) -> Literal["server", "lock"] | None:
    if isinstance(error, UnavailableError):
        return None
    if isinstance(error, (ConnectionError, TimeoutError, requests.ConnectionError, requests.Timeout)):
        return "server"
    if not _has_server():
        return "lock" if "database is locked" in str(error) or "table is locked" in str(error) else None
    status = 0
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
    elif isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
    return "server" if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TOO_MANY else None


def _has_server() -> bool:
    return str(mlflow.get_tracking_uri()).startswith(("http://", "https://"))


def _limit(failure: Literal["server", "lock"]) -> float:
    machine = settings.from_environment()
    return machine.server_seconds if failure == "server" else machine.lock_seconds


def _store() -> str:
    uri = str(mlflow.get_tracking_uri())
    return f"MLflow at {without_secrets(uri)}" if _has_server() else str(settings.database(uri) or without_secrets(uri))


def _unavailable(failure: Literal["server", "lock"], error: Exception) -> UnavailableError:
    seconds = f"for {_limit(failure):g} seconds"
    if failure == "lock":
        state, remedy = f"has been locked by another process {seconds}", "end that process"
    else:
        cause = " ".join(without_secrets(str(error)).split())[:160]
        state, remedy = f"has not answered {seconds} ({cause})", "start it"
    return UnavailableError(f"{_store()} {state}: {remedy}, then run the same command again")
