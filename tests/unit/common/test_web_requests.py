"""Requests to servers that are too slow, over real sockets."""

import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import pytest

from hallmark.tasks.common import web_requests

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@contextmanager
def serving(answer: bytes, delay: float = 0) -> Iterator[tuple[str, list[bytes]]]:
    """Answer each request byte by byte, `delay` seconds apart. Yield the address and the requests."""
    requests: list[bytes] = []
    closing = Event()

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    requests.append(connection.recv(10_000))
                    for code in answer:
                        connection.sendall(bytes([code]))
                        closing.wait(delay)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", requests
        finally:
            closing.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_an_answer_is_read_with_the_password_of_the_address() -> None:
    with serving(HEAD + b"hello") as (host, requests):
        assert web_requests.read(f"http://me:sec%2Fret@{host}/path", 5) == b"hello"
    (sent,) = requests
    assert sent.startswith(b"GET /path HTTP/1.1\r\n")
    assert f"Host: {host}\r\n".encode() in sent
    assert b"Authorization: Basic " + b64encode(b"me:sec/ret") in sent


@pytest.mark.parametrize("answer", [HEAD + b"hello" * 1000, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000])
def test_a_server_that_sends_slowly_is_not_waited_for(answer: bytes) -> None:
    with serving(answer, delay=0.05) as (host, _), pytest.raises(TimeoutError, match=r"answer within 0\.4"):
        web_requests.read(f"http://{host}", 0.4)


def test_the_headers_have_a_limit_of_their_own_in_tls_too() -> None:
    # The first bytes of a TLS record that is announced as longer than what follows.
    for scheme, answer in (("http", HEAD), ("https", b"\x16\x03\x03\x3f\xff" + b"\x02" * 100)):
        with (
            serving(answer, delay=0.05) as (host, _),
            pytest.raises(TimeoutError, match=r"no answer within 0\.2 seconds"),
            web_requests.opener(60, header_seconds=0.2) as limited,
        ):
            limited.open(f"{scheme}://{host}", timeout=60)


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "/folder",
        "",
        "ftp://me:secret@host",
        "http://me:sec/secret@host/",
        "http://me:secret@[::1",
    ],
)
def test_an_address_that_cannot_be_requested_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(ValueError, match=r"http://|%2F|not an address") as refused:
        web_requests.refuse_address(address)
    assert "secret" not in str(refused.value)
