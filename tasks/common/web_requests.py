"""HTTP requests with a time limit for the whole answer.

urllib's own limit applies to each read alone, so that it would read for days from a server that sends a byte a second.
"""

import base64
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from threading import Timer
from typing import Any
from urllib.error import URLError
from urllib.parse import unquote, urlsplit

from hallmark.tasks.common.errors import without_secrets

_SMALL = 1000
"""Maximum number of bytes that `read` returns."""


def read(url: str, seconds: float) -> bytes:
    """Request a small answer, such as that of a health check.

    Args:
        url: the address. User and password in it are sent as the `Authorization` header.
        seconds: time limit for the whole answer.

    Raises:
        OSError: the server cannot be reached, answers with an error, or is too slow.
        HTTPException: the answer is not HTTP.
        ValueError: see `refuse_address`.
    """
    refuse_address(url)
    with opener(seconds) as limited, limited.open(url, timeout=seconds) as answer:
        content: bytes = answer.read(_SMALL)
        return content


def refuse_address(url: str) -> None:
    """Refuse an address that is not one of http or https, or whose password is not percent-encoded.

    Raises:
        ValueError: the message shows no secret.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its message quotes the address
        raise ValueError(f"not an address: {without_secrets(url)}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"expected an address that begins with http:// or https://, found {without_secrets(url)}")
    if "@" in url and "@" not in parts.netloc:  # a part of the password would be taken for the port
        raise ValueError("in user and password, write / as %2F, ? as %3F and # as %23; in a path, write @ as %40")


@contextmanager
def opener(
    seconds: float,
    *handlers: urllib.request.BaseHandler,
    header_seconds: float | None = None,
    https_only: bool = False,
) -> Iterator[urllib.request.OpenerDirector]:
    """Yield an opener of addresses whose connections are cut when their time is up.

    Args:
        seconds: time limit for all that the block requests and reads.
        handlers: further handlers of urllib.
        header_seconds: time limit from each connection to the end of the answer's headers. Default: `seconds`.
        https_only: refuse plain http, also when redirected to it.

    Raises:
        TimeoutError: the time was up, whatever the block made of it.
    """
    limit = _Limit(seconds, header_seconds or seconds)
    https = _Https(limit)
    try:
        yield urllib.request.build_opener(_NoHttp() if https_only else _Http(limit), https, *handlers)
    except Exception as error:
        if limit.passed is None:
            raise
        raise TimeoutError(limit.passed) from error
    finally:
        limit.close()
    if limit.passed:
        raise TimeoutError(limit.passed)


class _Limit:
    """Time limits of connections."""

    def __init__(self, seconds: float, header_seconds: float) -> None:
        self.passed: str | None = None
        """Which limit has passed."""
        self._header_seconds = header_seconds
        self._sockets: list[socket.socket] = []
        self._timers: list[Timer] = []
        self.start(seconds, f"no complete answer within {seconds:g} seconds")

    def watch(self, connected: socket.socket) -> Timer:
        """Cut a connection when its time is up. Return the timer of the headers, to be cancelled."""
        # TLS takes the socket over. A duplicate can cut the connection during its handshake, too.
        self._sockets.append(socket.socket(fileno=os.dup(connected.fileno())))
        return self.start(self._header_seconds, f"no answer within {self._header_seconds:g} seconds")

    def start(self, seconds: float, message: str) -> Timer:
        timer = Timer(seconds, self._cut, [message])
        timer.daemon = True
        timer.start()
        self._timers.append(timer)
        return timer

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for one in self._sockets:
            one.close()

    def _cut(self, message: str) -> None:
        self.passed = self.passed or message
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class _Watched(HTTPConnection):
    def __init__(self, host: str, *, limit: _Limit, **options: Any) -> None:  # noqa: ANN401 - those of http.client
        super().__init__(host, **options)
        connect = self._create_connection  # type: ignore[has-type]
        self._timer: Timer | None = None

        def watched(*address: Any) -> socket.socket:  # noqa: ANN401 - as above
            connected: socket.socket = connect(*address)
            self._timer = limit.watch(connected)
            return connected

        self._create_connection = watched

    def getresponse(self) -> HTTPResponse:
        answer = super().getresponse()
        if self._timer:
            self._timer.cancel()
        return answer


class _WatchedByTls(_Watched, HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def __init__(self, limit: _Limit) -> None:
        super().__init__()
        self._limit = limit

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_Watched, limit=self._limit), req)

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        return self.do_request_(_with_password(request))


class _NoHttp(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        raise URLError(f"plain http refused: {without_secrets(req.full_url)}")


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, limit: _Limit) -> None:
        super().__init__()
        self._limit = limit

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_WatchedByTls, limit=self._limit), req)

    def https_request(self, request: urllib.request.Request) -> urllib.request.Request:
        return self.do_request_(_with_password(request))


def _with_password(request: urllib.request.Request) -> urllib.request.Request:
    """Send user and password of the address as a header. urllib takes them for a part of the host."""
    user, _, host = (request.host or "").rpartition("@")
    if user:
        request.host = host
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request
