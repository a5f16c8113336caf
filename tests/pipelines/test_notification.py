"""Notifications, as a service receives them."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from prefect import flow

from hallmark.tasks.runtime import notification

SECRET = "token-of-a-service"  # noqa: S105 - none


@contextmanager
def receiver(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Start a local service, and yield its address for Apprise and the messages that it receives."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"json://127.0.0.1:{server.server_port}/{SECRET}", messages
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_message_arrives_without_secrets() -> None:
    with receiver() as (address, messages):
        assert notification.send(address, "iris: HOLD", "see http://user:password@127.0.0.1/runs")
    assert [(one["title"], one["message"]) for one in messages] == [("iris: HOLD", "see http://127.0.0.1/runs")]


def test_address_can_be_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as (address, messages):
        monkeypatch.setenv("TELL", address)
        notification.refuse_address("env:TELL")
        assert notification.send("env:TELL", "iris: HOLD", "why")
    assert len(messages) == 1


def test_nothing_is_sent_without_an_address() -> None:
    assert not notification.send(None, "iris: HOLD", "why")


def test_failed_message_is_a_warning_without_secrets(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TELL", raising=False)
    with (
        receiver(status=500) as (address, _),
        caplog.at_level(logging.WARNING, "hallmark.tasks.runtime.notification"),
    ):
        assert not notification.send(address, "iris: HOLD", "why")
    closed = address
    assert not notification.send(closed, "iris: HOLD", "why")
    assert not notification.send("env:TELL", "iris: HOLD", "why")
    logged = [record.getMessage() for record in caplog.records if record.name == "hallmark.tasks.runtime.notification"]
    assert logged == [
        "iris: HOLD: not sent: json://... did not accept it",
        "iris: HOLD: not sent: json://... did not accept it",
        "iris: HOLD: not sent: 'env:TELL' is not an address that Apprise understands",
    ]
    assert SECRET not in "".join(logged)


@pytest.mark.parametrize("address", ["", "somewhere", f"nosuch://{SECRET}@host"])
def test_address_unknown_to_apprise_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not an address that Apprise understands") as caught:
        notification.refuse_address(address)
    assert SECRET not in str(caught.value)


@pytest.mark.usefixtures("prefect_server")
def test_failed_run_notifies_the_address_of_its_schedule() -> None:
    @flow(name="failing", on_failure=[notification.failed], on_crashed=[notification.failed])
    def failing(experiment: dict[str, Any], notify: str | None, schedule: str | None) -> None:  # noqa: ARG001
        raise ValueError("postgresql://user:password@host is away")

    with receiver() as (address, messages):
        with pytest.raises(ValueError, match="is away"):
            failing({"name": "iris"}, address, "nightly")
        assert [one["title"] for one in messages] == ["nightly (iris): FAILED"]
    assert "postgresql://host is away" in messages[0]["message"]
    assert "password" not in str(messages)
    assert SECRET not in messages[0]["message"]
