"""Which requests the guard passes to an application, and what it answers to the others."""

import asyncio
import base64
import json
import socket
from typing import Any

import pytest

from hallmark.flows.station import request_guard
from hallmark.flows.station.request_guard import RequestGuard

AUTH = "assayer:a:secret"
SERVED = "127.0.0.1:4200"
LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def basic(auth: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"}


async def application(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - any ASGI value
    """Answer a request with 200. Accept a connection, and send its first message back."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})
        return
    await send({"type": "websocket.accept"})
    if (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def ask(
    guard: RequestGuard, headers: dict[str, str], method: str = "GET", path: str = "/", client: str = "127.0.0.1"
) -> list[dict[str, Any]]:
    """Send a request, to 127.0.0.1:4200 unless the headers have another host; return the messages of the answer."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:  # noqa: ANN401 - any ASGI message
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in ({"host": SERVED} | headers).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs, "client": (client, 1)}
    await guard(scope, lambda: None, send)  # type: ignore[arg-type, return-value]
    return sent


def status(guard: RequestGuard, headers: dict[str, str], method: str = "GET", path: str = "/") -> int:
    return int(asyncio.run(ask(guard, headers, method, path))[0]["status"])


def connect(guard: RequestGuard, headers: dict[str, str], first: str | bytes | None = "{}") -> list[str]:
    return asyncio.run(converse(guard, headers, first))


async def converse(guard: RequestGuard, headers: dict[str, str], first: str | bytes | None) -> list[str]:
    """Open a WebSocket connection as Prefect's clients do, and send a message; return the types of the answers.

    Args:
        guard: what is in front of the application.
        headers: headers of the request.
        first: the message; None for a client that sends nothing.
    """
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        if first is None:
            await asyncio.Event().wait()
        return {"type": "websocket.receive", "bytes" if isinstance(first, bytes) else "text": first}

    async def send(message: Any) -> None:  # noqa: ANN401 - any ASGI message
        sent.append(message["type"].removeprefix("websocket."))

    pairs = [(name.encode(), value.encode()) for name, value in ({"host": SERVED} | headers).items()]
    scope = {"type": "websocket", "path": "/events", "headers": pairs, "subprotocols": ["prefect"]}
    await guard(scope, receive, send)  # type: ignore[arg-type]
    return sent


@pytest.fixture
def open_guard() -> RequestGuard:
    return RequestGuard(application, "127.0.0.1", None, health="/health")


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> RequestGuard:
    """Return a guard with a password, which does not wait after wrong ones."""
    monkeypatch.setattr(request_guard, "WRONG_PASSWORD_SECONDS", 0)
    return RequestGuard(application, "127.0.0.1", AUTH, health="/health")


@pytest.mark.parametrize(
    ("name", "host", "expected"),
    [
        *[(name, "127.0.0.1", True) for name in ("127.0.0.1:4200", "LOCALHOST:8080", "[::1]:4200", "localhost")],
        *[(name, "127.0.0.1", False) for name in ("rebound.test:4200", "192.168.0.5", "127.0.0.1.rebound.test")],
        *[(name, "127.0.0.1", False) for name in ("", "localhost,evil", "localhost:4200@evil", "a@localhost", "[::1")],
        ("Models.Example:4200", "models.example", True),
        ("[fd00::1]:4200", "fd00:0::0001", True),
        ("192.168.0.5:4200", "0.0.0.0", True),  # noqa: S104 - compared, not bound
        (f"{socket.gethostname().upper()}:4200", "::", True),
        ("rebound.test:4200", "0.0.0.0", False),  # noqa: S104 - as above
    ],
)
def test_only_a_host_that_is_served_is_accepted(name: str, host: str, expected: bool) -> None:  # noqa: FBT001 - a table
    assert request_guard.is_served(name, host) is expected


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("POST", {}, 200),
        ("POST", {"origin": f"http://{SERVED}", "sec-fetch-site": "same-origin"}, 200),
        ("GET", {"sec-fetch-site": "none"} | LINK, 200),
        ("GET", {"sec-fetch-site": "cross-site"} | LINK, 200),
        ("GET", {"sec-fetch-site": "cross-site"} | LINK | {"sec-fetch-dest": "iframe"}, 403),
        ("POST", {"sec-fetch-site": "cross-site"} | LINK, 403),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}, 403),
        ("GET", {"origin": "http://127.0.0.1:5000"}, 403),
        ("GET", {"origin": "http://localhost:4200"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("OPTIONS", {"origin": "http://evil.test", "access-control-request-method": "PATCH"}, 403),
        ("GET", {"host": "rebound.test:4200", "origin": "http://rebound.test:4200"}, 403),
    ],
)
def test_requests_of_foreign_pages_are_refused(
    open_guard: RequestGuard, method: str, headers: dict[str, str], expected: int
) -> None:
    start, body = asyncio.run(ask(open_guard, headers, method))
    assert start["status"] == expected
    names = [name for name, _ in start["headers"]]
    assert b"access-control-allow-origin" not in names
    assert (b"content-security-policy" in names) == (expected == 200) == (body["body"] == b"secret")
    accepted = connect(open_guard, {name: value for name, value in headers.items() if name not in LINK})
    assert accepted == (
        ["accept", "send"] if expected == 200 and headers.get("sec-fetch-site") != "cross-site" else ["close"]
    )


