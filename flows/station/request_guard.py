"""ASGI middleware in front of every server that Hallmark starts: it refuses requests of foreign web pages.

A browser lets any web page send requests to this machine, with the following traces:

- A page of another origin sends its `Origin`, and browsers add `Sec-Fetch-Site` to most requests.
- A page whose host name was redirected to this machine (DNS rebinding) has the same origin, but another `Host`.

Neither Prefect nor MLflow refuses all of these. If a password is set, everything but the health check requires it.
"""

import asyncio
import base64
import hmac
import ipaddress
import json
import re
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ALL_ADDRESSES = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
WRONG_PASSWORD_SECONDS = 1.0
"""Time that each wrong password takes. Wrong passwords wait for each other, right ones for nothing."""
FIRST_MESSAGE_SECONDS = 10.0
"""Time limit for the message with the password, the first one of a WebSocket connection."""
MAX_WAITING = 100
"""Maximum number of wrong passwords that wait. Beyond it, clients that never sent the right one are refused unheard."""
HOST = re.compile(r"(?:\[(?P<bracketed>[0-9a-f:.]+)\]|(?P<name>[^:\[\]/@\s]+))(?::[0-9]+)?")
"""A `Host` header in lower case. The port is not compared: an SSH tunnel may lead to the server from any port."""
NO_FRAMES = (b"content-security-policy", b"frame-ancestors 'self'")
"""Response header that forbids foreign pages to show a UI in a frame, where users would click what they do not see."""
REJECTED = 1008
"""WebSocket close code of a policy violation."""


class RequestGuard:
    """Answers requests of foreign pages and without the password itself, and passes all others to the application."""

    def __init__(self, application: "ASGIApp", host: str, auth: str | None, *, health: str) -> None:
        """Wrap an application.

        Args:
            application: ASGI application to protect.
            host: address on which it is served; see `is_served`.
            auth: `user:password` that requests must contain; None for no password.
            health: path of the health check, which requires no password.
        """
        self.application, self.host, self.auth, self.health = application, host, auth, health
        self._token = base64.b64encode((auth or "").encode())
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._trusted: set[str] = set()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handle a connection, as ASGI defines it."""
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
        elif not is_served(_value(scope, "host"), self.host):
            reason = "this Host is not served: use 127.0.0.1, localhost or the value of HALLMARK_HOST"
            await _refuse(scope, send, HTTPStatus.FORBIDDEN, reason)
        elif is_foreign(scope):
            await _refuse(scope, send, HTTPStatus.FORBIDDEN, "requests of other web pages are refused")
        else:
            await self._authenticate(scope, receive, _without_foreign_frames(send))

    async def _authenticate(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        address = (scope.get("client") or ("",))[0]
        scheme, _, token = _value(scope, "authorization").partition(" ")
        if self.auth is None or (scope["path"] == self.health and scope.get("method") in ("GET", "HEAD")):
            await self.application(scope, receive, send)
        elif self._waiting >= MAX_WAITING and address not in self._trusted:
            await _refuse(scope, send, HTTPStatus.TOO_MANY_REQUESTS, "too many wrong passwords: try again later")
        elif scheme.lower() == "basic" and hmac.compare_digest(token.strip().encode(), self._token):
            self._trusted.add(address)
            await self.application(scope, receive, send)
        elif not scheme and scope["type"] == "websocket" and "prefect" in scope.get("subprotocols", ()):
            await self.application(scope, self._checked(receive, send), send)
        else:
            if scheme:
                await self._slow_down()
            await _refuse(scope, send, HTTPStatus.UNAUTHORIZED, "user and password are required")

    def _checked(self, receive: "Receive", send: "Send") -> "Receive":
        """Return `receive` for a client that sends the password in its first message, as Prefect's clients do."""
        is_checked = False

        async def receive_checked() -> "Message":
            nonlocal is_checked
            if is_checked:
                return await receive()
            try:
                async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                    message = await receive()
            except TimeoutError:
                is_checked = True
            else:
                if message["type"] != "websocket.receive":
                    return message
                is_checked = True
                if self.auth and hmac.compare_digest(_sent_password(message), self.auth.encode()):
                    return message
                await self._slow_down()
            await send({"type": "websocket.close", "code": REJECTED, "reason": "user and password are required"})
            return {"type": "websocket.disconnect", "code": REJECTED}

        return receive_checked

    async def _slow_down(self) -> None:
        self._waiting += 1
        try:
            async with self._turn:
                await asyncio.sleep(WRONG_PASSWORD_SECONDS)
        finally:
            self._waiting -= 1


def is_served(header: str, host: str) -> bool:
    """Return whether a `Host` header names this server.

    Args:
        header: value of the header, with or without port.
        host: address or name on which the server listens. If it is all addresses, the name of this machine and every IP
            address are accepted as well: DNS rebinding needs a name.
    """
    match = HOST.fullmatch(header.lower())
    if match is None:
        return False
    name = _canonical(match["bracketed"] or match["name"])
    if name in LOOPBACK or name == _canonical(host):
        return True
    return host in ALL_ADDRESSES and (_is_address(name) or name == socket.gethostname().lower())


def is_foreign(scope: "Scope") -> bool:
    """Return whether a page of another origin sent the request. Following a link to a page is allowed."""
    origin, site = _value(scope, "origin"), _value(scope, "sec-fetch-site")
    # Compared without the scheme, which a proxy that adds TLS changes.
    if origin and origin.lower().partition("://")[2] != _value(scope, "host").lower():
        return True
    is_link = (
        scope.get("method") in ("GET", "HEAD")
        and _value(scope, "sec-fetch-mode") == "navigate"
        and _value(scope, "sec-fetch-dest") == "document"
    )
    return site not in ("", "same-origin", "none") and not is_link


def _value(scope: "Scope", name: str) -> str:
    """Return the value of a request header, or an empty string. Repeated headers are joined: none is ignored."""
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name.encode())


def _canonical(host: str) -> str:
    """Return a host name in lower case, or an IP address in its shortest form."""
    return str(ipaddress.ip_address(host)) if _is_address(host) else host.lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _sent_password(message: "Message") -> bytes:
    """Return `user:password` in the first message of a Prefect client. Of any other message return nothing."""
    try:
        content: Any = json.loads(message.get("text") or message.get("bytes") or "")
        return str(content["token"]).encode()  # half of a surrogate pair cannot be encoded: a ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        return b""


def _without_foreign_frames(send: "Send") -> "Send":
    async def send_with_header(message: "Message") -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), NO_FRAMES]}
        await send(message)

    return send_with_header


async def _refuse(scope: "Scope", send: "Send", status: HTTPStatus, reason: str) -> None:
    """Answer a request with a status, or close a WebSocket connection before it is accepted."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": REJECTED, "reason": reason})
        return
    body = f"{reason}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b'Basic realm="Hallmark"'))
    if status is HTTPStatus.TOO_MANY_REQUESTS:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