def test_only_the_health_check_is_answered_without_password(guard: RequestGuard) -> None:
    for path in ("/", "/docs", "/openapi.json", "/api/health", "/health/", "/health/x"):
        assert [status(guard, {}, path=path), status(guard, basic(AUTH), path=path)] == [401, 200], path
    assert [status(guard, {}, method, "/health") for method in ("GET", "HEAD", "POST")] == [200, 200, 401]
    assert status(guard, {"host": "rebound.test"}, path="/health") == 403
    (start, _) = asyncio.run(ask(guard, {}))
    assert (b"www-authenticate", b'Basic realm="Hallmark"') in start["headers"]


@pytest.mark.parametrize("value", ["Basic", "Basic ", "Bearer x", "Basic ä", "basic YTpi", AUTH, f"Basic {AUTH}"])
def test_wrong_credentials_are_refused(guard: RequestGuard, value: str) -> None:
    assert status(guard, {"authorization": value}) == 401
    assert connect(guard, {"authorization": value}, json.dumps({"type": "auth", "token": AUTH})) == ["close"]


@pytest.mark.parametrize(
    "first",
    [
        *("", "[]", "{}", "x", '{"type": "auth", "token": null}', '{"token": "assayer:ä"}'),
        *(r'{"type": "auth", "token": "u:p\ud800"}', "[" * 100_000, '{"token": ' + "[" * 100_000, "9" * 5000),
    ],
    ids=lambda first: first[:40],
)
def test_connection_requires_the_password_in_its_first_message(guard: RequestGuard, first: str) -> None:
    assert connect(guard, {}, first) == ["accept", "close"]
    assert connect(guard, {}, json.dumps({"type": "auth", "token": AUTH})) == ["accept", "send"]
    assert connect(guard, basic(AUTH), first) == ["accept", "send"]


@pytest.mark.parametrize("first", [r'{"token": "u:p\ud800"}', b'"\xff', "[" * 100_000], ids=["half", "bytes", "deep"])
def test_unreadable_passwords_are_slowed_down(
    guard: RequestGuard, monkeypatch: pytest.MonkeyPatch, first: str | bytes
) -> None:
    monkeypatch.setattr(request_guard, "WRONG_PASSWORD_SECONDS", 3600)

    async def is_answered() -> bool:
        task = asyncio.create_task(converse(guard, {}, first))
        for _ in range(10):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        return done

    assert not asyncio.run(is_answered())


def test_a_connection_without_a_message_is_closed(guard: RequestGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_guard, "FIRST_MESSAGE_SECONDS", 0)
    assert connect(guard, {}, None) == ["accept", "close"]


def test_wrong_passwords_wait_for_each_other_and_right_ones_for_nothing(
    guard: RequestGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_guard, "WRONG_PASSWORD_SECONDS", 3600)

    async def attack() -> list[int]:
        await ask(guard, basic(AUTH), client="10.0.0.1")
        wrong = [asyncio.create_task(ask(guard, basic("assayer:guess"))) for _ in range(request_guard.MAX_WAITING)]
        await asyncio.sleep(0)
        answers = [await ask(guard, basic(AUTH), client=client) for client in ("10.0.0.1", "10.0.0.2")]
        assert not any(task.done() for task in wrong)
        for task in wrong:
            task.cancel()
        await asyncio.gather(*wrong, return_exceptions=True)
        answers.append(await ask(guard, basic(AUTH), client="10.0.0.2"))
        return [int(answer[0]["status"]) for answer in answers]

    assert asyncio.run(attack()) == [200, 429, 200]


def test_wrong_passwords_take_turns(guard: RequestGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def attack() -> int:
        monkeypatch.setattr(request_guard, "WRONG_PASSWORD_SECONDS", 3600)
        first = asyncio.create_task(ask(guard, basic("assayer:guess")))
        await asyncio.sleep(0)
        monkeypatch.setattr(request_guard, "WRONG_PASSWORD_SECONDS", 0)
        second = asyncio.create_task(ask(guard, basic("assayer:another")))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not second.done()
        first.cancel()
        return int((await second)[0]["status"])

    assert asyncio.run(attack()) == 401
